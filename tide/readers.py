"""Who follows a LiveQuery: readers that wait for its diffs, and callbacks."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable
from types import MethodType

from tide.limits import check_function
from tide.picture import Diff

__all__ = ["LiveReader", "Subscription"]

logger = logging.getLogger("tide")

MAX_DIFFS = 100
"""How many diffs wait for a slow reader before it gets the whole picture instead."""


class LiveReader:
    """The diffs of one `LiveQuery`, for one reader: ``async for diff in query``."""

    def __init__(
        self, loading: asyncio.Future[None], whole: Callable[[], Diff], *, ended: bool
    ) -> None:
        self._loading = loading
        self._whole = whole
        self._diffs: deque[Diff] = deque()
        self._behind = True  # it gets the whole picture next
        self._wake: asyncio.Future[None] | None = None
        self._ended = ended

    def __aiter__(self) -> LiveReader:
        return self

    async def __anext__(self) -> Diff:
        await asyncio.shield(self._loading)
        while True:
            if self._behind:
                self._behind = False
                self._diffs.clear()
                return self._whole()
            if self._diffs:
                return self._diffs.popleft()
            if self._ended:
                raise StopAsyncIteration
            if self._wake is not None:
                raise RuntimeError("another task reads here; use `async for` anew for each reader")
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def tell(self, diff: Diff) -> None:
        """Queue *diff*; a reader that is far behind will get the whole picture instead."""
        if not self._behind:
            self._diffs.append(diff)
            self._behind = len(self._diffs) > MAX_DIFFS
        self._rouse()

    def end(self) -> None:
        """Nothing comes after what waits."""
        self._ended = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Subscription:
    """A callback that is called with each step of a `LiveQuery`, until `close`.

    It keeps the query alive, and its owner not.
    """

    def __init__(
        self, callback: Callable[[Diff], object], owner: object | None, query: object
    ) -> None:
        check_function(
            callback,
            "subscribe() calls a plain function, as in `query.subscribe(lambda diff: print(diff))`",
            "; start a task that does `async for diff in query` instead",
        )
        self._query: object | None = query
        self._callback: Callable[[], Callable[[Diff], object] | None] = (
            weakref.WeakMethod(callback) if isinstance(callback, MethodType) else lambda: callback
        )
        self._owner = weakref.ref(self if owner is None else owner)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its owner is gone."""
        return self._query is None or self._owner() is None or self._callback() is None

    def tell(self, diff: Diff) -> None:
        """Call the callback, if its owner is still there."""
        callback = self._callback()
        if callback is None or self.closed:
            return
        try:
            callback(diff)
        except Exception:
            logger.exception("a subscription to a LiveQuery failed: %r", callback)

    def close(self) -> None:
        """Call it no more. Idempotent."""
        self._query = None
        self._callback = _nothing


def _nothing() -> None:
    return None
