"""`connect()`: the API of tide without async, for scripts, threads, notebooks, UI frameworks."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal

from tide.blocking import BlockingBatch, BlockingCollection, Stop, mirrors, watch_with
from tide.client import Tide
from tide.outbox import RejectedOp
from tide.recovery import Recovered
from tide.runner import Runner
from tide.sending import Headers
from tide.status import SyncStatus
from tide.sync import SyncResult
from tide.transports.base import Transport

__all__ = ["Connection", "connect"]


def connect(
    db_path: str | os.PathLike[str],
    endpoint: str | None = None,
    *,
    headers: Headers | None = None,
    transport: Transport | None = None,
    durability: Literal["full", "relaxed"] = "full",
    interval: float = 2.0,
) -> Connection:
    """Open a store for code that is not async, and sync it in the background.

    >>> db = tide.connect("app.db", "https://example.com/sync")
    >>> todos = db.collection("todos")
    >>> todos.put("t1", {"text": "buy bread"})
    >>> todos.all()

    It can be used from any thread, also where an event loop runs, such as in a notebook. Close it
    with `Connection.close`, or use it in a ``with``. Who forgets that loses nothing.

    Args:
        db_path: as of `Tide`; likewise *endpoint*, *headers*, *transport* and *durability*.
        endpoint: see *db_path*. Without one, and without *transport*, nothing is synced.
        headers: see *db_path*; a function is called on tide's own thread.
        transport: see *db_path*.
        durability: see *db_path*.
        interval: as of `Tide.sync_forever`, seconds.

    Raises:
        StoreError: the file can't be opened; the subclass says why.
        EndpointError: *endpoint* is no URL, or both it and *transport* are given.
    """
    tide = Tide(db_path, endpoint, headers=headers, transport=transport, durability=durability)
    syncs = endpoint is not None or transport is not None
    return Connection(tide, str(db_path), interval if syncs else None)


class _Opened:
    """The Tide behind a connection, and all that ends with it."""

    def __init__(self, tide: Tide, interval: float | None) -> None:
        self.tide = tide
        self._interval = interval
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        await self._stack.enter_async_context(self.tide)
        if self._interval is not None:
            await self._stack.enter_async_context(self.tide.sync_forever(self._interval))

    async def close(self) -> None:
        await self._stack.aclose()


@mirrors(Tide)
class Connection:
    """An open store, for code that is not async; it syncs in the background. Made by `connect`.

    It may be used from any thread, but not from inside a callback of tide's own: that raises a
    `UsageError`.
    """

    def __init__(self, tide: Tide, name: str, interval: float | None) -> None:
        opened = _Opened(tide, interval)
        self._tide = tide
        self._runner = Runner(name, opened.close)
        try:
            self._runner.call(opened.open)
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._runner.close()

    def collection(self, name: str) -> BlockingCollection:
        return BlockingCollection(self._runner, self._tide.collection(name))

    def batch(self) -> BlockingBatch:
        return BlockingBatch(self._runner, self._tide.batch())

    def collections(self) -> list[str]:
        return self._runner.call(self._tide.collections)

    def pending(self) -> int:
        return self._runner.call(self._tide.pending)

    def rejected(self) -> list[RejectedOp]:
        return self._runner.call(self._tide.rejected)

    def retry(self, op: RejectedOp, /) -> None:
        return self._runner.call(lambda: self._tide.retry(op))

    def discard(self, op: RejectedOp, /) -> None:
        return self._runner.call(lambda: self._tide.discard(op))

    def sync_once(self) -> SyncResult:
        return self._runner.call(self._tide.sync_once)

    def confirm_reset(self) -> int:
        return self._runner.call(self._tide.confirm_reset)

    def flushed(self, timeout: float = 10.0) -> None:
        return self._runner.call(lambda: self._tide.flushed(timeout))

    @property
    def status(self) -> SyncStatus:
        return self._runner.ask(lambda: self._tide.status)

    def watch_status(self, callback: Callable[[SyncStatus], object], /) -> Stop:
        """Call *callback* with the status now, and again whenever it changes.

        It runs on tide's own thread, so it should be quick and can't use the connection itself;
        what it raises is logged. While something waits for the server, it is called at least once
        a second, with its age.

        Returns:
            A function that ends it; so does closing the connection.

        Raises:
            UsageError: *callback* is no function, or async.
        """
        return watch_with(self._runner, self._tide.watch_status, callback)

    @property
    def node_id(self) -> str:
        return self._runner.ask(lambda: self._tide.node_id)

    @property
    def recovered(self) -> Recovered | None:
        return self._tide.recovered
