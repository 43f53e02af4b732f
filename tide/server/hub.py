"""Fan-out of a space's changes to its live streams, each page encoded once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from tide.errors import TideError
from tide.protocol import Response, encode_event

__all__ = ["Hub", "Listener"]

logger = logging.getLogger("tide.server")

LOOK = 0.5
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
        self._frame = frame
        self.rouse()

    def end(self) -> None:
        """Send a last word, and no more."""
        self.ended = True
        self.offer(BYE)

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
        self._closed = False

    async def join(self, space: str) -> Listener:
        """A new live stream of *space*; its first frame tells where the space stands.

        Raises:
            StoreError: the database failed.
        """
        channel = self._channels.get(space)
        if channel is None:
            channel = self._channels[space] = _Channel(space, self._read, self._is_ending)
        listener = await channel.join()
        if self._closed:
            listener.end()
        return listener

    def leave(self, space: str, listener: Listener) -> None:
        """The stream is over."""
        channel = self._channels.get(space)
        if channel is not None and channel.leave(listener):
            del self._channels[space]

    def poke(self, space: str) -> None:
        """Something was accepted in *space*."""
        if channel := self._channels.get(space):
            channel.poke.set()

    def _is_ending(self) -> bool:
        return self.ending()

    def close(self) -> None:
        """End all streams, those to come too. Idempotent."""
        self._closed = True
        for channel in self._channels.values():
            channel.end()


class _Channel:
    """The live streams of one space."""

    def __init__(self, space: str, read: Read, ending: Callable[[], bool]) -> None:
        self.poke = asyncio.Event()
        self._space = space
        self._read = read
        self._ending = ending
        self._listeners: set[Listener] = set()
        self._joining = 0
        self._opening = asyncio.Lock()
        self._cursor: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> Listener:
        self._joining += 1
        try:
            async with self._opening:
                if self._cursor is None:
                    self._cursor = (await self._read(self._space, None)).cursor
        finally:
            self._joining -= 1
        listener = Listener(_frame(Response(self._cursor, (), since=self._cursor)))
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"tide live {self._space}")
        return listener

    def leave(self, listener: Listener) -> bool:
        """Whether *listener* was the last one."""
        self._listeners.discard(listener)
        if self._listeners or self._joining:
            return False
        if self._task is not None:
            self._task.cancel()
        return True

    def end(self) -> None:
        for listener in self._listeners:
            listener.end()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.poke.wait(), LOOK)
            self.poke.clear()
            if self._ending():
                self.end()
            try:
                page = await self._read(self._space, self._cursor)
            except TideError:
                logger.exception("the live streams can't read the database; they try again")
                continue
            if page.cursor != self._cursor:
                self._cursor = page.cursor
                frame = _frame(page)
                for listener in self._listeners:
                    listener.offer(frame)


def _frame(page: Response) -> bytes:
    return encode_event("changes", page.encode())
