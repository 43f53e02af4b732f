"""Keeping a live stream open, and collecting its pages for whoever applies them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable

from tide.errors import ProtocolError, SyncError
from tide.ids import jitter
from tide.protocol import HEARTBEAT, Event, Response, parse_page
from tide.sending import within

__all__ = ["Listening"]

logger = logging.getLogger("tide")

FIRST = 10.0
"""Seconds for the first event: what holds it back for longer holds back all, such as a proxy."""

SILENCE = 2 * HEARTBEAT
"""Seconds without a sign of life after which the stream counts as broken."""

LASTED = HEARTBEAT
"""Seconds that a stream lives at least, if it is worth to be opened again at once."""

AGAIN, MAX_AGAIN = 2.0, 300.0
"""Seconds at most until the first try, and what that doubles to while none is any good."""

MAX_PAGES = 16
"""How many pages wait to be applied; of more, the newest, and then the node has to pull."""


class Listening:
    """Listens to the server while it is worth it; made by `SyncLoop`.

    Nothing is applied here. What comes is only ever a hint: pages can be lost, doubled, late or
    forged, and the worst that they can do is to make the node pull.

    Args:
        listen: opens the stream.
        news: is called when there is something to take, and when the stream is gone for longer.

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
        self._least = 0.0  # seconds that the server asked to be left alone
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, from some moment within the next seconds on. Idempotent."""
        if self._task is None:
            self._failures, self._least = 0, 0.0
            self._task = asyncio.create_task(self._run(), name="tide listening")

    async def stop(self) -> None:
        """Listen no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        self.live = False
        self._pages.clear()

    def take(self) -> list[Response]:
        """The pages that came since the last time."""
        pages = list(self._pages)
        self._pages.clear()
        return pages

    async def _run(self) -> None:
        live = False
        while self._task is asyncio.current_task():  # a cancellation can be lost on the way
            # Not all nodes at once, after a server was away.
            longest = min(MAX_AGAIN, AGAIN * 2.0 ** min(self._failures, 10))
            await asyncio.sleep(max(self._least, jitter(0.0, longest)))
            was_live, live = live, await self._attempt()
            if was_live and not live:
                self._news()  # from now on, news have to be asked for

    async def _attempt(self) -> bool:
        """Collect pages until the stream ends; whether it let anything through."""
        now = asyncio.get_running_loop().time
        began, self._least = now(), 0.0
        try:
            await self._hear()
        except SyncError as error:
            logger.info("no live stream: %s", error)
            self._least = error.retry_after * jitter(1.0, 1.25)
        except Exception as error:  # noqa: BLE001 - without it, nodes ask; so it is tried again
            logger.warning("the live stream failed in a way that tide does not know: %r", error)
        was_live, self.live = self.live, False
        lasted = was_live and now() - began >= LASTED
        self._failures = 0 if lasted else self._failures + 1
        return was_live

    async def _hear(self) -> None:
        async with contextlib.aclosing(self._listen()) as events:
            while event := await within(SILENCE if self.live else FIRST, anext(events, None)):
                self.live = True
                if event.name == "bye":
                    return
                if event.name == "changes":
                    self._pages.append(_page(event))
                    self._news()


def _page(event: Event) -> Response:
    page = parse_page(event.data)
    if page.since is None:
        raise ProtocolError("a page of the live stream does not say where it starts")
    return page
