"""Damaged files: noticed at open, set aside, and what can be read of the outbox saved.

A damaged file is renamed, never deleted. What the server has comes back from there; what it does
not have are the waiting and the rejected ops, so these are read from the damaged file row by row.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
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
from tide.protocol import Op
from tide.stamp import Stamp, is_counter, is_node_id

__all__ = ["Recovered", "check", "set_aside"]

logger = logging.getLogger("tide")

_SUFFIXES = ("", "-wal", "-shm")
_APPLICATION_ID_AT = 68  # sqlite.org/fileformat.html, section 1.3


class Recovered(NamedTuple):
    """What became of a damaged file.

    Attributes:
        set_aside: where it is now.
        pending: the waiting ops that were saved from it.
        rejected: how many rejected ops were saved from it.
        unreadable: whether some of its ops could not be read.
    """

    set_aside: Path
    pending: tuple[Op, ...]
    rejected: tuple[tuple[Op, str, str], ...]
    unreadable: bool


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


def set_aside(path: Path, error: StoreCorruptError) -> Recovered:
    """Rename the damaged file at *path*, and read what can be read of its ops.

    Raises:
        NotAStoreError: it does not look like a tide store at all; it was left untouched.
    """
    if not _is_ours(path):
        raise NotAStoreError(
            f"{path} is not a tide store, nor any SQLite file; give tide a file of its own"
        ) from error
    aside = _free_name(path)
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    recovered = _read_ops(aside)
    logger.warning(
        "%s; it was set aside as %s. %d waiting and %d rejected ops were saved from it%s; "
        "everything else comes back from the server",
        error,
        aside,
        len(recovered.pending),
        len(recovered.rejected),
        ", others could not be read" if recovered.unreadable else "",
    )
    return recovered


def _is_ours(path: Path) -> bool:
    """Whether a file that SQLite can't read is a store of ours, going by its header."""
    with path.open("rb") as file:
        header = file.read(100)
    ours = schema.APPLICATION_ID.to_bytes(4, "big")
    return header[_APPLICATION_ID_AT:][:4] == ours or path.with_name(f"{path.name}-wal").exists()


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
        for row in _rows(sql, _OUTBOX):
            op = _op(row) if row else None
            unreadable |= op is None
            if op is not None:
                pending.append(op)
        for row in _rows(sql, _REJECTED):
            op = _op(row[:5]) if row else None
            unreadable |= op is None
            if row and op is not None:
                rejected.append((op, _text(row[5]), _text(row[6])))
    return Recovered(path, tuple(pending), tuple(rejected), unreadable)


_OUTBOX = """
    SELECT position, collection, id, doc, counter, node_id
    FROM outbox WHERE position > ? ORDER BY position
"""
_REJECTED = """
    SELECT number, collection, id, doc, counter, node_id, code, detail
    FROM rejected WHERE number > ? ORDER BY number
"""


def _rows(sql: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...] | None]:
    """The rows of a damaged table, from the front and then from the back; None for the damage."""
    last = 0
    try:
        for row in sql.execute(query, [last]):
            last = row[0]
            yield row[1:]
        return
    except sqlite3.DatabaseError:
        yield None
    try:
        for row in sql.execute(f"{query} DESC", [last]):
            yield row[1:]
    except sqlite3.DatabaseError:
        return  # met the damage from the other side


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


def _text(value: Any) -> str:
    """*value* as text; a ValueError if damage has made something else of it."""
    if not isinstance(value, bytes):
        raise ValueError("not text")  # noqa: TRY004 - handled like undecodable text
    return value.decode()
