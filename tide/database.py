"""One SQLite file: open, pragmas, group commit, a reader beside the writer.

The only importer of aiosqlite. Each transaction runs as one function on the database thread, so
that cancelling who waits for it can't split it. Writes that wait at the same time share one
transaction, so that they share its fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import aiosqlite

from tide.errors import NotOpenError, StoreBusyError, StoreCorruptError
from tide.sqlite_errors import store_errors
from tide.sqlite_file import configure, identity

__all__ = ["Database", "Transaction"]

BUSY_TIMEOUT = 30.0
"""How long a write waits for another process to finish its own, in seconds."""

T = TypeVar("T")


class Transaction(Protocol):
    """What works of one write transaction share; made when it begins."""

    def finish(self) -> None:
        """Write what the transaction itself has to, right before its commit."""

    def committed(self) -> None:
        """Take note of the commit, on the database thread, before the next transaction begins."""


Tx = TypeVar("Tx", bound=Transaction)


class _Done(NamedTuple):
    """One committed transaction, with what its works returned."""

    transaction: Any
    results: list[Any]


class _Failed(NamedTuple):
    """One rolled-back transaction, of one work."""

    error: BaseException


class Database(Generic[Tx]):
    """A SQLite file with one writer and one reader, each on a thread of its own.

    Made by `open`. It belongs to the event loop that opened it.

    Attributes:
        damaged: whether damage of the file was met while it was open.
    """

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        begin: Callable[[sqlite3.Connection], Tx],
        committed: Callable[[Tx], None],
    ) -> None:
        self.damaged = False
        self._path = path
        self._identity = identity(path)
        self._writer = writer
        self._reader = reader
        self._begin = begin
        self._committed = committed
        self._waiting: list[tuple[Callable[[Tx], Any], asyncio.Future[Any]]] = []
        self._flight: asyncio.Future[Any] | None = None
        self._closing = False
        self._version: int | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durability: str,
        check: Callable[[sqlite3.Connection], None],
        migrate: Callable[[sqlite3.Connection], None],
        begin: Callable[[sqlite3.Connection], Tx],
        committed: Callable[[Tx], None],
    ) -> Database[Tx]:
        """Open the file at *path*, and make it if there is none.

        Args:
            path: the file.
            durability: ``full`` or ``relaxed``, see `tide.Tide`.
            check: raises if the file is not to be touched; runs before anything is written.
            migrate: brings the tables up to date.
            begin: makes what the works of one transaction share; runs on the database thread.
            committed: is told of each transaction after its commit, in commit order.

        Raises:
            StoreError: the file can't be opened, or *check* or *migrate* refused it.
        """

        def prepare(sql: sqlite3.Connection) -> None:
            check(sql)
            configure(sql, durability)
            migrate(sql)

        writer = await _open(path, prepare)
        try:
            reader = await _open(path, lambda sql: sql.execute("PRAGMA query_only = ON"))
        except BaseException:
            await writer.close()
            raise
        return cls(path, writer, reader, begin, committed)

    def write(self, work: Callable[[Tx], T]) -> asyncio.Future[T]:
        """Run *work* in a write transaction; the future is done when it is durable.

        *work* runs on the database thread, perhaps twice: when another work of the same
        transaction fails, each runs again alone. Cancelling the future does not undo the write.

        Raises:
            StoreError: (from the future) the file failed; nothing of *work* was kept.
        """
        if self._closing:
            raise NotOpenError(f"{self._path} was closed while this write was on its way")
        self._forget_dead_loop()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._flight is None:
            self._start()
        return future

    def read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run *work* on the reader, beside whatever is being written; it sees one snapshot."""
        if self._closing:
            raise NotOpenError(f"{self._path} is closed; open it again to read")
        return _submit(self._reader, functools.partial(self._read, work))

    def changed_elsewhere(self) -> asyncio.Future[bool]:
        """Whether another connection, of any process, committed since the last call."""
        return _submit(self._writer, self._look)

    def look_again(self) -> None:
        """Let the next `changed_elsewhere` be True: what there was to see was not seen."""
        self._version = None

    def _look(self) -> bool:
        # Changes only with the commits of others (sqlite.org/pragma.html#pragma_data_version).
        with self._errors():
            sql = self._writer._conn  # noqa: SLF001 - see _submit
            (version,) = sql.execute("PRAGMA data_version").fetchone()
        changed, self._version = version != self._version, version
        return bool(changed)

    async def close(self) -> None:
        """Finish what waits, and close the file. Idempotent."""
        self._closing = True
        self._forget_dead_loop()
        while self._flight is not None:
            await asyncio.wait([self._flight])
        await self._reader.close()
        await self._writer.close()

    def _forget_dead_loop(self) -> None:
        """Wait no more for what was on its way in an event loop that has ended since."""
        if self._flight is not None and self._flight.get_loop().is_closed():
            self._flight, self._waiting = None, []

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        works = [work for work, _ in batch]
        self._flight = _submit(self._writer, functools.partial(self._run, works))
        self._flight.add_done_callback(functools.partial(self._finish, [f for _, f in batch]))

    def _finish(self, futures: list[asyncio.Future[Any]], flight: asyncio.Future[Any]) -> None:
        """Tell of what was committed, then those who wait for it, then start the next."""
        self._flight = None
        if self._waiting:
            self._start()
        waiting = iter(futures)
        for outcome in flight.result():
            if isinstance(outcome, _Failed):
                _set(next(waiting), None, outcome.error)
                continue
            self._committed(outcome.transaction)
            for result in outcome.results:
                _set(next(waiting), result)

    def _run(self, works: Sequence[Callable[[Tx], Any]]) -> list[_Done | _Failed]:
        """(database thread) All *works* in one transaction; if that fails, one each."""
        try:
            return [self._transact(works)]
        except StoreBusyError as error:  # each alone would wait as long, one after the other
            return [_Failed(error)] * len(works)
        except BaseException as error:  # noqa: BLE001 - handed to who waits for this work
            if len(works) == 1:
                return [_Failed(error)]
        return [outcome for work in works for outcome in self._run([work])]

    def _transact(self, works: Sequence[Callable[[Tx], Any]]) -> _Done:
        sql = self._writer._conn  # noqa: SLF001 - see _submit
        with self._errors():
            sql.execute("BEGIN IMMEDIATE")  # a deferred one fails at once when it is overtaken
            try:
                self._check_identity()
                transaction = self._begin(sql)
                results = [work(transaction) for work in works]
                transaction.finish()
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:  # a full disk has already rolled it back
                    sql.execute("ROLLBACK")
                raise
        transaction.committed()
        return _Done(transaction, results)

    def _check_identity(self) -> None:
        """Refuse to write into a file that nobody would find again."""
        if identity(self._path) != self._identity:
            raise StoreCorruptError(f"{self._path} was moved or replaced while open; open it again")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with store_errors(self._path):
                yield
        except StoreCorruptError:
            self.damaged = True
            raise

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        sql = self._reader._conn  # noqa: SLF001 - see _submit
        with self._errors():
            sql.execute("BEGIN")
            try:
                return work(sql)
            finally:
                if sql.in_transaction:  # an I/O error may have ended it
                    sql.execute("ROLLBACK")


