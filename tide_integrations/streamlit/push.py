"""Drawing a browser session anew when what it shows has changed."""

# ruff: noqa: SLF001 - Streamlit offers no public way; all of it is in one class

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tide_integrations._framework import needs

with needs("streamlit"):
    from streamlit import runtime
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.runtime import scriptrunner_utils

__all__ = ["Source", "Streamlit", "follow"]

PAUSE = 0.1  # seconds between two pushes to one session
RETRY = 0.05  # seconds until a session whose script runs is looked at again
LOOK = 2.0  # seconds between two looks at whether a session is still there


class Streamlit:
    """All that tide uses of Streamlit's inside, which has no public way to ask for a rerun."""

    @staticmethod
    def probe() -> bool:
        """Whether a server runs that offers all of it; not so in tests without a browser."""
        try:
            place = Streamlit.here()
            session = Streamlit.session(place[0]) if place else None
            return isinstance(Streamlit.loop(), asyncio.AbstractEventLoop) and (
                session is None
                or (
                    Streamlit.has(session, "") is False
                    and isinstance(session._client_state, ClientState)
                    and isinstance(Streamlit.idle(session), bool)
                    and callable(session.request_rerun)
                )
            )
        except (AttributeError, ImportError, RuntimeError, TypeError):
            return False

    @staticmethod
    def here() -> tuple[str, str | None] | None:
        """The ids of the session whose script runs on this thread, and of the fragment in it."""
        context = scriptrunner_utils.script_run_context.get_script_run_ctx(suppress_warning=True)
        if context is None:
            return None
        state = getattr(scriptrunner_utils.script_run_context, "ThreadState", None)
        fragment = state.get().fragment_id if state else context.current_fragment_id  # type: ignore[attr-defined]
        return context.session_id, fragment

    @staticmethod
    def loop() -> asyncio.AbstractEventLoop:
        """The event loop where sessions may be touched."""
        return runtime.get_instance()._get_async_objs().eventloop

    @staticmethod
    def session(id_: str) -> Any:
        """The session *id_*; None if its browser has gone."""
        active = runtime.get_instance()._session_mgr.get_active_session_info(id_)
        return None if active is None else active.session

    @staticmethod
    def idle(session: Any) -> bool:
        """Whether no script of the *session* runs: a rerun would interrupt it."""
        return session._scriptrunner is None

    @staticmethod
    def has(session: Any, fragment: str) -> bool:
        """Whether the *fragment* is still a part of the page."""
        return bool(session._fragment_storage.contains(fragment))

    @staticmethod
    def rerun(session: Any, fragment: str | None) -> None:
        """Run the *fragment*, or the whole script; page, query string and widgets stay."""
        state = ClientState()
        state.CopyFrom(session._client_state)
        state.ClearField("widget_states")  # the session has them
        state.fragment_id = fragment or ""
        state.is_auto_rerun = fragment is not None
        session.request_rerun(state)


class Source:
    """Something shown, with a number that grows whenever it changes."""

    def __init__(self) -> None:
        self._now = 0
        self.viewers: set[_Viewer] = set()

    def changed(self, now: int) -> None:
        """It is at the number *now*; called on tide's thread."""
        self._now = now
        for viewer in list(self.viewers):
            viewer.wake()

    def number(self) -> int:
        """Where it is."""
        return self._now

    def saw(self) -> None:
        """What runs here reads it now, and is up to date with it."""
        place = Streamlit.here()
        viewer = _viewers.get(place[0]) if place else None
        if place is not None and viewer is not None:
            viewer.saw(place[1], self)


class _Viewer:
    """One browser session, and what each part of it has shown."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._loop = Streamlit.loop()
        self._lock = threading.Lock()
        self._seen: dict[str | None, dict[Source, int]] = {}  # by fragment; None: the script
        self._sources: set[Source] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pushed = 0.0
        self._loop.call_soon_threadsafe(self._look)

    def follow(self, fragment: str | None, sources: tuple[Source, ...]) -> None:
        """The *fragment* begins to draw the *sources*."""
        with self._lock:
            self._seen[fragment] = {source: source.number() for source in sources}
            self._sources.update(sources)
        for source in sources:
            source.viewers.add(self)

    def saw(self, fragment: str | None, source: Source) -> None:
        """The *fragment* reads *source*, of which it draws what is there from now on."""
        with self._lock:
            if source in self._seen.get(fragment, ()):
                self._seen[fragment][source] = source.number()

    def wake(self) -> None:
        """Something changed; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._soon)
        except RuntimeError:  # Streamlit has ended
            self._close()

    def _soon(self) -> None:
        if self._timer is None:
            rest = self._pushed + PAUSE - self._loop.time()
            self._timer = self._loop.call_later(max(0.0, rest), self._push)

    def _push(self) -> None:
        self._timer = None
        session = Streamlit.session(self._session)
        if session is None:
            self._close()
            return
        if not Streamlit.idle(session):
            self._timer = self._loop.call_later(RETRY, self._push)
            return
        with self._lock:
            stale = self._take(session)
        if not stale:
            return
        Streamlit.rerun(session, stale[0])
        self._pushed = self._loop.time()
        if len(stale) > 1:  # one at a time: see idle
            self._timer = self._loop.call_later(RETRY, self._push)

    def _take(self, session: Any) -> list[str | None]:
        """The parts to draw anew; the first is forgotten until it has begun to."""
        for fragment in [one for one in self._seen if one and not Streamlit.has(session, one)]:
            del self._seen[fragment]
        stale = [
            fragment
            for fragment, seen in self._seen.items()
            if any(number < source._now for source, number in seen.items())
        ]
        if None in stale:
            stale = [None]  # that draws the fragments, too
        if stale:
            del self._seen[stale[0]]
        return stale

    def _look(self) -> None:
        """End with the session: Streamlit does not tell of that."""
        if Streamlit.session(self._session) is None:
            self._close()
        else:
            self._loop.call_later(LOOK, self._look)

    def _close(self) -> None:
        with _making:
            if _viewers.get(self._session) is self:
                del _viewers[self._session]
        with self._lock:
            sources, self._sources = self._sources, set()
            self._seen.clear()
        for source in sources:
            source.viewers.discard(self)


_viewers: dict[str, _Viewer] = {}
_making = threading.Lock()


def follow(*sources: Source) -> None:
    """Draw what runs here anew, the fragment or the script, when one of *sources* changes."""
    place = Streamlit.here()
    if place is None:
        return
    with _making:
        viewer = _viewers.get(place[0])
        if viewer is None:
            viewer = _viewers[place[0]] = _Viewer(place[0])
    viewer.follow(place[1], sources)
