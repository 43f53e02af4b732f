"""How syncing goes: a line that says it, and what can be done about it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from tide import SyncStatus as Status
from tide import Tide, TideError
from tide_integrations._framework import needs

with needs("textual"):
    from textual.app import ComposeResult
    from textual.command import DiscoveryHit, Hit, Provider
    from textual.content import Content
    from textual.message import Message
    from textual.reactive import var
    from textual.widget import Widget
    from textual.widgets import Static

__all__ = ["SyncCommands", "SyncStatus"]

FEW = 3  # refusals that are told one by one
OLD = 10.0  # seconds after which the age of what waits is told

_told: weakref.WeakKeyDictionary[Tide, int] = weakref.WeakKeyDictionary()
"""The newest rejected op that the user was told of."""


class SyncStatus(Widget):
    """A line that says how syncing goes. It also tells of what the server refused.

    Args:
        tide: the open store.
        sync: whether to sync it for as long as this is mounted, unless `active` is set to False;
            or a function that does so until it is cancelled.
        options: of a widget.

    Attributes:
        active: whether it syncs: set it to go offline, and online again.
        status: the newest status of the store; None until there is one.
    """

    DEFAULT_CSS = """
    SyncStatus { layout: horizontal; height: 1; padding: 0 2; background: $panel; }
    SyncStatus > .state { width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    SyncStatus > .pending { width: auto; margin-left: 2; }
    """

    active: var[bool] = var(False, init=False)
    status: var[Status | None] = var(None)

    class Changed(Message):
        """Posted whenever the status changes.

        Attributes:
            widget: the `SyncStatus`.
            status: what it is now.
        """

        def __init__(self, widget: SyncStatus, status: Status) -> None:
            super().__init__()
            self.widget = widget
            self.status = status

        @property
        def control(self) -> SyncStatus:
            """The `SyncStatus`."""
            return self.widget

    def __init__(
        self,
        tide: Tide,
        *,
        sync: bool | Callable[[], Coroutine[Any, Any, object]] = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.tide = tide
        self.sync = sync if callable(sync) else self._forever if sync else None
        self._state = Static(classes="state", markup=False)
        self._pending = Static(classes="pending", markup=False)

    def compose(self) -> ComposeResult:
        """The state on the left, what waits on the right."""
        yield self._state
        yield self._pending

    def on_mount(self) -> None:
        """Begin to follow, and to sync."""
        self.run_worker(self._follow(), name="status", group="tide")
        self.active = self.sync is not None

    def watch_active(self, active: bool) -> None:  # noqa: FBT001 - Textual calls it so
        """Go offline, or online."""
        if active and self.sync is not None:
            self.run_worker(self.sync(), name="sync", group="sync", exclusive=True)
        else:
            self.workers.cancel_group(self, "sync")
        if self.status is not None:
            self._take(self.status._replace(state="connecting" if active else "stopped"))

    async def _forever(self) -> None:
        async with self.tide.sync_forever():
            await asyncio.Event().wait()

    async def _follow(self) -> None:
        watcher = self.tide.watch_status()
        try:
            async for status in watcher:
                self._take(status)
                if status.rejected:
                    await self._tell_of_rejected()
        finally:
            watcher.close()

    def _take(self, status: Status) -> None:
        self.status = status
        self._state.update(self.state_line(status))
        self._pending.update(self.pending_line(status))
        self.post_message(self.Changed(self, status))

    def state_line(self, status: Status) -> Content:
        """The left half."""
        mark, style = ("●", "$text-success") if status.state == "online" else ("○", "$text-warning")
        name = {"stopped": "offline", "confirm_reset": "waiting"}.get(status.state, status.state)
        return Content.assemble((f"{mark} {name}", style), f"  {self.why(status)}")

    def why(self, status: Status) -> str:
        """What the left half says beside the state; override it to say more."""
        if status.state == "stopped":
            return "kept in this file only" if self.sync is None else "not syncing"
        return status.error or ""

    def pending_line(self, status: Status) -> Content:
        """The right half."""
        if self.sync is None and status.state == "stopped":
            return Content("")
        if not status.pending:
            return Content("all sent")
        changes = "1 change" if status.pending == 1 else f"{status.pending:,} changes"
        age = status.oldest_pending_age
        oldest = f", the oldest for {_duration(age)}" if age >= OLD else ""
        return Content(f"{changes} to send{oldest}")

    async def _tell_of_rejected(self) -> None:
        told = _told.get(self.tide, 0)
        new = [op for op in await self.tide.rejected() if op.number > told]
        if new:
            _told[self.tide] = new[-1].number
        if len(new) > FEW:
            self._warn(f"The server refused {len(new):,} changes, the first one: {new[0].detail}")
        else:
            for op in new:
                self._warn(f"The server refused a change: {op.detail}")

    def _warn(self, message: str) -> None:
        self.notify(message, severity="warning", markup=False)


def _duration(seconds: float) -> str:
    """In one unit, rounded down."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{int(seconds)} s"


class SyncCommands(Provider):
    """What can be done about syncing, in the command palette of an app that has a `SyncStatus`.

    >>> class TodoApp(App):
    ...     COMMANDS = App.COMMANDS | {SyncCommands}
    """

    async def discover(self) -> AsyncIterator[DiscoveryHit]:
        """All of it."""
        async for name, run, text in self._commands():
            yield DiscoveryHit(name, run, help=text)

    async def search(self, query: str) -> AsyncIterator[Hit]:
        """What matches."""
        matcher = self.matcher(query)
        async for name, run, text in self._commands():
            if score := matcher.match(name):
                yield Hit(score, matcher.highlight(name), run, help=text)

    async def _commands(self) -> AsyncIterator[tuple[str, Callable[[], Any], str]]:
        lines = [line for screen in self.app.screen_stack for line in screen.query(SyncStatus)]
        for line in lines[:1]:
            tide = line.tide
            yield "Sync now", partial(self._try, tide.sync_once), "Send and fetch what is new"
            if line.sync is not None:
                name = "Work offline" if line.active else "Go online"
                yield (
                    name,
                    partial(setattr, line, "active", not line.active),
                    "Stop or start syncing",
                )
            for op in await tide.rejected():
                what = f"{op.collection} {op.id}: {op.detail}"
                yield f"Retry {what}", partial(self._try, partial(tide.retry, op)), "Write it again"
                yield f"Discard {what}", partial(self._try, partial(tide.discard, op)), "Forget it"

    async def _try(self, what: Callable[[], Awaitable[object]]) -> None:
        try:
            await what()
        except TideError as error:
            self.app.notify(str(error), severity="error", markup=False)
