"""The SQL of documents: one row each, a tombstone where one was deleted.

These functions run on the database thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from tide.protocol import Op
from tide.stamp import Stamp

__all__ = [
    "collections",
    "count",
    "read",
    "read_all",
    "remove",
    "stamps",
    "write",
]

Key = tuple[str, str]
"""A collection and an id."""
_CHUNK = 200  # keys in one statement: within SQLite's oldest limit of 999 parameters

T = TypeVar("T")


def read(sql: sqlite3.Connection, collection: str, id_: str) -> str | None:
    """The text of a document; None if there is none, or a tombstone."""
    row = sql.execute(
        "SELECT doc FROM documents WHERE collection = ? AND id = ?", (collection, id_)
    ).fetchone()
    return row[0] if row else None


def read_all(sql: sqlite3.Connection, collection: str) -> list[tuple[str, str]]:
    """The id and text of each document of *collection*, ordered by id."""
    return sql.execute(
        "SELECT id, doc FROM documents WHERE collection = ? AND doc IS NOT NULL ORDER BY id",
        (collection,),
    ).fetchall()


def count(sql: sqlite3.Connection, collection: str) -> int:
    """How many documents *collection* holds."""
    row = sql.execute(
        "SELECT count(*) FROM documents WHERE collection = ? AND doc IS NOT NULL", (collection,)
    ).fetchone()
    return int(row[0])


def collections(sql: sqlite3.Connection) -> list[str]:
    """The names of the collections that hold documents, in order."""
    # Steps from name to name through the primary key, instead of reading every document.
    rows = sql.execute(
        """
        WITH RECURSIVE names (name) AS (
            SELECT min(collection) FROM documents
            UNION ALL
            SELECT (SELECT min(collection) FROM documents WHERE collection > name)
            FROM names WHERE name IS NOT NULL
        )
        SELECT name FROM names WHERE EXISTS (
            SELECT 1 FROM documents WHERE collection = name AND doc IS NOT NULL
        )
        """
    )
    return [name for (name,) in rows]


def stamps(sql: sqlite3.Connection, keys: Sequence[Key]) -> dict[Key, Op]:
    """What is stored for each of *keys*, tombstones too; keys that are not stored are absent."""
    found: dict[Key, Op] = {}
    for chunk in chunks(keys, _CHUNK):
        places = ",".join(["(?,?)"] * len(chunk))
        rows = sql.execute(
            "SELECT collection, id, doc, counter, node_id FROM documents"  # noqa: S608
            f" WHERE (collection, id) IN (VALUES {places})",  # only placeholders go in
            [value for key in chunk for value in key],
        )
        for collection, id_, doc, counter, node_id in rows:
            found[collection, id_] = Op(collection, id_, doc, Stamp(counter, node_id))
    return found


def write(sql: sqlite3.Connection, ops: Iterable[Op]) -> None:
    """Store *ops* as they are, over whatever stood there."""
    sql.executemany(
        """
        INSERT INTO documents (collection, id, doc, counter, node_id) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (collection, id) DO UPDATE
        SET doc = excluded.doc, counter = excluded.counter, node_id = excluded.node_id
        """,
        ((op.collection, op.id, op.doc, *op.stamp) for op in ops),
    )


def remove(sql: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """Forget the rows of *keys* as if they had never been: no tombstone stays."""
    sql.executemany("DELETE FROM documents WHERE collection = ? AND id = ?", keys)


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """*values* in lists of at most *size*."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
