"""Switching a SQLite file to WAL, which another process may be doing at the same moment."""

from __future__ import annotations

import sqlite3
import time

__all__ = ["use_wal"]

PATIENCE = 2.0  # seconds
PAUSE = 0.02  # seconds between two tries


def use_wal(sql: sqlite3.Connection) -> None:
    """Let the file of *sql* have a write-ahead log.

    SQLite does not wait when two do so at once: it tells one of them that the file is locked,
    whatever its timeout.

    Raises:
        sqlite3.OperationalError: it stays locked for seconds, or can't be written.
    """
    end = time.monotonic() + PATIENCE
    while not _switched(sql, last=time.monotonic() > end):
        time.sleep(PAUSE)


def _switched(sql: sqlite3.Connection, *, last: bool) -> bool:
    try:
        sql.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if last or "locked" not in str(error):
            raise
        return False
    return True
