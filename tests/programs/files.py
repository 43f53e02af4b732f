"""What stands in a store's file, read with plain sqlite3: no part of tide is asked."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Rows", "documents", "node", "outbox", "query", "same", "sound", "sql_on"]

Rows = dict[tuple[str, str], tuple[str | None, int, str]]
"""Document text, counter and node id by collection and id."""


@contextlib.contextmanager
def sql_on(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own to *path*, which is closed at the end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as sql:
        yield sql


def query(path: Path, text: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with sql_on(path) as sql:
        return sql.execute(text).fetchall()


def documents(path: Path) -> Rows:
    """Every document and tombstone."""
    return _rows(path, "documents")


def outbox(path: Path) -> Rows:
    """Every waiting op."""
    return _rows(path, "outbox")


def node(path: Path, column: str) -> Any:
    """What the node knows of itself."""
    return query(path, f"SELECT {column} FROM node")[0][0]


def same(path: Path) -> bool:
    """Whether a store that never synced has each document in its outbox, as it is."""
    return documents(path) == outbox(path)


def sound(path: Path) -> bool:
    """Whether the file is whole, its waiting ops are its documents, and its clock is ahead."""
    docs = documents(path)
    highest = max([counter for _, counter, _ in docs.values()], default=0)
    return (
        query(path, "PRAGMA integrity_check") == [("ok",)]
        and outbox(path).items() <= docs.items()
        and node(path, "clock") >= highest
    )


def _rows(path: Path, table: str) -> Rows:
    text = f"SELECT collection, id, doc, counter, node_id FROM {table}"
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in query(path, text)}
