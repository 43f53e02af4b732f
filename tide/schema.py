"""The tables of a store, and the numbered steps that bring an older file up to date."""

from __future__ import annotations

import sqlite3

from tide.errors import NewerStoreError, NotAStoreError
from tide.ids import new_device
from tide.stamp import MAX_COUNTER

__all__ = ["APPLICATION_ID", "MIGRATIONS", "check", "migrate"]

APPLICATION_ID = 0x74696465  # "tide"; stands in the file's header, so that it is known as ours

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # One row: what the node knows of itself and of the server.
        f"""
        CREATE TABLE node (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            device TEXT NOT NULL,         -- the stable first half of its node ids
            clock INTEGER NOT NULL CHECK (clock BETWEEN 0 AND {MAX_COUNTER}),
            lsn INTEGER NOT NULL,         -- of the newest row of the log
            pending INTEGER NOT NULL,     -- how many rows the outbox has
            cursor TEXT,                  -- as last received; NULL: nothing pulled yet
            receipt TEXT,                 -- as last received
            answers INTEGER NOT NULL,     -- applied so far: tells a late answer from a fresh one
            resync INTEGER NOT NULL,      -- 1 while what a horizon reset has not seen is tracked
            clean INTEGER NOT NULL        -- 0 while open, or after a crash
        )
        """,
        # What changed, for other processes on this file; see `tide.log`.
        """
        CREATE TABLE log (
            lsn INTEGER PRIMARY KEY,
            what TEXT NOT NULL,
            collection TEXT NOT NULL,
            id TEXT NOT NULL
        )
        """,
        # One row: how syncing goes, as whoever syncs this file sees it; see `tide.status`.
        """
        CREATE TABLE syncing (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            state TEXT NOT NULL,
            error TEXT,
            synced_at REAL                -- Unix seconds of the last exchange that succeeded
        )
        """,
        # One row per document; doc is JSON text, NULL for a tombstone.
        f"""
        CREATE TABLE documents (
            collection TEXT NOT NULL,
            id TEXT NOT NULL,
            doc TEXT,
            counter INTEGER NOT NULL
                CHECK (typeof(counter) = 'integer' AND counter BETWEEN 1 AND {MAX_COUNTER}),
            node_id TEXT NOT NULL,
            PRIMARY KEY (collection, id)
        )
        """,
        # The ops that the server has not acknowledged: the newest of each document, whole, so
        # that they can be saved from a damaged file. position: the order of writing.
        """
        CREATE TABLE outbox (
            position INTEGER PRIMARY KEY,
            collection TEXT NOT NULL,
            id TEXT NOT NULL,
            doc TEXT,
            counter INTEGER NOT NULL,
            node_id TEXT NOT NULL,
            lsn INTEGER NOT NULL,         -- of the write; it stays when the op gets a new stamp
            written_at REAL NOT NULL,     -- Unix seconds; likewise
            UNIQUE (collection, id)
        )
        """,
        "CREATE INDEX outbox_by_lsn ON outbox (lsn, written_at)",
        # The ops that the server refused for good, until the app retries or discards them.
        """
        CREATE TABLE rejected (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            collection TEXT NOT NULL,
            id TEXT NOT NULL,
            doc TEXT,
            counter INTEGER NOT NULL,
            node_id TEXT NOT NULL,
            code TEXT NOT NULL,
            detail TEXT NOT NULL
        )
        """,
        # During a horizon reset: the documents that the server has not shown yet.
        """
        CREATE TABLE unseen (
            collection TEXT NOT NULL,
            id TEXT NOT NULL,
            PRIMARY KEY (collection, id)
        ) WITHOUT ROWID
        """,
    ),
)


def check(sql: sqlite3.Connection) -> None:
    """Refuse a file that this tide must not touch.

    Raises:
        NotAStoreError: it is another program's database.
        NewerStoreError: a newer tide wrote it.
    """
    sql.execute("BEGIN")  # one snapshot: another process may be making the tables just now
    try:
        (application_id,) = sql.execute("PRAGMA application_id").fetchone()
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        (tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        sql.execute("ROLLBACK")
    path = sql.execute("PRAGMA database_list").fetchone()[2]
    if application_id != APPLICATION_ID and (tables or application_id or version):
        raise NotAStoreError(
            f"{path} is a database of another program; give tide a file of its own"
        )
    if version > len(MIGRATIONS):
        raise NewerStoreError(
            f"{path} was written by a newer tide (schema {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade tide to open it"
        )


def migrate(sql: sqlite3.Connection) -> None:
    """Bring the tables up to date, each version in a transaction of its own."""
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    for number in range(version + 1, len(MIGRATIONS) + 1):
        sql.execute("BEGIN IMMEDIATE")
        try:
            _step(sql, number)
            sql.execute("COMMIT")
        except BaseException:
            if sql.in_transaction:
                sql.execute("ROLLBACK")
            raise


def _step(sql: sqlite3.Connection, number: int) -> None:
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version >= number:  # also if another process took this step meanwhile
        return
    for statement in MIGRATIONS[number - 1]:
        sql.execute(statement)
    if version == 0:
        sql.execute("INSERT INTO node VALUES (1, ?, 0, 0, 0, NULL, NULL, 0, 0, 1)", [new_device()])
        sql.execute("INSERT INTO syncing VALUES (1, 'stopped', NULL, NULL)")
        sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {number}")
