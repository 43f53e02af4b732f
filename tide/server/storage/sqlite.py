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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tide.errors import (
    ForkedError,
    NewerStoreError,
    NotAStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
)
from tide.ids import token
from tide.server.storage.base import Space, Storage
from tide.server.storage.sqlite_space import SCHEMA, SqliteSpace
from tide.wal import use_wal

__all__ = ["SqliteStorage"]

T = TypeVar("T")

APPLICATION_ID = 0x74696473  # "tids"
SCHEMA_VERSION = 1
BUSY_TIMEOUT = 10.0  # seconds to wait for another server process on this file
MAX_TOGETHER = 64  # works in one transaction, so that none waits long for its commit


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
        self._pid = 0  # the process that opened it
        self._lock = threading.Lock()
        self._finalizer: weakref.finalize[..., Any] | None = None

    async def open(self) -> None:
        """See `Storage.open`."""
        await asyncio.to_thread(self._start)

    async def run(self, space: str, work: Callable[[Space], T]) -> T:
        """See `Storage.run`."""
        if self._jobs is None:
            await self.open()
        if self._pid != os.getpid():
            raise ForkedError(f"{self.path} was opened before this process forked; open it after")
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
            self._jobs, self._pid = jobs, os.getpid()


def _stop(jobs: queue.SimpleQueue[_Job | None], thread: threading.Thread) -> None:
    jobs.put(None)
    if thread is not threading.current_thread():  # where the last reference may have been dropped
        thread.join(timeout=BUSY_TIMEOUT)


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, readable for its owner only."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{path} can't be made: {reason}; does its directory exist?") from error
    try:
        sql = sqlite3.connect(
            path, isolation_level=None, timeout=BUSY_TIMEOUT, check_same_thread=False
        )
        try:
            _prepare(sql, path)
        except BaseException:
            sql.close()
            raise
    except sqlite3.Error as error:
        raise _told(error, path) from error
    return sql


def _prepare(sql: sqlite3.Connection, path: Path) -> None:
    sql.execute("BEGIN")  # one snapshot: another process may be making the tables just now
    try:
        (application_id,) = sql.execute("PRAGMA application_id").fetchone()
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        (tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        sql.execute("ROLLBACK")
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise NotAStoreError(f"{path} is another program's file; give the server one of its own")
    if version > SCHEMA_VERSION:
        raise NewerStoreError(
            f"{path} was written by a newer tide (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); upgrade tide to serve it"
        )
    use_wal(sql)
    sql.execute("PRAGMA synchronous = FULL")
    sql.execute("PRAGMA fullfsync = ON")
    sql.execute("PRAGMA cache_size = -65536")
    sql.execute("PRAGMA wal_autocheckpoint = 10000")
    with _transaction(sql):
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        if version == 0:  # still, now that no other process can be at it
            for statement in SCHEMA:
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


def _told(error: BaseException, path: Path) -> BaseException:
    """What to raise for *error*: what SQLite says becomes tide's own, bugs stay as they are."""
    if not isinstance(error, sqlite3.DatabaseError):
        return error
    text = str(error)
    for part, kind, remedy in _ERRORS:
        if part in text:
            return kind(f"{path}: {text}; {remedy}")
    return StoreError(f"{path}: {text}") if isinstance(error, sqlite3.OperationalError) else error


_ERRORS: tuple[tuple[str, type[StoreError], str], ...] = (
    ("locked", StoreBusyError, "another process keeps it locked; try again when it is done"),
    ("full", StoreFullError, "nothing was written; free some space"),
    ("malformed", StoreCorruptError, "restore a backup: nodes give back what it lacks"),
    ("not a database", NotAStoreError, "give the server a file of its own"),
    ("unable to open", StoreError, "does its directory exist, and may the server write there?"),
    ("readonly", StoreError, "the server needs to write to it and to its directory"),
)


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
        # By space, the epoch that this start of the server adds to it: a cursor of one space must
        # mean nothing in another, since a node can be moved to it.
        self._epochs: dict[str, str] = {}

    def run(self) -> None:
        """Work until told to stop; what was queued before that is still done."""
        while jobs := self._take():
            self._settle(jobs)
            jobs.clear()  # or, while this waits, a work would keep alive whom it refers to
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
        """All *jobs* in one transaction; if that fails one each, so that a bad one fails alone."""
        try:
            with _transaction(self._sql):
                results = [job.work(self._space(job.space)) for job in jobs]
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            told = _told(error, self._path)
            # A file that is locked is so for all: waiting once more for each would take too long.
            if len(jobs) == 1 or isinstance(told, StoreBusyError):
                for job in jobs:
                    job.done(None, told)
            else:
                for job in jobs:
                    self._settle([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.done(result, None)

    def _space(self, name: str) -> SqliteSpace:
        epoch = self._epochs.setdefault(name, token(8))
        return SqliteSpace(self._sql, name, epoch, self._now)
