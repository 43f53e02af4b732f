"""Who may use an open store: this process, this event loop, while it is open."""

from __future__ import annotations

import asyncio
import os

from tide.errors import ForkedError, NotOpenError, WrongLoopError
from tide.store import Store

__all__ = ["Session"]


class Session:
    """The open store behind a `Tide` and its collections, or the reason why there is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a store to use."""
        return self._store is not None

    def begin(self, store: Store) -> None:
        """From now on, *store* is used here: in this process and the running event loop."""
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    def end(self) -> Store | None:
        """From now on, no store is used; the one that was, if any."""
        store, self._store = self._store, None
        return store

    def use(self) -> Store:
        """The open store.

        Raises:
            NotOpenError: there is none.
            ForkedError: it was opened before this process forked.
            WrongLoopError: it was opened in another event loop.
        """
        if self._store is None:
            raise NotOpenError(
                f"{self._path} is not open; use `async with Tide(...) as tide:`, "
                "or `await tide.open()` and `await tide.close()`"
            )
        if os.getpid() != self._pid:
            raise ForkedError(
                f"{self._path} was opened before this process forked; open a Tide of its own here"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(
                f"{self._path} was opened in another event loop; open a Tide of its own here"
            )
        return self._store
