"""Who may use an open store: this process, this event loop, while it is open.

Not a process that was forked meanwhile, not even with a store of its own. SQLite remembers in
memory which locks the process holds, and a fork copies that memory, but not the locks: the child
would write into a log that the parent, on closing, takes for unused and removes.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from pathlib import Path

from tide.errors import ForkedError, NotOpenError, WrongLoopError
from tide.store import Store

__all__ = ["Session"]


class Session:
    """The open store behind a `Tide` and its collections, or the reason why there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a store to use."""
        return self._store is not None

    def check(self) -> None:
        """Refuse to open a file that was open when this process was forked.

        Raises:
            ForkedError: it was.
        """
        if _inherited and self._path.exists() and _identity(self._path) in _inherited:
            raise self._forked()

    def begin(self, store: Store) -> None:
        """From now on, *store* is used here: in this process and the running event loop."""
        _open[store] = _identity(self._path)
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    def end(self) -> Store | None:
        """From now on, no store is used; the one that was, if any, to be closed.

        Raises:
            ForkedError: it was opened before this process was forked.
            WrongLoopError: it was opened in another event loop, which can still close it.
        """
        if self._store is not None:
            self._check_process()
            if self._loop is not None and not self._loop.is_closed():
                self._check_loop()
        store, self._store = self._store, None
        return store

    def ended(self, store: Store) -> None:
        """*store* is closed."""
        _open.pop(store, None)

    def use(self) -> Store:
        """The open store.

        Raises:
            NotOpenError: there is none.
            ForkedError: it was opened before this process was forked.
            WrongLoopError: it was opened in another event loop.
        """
        if self._store is None:
            raise NotOpenError(
                f"{self._path} is not open; use `async with Tide(...) as tide:`, "
                "or `await tide.open()` and `await tide.close()`"
            )
        self._check_process()
        self._check_loop()
        return self._store

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise self._forked()

    def _check_loop(self) -> None:
        if _running_loop() is not self._loop:
            raise WrongLoopError(
                f"{self._path} was opened in another event loop; open a Tide of its own here"
            )

    def _forked(self) -> ForkedError:
        return ForkedError(
            f"{self._path} was open when this process was forked, and SQLite files must not cross "
            "a fork; close it before forking, or start processes by spawn"
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


_open: weakref.WeakKeyDictionary[Store, tuple[int, int]] = weakref.WeakKeyDictionary()
"""The files that this process has open."""
_inherited: set[tuple[int, int]] = set()
"""The files that were open when this process was forked."""

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: _inherited.update(_open.values()))
