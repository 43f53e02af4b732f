"""The storage in one SQLite file, on one thread that commits for all who wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tide.errors import NewerStoreError, NotAStoreError, StoreError
from tide.ids import token
from tide.protocol import Op
from tide.server.storage.base import Horizon, Page, Space, Storage, cut
from tide.stamp import MAX_COUNTER, Stamp

__all__ = ["SqliteStorage"]

T = TypeVar("T")

APPLICATION_ID = 0x74696473  # "tids"
SCHEMA_VERSION = 1
BUSY_TIMEOUT = 30.0  # seconds to wait for another server process on this file
MAX_TOGETHER = 64  # works in one transaction, so that none waits long for its commit

_SCHEMA = (
    # The counter row of each space: seqs come from here, never from what happens to be stored.
    """
    CREATE TABLE spaces (
        space TEXT PRIMARY KEY,
        head INTEGER NOT NULL,
        clock INTEGER NOT NULL,
        horizon_seq INTEGER NOT NULL,
        horizon_counter INTEGER NOT NULL
    )
    """,
    # A row for each start of a server, per space: from which seq on it spoke of its own epoch.
    """
    CREATE TABLE epochs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        space TEXT NOT NULL,
        epoch TEXT NOT NULL,
        start_seq INTEGER NOT NULL,
        UNIQUE (space, epoch)
    )
    """,
    # The newest op of each document; doc is NULL for a tombstone, stored_at Unix seconds.
    f"""
    CREATE TABLE documents (
        space TEXT NOT NULL,
        collection TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        doc TEXT,
        counter INTEGER NOT NULL
            CHECK (typeof(counter) = 'integer' AND counter BETWEEN 1 AND {MAX_COUNTER}),
        node_id TEXT NOT NULL,
        stored_at REAL NOT NULL,
        UNIQUE (space, collection, id)
    )
    """,
    "CREATE UNIQUE INDEX documents_by_seq ON documents (space, seq)",
    "CREATE INDEX tombstones ON documents (space, stored_at) WHERE doc IS NULL",
)


class _Job(NamedTuple):
    """One work that waits, and who waits for it."""

    space: str
    work: Callable[[Space], Any]
    done: Callable[[Any, BaseException | None], None]


class SqliteStorage(Storage):
    """Keeps spaces in the SQLite file at *path*, made with mode 0600 if there is none.

    Several processes may serve one file.

    Args:
        path: the file.
        now: the time, Unix seconds; only the age of tombstones is measured with it.
    """

    def __init__(self, path: str | os.PathLike[str], now: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._now = now
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._finalizer: weakref.finalize[..., Any] | None = None

    async def open(self) -> None:
        """See `Storage.open`."""
        await asyncio.to_thread(self._start)

    async def run(self, space: str, work: Callable[[Space], T]) -> T:
        """See `Storage.run`."""
        if self._jobs is None:
            await self.open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():  # who asked has gone
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def done(result: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        with self._lock:
            if self._jobs is None:
                raise StoreError(f"{self.path} was closed while a request was on its way")
            self._jobs.put(_Job(space, work, done))
        return await future

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        with self._lock:
            finalizer, self._finalizer, self._jobs = self._finalizer, None, None
        if finalizer is not None:
            await asyncio.to_thread(finalizer)

    def _start(self) -> None:
        with self._lock:
            if self._jobs is not None:
                return
            sql = _open(self.path)
            jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
            worker = _Worker(sql, jobs, self.path, self._now)
            thread = threading.Thread(target=worker.run, name=f"tide {self.path}", daemon=True)
            thread.start()
            # Runs when the storage is dropped, or the interpreter exits, without a close.
            self._finalizer = weakref.finalize(self, _stop, jobs, thread)
            self._jobs = jobs


def _stop(jobs: queue.SimpleQueue[_Job | None], thread: threading.Thread) -> None:
    jobs.put(None)
    thread.join(timeout=BUSY_TIMEOUT)


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, readable for its owner only."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sql = sqlite3.connect(
            path, isolation_level=None, timeout=BUSY_TIMEOUT, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} can't be opened: {error}; does its directory exist?") from error
    try:
        _prepare(sql, path)
    except sqlite3.DatabaseError as error:
        sql.close()
        raise NotAStoreError(f"{path} is not a tide server's database: {error}") from error
    except BaseException:
        sql.close()
        raise
    return sql


def _prepare(sql: sqlite3.Connection, path: Path) -> None:
    (application_id,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    (tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise NotAStoreError(f"{path} is not a tide server's database; give it a file of its own")
    if version > SCHEMA_VERSION:
        raise NewerStoreError(f"{path} was written by a newer tide; upgrade tide to serve it")
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = FULL")
    sql.execute("PRAGMA fullfsync = ON")
    sql.execute("PRAGMA cache_size = -65536")
    sql.execute("PRAGMA wal_autocheckpoint = 10000")
    with _transaction(sql):
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        if version == 0:  # still, now that no other process can be at it
            for statement in _SCHEMA:
                sql.execute(statement)
            sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextlib.contextmanager
def _transaction(sql: sqlite3.Connection) -> Iterator[None]:
    sql.execute("BEGIN IMMEDIATE")
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:  # a full disk has already rolled it back
            sql.execute("ROLLBACK")
        raise


class _Worker:
    """The thread that owns the connection: takes what waits, commits it together, tells."""

    def __init__(
        self,
        sql: sqlite3.Connection,
        jobs: queue.SimpleQueue[_Job | None],
        path: Path,
        now: Callable[[], float],
    ) -> None:
        self._sql = sql
        self._jobs = jobs
        self._path = path
        self._now = now
        self._boot = token(8)  # the epoch that this start of the server adds to each space

    def run(self) -> None:
        """Work until told to stop; what was queued before that is still done."""
        while jobs := self._take():
            self._settle(jobs)
        self._sql.close()

    def _take(self) -> list[_Job]:
        """All that waits, after waiting for something; empty when it is time to stop."""
        job = self._jobs.get()
        taken = []
        while job is not None:
            taken.append(job)
            if len(taken) == MAX_TOGETHER:
                return taken
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return taken
        if taken:
            self._jobs.put(None)  # stop in the next round
        return taken

    def _settle(self, jobs: list[_Job]) -> None:
        try:
            with _transaction(self._sql):
                results = [job.work(self._space(job.space)) for job in jobs]
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            if len(jobs) == 1:
                jobs[0].done(None, self._told(error))
                return
            for job in jobs:
                self._settle([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.done(result, None)

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error):
            return StoreError(f"{self._path}: {error}")
        return error

    def _space(self, name: str) -> SqliteSpace:
        return SqliteSpace(self._sql, name, self._boot, self._now)


class SqliteSpace(Space):
    """See `Space`. Every statement of it names the space."""

    def __init__(
        self, sql: sqlite3.Connection, name: str, boot: str, now: Callable[[], float]
    ) -> None:
        self._sql = sql
        self._name = name
        self._now = now
        row = sql.execute(
            "SELECT head, clock, horizon_seq, horizon_counter FROM spaces WHERE space = ?", [name]
        ).fetchone()
        if row is None:
            row = (0, 0, 0, 0)
            sql.execute("INSERT INTO spaces VALUES (?, 0, 0, 0, 0)", [name])
        self.head, self.clock = row[:2]
        self.horizon = Horizon(*row[2:])
        # The newest start speaks for all processes that serve this file.
        known = sql.execute(
            "SELECT 1 FROM epochs WHERE space = ? AND epoch = ?", (name, boot)
        ).fetchone()
        if known is None:
            sql.execute(
                "INSERT INTO epochs (space, epoch, start_seq) VALUES (?, ?, ?)",
                (name, boot, self.head),
            )
        (self.epoch,) = sql.execute(
            "SELECT epoch FROM epochs WHERE space = ? ORDER BY number DESC LIMIT 1", [name]
        ).fetchone()

    def covers(self, epoch: str, seq: int) -> bool:
        """See `Space.covers`."""
        row = self._sql.execute(
            "SELECT number FROM epochs WHERE space = ? AND epoch = ?", (self._name, epoch)
        ).fetchone()
        if row is None:
            return False
        following = self._sql.execute(
            "SELECT start_seq FROM epochs WHERE space = ? AND number > ? ORDER BY number LIMIT 1",
            (self._name, row[0]),
        ).fetchone()
        return seq <= (following[0] if following else self.head)

    def find(self, key: tuple[str, str]) -> Op | None:
        """See `Space.find`."""
        row = self._sql.execute(
            "SELECT doc, counter, node_id FROM documents"
            " WHERE space = ? AND collection = ? AND id = ?",
            (self._name, *key),
        ).fetchone()
        return Op(*key, row[0], Stamp(row[1], row[2])) if row else None

    def accept(self, ops: Sequence[Op]) -> None:
        """See `Space.accept`."""
        if not ops:
            return
        now = self._now()
        self._sql.executemany(
            """
            INSERT INTO documents (space, collection, id, seq, doc, counter, node_id, stored_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (space, collection, id) DO UPDATE
            SET seq = excluded.seq, doc = excluded.doc, counter = excluded.counter,
                node_id = excluded.node_id, stored_at = excluded.stored_at
            """,
            [
                (self._name, op.collection, op.id, seq, op.doc, *op.stamp, now)
                for seq, op in enumerate(ops, start=self.head + 1)
            ],
        )
        self.head += len(ops)
        self.clock = max(self.clock, *(op.stamp.counter for op in ops))
        self._sql.execute(
            "UPDATE spaces SET head = ?, clock = ? WHERE space = ?",
            (self.head, self.clock, self._name),
        )

    def page(self, after: int, upto: int, limit: int, max_bytes: int) -> Page:
        """See `Space.page`."""
        rows = self._sql.execute(
            "SELECT seq, collection, id, doc, counter, node_id FROM documents"
            " WHERE space = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (self._name, after, upto, limit + 1),
        )
        return cut(
            (
                (seq, Op(collection, id_, doc, Stamp(counter, node_id)))
                for seq, collection, id_, doc, counter, node_id in rows
            ),
            after,
            limit,
            max_bytes,
        )

    def forget_tombstones(self, before: float) -> int:
        """See `Space.forget_tombstones`."""
        old = (self._name, before)
        count, seq, counter = self._sql.execute(
            "SELECT count(*), max(seq), max(counter) FROM documents"
            " WHERE space = ? AND doc IS NULL AND stored_at < ?",
            old,
        ).fetchone()
        if count:
            self._sql.execute(
                "DELETE FROM documents WHERE space = ? AND doc IS NULL AND stored_at < ?", old
            )
            self.horizon = Horizon(
                max(self.horizon.seq, seq), max(self.horizon.counter, counter)
            )
            self._sql.execute(
                "UPDATE spaces SET horizon_seq = ?, horizon_counter = ? WHERE space = ?",
                (*self.horizon, self._name),
            )
        return int(count)
