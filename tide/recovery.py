"""Damaged files: noticed at open, set aside, and what can be read of the outbox saved.

A damaged file is renamed, never deleted. What the server has comes back from there; what it does
not have are the waiting and the rejected ops, so these are read from the damaged file row by row.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tide import schema
from tide.codec import loads
from tide.errors import (
    CollectionNameError,
    DocumentError,
    IdError,
    NotAStoreError,
    StoreCorruptError,
)
from tide.limits import check_collection, check_id, check_text
from tide.lock import FileLock
from tide.protocol import Op
from tide.stamp import Stamp, is_counter, is_node_id

__all__ = [
    "Recovered",
    "alone",
    "check",
    "check_finished",
    "check_ours",
    "finish",
    "is_ours",
    "move",
]

logger = logging.getLogger("tide")

_POLL = 0.02  # seconds
_SUFFIXES = ("-wal", "-shm", "")
_APPLICATION_ID_AT = 68  # sqlite.org/fileformat.html, section 1.3
_LARGEST_PAGE = 1 << 16
_MAX_ROWID = (1 << 63) - 1
_MISSES = 2_000  # rows to try to get past damage: as many as several pages hold
_LOOKUPS = 100_000


class Recovered(NamedTuple):
    """What became of a damaged file.

    Attributes:
        set_aside: where it is now.
        pending: the waiting ops that were saved from it.
        rejected: how many rejected ops were saved from it.
        unreadable: whether some of its ops could not be read.
        device: the stable first half of its node ids; None if it could not be read.
    """

    set_aside: Path
    pending: tuple[Op, ...]
    rejected: tuple[tuple[Op, str, str], ...]
    unreadable: bool
    device: str | None


def check(sql: sqlite3.Connection) -> None:
    """Refuse a file that is not ours, or that is damaged.

    The whole file is read only if it was not closed properly the last time.

    Raises:
        NotAStoreError: it is another program's database.
        NewerStoreError: a newer tide wrote it.
        StoreCorruptError: it is damaged.
    """
    schema.check(sql)
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version == 0 or sql.execute("SELECT clean FROM node").fetchone() == (1,):
        return
    (verdict,) = sql.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorruptError(f"the store is damaged: {verdict}")


@asynccontextmanager
async def alone(path: Path) -> AsyncIterator[None]:
    """Keep others from recovering the file at *path* at the same time."""
    lock = FileLock(path.with_name(f"{path.name}.tide-recovery-lock"))
    while not lock.take():  # noqa: ASYNC110 - another process lets go of it
        await asyncio.sleep(_POLL)
    try:
        yield
    finally:
        lock.release()


def check_finished(path: Path) -> None:
    """Notice a recovery that was interrupted.

    Raises:
        StoreCorruptError: a damaged file was moved, and its ops may not be saved yet.
    """
    if _moved(path):
        raise StoreCorruptError(f"the recovery of {path} was interrupted")


def check_ours(path: Path) -> None:
    """Refuse a file that SQLite can't read and that does not look like a store of ours.

    Raises:
        NotAStoreError: it does not; it is to be left untouched.
    """
    if not _moved(path) and not is_ours(path):
        raise NotAStoreError(
            f"{path} is not a tide store, nor any SQLite file; give tide a file of its own"
        )


def move(path: Path) -> Recovered:
    """Move the damaged file at *path* out of the way, and read what can be read of its ops.

    Its name shows that it is not done with until `finish`, so that a crash loses no op.
    """
    halfway = _halfway(path)
    if not halfway.exists():
        _rename(path, halfway)
    return _read_ops(halfway)


def finish(path: Path, recovered: Recovered, error: StoreCorruptError) -> Recovered:
    """The ops are safe: give the damaged file the name under which it stays, and tell of it."""
    aside = _free_name(path)
    _rename(_halfway(path), aside)
    logger.warning(
        "%s; it was set aside as %s. %d waiting and %d rejected ops were saved from it%s; "
        "everything else comes back from the server",
        error,
        aside,
        len(recovered.pending),
        len(recovered.rejected),
        ", others could not be read" if recovered.unreadable else "",
    )
    return recovered._replace(set_aside=aside)


def _moved(path: Path) -> bool:
    """Whether any part of a damaged file was moved and not finished."""
    halfway = _halfway(path)
    return any(halfway.with_name(halfway.name + suffix).exists() for suffix in _SUFFIXES)


def _halfway(path: Path) -> Path:
    return path.with_name(f"{path.name}.recovering")


def _rename(path: Path, to: Path) -> None:
    """Rename a database; its main file last, since that is what the others belong to."""
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(to.with_name(to.name + suffix))


def is_ours(path: Path) -> bool:
    """Whether a file that SQLite can't read is a store of ours, going by its first page."""
    with path.open("rb") as file:
        page = file.read(_LARGEST_PAGE)
    ours = schema.APPLICATION_ID.to_bytes(4, "big")
    return page[_APPLICATION_ID_AT:][:4] == ours or schema.MIGRATIONS[0][0].strip().encode() in page


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 0
    while (aside := path.with_name(f"{path.name}.corrupt-{stamp}-{number}")).exists():
        number += 1
    return aside


