"""How tide uses a SQLite file: its settings, and which file it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tide.wal import use_wal

__all__ = ["configure", "identity"]


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file at *path* from any other that may take its name; None if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def configure(sql: sqlite3.Connection, durability: str) -> None:
    """Set up a connection that writes; *durability* as of `tide.Tide`."""
    use_wal(sql)
    sql.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
    sql.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
    sql.execute("PRAGMA cache_size = -65536")  # KiB; random ids need it, it is used as needed
    sql.execute("PRAGMA wal_autocheckpoint = 10000")  # pages: rarer checkpoints, faster bulk
