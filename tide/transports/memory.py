"""The in-process twin of HTTP: an exchange is a call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from tide.transports.base import Answer, Event, Transport

__all__ = ["MemoryTransport"]


class MemoryTransport(Transport):
    """Hands each exchange to *handle*, which answers as a server would.

    >>> transport = MemoryTransport(server.exchange)  # of `tide.testing.memory_server`
    """

    def __init__(
        self,
        handle: Callable[[bytes, Mapping[str, str]], Awaitable[Answer]],
        listen: Callable[[], AsyncGenerator[Event, None]] | None = None,
    ) -> None:
        self._handle = handle
        self._listen = listen

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.exchange`."""
        return await self._handle(body, headers)

    async def listen(self, cursor: str, headers: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """See `Transport.listen`."""
        events = super().listen(cursor, headers) if self._listen is None else self._listen()
        async with contextlib.aclosing(events):
            async for event in events:
                yield event