def _read_ops(path: Path) -> Recovered:
    pending: list[Op] = []
    rejected: list[tuple[Op, str, str]] = []
    unreadable = False
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.text_factory = bytes  # damaged text may be no UTF-8
        with suppress(sqlite3.DatabaseError):  # whoever still writes to it ends, or is refused
            sql.execute("BEGIN IMMEDIATE")
        for row in _rows(sql, _OUTBOX):
            op = _op(row) if row else None
            unreadable |= op is None
            if op is not None:
                pending.append(op)
        for row in _rows(sql, _REJECTED):
            op = _op(row[:5]) if row else None
            unreadable |= op is None
            if row and op is not None:
                rejected.append((op, _words(row[5]), _words(row[6])))
        device = _device(sql)
    return Recovered(path, tuple(pending), tuple(rejected), unreadable, device)


def _device(sql: sqlite3.Connection) -> str | None:
    with suppress(sqlite3.DatabaseError, ValueError, TypeError):
        device = _text(sql.execute("SELECT device FROM node").fetchone()[0])
        return device if is_node_id(f"{device}.") and "." not in device else None
    return None


_OUTBOX = "SELECT position, collection, id, doc, counter, node_id FROM outbox WHERE position"
_REJECTED = """
    SELECT number, collection, id, doc, counter, node_id, code, detail
    FROM rejected WHERE number
"""


def _rows(sql: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...] | None]:
    """The rows of a damaged table, each once; None for what can't be read.

    Row by row: sqlite3 reads ahead, and would give up a whole row for damage in the next one. In
    order and then each number alone, since damage of one row can hide others from the first way.
    """
    seen: set[tuple[Any, ...]] = set()
    first, number, misses = 0, 0, 0
    while misses < _MISSES and number < _MAX_ROWID:
        row = _row(sql, f"{query} > ? ORDER BY 1 LIMIT 1", number)
        if row is None:
            break
        if not row:
            yield None
            misses += 1
        elif row not in seen:
            seen.add(row)
            yield row[1:]
        first = first or (row[0] if row else 0)
        number = max(row[0] if row else 0, number + 1)
    for each in range(first - _MISSES, min(number, first + _LOOKUPS) + _MISSES):
        row = _row(sql, f"{query} = ?", each)
        if row and row not in seen:
            yield row[1:]


def _row(sql: sqlite3.Connection, query: str, number: int) -> tuple[Any, ...] | None:
    """The row that *query* finds, None if there is none, an empty one if it can't be read."""
    try:
        row: tuple[Any, ...] | None = sql.execute(query, [number]).fetchone()
        return row
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # damage may be in the message too
        return ()


def _op(row: tuple[Any, ...]) -> Op | None:
    """The op in *row*, if all of it makes sense."""
    collection, id_, doc, counter, node_id = row
    try:
        if doc is not None:
            doc = _text(doc)
            doc = check_text(doc, loads(doc))
        node_id = _text(node_id)
        if not is_counter(counter) or not is_node_id(node_id):
            return None
        key = check_collection(_text(collection)), check_id(_text(id_))
    except (CollectionNameError, IdError, DocumentError, ValueError):
        return None
    return Op(*key, doc, Stamp(counter, node_id))


def _words(value: Any) -> str:
    """What is left of a text that only people read."""
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _text(value: Any) -> str:
    """*value* as text; a ValueError if damage has made something else of it."""
    if not isinstance(value, bytes):
        raise ValueError("not text")  # noqa: TRY004 - handled like undecodable text
    return value.decode()
