"""Keeping a live stream open, and collecting its pages for whoever applies them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from tide.errors import ProtocolError, SyncError
from tide.ids import jitter
from tide.protocol import Event, Response, parse_page

__all__ = ["Listening"]

logger = logging.getLogger("tide")

FIRST = 5.0
"""Seconds for the first event: what holds it back for longer holds back all, such as a proxy."""

NOT_OFFERED = 300.0
"""Seconds at most between two tries while the server offers no stream."""

AGAIN = 2.0
"""Seconds at most until the first new try after a stream ended; then they double."""

MAX_PAGES = 16
"""How many pages wait to be applied; of more, the newest, and then the node has to pull."""


class Listening:
    """Listens to the server while it is worth it; made by `SyncLoop`.

    Nothing is applied here. What comes is only ever a hint: pages can be lost, doubled, late or
    forged, and the worst that they can do is to make the node pull.

    Args:
        listen: opens the stream.
        news: is called when there is something to take, and when the stream has ended.

    Attributes:
        live: whether the stream is open and lets events through.
    """

    def __init__(
        self, listen: Callable[[], AsyncGenerator[Event, None]], news: Callable[[], None]
    ) -> None:
        self.live = False
        self._listen = listen
        self._news = news
        self._pages: deque[Response] = deque(maxlen=MAX_PAGES)
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, from some moment within the next seconds on. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tide listening")

    async def stop(self) -> None:
        """Listen no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.live = False
        self._pages.clear()

    def take(self) -> list[Response]:
        """The pages that came since the last time."""
        pages = list(self._pages)
        self._pages.clear()
        return pages

    async def _run(self) -> None:
        while True:
            # Not all nodes at once, after a server was away.
            await asyncio.sleep(jitter(0.0, AGAIN * 2.0 ** min(self._failures, 5)))
            offered = True
            try:
                offered = await self._hear()
            except SyncError as error:
                logger.info("the live stream broke: %s", error)
            was_live, self.live = self.live, False
            self._failures = 0 if was_live else self._failures + 1
            if was_live:
                await asyncio.sleep(jitter(0.0, AGAIN / 2))  # nor do all ask at once
                self._news()
            elif not offered:
                await asyncio.sleep(jitter(NOT_OFFERED / 2, NOT_OFFERED))

    async def _hear(self) -> bool:
        """Collect pages until the stream ends; whether it ever let anything through."""
        async with contextlib.aclosing(self._listen()) as events:
            while event := await self._next(events):
                self.live = True
                if event.name == "bye":
                    return True
                if event.name == "changes":
                    self._pages.append(_page(event))
                    self._news()
        return self.live

    async def _next(self, events: AsyncIterator[Event]) -> Event | None:
        """The next event; None at the end, or if the first one does not come."""
        following = asyncio.ensure_future(anext(events, None))
        try:
            done, _ = await asyncio.wait([following], timeout=None if self.live else FIRST)
        finally:
            if not following.done():
                following.cancel()
                await asyncio.wait([following])
        return following.result() if done else None


def _page(event: Event) -> Response:
    page = parse_page(event.data)
    if page.since is None:
        raise ProtocolError("a page of the live stream does not say where it starts")
    return page
