"""Syncing in the background: when to exchange, when to wait, when to try again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from types import TracebackType

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
from tide.lock import FileLock
from tide.store import Store
from tide.sync import Synchronizer

__all__ = ["SyncLoop"]

logger = logging.getLogger("tide")

SLOW = 60.0  # seconds between tries where only a person can help: credentials, URL
MAX_BACKOFF = 60.0  # seconds at most between tries while the server answers with errors
MAX_OFFLINE = 10.0  # the same while nothing answers at all, so that it is soon found again


class SyncLoop:
    """Syncs in the background between entering and leaving it; made by `Tide.sync_forever`.

    A local write is pushed at once, and the server is asked every *interval* seconds. While it
    is away, tries back off with full jitter. Several processes on one file take turns: one syncs
    at a time, and when it ends another takes over within *interval*.

    Attributes:
        online: whether the last exchange succeeded.
        error: why the last exchange failed; None if it did not.
    """

    def __init__(self, store: Store, synchronizer: Synchronizer, interval: float) -> None:
        self.online = False
        self.error: Exception | None = None
        self._store = store
        self._synchronizer = synchronizer
        self._interval = interval
        self._lock = FileLock(Path(f"{store.path}.tide-lock"))
        self._failures = 0
        self._logged = ""  # the failure that was logged last, so that it is logged once
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SyncLoop:
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name=f"tide sync {self._store.path}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop at once; an exchange under way is cut, which is safe. Idempotent."""
        self._stopping = True
        try:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
        finally:  # also if this is cancelled while it waits
            self._lock.release()

    async def _run(self) -> None:
        # A cancellation can be lost in other people's code, so it is not what ends the loop.
        while not self._stopping:
            self._store.written.clear()
            try:
                delay = await self._sync()
            except Exception as error:  # noqa: BLE001 - reported and tried again; it never dies
                delay = self._failed(error)
            if not self._stopping:
                await self._pause(delay)

    async def _sync(self) -> float:
        """Sync once, if it is this process's turn; seconds to wait before the next time."""
        if not self._lock.take():
            return self._jittered()
        result = await self._synchronizer.sync_once()
        if self.error is not None:
            logger.info("syncing again: %s", result)
        self.online, self.error, self._failures, self._logged = True, None, 0, ""
        return self._jittered()

    def _failed(self, error: Exception) -> float:
        """Take note of *error*; seconds to wait before the next try."""
        if not isinstance(error, TideError):
            logger.error("syncing failed in a way that tide does not know", exc_info=error)
        elif (shown := repr(error)) != self._logged:
            self._logged = shown
            away = isinstance(error, OfflineError)  # which is nothing to worry about
            logger.log(logging.INFO if away else logging.WARNING, "syncing failed: %s", error)
        self.error = error
        if isinstance(error, ResetNeedsConfirmationError):  # all else went well
            self.online, self._failures = True, 0
            return self._jittered()
        self.online = False
        self._failures += 1
        if isinstance(error, UnauthorizedError | ForbiddenError | MisconfiguredError):
            delay = jitter(0.75 * SLOW, SLOW)
        else:
            no_answer = isinstance(error, OfflineError) and not isinstance(error, UnavailableError)
            longest = MAX_OFFLINE if no_answer else MAX_BACKOFF
            delay = jitter(0.0, min(longest, 0.5 * 2.0 ** min(self._failures, 10)))
        least = error.retry_after if isinstance(error, SyncError) else 0.0
        return max(delay, least * jitter(1.0, 1.25))

    def _jittered(self) -> float:
        return self._interval * jitter(0.75, 1.25)

    async def _pause(self, delay: float) -> None:
        """Wait; a local write ends the wait, unless the server is known to be away."""
        if self._failures:
            await asyncio.sleep(delay)
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._store.written.wait(), delay)