def _submit(connection: aiosqlite.Connection, work: Callable[[], T]) -> asyncio.Future[T]:
    """Run *work* on the thread of *connection*, in one hop.

    aiosqlite's public methods run one statement a hop; a transaction has to be one function. Its
    queue is the only way in, and this function and `_open` the only ones that know.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    jobs = [(work, future)]  # taken out to be done: the thread holds on to what it ran last

    def run() -> None:
        work, future = jobs.pop()
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - handed to who waits for it
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(_set, future, result, error)

    connection._tx.put_nowait((None, run))  # noqa: SLF001 - see above
    return future


def _set(future: asyncio.Future[Any], result: object, error: BaseException | None = None) -> None:
    if future.done():  # who waited for it was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def _open(path: Path, prepare: Callable[..., object]) -> aiosqlite.Connection:
    """A connection to *path*, after *prepare* has run on it."""
    connection = aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)
    # aiosqlite's thread would keep a program alive that forgets to close. What put() has
    # acknowledged is on disk, so nothing is lost when the thread dies with the program.
    connection._thread.daemon = True  # noqa: SLF001 - there is no public way
    with store_errors(path):
        try:
            await connection
            await _submit(connection, lambda: prepare(connection._conn))  # noqa: SLF001 - see there
        except BaseException:
            await connection.close()
            connection._thread.join()  # noqa: SLF001 - it would report to a loop that may be closed
            raise
    return connection
