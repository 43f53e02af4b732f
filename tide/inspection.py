"""Reading the file of a store without opening the store: nothing is made, written or set aside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tide import documents, log, recovery, schema, status
from tide.change import Committed
from tide.errors import NotAStoreError, StoreCorruptError, StoreError
from tide.sqlite_errors import store_errors
from tide.status import Counts

__all__ = [
    "Examined",
    "Facts",
    "News",
    "examine",
    "has_wal_reset_bug",
    "reading",
    "snapshot",
    "wal_of",
]

PATIENCE = 2.0
"""Seconds to wait for another process that keeps the file locked."""

_FIXED = ((3, 44, 6), (3, 50, 7))  # releases that the fix was brought back to


class Facts(NamedTuple):
    """What the file of a store says of itself.

    Attributes:
        schema: the version of its tables.
        device: the stable first half of its node ids.
        cursor: up to where it has read from the server; None: nothing yet.
        resync: whether it is starting over from the beginning of what the server has.
        counts: what its status is made of.
        documents: how many documents each collection holds.
    """

    schema: int
    device: str
    cursor: str | None
    resync: bool
    counts: Counts
    documents: dict[str, int]


class Examined(NamedTuple):
    """What came of looking at a file.

    Attributes:
        damage: what is damaged in it, in SQLite's words; empty: nothing is.
        facts: what it says of itself; None if it is so damaged that it can't.
    """

    damage: list[str]
    facts: Facts | None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads the store at *path*.

    Raises:
        NotAStoreError: it is another program's file, or empty.
        NewerStoreError: a newer tide wrote it.
        StoreBusyError: another process keeps it locked.
        StoreCorruptError: it is damaged, so much that nothing of it can be read.
        StoreError: there is no such file, or it can't be read.
    """
    if not path.is_file():
        raise StoreError(f"{path} is a directory" if path.is_dir() else f"there is no file {path}")
    alone, leftover = not wal_of(path).exists(), False
    try:
        with store_errors(path), contextlib.closing(_connect(path, alone=alone)) as sql:
            _check(sql, path)
            in_use = _in_use(sql)
            try:
                yield sql
            finally:
                leftover = in_use and not _in_use(sql)
    except StoreCorruptError as error:
        if not recovery.is_ours(path):
            raise NotAStoreError(f"{path} is not a tide store, nor any SQLite file") from error
        raise
    finally:
        if (alone or leftover) and wal_of(path).exists():
            _tidy(path)


@contextlib.contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """As `reading`, and all that is read is of one moment."""
    with reading(path) as sql:
        sql.execute("BEGIN")
        try:
            yield sql
        finally:
            if sql.in_transaction:
                sql.execute("ROLLBACK")


def wal_of(path: Path) -> Path:
    """Where SQLite keeps what was written to *path* lately."""
    return path.with_name(f"{path.name}-wal")


def examine(path: Path) -> Examined:
    """What the store at *path* says of itself, and what is damaged in it; reads all of it.

    Raises:
        StoreError: as `reading` does, but for damage.
    """
    try:
        with reading(path) as sql:
            damage = _damage(sql)
            try:
                return Examined(damage, _facts(sql))
            except sqlite3.DatabaseError as error:
                return Examined(damage or [str(error)], None)
    except StoreCorruptError as error:
        return Examined([str(error.__cause__ or error)], None)


class News:
    """What is committed to the file from now on, by whomever."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._version = self._data_version()
        self._lsn = log.head(sql)

    def take(self) -> list[Committed]:
        """What was committed since the last time, in commit order; see `tide.log.since`."""
        version = self._data_version()
        if version == self._version:
            return []
        self._version = version
        self._sql.execute("BEGIN")
        try:
            lsn, self._lsn = self._lsn, log.head(self._sql)
            return log.since(self._sql, lsn, self._lsn)
        finally:
            self._sql.execute("ROLLBACK")

    def _data_version(self) -> int:
        (version,) = self._sql.execute("PRAGMA data_version").fetchone()
        return int(version)


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether the SQLite *version* may damage a file that several processes write.

    See sqlite.org/wal.html#walresetbug: 3.7.0 to 3.51.2, but for fixed releases.
    """
    fixed = any(version[:2] == good[:2] and version >= good for good in _FIXED)
    return (3, 7, 0) <= version < (3, 51, 3) and not fixed


def _damage(sql: sqlite3.Connection) -> list[str]:
    try:
        found = [str(text) for (text,) in sql.execute("PRAGMA integrity_check(10)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _facts(sql: sqlite3.Connection) -> Facts:
    row = sql.execute("SELECT device, cursor, resync FROM node, syncing").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the store does not say who it is: a row about itself is gone")
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    device, cursor, resync = row
    held = {name: documents.count(sql, name) for name in documents.collections(sql)}
    return Facts(version, device, cursor, bool(resync), status.read(sql), held)


def _connect(path: Path, *, alone: bool) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    sql = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=PATIENCE, isolation_level=None)
    try:
        sql.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        if not alone or "unable to open" not in str(error):
            sql.close()
            raise
        # A directory without leave to write: SQLite can't put its files beside this one. Neither
        # can others there, so it needs no locks.
        sql.close()
        return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    except BaseException:
        sql.close()
        raise
    return sql


def _check(sql: sqlite3.Connection, path: Path) -> None:
    schema.check(sql)
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version == 0:
        raise NotAStoreError(f"{path} is empty: no tide has stored anything there")


def _in_use(sql: sqlite3.Connection) -> bool:
    """Whether a program has the store open, or did not close it."""
    try:
        return bool(sql.execute("SELECT clean FROM node").fetchone() == (0,))
    except sqlite3.Error:
        return True


def _tidy(path: Path) -> None:
    """Let SQLite remove its files beside this one, if nobody needs them.

    They are there only because of the reading: empty, or not removed by the program that closed
    the store meanwhile, since it was not the last to do so.
    """
    with contextlib.suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as sql:
            sql.execute("PRAGMA query_only = ON")
            sql.execute("PRAGMA schema_version").fetchone()
