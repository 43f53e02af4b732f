"""One space in SQLite: its tables, and what a work can see and change of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from tide.protocol import Op
from tide.server.storage.base import Horizon, Page, Space, cut
from tide.stamp import MAX_COUNTER, Stamp

__all__ = ["SCHEMA", "SqliteSpace"]

SCHEMA = (
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


class SqliteSpace(Space):
    """See `Space`. Every statement of it names the space."""

    def __init__(
        self, sql: sqlite3.Connection, name: str, started: str, now: Callable[[], float]
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
            "SELECT 1 FROM epochs WHERE space = ? AND epoch = ?", (name, started)
        ).fetchone()
        if known is None:
            sql.execute(
                "INSERT INTO epochs (space, epoch, start_seq) VALUES (?, ?, ?)",
                (name, started, self.head),
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
            self.horizon = Horizon(max(self.horizon.seq, seq), max(self.horizon.counter, counter))
            self._sql.execute(
                "UPDATE spaces SET horizon_seq = ?, horizon_counter = ? WHERE space = ?",
                (*self.horizon, self._name),
            )
        return int(count)
