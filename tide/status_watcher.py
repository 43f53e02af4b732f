"""Waiting for the status to change, or for anything at all to be committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tide.change import Committed
from tide.feed import Feed
from tide.status import SyncStatus

__all__ = ["Alarm", "StatusWatcher"]

TICK = 1.0
"""Seconds between two looks at the age of what waits."""


class Alarm:
    """Goes off with each commit that is seen."""

    def __init__(self, feed: Feed) -> None:
        self._rang = asyncio.Event()
        feed.add(self)

    async def wait(self, seconds: float) -> None:
        """Wait until there was a commit since the last time, but at most *seconds*."""
        waiting = asyncio.ensure_future(self._rang.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()
        self._rang.clear()

    def tell(self, changes: Sequence[Committed]) -> None:  # noqa: ARG002 - whatever they are
        """Called by the feed."""
        self._rang.set()

    def end(self) -> None:
        """Called by the feed."""
        self._rang.set()


class StatusWatcher(Alarm):
    """``async for status in tide.watch_status()``: the status now, and again when it changes.

    It ends when it or its Tide is closed.
    """

    def __init__(self, feed: Feed, status: Callable[[], SyncStatus]) -> None:
        super().__init__(feed)
        self._feed = feed
        self._status = status
        self._told: SyncStatus | None = None
        self._closed = False

    def __aiter__(self) -> StatusWatcher:
        return self

    async def __anext__(self) -> SyncStatus:
        while not self._closed:
            status = self._status()
            if self._told is None or _differs(status, self._told):
                self._told = status
                return status
            await self.wait(TICK)
        raise StopAsyncIteration

    def close(self) -> None:
        """End the loop that reads it. Idempotent, and never waits."""
        self._feed.remove(self)
        self.end()

    def end(self) -> None:
        """Called by the feed."""
        self._closed = True
        super().end()


def _differs(one: SyncStatus, other: SyncStatus) -> bool:
    """Whether *one* has something to tell after *other*; of times, only every now and then."""
    aged = abs(one.oldest_pending_age - other.oldest_pending_age) >= TICK
    synced = abs((one.last_synced_at or 0.0) - (other.last_synced_at or 0.0)) >= TICK
    rest = one._replace(oldest_pending_age=0.0, last_synced_at=None)
    return aged or synced or rest != other._replace(oldest_pending_age=0.0, last_synced_at=None)
