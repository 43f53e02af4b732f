"""Fan-out of a space's changes to its live streams, each page encoded once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from tide.protocol import Response, encode_event

__all__ = ["Hub", "Listener"]

logger = logging.getLogger("tide.server")

LOOK, MAX_LOOK = 0.5, 5.0
"""Seconds between two looks at whether another process that serves the file accepted something."""

BYE = encode_event("bye", b"{}")

Read = Callable[[str, str | None], Awaitable[Response]]
"""The page of a space after a cursor, None for none yet; its *since* tells where it starts."""


class Listener:
    """One live stream: the next frame to send, never more than one.

    Who is too slow for the pages gets only the newest. It does not start where that node stands,
    so the node pulls: nothing is lost, and a stream needs no memory for what it missed.
    """

    def __init__(self, frame: bytes) -> None:
        self.ended = False
        self._frame: bytes | None = frame
        self._wake: asyncio.Future[None] | None = None

    async def next(self, patience: float) -> bytes | None:
        """The next frame to send; None if none came within *patience* seconds, or it ended."""
        if self._frame is None and not self.ended:
            self._wake = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._wake], timeout=patience)
            self._wake = None
        frame, self._frame = self._frame, None
        return frame

    def offer(self, frame: bytes) -> None:
        """Send *frame* next, instead of one that still waits."""
        if not self.ended:
            self._frame = frame
            self.rouse()

    def end(self) -> None:
        """Send a last word, and no more. Idempotent."""
        self.offer(BYE)
        self.ended = True

    def rouse(self) -> None:
        """Let `next` return."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Hub:
    """The live streams of all spaces.

    Args:
        read: reads a page.

    Attributes:
        ending: tells whether the server was asked to stop, so that no stream keeps it; may be set.
    """

    def __init__(self, read: Read) -> None:
        self.ending: Callable[[], bool] = lambda: False
        self._read = read
        self._channels: dict[str, _Channel] = {}

    async def join(self, space: str) -> Listener:
        """A new live stream of *space*; its first frame tells where the space stands.

        Raises:
            StoreError: the database failed.
        """
        channel = self._channels.get(space)
        if channel is None:
            channel = self._channels[space] = _Channel(self, space)
        try:
            return await channel.join()
        finally:
            self._drop_if_idle(space)

    def leave(self, space: str, listener: Listener) -> None:
        """The stream is over."""
        if channel := self._channels.get(space):
            channel.listeners.discard(listener)
            self._drop_if_idle(space)

    def poke(self, space: str) -> None:
        """Something was accepted in *space*."""
        if channel := self._channels.get(space):
            channel.poked.set()

    async def page(self, space: str, cursor: str | None) -> Response:
        """The page of *space* after *cursor*."""
        return await self._read(space, cursor)

    def rest(self) -> float:
        """Seconds until a channel looks again: longer if there are many, so that looks stay few."""
        return min(MAX_LOOK, LOOK * max(1.0, len(self._channels) / 100))

    async def aclose(self) -> None:
        """End all streams. Idempotent."""
        channels = list(self._channels.values())
        self._channels.clear()
        tasks = [task for channel in channels if (task := channel.close())]
        if tasks:
            await asyncio.wait(tasks)

    def _drop_if_idle(self, space: str) -> None:
        channel = self._channels.get(space)
        if channel is not None and channel.is_idle:
            channel.close()
            del self._channels[space]


class _Channel:
    """The live streams of one space."""

    def __init__(self, hub: Hub, space: str) -> None:
        self.poked = asyncio.Event()
        self.listeners: set[Listener] = set()
        self._hub = hub
        self._space = space
        self._joining = 0
        self._opening = asyncio.Lock()
        self._cursor: str | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return not (self.listeners or self._joining)

    async def join(self) -> Listener:
        self._joining += 1
        try:
            async with self._opening:
                if self._cursor is None:
                    self._cursor = (await self._hub.page(self._space, None)).cursor
        finally:
            self._joining -= 1
        listener = Listener(_frame(Response(self._cursor, (), since=self._cursor)))
        self.listeners.add(listener)
        if self._closed:
            listener.end()
        elif self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"tide live {self._space}")
        return listener

    def close(self) -> asyncio.Task[None] | None:
        """End all streams, and look no more; what is left to wait for."""
        self._closed = True
        self._end_streams()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def _end_streams(self) -> None:
        for listener in self.listeners:
            listener.end()

    async def _run(self) -> None:
        while not self._closed:  # the cancellation can be lost on the way
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.poked.wait(), self._hub.rest())
            self.poked.clear()
            if self._hub.ending():
                self._end_streams()
            try:
                page = await self._hub.page(self._space, self._cursor)
            except Exception:
                logger.exception("the live streams can't read the database; they try again")
                await asyncio.sleep(LOOK)
                continue
            if page.cursor != self._cursor:
                self._cursor = page.cursor
                frame = _frame(page)
                for listener in self.listeners:
                    listener.offer(frame)


def _frame(page: Response) -> bytes:
    return encode_event("changes", page.encode())
