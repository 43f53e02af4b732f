"""Stores that are open for as long as the app runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tide import Collection, SyncLoop, Tide
from tide_integrations._framework import needs

with needs("nicegui"):
    from nicegui import app, background_tasks

__all__ = ["at_start", "before_closing", "connect", "opened"]

_kept: dict[Path, _Kept] = {}
before_closing: list[Callable[[], Awaitable[None]]] = []
"""What is awaited before a store is closed."""


def connect(
    db_path: str | os.PathLike[str],
    endpoint: str | None = None,
    *,
    sync: bool = True,
    **options: Any,
) -> Tide:
    """A `Tide` that is opened when the app starts, synced, and closed when it shuts down.

    A second call with the same file gives the same one, so that a script, which NiceGUI runs again
    for each visitor, has one store.

    Args:
        db_path: the store's file.
        endpoint: the server's URL; without it, and without *transport*, the store is local.
        sync: whether to sync it; if not, see to that yourself.
        options: of `Tide`.
    """
    path = Path(db_path).resolve()
    if path not in _kept:
        tide = Tide(path, endpoint, **options)
        syncs = sync and (endpoint is not None or "transport" in options)
        _kept[path] = _Kept(tide, sync=syncs)
    at_start(_kept[path].start)
    return _kept[path].tide


def at_start(start: Callable[[], object]) -> None:
    """Call *start* when the app starts, or now if it runs."""
    if app.is_started:
        start()
    else:
        app.on_startup(start)


async def opened(source: Tide | Collection) -> None:
    """Wait until a store, or that of a collection, is open, if `connect` made it."""
    for kept in _kept.values():
        if kept.tide._session is source._session:  # noqa: SLF001 - it has no other name
            await kept.start()


class _Kept:
    """A store, its opening, and its syncing."""

    def __init__(self, tide: Tide, *, sync: bool) -> None:
        self.tide = tide
        self._sync = sync
        self._opening: asyncio.Task[Any] | None = None
        self._loop: SyncLoop | None = None

    def start(self) -> Awaitable[None]:
        """Open it, unless that has begun; gives what to wait for."""
        if self._opening is None:
            app.on_shutdown(self.stop)
            self._opening = background_tasks.create(self._open(), name="tide opens")
        return asyncio.shield(self._opening)

    async def _open(self) -> None:
        await self.tide.open()
        if self._sync:
            self._loop = self.tide.sync_forever()
            await self._loop.__aenter__()  # closing the store ends it

    async def stop(self) -> None:
        """Write what waits to be written, and close it."""
        if self._opening is not None:
            for finish in before_closing:
                await finish()
            self._opening = self._loop = None
            await self.tide.close()
