"""The store: document, outbox and clock changed in one transaction, and read back.

A write is one function on the database thread. It returns when it is durable; what it changed is
told to watchers after its commit, from its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tide import documents, log, outbox, recovery, schema, status
from tide.change import Committed, What
from tide.codec import loads, loads_stored
from tide.database import Database
from tide.errors import NotFoundError, StoreCorruptError, StoreError
from tide.feed import Feed
from tide.ids import new_incarnation
from tide.limits import encode_document
from tide.log import Told
from tide.protocol import Op
from tide.stamp import Clock
from tide.status import Counts

__all__ = ["Delete", "Merge", "Put", "Store", "StoreTransaction", "Write"]

T = TypeVar("T")

_PRUNE = 1000  # changes between two looks at whether the log is too long


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

    It begins with what others committed to the file since the last one, so that watchers are told
    of everything in commit order.

    Attributes:
        sql: the connection, inside the transaction.
        clock: the node's clock, as new as the file's.
        resync: whether a horizon reset is under way, see `tide.merge`.
        lsn: of the newest change.
        pending: how many ops wait.
        changes: what to tell watchers once it is committed.
        counts: what the store's status is made of, as of its end.
    """

    counts: Counts

    def __init__(self, sql: sqlite3.Connection, clock: Clock, told: Told) -> None:
        self.sql = sql
        self.clock = clock
        self._told = told
        # Read anew each time: other processes may have written to this file.
        clock_now, self.lsn, self.pending, self.resync = sql.execute(
            "SELECT clock, lsn, pending, resync FROM node"
        ).fetchone()
        if clock_now < told.clock:  # another process put it back: so as not to make a stamp twice
            clock.node_id = new_incarnation(clock.node_id.partition(".")[0])
        clock.counter = clock_now
        self._began = clock_now, self.lsn, self.pending
        self.changes = told.others(sql, self.lsn)
        self._foreign = len(self.changes)

    def tell(self, what: What, key: tuple[str, str], doc: str | None) -> None:
        """Let watchers, in all processes, know of a change once it is committed."""
        self.lsn += 1
        self.changes.append(Committed(self.lsn, what, *key, doc))

    def finish(self) -> None:
        """Write the clock and the log, if they moved."""
        now = self.clock.counter, self.lsn, self.pending
        if now != self._began:
            self.sql.execute("UPDATE node SET clock = ?, lsn = ?, pending = ?", now)
        log.append(self.sql, self.changes[self._foreign :])
        if self._began[1] // _PRUNE != self.lsn // _PRUNE:
            log.prune(self.sql, self.lsn)
        self.counts = status.read(self.sql)

    def committed(self) -> None:
        """Take note that all up to here will be told."""
        self._told.lsn = self.lsn
        self._told.clock = self.clock.counter

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
        self.store(ops)
        for op in ops:
            self.tell("local", op.key, op.doc)
        return results

    def store(self, ops: Sequence[Op]) -> None:
        """Store *ops* of this node, and let them wait for the server."""
        documents.write(self.sql, ops)
        self.pending += outbox.add(self.sql, ops, self.lsn + 1, time.time())
        if self.resync:
            documents.seen(self.sql, [op.key for op in ops])


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
        counts: what its status is made of, as of the last commit that was seen.
        recovered: what became of a damaged file that was found in its place, else None.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.feed = Feed(self.catch_up)
        self.counts = Counts()
        self.recovered: recovery.Recovered | None = None
        self._clock = Clock("")
        self._told = Told()

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
                await self.write(lambda tx: _restore(tx, recovered))
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
            begin=lambda sql: StoreTransaction(sql, self._clock, self._told),
            committed=self._committed,
        )
        try:
            self._clock.node_id = await self.write(_begin_incarnation)
        except BaseException:
            await self._database.close()
            raise
        self.feed.start()

    def _committed(self, tx: StoreTransaction) -> None:
        self.counts = tx.counts
        self.feed.publish(tx.changes)

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

    async def catch_up(self) -> None:
        """Let watchers know of what others committed to the file, if they did."""
        if await self._database.changed_elsewhere():
            try:
                await self.write(lambda _: None)  # each transaction begins with that
            except BaseException:
                self._database.look_again()
                raise

    async def close(self) -> None:
        """Finish what waits, end the watchers, and close the file. Idempotent."""
        await self.feed.stop()
        try:
            if not self._database.damaged:
                with contextlib.suppress(StoreError):  # the next open checks the whole file then
                    await self.write(_end_incarnation)
        finally:
            await self._database.close()
            self.feed.end()


def _begin_incarnation(tx: StoreTransaction) -> str:
    (device,) = tx.sql.execute("SELECT device FROM node").fetchone()
    tx.sql.execute("UPDATE node SET clean = 0")
    return new_incarnation(device)


def _restore(tx: StoreTransaction, recovered: recovery.Recovered) -> None:
    """Put the saved ops into the new store, with the stamps they had; harmless if done twice."""
    if recovered.device is not None:  # so that its ops are still known as this file's own
        tx.sql.execute("UPDATE node SET device = ?", [recovered.device])
        tx.clock.node_id = new_incarnation(recovered.device)
    for op in recovered.pending:
        stored = documents.find(tx.sql, op.key)
        if stored is None or op.stamp > stored.stamp:
            tx.store([op])
        tx.clock.observe(op.stamp.counter)
    for op, code, detail in recovered.rejected:
        if not outbox.is_rejected(tx.sql, op):
            outbox.reject(tx.sql, op, code, detail)


def _end_incarnation(tx: StoreTransaction) -> None:
    tx.sql.execute("UPDATE node SET clean = 1")
