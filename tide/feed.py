"""Who watches what: committed changes fan out to watchers, bounded and cancellation-safe."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from tide.change import Change
from tide.codec import loads

__all__ = ["Committed", "Feed", "Watcher"]

MAX_STEPS = 1000
"""How many changes wait for a slow reader step by step, before only the latest of each document."""


class Committed(NamedTuple):
    """A committed change, its document still as text, since each watcher gets a copy of its own."""

    source: Literal["local", "remote"]
    collection: str
    id: str
    doc: str | None

    def read(self) -> Change:
        """The change as a watcher's reader gets it."""
        if self.doc is None:
            return Change(self.source, "delete", self.collection, self.id, None)
        return Change(self.source, "put", self.collection, self.id, loads(self.doc))


class Watcher:
    """The changes of one collection, or of one document in it, as they are committed.

    ``async for change in watcher`` gives each change once, in commit order, from the moment that
    `watch` was called. A reader that falls more than 1,000 changes behind gets the latest state
    of each document instead of every step, so what waits for it is never more than one change
    for each document. It ends when it or its Tide is closed.

    It stays registered as long as somebody holds it: leaving the loop lets go of it.
    """

    def __init__(self, feed: Feed, collection: str, id_: str | None) -> None:
        self._feed = feed
        self._collection = collection
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

    def tell(self, changes: Iterable[Committed]) -> None:
        """Queue those of *changes* that are watched, and wake the reader once."""
        for change in changes:
            if self._id is not None and change.id != self._id:
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
    """The watchers of a store; it holds them weakly, so a dropped one is gone."""

    def __init__(self) -> None:
        self._watchers: dict[str, weakref.WeakSet[Watcher]] = {}

    def watch(self, collection: str, id_: str | None = None) -> Watcher:
        """Register a watcher; it gets what is committed from now on."""
        watcher = Watcher(self, collection, id_)
        self._watchers.setdefault(collection, weakref.WeakSet()).add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """Tell *watcher* nothing more."""
        for watchers in self._watchers.values():
            watchers.discard(watcher)

    def publish(self, changes: Iterable[Committed]) -> None:
        """Tell of one commit's *changes*, in their order."""
        by_collection: dict[str, list[Committed]] = {}
        for change in changes:
            if change.collection in self._watchers:
                by_collection.setdefault(change.collection, []).append(change)
        for collection, theirs in by_collection.items():
            for watcher in self._watchers[collection]:
                watcher.tell(theirs)

    def close(self) -> None:
        """End every watcher, after what already waits for its reader."""
        for watchers in self._watchers.values():
            for watcher in list(watchers):
                watcher.end()
