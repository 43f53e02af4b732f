"""What SQLite says of a file, in tide's own errors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tide.errors import StoreBusyError, StoreCorruptError, StoreError, StoreFullError

__all__ = ["store_errors"]


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file at *path* into tide's own errors; bugs stay as they are."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        for part, kind, remedy in _ERRORS:
            if part in text:
                raise kind(f"{path}: {text}; {remedy}") from error
        if isinstance(error, sqlite3.OperationalError):
            raise StoreError(f"{path}: {text}") from error
        raise
    except UnicodeDecodeError as error:  # SQLite's own message quotes damaged text
        raise StoreCorruptError(f"{path}: damaged text; open it again: it is set aside") from error


_ERRORS: tuple[tuple[str, type[StoreError], str], ...] = (
    ("locked", StoreBusyError, "another process keeps it locked; try again when it is done"),
    ("full", StoreFullError, "nothing was written; free some space and try again"),
    ("malformed", StoreCorruptError, "open it again: it is set aside and what can be is saved"),
    ("not a database", StoreCorruptError, "open it again: it is set aside"),
    ("unable to open", StoreError, "does its directory exist, and may you write there?"),
    ("readonly", StoreError, "tide needs to write to it and to its directory"),
)
