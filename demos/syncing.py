"""Keeping a demo's store synced: with the server there is, or with one of its own."""

from __future__ import annotations

import asyncio

from demos.server import EmbeddedServer
from tide import OfflineError, SyncLoop, Tide

__all__ = ["Syncing"]

INTERVAL = 1.0  # seconds between two questions for news: a person watches
LOOK = 0.25  # seconds between two looks at whether the server is still there


class Syncing:
    """Syncs in the background, from `run` on until that is cancelled.

    Args:
        tide: the open store.
        server: the server to start whenever none answers; without it, none is ever started.
    """

    def __init__(self, tide: Tide, server: EmbeddedServer | None = None) -> None:
        self._tide = tide
        self._server = server
        self._loop: SyncLoop | None = None

    async def run(self) -> None:
        """Sync; when nobody serves any more, be the one that does."""
        if self._server is not None:
            self._server.start()
        try:
            while True:
                async with self._tide.sync_forever(INTERVAL) as self._loop:
                    await self._take_over(self._loop)
        finally:
            self._loop = None

    async def _take_over(self, loop: SyncLoop) -> None:
        """Return when nobody served any more and this one has started to."""
        while not self._took_over(loop):  # noqa: ASYNC110 - nothing tells of it: so look
            await asyncio.sleep(LOOK)

    def _took_over(self, loop: SyncLoop) -> bool:
        gone = isinstance(loop.error, OfflineError)
        return gone and self._server is not None and self._server.start()

    @property
    def active(self) -> bool:
        """Whether it syncs, or tries to."""
        return self._loop is not None

    @property
    def online(self) -> bool:
        """Whether the server answered the last time."""
        return self._loop is not None and self._loop.online

    @property
    def error(self) -> Exception | None:
        """Why it is not online; None if it is, or has not tried yet."""
        return None if self._loop is None else self._loop.error
