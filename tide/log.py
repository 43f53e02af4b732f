"""The log of changes in the file: how processes that share it hear of each other's commits.

It holds keys, not documents: who reads it gets each document as it is now. These functions run on
the database thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from tide.change import Committed

__all__ = ["KEEP", "Told", "append", "head", "prune", "since"]

KEEP = 20_000
"""How many changes the log goes back. Who is further behind is told of every document."""


def head(sql: sqlite3.Connection) -> int:
    """The lsn of the newest change; 0 at the start."""
    return int(sql.execute("SELECT lsn FROM node").fetchone()[0])


def append(sql: sqlite3.Connection, changes: Iterable[Committed]) -> None:
    """Add *changes*, whose lsns are new."""
    sql.executemany(
        "INSERT INTO log (lsn, what, collection, id) VALUES (?, ?, ?, ?)",
        [change[:4] for change in changes],
    )


def since(sql: sqlite3.Connection, lsn: int, now: int) -> list[Committed]:
    """What happened after *lsn* up to *now*, the head, in commit order.

    Of several changes of one document only the last is there, since only its outcome is known.
    """
    query = _EVERYTHING if lsn < now - KEEP else _LOGGED
    latest: dict[tuple[str, str, bool], Committed] = {}
    for row in sql.execute(query, {"lsn": lsn, "now": now}):
        change = Committed(*row)
        key = change.collection, change.id, change.what == "acknowledged"
        latest.pop(key, None)  # so that it stands where it happened last
        latest[key] = change
    return list(latest.values())


def prune(sql: sqlite3.Connection, now: int) -> None:
    """Forget what is too old, but for what nothing else would tell of: documents without a row."""
    sql.execute(
        """
        DELETE FROM log WHERE lsn <= ? AND (what = 'acknowledged' OR EXISTS (
            SELECT 1 FROM documents
            WHERE documents.collection = log.collection AND documents.id = log.id
        ))
        """,
        [now - KEEP],
    )


class Told:
    """Up to which change the watchers of this store were told; used on the database thread.

    Attributes:
        lsn: of the newest change that they were, or are about to be, told of; None before the
            store's first transaction.
        clock: the counter of this store's last commit.
    """

    def __init__(self) -> None:
        self.lsn: int | None = None
        self.clock = 0

    def others(self, sql: sqlite3.Connection, now: int) -> list[Committed]:
        """What others committed since, up to the lsn *now*."""
        return [] if self.lsn in (None, now) else since(sql, self.lsn, now)


_LOGGED = """
    SELECT lsn, what, collection, id, doc
    FROM log LEFT JOIN documents USING (collection, id) WHERE lsn > :lsn ORDER BY lsn
"""
_EVERYTHING = """
    SELECT :now, CASE WHEN EXISTS (
        SELECT 1 FROM outbox
        WHERE outbox.collection = documents.collection AND outbox.id = documents.id
    ) THEN 'local' ELSE 'remote' END, collection, id, doc FROM documents
    UNION ALL
    SELECT :now, 'remote', collection, id, NULL FROM log
    WHERE what <> 'acknowledged' AND NOT EXISTS (
        SELECT 1 FROM documents
        WHERE documents.collection = log.collection AND documents.id = log.id
    )
"""
