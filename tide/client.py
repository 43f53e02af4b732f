"""`Tide`: one open store and its syncing; wires the parts, opens and closes them."""

from __future__ import annotations

import asyncio
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Literal

from tide import documents, outbox, rejections, status
from tide.batch import Batch
from tide.collection import Collection
from tide.errors import EndpointError, UsageError
from tide.flushing import not_flushed, until_flushed
from tide.merge import confirm_reset
from tide.outbox import RejectedOp
from tide.recovery import Recovered
from tide.sending import Headers, check_headers
from tide.session import Session
from tide.status import SyncStatus
from tide.status_watcher import StatusWatcher
from tide.store import Store
from tide.sync import Synchronizer, SyncResult
from tide.sync_loop import SyncLoop, is_synced
from tide.transports.base import Transport

__all__ = ["Tide"]


class Tide:
    """A local store of documents that syncs with a server when there is one.

    >>> async with Tide("app.db", "https://example.com/sync") as tide:
    ...     todos = tide.collection("todos")
    ...     await todos.put("t1", {"text": "buy bread", "done": False})
    ...     await tide.sync_once()

    Args:
        db_path: the store's file; made if there is none. Its directory must exist. Any number of
            processes, threads and event loops may each open a Tide on one file.
        endpoint: the server's URL, such as ``https://example.com/sync``. Without one, and without
            *transport*, the store is purely local; what it holds is pushed once it gets one.
        headers: sent with each request: a mapping, or a function, async or not, that is asked for
            one each time, and once more after the server refused the credentials.
        transport: another way to the server than HTTP, instead of *endpoint*.
        durability: ``"full"``: a write that returned survives power loss on a disk that honours
            fsync. ``"relaxed"``: about ten times as fast; after power loss or a crash of the
            operating system (not of the program) the last writes may be gone, though never half
            of one, and never what the server has.

    Raises:
        EndpointError: *endpoint* is no URL, or both it and *transport* are given.
        UsageError: another argument can't be used.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        endpoint: str | None = None,
        *,
        headers: Headers | None = None,
        transport: Transport | None = None,
        durability: Literal["full", "relaxed"] = "full",
    ) -> None:
        if durability not in ("full", "relaxed"):
            raise UsageError(f'durability must be "full" or "relaxed", not {durability!r}')
        check_headers(headers)
        self._path = _checked_path(db_path)
        self._transport = _choose_transport(endpoint, transport)
        self._headers = headers
        self._durability = durability
        self._session = Session(self._path)
        self._opening = asyncio.Lock()
        self._synchronizer: Synchronizer | None = None
        self._loops: weakref.WeakSet[SyncLoop] = weakref.WeakSet()
        self._recovered: Recovered | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Tide:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the file, and make it if there is none. `async with` does it for you.

        Raises:
            StoreError: it can't be opened; the subclass says why. A damaged file is not an error:
                it is set aside and what can be saved is, see `recovered`.
            UsageError: it is open already.
            ForkedError: the file was open when this process was forked.
        """
        self._session.check()
        async with self._opening:
            if self._session.is_open:
                raise UsageError(f"{self._path} is open already; use one `async with` per Tide")
            store = await Store.open(self._path, self._durability)
            self._recovered = store.recovered
            self._session.begin(store)
            if self._transport is not None:
                self._synchronizer = Synchronizer(store, self._transport, self._headers)

    async def close(self) -> None:
        """Stop syncing, end all watchers, close the file. Idempotent; nothing is lost.

        What is not on the server yet stays in the file, and is pushed the next time. Cancelling
        it cancels the waiting, not the closing.
        """
        store = self._session.end()
        if store is not None:
            self._synchronizer = None
            self._closing = asyncio.create_task(self._close(store))
        if self._closing is not None and not self._closing.done():
            await asyncio.shield(self._closing)

    async def _close(self, store: Store) -> None:
        for loop in list(self._loops):
            await loop.stop()
        try:
            await store.close()
        finally:
            self._session.ended(store)
            if self._transport is not None:
                await self._transport.aclose()

    def collection(self, name: str) -> Collection:
        """The collection *name*; it needs no creating.

        Raises:
            CollectionNameError: *name* can't name a collection.
        """
        return Collection(self._session, name)

    def batch(self) -> Batch:
        """All writes inside ``async with tide.batch():`` happen together, or not at all.

        One transaction and one commit, across collections. On an exception nothing is written.
        """
        return Batch(self._session)

    async def collections(self) -> list[str]:
        """The names of the collections that hold documents, in order."""
        return await self._session.use().read(documents.collections)

    async def pending(self) -> int:
        """How many ops wait for the server: written here, and not acknowledged yet."""
        return await self._session.use().read(outbox.count)

    async def rejected(self) -> list[RejectedOp]:
        """The ops that the server refused for good, oldest first.

        Each document was put back to what the server has. `retry` or `discard` each op.
        """
        return await self._session.use().read(outbox.rejected_ops)

    async def retry(self, op: RejectedOp, /) -> None:
        """Write a rejected *op* again, as a new write of now.

        Raises:
            NotFoundError: it is not among the rejected ops (any more).
        """
        await self._session.use().write(lambda tx: rejections.retry(tx, op))

    async def discard(self, op: RejectedOp, /) -> None:
        """Forget a rejected *op*.

        Raises:
            NotFoundError: it is not among the rejected ops (any more).
        """
        await self._session.use().write(lambda tx: rejections.discard(tx, op))

    async def sync_once(self) -> SyncResult:
        """Push what waits and pull what is new, in as many exchanges as that takes.

        Safe to cancel at any time, and to call from several tasks or processes at once.

        Raises:
            SyncError: an exchange failed; the subclass says why and what to do. Nothing is lost.
            EndpointError: this Tide has no endpoint.
        """
        self._session.use()
        return await self._syncing().sync_once()

    @property
    def status(self) -> SyncStatus:
        """How syncing goes: whether the server can be reached, what waits, what was refused.

        Of what another process does with the file it may be a second behind.
        """
        return self._status_of(self._session.use())

    def watch_status(self) -> StatusWatcher:
        """The status now, and again whenever it changes.

        >>> async for status in tide.watch_status():
        ...     print(status.state, status.pending)

        While something waits for the server it comes at least once a second, with its age.
        """
        store = self._session.use()
        return StatusWatcher(store.feed, lambda: self._status_of(store))

    async def flushed(self, timeout: float = 10.0) -> None:
        """Wait until what was written so far, and not replaced since, is on the server or refused.

        Args:
            timeout: seconds to wait at most.

        Raises:
            NotFlushedError: it is not, and why; nothing is lost.
            EndpointError: this Tide has no endpoint, and nobody else syncs the file.
        """
        if self.status.state == "stopped":
            self._syncing()
        if not await until_flushed(self._session.use(), timeout):
            raise not_flushed(self.status, timeout)

    def sync_forever(self, interval: float = 2.0) -> SyncLoop:
        """Sync in the background inside ``async with tide.sync_forever():``.

        Local writes are pushed at once. News come by live stream, or, without one, are asked for
        every *interval* seconds.

        Raises:
            EndpointError: this Tide has no endpoint, or *interval* is not a positive number.
        """
        store = self._session.use()
        if not (isinstance(interval, int | float) and interval > 0):
            raise EndpointError(f"interval must be a positive number of seconds, not {interval!r}")
        loop = SyncLoop(store, self._syncing(), interval)
        self._loops.add(loop)
        return loop

    async def confirm_reset(self) -> int:
        """Let a resync remove what a `ResetNeedsConfirmationError` told of; how many documents."""
        return await self._session.use().write(confirm_reset)

    @property
    def node_id(self) -> str:
        """This open store's name in stamps; a new one at every open."""
        return self._session.use().node_id

    @property
    def recovered(self) -> Recovered | None:
        """What became of a damaged file that was found at open; None if there was none."""
        return self._recovered

    def _status_of(self, store: Store) -> SyncStatus:
        running = next((loop for loop in self._loops if loop.state != "stopped"), None)
        if running is not None and running.state is not None:
            error = None if running.error is None else str(running.error)
            return status.told(store.counts, running.state, error)
        synced = is_synced(store.path)
        if synced and store.counts.state != "stopped":
            return status.told(store.counts, store.counts.state, store.counts.error)
        # Whoever syncs it has not said yet how that goes, or the loop here is about to take over.
        return status.told(store.counts, "connecting" if synced or running else "stopped", None)

    def _syncing(self) -> Synchronizer:
        if self._synchronizer is None:
            raise EndpointError(
                "this Tide has no endpoint to sync with; give it one: "
                'Tide("app.db", "https://example.com/sync")'
            )
        return self._synchronizer


def _checked_path(db_path: str | os.PathLike[str]) -> Path:
    path = Path(db_path)
    text = str(db_path)
    if text.lower().startswith(("http://", "https://")):
        raise UsageError("the first argument is the file and the second the URL")
    if text in ("", ":memory:") or text.startswith("file:") or "\0" in text:
        raise UsageError(f"{text!r} is not the path of a file; in tests, use a temporary directory")
    return path


def _choose_transport(endpoint: str | None, transport: Transport | None) -> Transport | None:
    if not isinstance(transport, Transport | None):
        raise EndpointError(
            f"transport= must be a tide.Transport, not {transport!r}; a URL goes into endpoint="
        )
    if endpoint is None:
        return transport
    if transport is not None:
        raise EndpointError("give either endpoint= or transport=, not both")
    from tide.transports.http import HttpTransport  # noqa: PLC0415 - httpx takes 0.1 s to import

    return HttpTransport(endpoint)
