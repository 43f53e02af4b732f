"""The store: document, outbox and clock changed in one transaction, and read back.

A write is one function on the database thread. It returns when it is durable; what it changed is
told to watchers after its commit, from its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tide import documents, outbox, recovery, schema
from tide.codec import loads, loads_stored
from tide.database import Database
from tide.errors import NotFoundError, StoreCorruptError, StoreError
from tide.feed import Committed, Feed
from tide.ids import new_incarnation
from tide.limits import encode_document
from tide.protocol import Op
from tide.stamp import Clock

__all__ = ["Delete", "Merge", "Put", "Store", "StoreTransaction", "Write"]

T = TypeVar("T")


class Put(NamedTuple):
    """Store *text* as the document."""

    collection: str
    id: str
    text: str


class Merge(NamedTuple):
    """Set the top-level keys of *text*, an object, in a document that exists."""

    collection: str
    id: str
    text: str


class Delete(NamedTuple):
    """Delete the document, if it exists."""

    collection: str
    id: str


Write = Put | Merge | Delete


class StoreTransaction:
    """What the works of one write transaction share.

    Attributes:
        sql: the connection, inside the transaction.
        clock: the node's clock, as new as the file's.
        resync: whether a horizon reset is under way, see `tide.merge`.
        changes: what to tell watchers once it is committed.
    """

    def __init__(self, sql: sqlite3.Connection, clock: Clock) -> None:
        self.sql = sql
        self.clock = clock
        self.changes: list[Committed] = []
        # Read anew each time: other processes may have written to this file.
        self._stored, self.resync = sql.execute("SELECT clock, resync FROM node").fetchone()
        clock.observe(self._stored)

    def finish(self) -> None:
        """Write the clock, if it moved."""
        if self.clock.counter != self._stored:
            self.sql.execute("UPDATE node SET clock = ?", [self.clock.counter])

    def write(self, writes: Sequence[Write]) -> list[Any]:
        """Do local *writes*, each of another document.

        Returns:
            For each: None for a put, the new document's text for a merge, whether it existed for
            a delete.

        Raises:
            NotFoundError: there is nothing to merge into.
            DocumentError: what came of a merge can't be stored.
        """
        results: list[Any] = []
        ops: list[Op] = []
        for write in writes:
            stored = documents.find(self.sql, (write.collection, write.id))
            text, result = _outcome(write, stored.doc if stored else None)
            results.append(result)
            if result is not False:  # deleting what does not exist changes nothing
                stamp = self.clock.tick(stored.stamp.counter if stored else 0)
                ops.append(Op(write.collection, write.id, text, stamp))
        documents.write(self.sql, ops)
        outbox.add(self.sql, ops)
        if self.resync:
            documents.seen(self.sql, [op.key for op in ops])
        self.changes += [Committed("local", op.collection, op.id, op.doc) for op in ops]
        return results


def _outcome(write: Write, stored: str | None) -> tuple[str | None, Any]:
    """What a document becomes that is *stored* now, and what to tell who writes it."""
    if isinstance(write, Put):
        return write.text, None
    if isinstance(write, Delete):
        return None, stored is not None
    if stored is None:
        raise NotFoundError(
            f"there is no document {write.id!r} in {write.collection!r} to update; use put()"
        )
    merged = encode_document({**loads_stored(stored), **loads(write.text)})
    return merged, merged


class Store:
    """One open store: a file, its node, and who watches it. Made by `open`.

    Attributes:
        path: the file.
        feed: who watches.
        recovered: what became of a damaged file that was found in its place, else None.
        written: set by each local write, for who pushes them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.feed = Feed()
        self.recovered: recovery.Recovered | None = None
        self.written = asyncio.Event()
        self._clock = Clock("")

    @classmethod
    async def open(cls, path: Path, durability: str) -> Store:
        """Open the file at *path*; make it if there is none, set it aside if it is damaged.

        Raises:
            StoreError: it can't be opened; the subclass says why.
        """
        store = cls(path)
        try:
            await store._open(durability)
        except StoreCorruptError:
            recovery.check_ours(path)
            async with recovery.alone(path):
                await store._open_damaged(durability)
        return store

    async def _open_damaged(self, durability: str) -> None:
        try:
            await self._open(durability)  # another process may have recovered it meanwhile
        except StoreCorruptError as error:
            recovered = await asyncio.to_thread(recovery.move, self.path)
            await self._open(durability, again=True)
            try:
                await self.write(lambda tx: recovery.restore(tx.sql, tx.clock, recovered))
                self.recovered = recovery.finish(self.path, recovered, error)
            except BaseException:
                await self._database.close()
                raise

    async def _open(self, durability: str, *, again: bool = False) -> None:
        if not again:
            recovery.check_finished(self.path)
        self._database = await Database.open(
            self.path,
            durability=durability,
            check=recovery.check,
            migrate=schema.migrate,
            begin=lambda sql: StoreTransaction(sql, self._clock),
            committed=self._committed,
        )
        try:
            self._clock.node_id = await self.write(_begin_incarnation)
        except BaseException:
            await self._database.close()
            raise

    def _committed(self, tx: StoreTransaction) -> None:
        self.feed.publish(tx.changes)
        if any(change.source == "local" for change in tx.changes):
            self.written.set()

    @property
    def node_id(self) -> str:
        """This open's own half of its stamps; a new one at every open."""
        return self._clock.node_id

    def write(self, work: Callable[[StoreTransaction], T]) -> asyncio.Future[T]:
        """Run *work* in a write transaction; see `Database.write`."""
        return self._database.write(work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run *work* on a snapshot, beside whatever is being written."""
        return self._database.read(work)

    async def close(self) -> None:
        """Finish what waits, end the watchers, and close the file. Idempotent."""
        try:
            if not self._database.damaged:
                with contextlib.suppress(StoreError):  # the next open checks the whole file then
                    await self.write(_end_incarnation)
        finally:
            await self._database.close()
            self.feed.close()


def _begin_incarnation(tx: StoreTransaction) -> str:
    (device,) = tx.sql.execute("SELECT device FROM node").fetchone()
    tx.sql.execute("UPDATE node SET clean = 0")
    return new_incarnation(device)


def _end_incarnation(tx: StoreTransaction) -> None:
    tx.sql.execute("UPDATE node SET clean = 1")
