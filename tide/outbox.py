"""The SQL of the outbox: the ops that the server has not acknowledged, and those it rejected.

At most one op per document waits: the newest. These functions run on the database thread, inside
a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tide.codec import loads_stored
from tide.protocol import Op
from tide.stamp import Stamp

__all__ = [
    "RejectedOp",
    "WaitingOp",
    "acknowledge",
    "add",
    "batch",
    "count",
    "count_rejected",
    "drop",
    "is_rejected",
    "last",
    "offer_everything",
    "reject",
    "rejected_ops",
    "restamp",
    "take_rejected",
    "waiting_ids",
    "waiting_ops",
    "waiting_since",
    "waits",
    "waits_before",
]


class RejectedOp(NamedTuple):
    """An op that the server refused for good, kept until the app retries or discards it.

    Attributes:
        number: names it; grows with each rejection of this store.
        collection: the collection's name.
        id: the document's id.
        doc: the document as it was written; None for a delete.
        code: why, for programs: ``forbidden``, ``invalid_doc``, ``too_large``, …
        detail: why, in words.
    """

    number: int
    collection: str
    id: str
    doc: dict[str, Any] | None
    code: str
    detail: str


class WaitingOp(NamedTuple):
    """An op that waits, as people look at it.

    Attributes:
        collection: the collection's name.
        id: the document's id.
        doc: the document's JSON text; None for a delete.
        written_at: when it was written, Unix seconds.
    """

    collection: str
    id: str
    doc: str | None
    written_at: float


def add(sql: sqlite3.Connection, ops: Sequence[Op], lsn: int, written_at: float) -> int:
    """Let *ops* wait, each in place of an earlier op of its document, behind all others.

    Returns:
        By how many the waiting ops became more.
    """
    replaced = drop(sql, [op.key for op in ops])
    sql.executemany(
        "INSERT INTO outbox (collection, id, doc, counter, node_id, lsn, written_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(op.collection, op.id, op.doc, *op.stamp, lsn, written_at) for op in ops],
    )
    return len(ops) - replaced


def restamp(sql: sqlite3.Connection, op: Op) -> None:
    """Let *op* wait in place of the same write with another stamp, behind all others."""
    sql.execute(
        "INSERT OR REPLACE INTO outbox (collection, id, doc, counter, node_id, lsn, written_at)"
        " SELECT collection, id, doc, ?, ?, lsn, written_at FROM outbox"
        " WHERE collection = ? AND id = ?",
        (*op.stamp, *op.key),
    )


def batch(
    sql: sqlite3.Connection, after: int, upto: int, max_ops: int, max_bytes: int
) -> list[tuple[int, Op]]:
    """The next ops to push, in order of writing, each with its position.

    Positions are greater than *after* and at most *upto*. There is at least one op if any waits,
    at most *max_ops*, and their documents have at most *max_bytes* bytes in all.
    """
    rows = sql.execute(
        "SELECT position, collection, id, doc, counter, node_id FROM outbox"
        " WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
        (after, upto, max_ops),
    )
    found: list[tuple[int, Op]] = []
    size = 0
    for position, collection, id_, doc, counter, node_id in rows:
        size += len((doc or "").encode()) + len(id_) + 200  # 200: the rest of an op, at most
        if found and size > max_bytes:
            break
        found.append((position, Op(collection, id_, doc, Stamp(counter, node_id))))
    return found


def acknowledge(sql: sqlite3.Connection, op: Op) -> bool:
    """The server has *op*: let go of it, if it still waits. A newer op of its document stays."""
    deleted = sql.execute(
        "DELETE FROM outbox WHERE collection = ? AND id = ? AND counter = ? AND node_id = ?",
        (op.collection, op.id, *op.stamp),
    )
    return deleted.rowcount > 0


def drop(sql: sqlite3.Connection, keys: Iterable[tuple[str, str]]) -> int:
    """Forget the waiting ops of the documents *keys*, whatever their stamps; how many."""
    dropped = sql.executemany("DELETE FROM outbox WHERE collection = ? AND id = ?", keys)
    return max(dropped.rowcount, 0)  # -1 if there are no keys


def waits(sql: sqlite3.Connection, op: Op) -> bool:
    """Whether this very *op* still waits: not acknowledged, nor overwritten by a newer one."""
    return (
        sql.execute(
            "SELECT 1 FROM outbox WHERE collection = ? AND id = ? AND counter = ? AND node_id = ?",
            (op.collection, op.id, *op.stamp),
        ).fetchone()
        is not None
    )


def count(sql: sqlite3.Connection) -> int:
    """How many ops wait."""
    return int(sql.execute("SELECT count(*) FROM outbox").fetchone()[0])


def count_rejected(sql: sqlite3.Connection) -> int:
    """How many rejected ops there are."""
    return int(sql.execute("SELECT count(*) FROM rejected").fetchone()[0])


def last(sql: sqlite3.Connection) -> int:
    """The position of the op that was written last; 0 if none waits."""
    return int(sql.execute("SELECT coalesce(max(position), 0) FROM outbox").fetchone()[0])


def waiting_since(sql: sqlite3.Connection) -> float | None:
    """When the op that waits longest was written, Unix seconds; None if none waits."""
    row = sql.execute("SELECT written_at FROM outbox ORDER BY lsn LIMIT 1").fetchone()
    return float(row[0]) if row else None


def waits_before(sql: sqlite3.Connection, lsn: int) -> bool:
    """Whether an op waits that was written at *lsn* or before."""
    row = sql.execute("SELECT 1 FROM outbox WHERE lsn <= ? LIMIT 1", [lsn]).fetchone()
    return row is not None


def waiting_ops(sql: sqlite3.Connection) -> list[WaitingOp]:
    """The ops that wait, in the order in which they will be pushed."""
    rows = sql.execute("SELECT collection, id, doc, written_at FROM outbox ORDER BY position")
    return [WaitingOp(*row) for row in rows]


def waiting_ids(sql: sqlite3.Connection, collection: str) -> set[str]:
    """The ids of the documents of *collection* whose ops wait."""
    rows = sql.execute("SELECT id FROM outbox WHERE collection = ?", [collection])
    return {id_ for (id_,) in rows}


def offer_everything(sql: sqlite3.Connection, lsn: int, written_at: float) -> int:
    """Let every document and tombstone wait, with its own stamp; what waits already stays.

    In the order of their stamps, so that the server's clock climbs with them.

    Returns:
        By how many the waiting ops became more.
    """
    offered = sql.execute(
        "INSERT OR IGNORE INTO outbox (collection, id, doc, counter, node_id, lsn, written_at)"
        " SELECT collection, id, doc, counter, node_id, ?, ? FROM documents"
        " ORDER BY counter, node_id",
        (lsn, written_at),
    )
    return max(offered.rowcount, 0)


def reject(sql: sqlite3.Connection, op: Op, code: str, detail: str) -> None:
    """Keep *op* among the rejected ops."""
    sql.execute(
        "INSERT INTO rejected (collection, id, doc, counter, node_id, code, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (op.collection, op.id, op.doc, *op.stamp, code, detail),
    )


def is_rejected(sql: sqlite3.Connection, op: Op) -> bool:
    """Whether *op* is among the rejected ops."""
    found = sql.execute("SELECT 1 FROM rejected WHERE counter = ? AND node_id = ?", op.stamp)
    return found.fetchone() is not None


def rejected_ops(sql: sqlite3.Connection) -> list[RejectedOp]:
    """The rejected ops, oldest first."""
    rows = sql.execute(
        "SELECT number, collection, id, doc, code, detail FROM rejected ORDER BY number"
    )
    return [
        RejectedOp(number, collection, id_, loads_stored(doc) if doc else None, code, detail)
        for number, collection, id_, doc, code, detail in rows
    ]


def take_rejected(sql: sqlite3.Connection, number: int) -> bool:
    """Forget the rejected op *number*; whether it was there."""
    return sql.execute("DELETE FROM rejected WHERE number = ?", (number,)).rowcount > 0
