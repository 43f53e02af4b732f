"""The SQL of documents: one row each, a tombstone where one was deleted.

These functions run on the database thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from tide.protocol import Op
from tide.stamp import Stamp

__all__ = [
    "collections",
    "count",
    "each",
    "find",
    "read",
    "read_all",
    "remove",
    "seen",
    "write",
]

Key = tuple[str, str]
"""A collection and an id."""


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


def each(sql: sqlite3.Connection, collection: str) -> Iterator[tuple[str, str]]:
    """As `read_all`, one after the other, however many there are."""
    yield from sql.execute(
        "SELECT id, doc FROM documents WHERE collection = ? AND doc IS NOT NULL ORDER BY id",
        (collection,),
    )


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


def find(sql: sqlite3.Connection, key: Key) -> Op | None:
    """What is stored under *key*, a tombstone too."""
    row = sql.execute(
        "SELECT doc, counter, node_id FROM documents WHERE collection = ? AND id = ?", key
    ).fetchone()
    return Op(*key, row[0], Stamp(row[1], row[2])) if row else None


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


def seen(sql: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """During a horizon reset: the documents *keys* are not to be removed at its end."""
    sql.executemany("DELETE FROM unseen WHERE collection = ? AND id = ?", keys)
