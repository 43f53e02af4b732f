"""Syncing in the background: when to exchange, when to wait, when to try again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tide import status
from tide.change import Committed
from tide.errors import (
    ForbiddenError,
    MisconfiguredError,
    OfflineError,
    ResetNeedsConfirmationError,
    SyncError,
    TideError,
    UnauthorizedError,
    UnavailableError,
)
from tide.ids import jitter
from tide.listening import Listening
from tide.lock import FileLock
from tide.status import State
from tide.store import Store
from tide.sync import DEADLINE, Synchronizer

__all__ = ["SyncLoop", "is_synced", "lock_of"]

logger = logging.getLogger("tide")

SLOW = 60.0  # seconds between tries where only a person can help: credentials, URL
MAX_BACKOFF = 60.0  # seconds at most between tries while the server answers with errors
MAX_OFFLINE = 10.0  # the same while nothing answers at all, so that it is soon found again
LIVE_INTERVAL = 30.0  # seconds between two questions while the live stream tells of all news
WEDGED = 3 * DEADLINE  # seconds without an exchange, in the middle of syncing, that mean it hangs

_STATES: tuple[tuple[type[Exception], State], ...] = (
    (UnauthorizedError, "unauthorized"),
    (ForbiddenError, "forbidden"),
    (MisconfiguredError, "misconfigured"),
    (ResetNeedsConfirmationError, "confirm_reset"),
)


def lock_of(path: Path) -> FileLock:
    """The lock that whoever syncs the file at *path* holds."""
    return FileLock(Path(f"{path}.tide-lock"))


def is_synced(path: Path) -> bool:
    """Whether somebody, in any process, syncs the file at *path*."""
    return lock_of(path).is_held()


class SyncLoop:
    """Syncs in the background between entering and leaving it; made by `Tide.sync_forever`.

    A local write is pushed at once, and what others write comes over the server's live stream. If
    there is none, the server is asked every *interval* seconds. While it is away, tries back off
    with full jitter. Several processes on one file take turns: one syncs at a time, and when it
    ends another takes over within *interval*.

    Attributes:
        state: how it goes, see `SyncStatus`; None while another process syncs this file.
        error: why the last exchange failed; None if it did not.
    """

    def __init__(self, store: Store, synchronizer: Synchronizer, interval: float) -> None:
        self.state: State | None = "stopped"
        self.error: Exception | None = None
        self._store = store
        self._synchronizer = synchronizer
        self._interval = interval
        self._lock = lock_of(store.path)
        self._news = asyncio.Event()
        self._writes = _Writes(self._news.set)
        self._listening = Listening(synchronizer.listen, self._news.set)
        self._recorded: tuple[State, str | None] | None = None
        self._due = 0.0  # when the server is to be asked again, by the loop's clock
        self._failures = 0
        self._busy = False
        self._logged = ""  # the failure that was logged last, so that it is logged once
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SyncLoop:
        self._stopping = False
        self.state = "connecting"
        self._store.feed.add(self._writes)
        self._store.feed.publish(())  # who watches the status hears of it
        self._task = asyncio.create_task(self._watch(), name=f"tide sync {self._store.path}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def online(self) -> bool:
        """Whether the last exchange succeeded."""
        return self.state in ("online", "confirm_reset")

    async def stop(self) -> None:
        """Stop at once; an exchange under way is cut, which is safe. Idempotent."""
        self._stopping = True
        try:
            task = self._task
            if task is not None and not task.done() and not task.get_loop().is_closed():
                task.cancel()
                await asyncio.wait([task])
            if self._recorded is not None:  # else another process says how it goes
                await self._report("stopped", None)
        finally:  # also if this is cancelled while it waits
            self._store.feed.remove(self._writes)
            self.state, self._recorded = "stopped", None
            self._lock.release()

    async def _watch(self) -> None:
        """Sync until stopped; when syncing hangs, say so and start it anew."""
        try:
            while not self._stopping:
                work = asyncio.create_task(self._run())
                try:
                    await self._until_it_hangs(work)
                finally:
                    work.cancel()
                    await asyncio.wait([work], timeout=1.0)
        finally:
            await self._listening.stop()

    async def _until_it_hangs(self, work: asyncio.Task[None]) -> None:
        """Return when *work* ended, or has not got on for too long."""
        steps = -1
        while not work.done():
            await asyncio.wait([work], timeout=WEDGED)
            if self._busy and steps == self._synchronizer.steps:
                logger.error("syncing hangs, so it starts anew; it hung at\n%s", _at(work))
                self.state, self.error = "offline", OfflineError("syncing hung; it started anew")
                return
            steps = self._synchronizer.steps
        if not self._stopping:
            error = None if work.cancelled() else work.exception()
            logger.error("syncing ended, which it never should; it starts anew", exc_info=error)
            await asyncio.sleep(jitter(0.5, 1.0))

    async def _run(self) -> None:
        # A cancellation can be lost in other people's code, so it is not what ends the loop.
        while not self._stopping:
            self._news.clear()
            self._busy = True
            try:
                delay = await self._turn()
            except Exception as error:  # noqa: BLE001 - reported and tried again; it never dies
                delay = await self._failed(error)
            self._busy = False
            if not self._stopping:
                await self._pause(delay)

    async def _turn(self) -> float:
        """Sync, if it is this process's turn; seconds to wait before the next time."""
        if not self._lock.take():
            self.state = self._recorded = None
            await self._listening.stop()
            return self._jittered(self._interval)
        if self._recorded is None and self.state in (None, "connecting"):
            await self._report("connecting", None)
        if not await self._taken_from_stream():
            self._writes.any = False
            await self._sync()
        return max(0.0, self._due - asyncio.get_running_loop().time())

    async def _taken_from_stream(self) -> bool:
        """Apply the pages that came; whether the node has all that they tell of."""
        pages = self._listening.take()
        now = asyncio.get_running_loop().time()
        if not pages or not self.online or self._writes.any or now >= self._due:
            return False
        for page in pages:
            if not await self._synchronizer.take_page(page):
                return False
        return True

    async def _sync(self) -> None:
        result = await self._synchronizer.sync_once()
        if self.error is not None:
            logger.info("syncing again: %s", result)
        await self._succeeded()

    async def _succeeded(self) -> None:
        self.error, self._failures, self._logged = None, 0, ""
        await self._report("online", None)
        self._listening.start()
        settled = self._listening.live and not self._store.counts.pending
        rest = max(LIVE_INTERVAL, self._interval) if settled else self._interval
        self._due = asyncio.get_running_loop().time() + self._jittered(rest)

    async def _failed(self, error: Exception) -> float:
        """Take note of *error*; seconds to wait before the next try."""
        if not isinstance(error, TideError):
            logger.error("syncing failed in a way that tide does not know", exc_info=error)
        elif (shown := repr(error)) != self._logged:
            self._logged = shown
            away = isinstance(error, OfflineError)  # which is nothing to worry about
            logger.log(logging.INFO if away else logging.WARNING, "syncing failed: %s", error)
        self.error = error
        if not self._listening.live:  # it tries again when an exchange got through
            await self._listening.stop()
        state: State = next((name for kind, name in _STATES if isinstance(error, kind)), "offline")
        await self._report(state, str(error))
        if state == "confirm_reset":  # all else went well
            self._failures = 0
            return self._jittered(self._interval)
        self._failures += 1
        least = error.retry_after if isinstance(error, SyncError) else 0.0
        return max(self._backoff(error), least * jitter(1.0, 1.25))

    def _backoff(self, error: Exception) -> float:
        if isinstance(error, UnauthorizedError | ForbiddenError | MisconfiguredError):
            return jitter(0.75 * SLOW, SLOW)
        no_answer = isinstance(error, OfflineError) and not isinstance(error, UnavailableError)
        longest = MAX_OFFLINE if no_answer else MAX_BACKOFF
        return jitter(0.0, min(longest, 0.5 * 2.0 ** min(self._failures, 10)))

    async def _report(self, state: State, error: str | None) -> None:
        """Let this process and others on the file know how it goes."""
        self.state = state
        if self._recorded == (state, error):
            return
        with contextlib.suppress(TideError):  # a full disk; it is in self.state at least
            await self._store.write(lambda tx: status.record(tx.sql, state, error))
            self._recorded = state, error

    def _jittered(self, seconds: float) -> float:
        return seconds * jitter(0.75, 1.25)

    async def _pause(self, delay: float) -> None:
        """Wait; news end the wait, unless the server is known to be away."""
        if self._failures:
            await asyncio.sleep(delay)
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), delay)


class _Writes:
    """Notices that there is something to push, whichever process wrote it.

    Attributes:
        any: whether there was any since it was last set to False.
    """

    def __init__(self, news: Callable[[], None]) -> None:
        self.any = False
        self._news = news

    def tell(self, changes: Sequence[Committed]) -> None:
        if any(change.what == "local" for change in changes):
            self.any = True
            self._news()

    def end(self) -> None:
        pass


def _at(task: asyncio.Task[None]) -> str:
    """Where *task* stands: its stack, of which asyncio itself shows only the outermost frame."""
    frames: list[str] = []
    waits: Any = task.get_coro()
    while (frame := getattr(waits, "cr_frame", None)) is not None:
        frames += traceback.format_stack(frame, limit=1)
        waits = waits.cr_await
    return "".join(frames)
