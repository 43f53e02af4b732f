"""Who watches what: committed changes fan out to watchers, bounded and cancellation-safe."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tide.change import Change, Committed

__all__ = ["Feed", "Listener", "Watcher"]

logger = logging.getLogger("tide")

MAX_STEPS = 1000
"""How many changes wait for a slow reader step by step, before only the latest of each document."""

LOOK = 0.08
"""Seconds between two looks at whether another process has committed something."""

IDLE = 1.0
"""The same while nobody listens, so that who then begins to is not told of what is long past."""


class Listener(Protocol):
    """What a feed tells of changes; it is called on the event loop, and must not block."""

    def tell(self, changes: Sequence[Committed]) -> None:
        """These were committed, in this order."""

    def end(self) -> None:
        """No change comes after those that were told: the store closes."""


class Watcher:
    """The changes of one collection, or of one document in it, as they are committed.

    ``async for change in watcher`` gives each change once, in commit order, from the moment that
    `watch` was called. A reader that falls more than 1,000 changes behind gets the latest state
    of each document instead of every step, so what waits for it is never more than one change
    for each document. It ends when it or its Tide is closed.

    It stays registered as long as somebody holds it: leaving the loop lets go of it.
    """

    def __init__(self, feed: Feed, id_: str | None) -> None:
        self._feed = feed
        self._id = id_
        self._waiting: deque[Committed] = deque()
        self._latest: dict[str, Committed] | None = None  # instead of the deque, once behind
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Change:
        while True:
            if self._waiting:
                return self._waiting.popleft().read()
            if self._latest:
                change = self._latest.pop(next(iter(self._latest)))
                self._latest = self._latest or None  # caught up: every step counts again
                return change.read()
            if self._closed:
                raise StopAsyncIteration
            if self._wake is not None:
                raise RuntimeError("another task reads this watcher; call watch() for each reader")
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def close(self) -> None:
        """Unregister, and end the loop that reads it, at once. Idempotent, and never waits."""
        self._feed.remove(self)
        self._waiting.clear()
        self._latest = None
        self.end()

    def end(self) -> None:
        """No change comes after those that wait."""
        self._closed = True
        self._rouse()

    def tell(self, changes: Sequence[Committed]) -> None:
        """Queue those of *changes* that are watched, and wake the reader once."""
        for change in changes:
            if change.what == "acknowledged" or (self._id is not None and change.id != self._id):
                continue
            if self._latest is None and len(self._waiting) < MAX_STEPS:
                self._waiting.append(change)
            else:
                self._fall_behind(change)
        if self._waiting or self._latest:
            self._rouse()

    def _fall_behind(self, change: Committed) -> None:
        if self._latest is None:
            self._latest = {}
            for earlier in self._waiting:
                self._latest.pop(earlier.id, None)
                self._latest[earlier.id] = earlier
            self._waiting.clear()
        self._latest.pop(change.id, None)  # so that the latest stands where it happened
        self._latest[change.id] = change

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Feed:
    """The listeners of a store; it holds them weakly, so a dropped one is gone.

    It looks again and again at whether others have committed something: often while there is any.

    Args:
        catch_up: lets the feed publish what others committed to the file.
    """

    def __init__(self, catch_up: Callable[[], Awaitable[None]]) -> None:
        self._catch_up = weakref.WeakMethod(catch_up)
        self._listeners: dict[str | None, weakref.WeakSet[Listener]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._idle = True
        self._look_task: asyncio.Task[None] | None = None
        self._trouble = ""  # what was told of the last look that failed
        self._stopped = False

    def start(self) -> None:
        """Look from now on, again and again."""
        # A timer, not a task that sleeps: it leaves nothing behind in a loop that just ends.
        if not self._stopped:
            self._idle = not self._all()
            rest = IDLE if self._idle else LOOK
            self._timer = asyncio.get_running_loop().call_later(rest, self._start_looking)

    def watch(self, collection: str, id_: str | None = None) -> Watcher:
        """Register a watcher; it gets what is committed from now on."""
        watcher = Watcher(self, id_)
        self.add(watcher, collection)
        return watcher

    def add(self, listener: Listener, collection: str | None = None) -> None:
        """Tell *listener* of what is committed from now on in *collection*; None: in all."""
        self._listeners.setdefault(collection, weakref.WeakSet()).add(listener)
        if self._idle and self._timer is not None:
            self._timer.cancel()
            self.start()

    def remove(self, listener: Listener) -> None:
        """Tell *listener* nothing more."""
        for listeners in self._listeners.values():
            listeners.discard(listener)

    def publish(self, changes: Sequence[Committed]) -> None:
        """Tell of one commit's *changes*, in their order; listeners of all hear of every commit."""
        by_collection: dict[str | None, list[Committed]] = {None: list(changes)}
        for change in changes:
            if change.collection in self._listeners:
                by_collection.setdefault(change.collection, []).append(change)
        for collection, theirs in by_collection.items():
            for listener in list(self._listeners.get(collection, ())):
                try:
                    listener.tell(theirs)
                except Exception:  # noqa: PERF203 - who wrote this waits, and can't help it
                    logger.exception("%r failed at what was committed", listener)

    async def stop(self) -> None:
        """Look no more at what others commit."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        task = self._look_task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.cancel()
            await asyncio.wait([task])

    def end(self) -> None:
        """End every listener, after what already waits for its reader."""
        for listener in self._all():
            listener.end()

    def _all(self) -> list[Listener]:
        return [one for listeners in self._listeners.values() for one in listeners]

    def _start_looking(self) -> None:
        self._timer = None
        self._look_task = asyncio.get_running_loop().create_task(self._look(), name="tide feed")

    async def _look(self) -> None:
        """Catch up with other processes."""
        if catch_up := self._catch_up():  # else the store was dropped without a close
            try:
                await catch_up()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - reported; it looks again
                if str(error) != self._trouble:
                    logger.warning("can't see what other processes write: %s", error)
                self._trouble = str(error)
            self.start()
