"""The in-process twin of HTTP: an exchange is a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from tide.transports.base import Answer, Transport

__all__ = ["MemoryTransport"]


class MemoryTransport(Transport):
    """Hands each exchange to *handle*, which answers as a server would.

    >>> transport = MemoryTransport(server.exchange)  # of `tide.testing.memory_server`
    """

    def __init__(self, handle: Callable[[bytes, Mapping[str, str]], Awaitable[Answer]]) -> None:
        self._handle = handle

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.exchange`."""
        return await self._handle(body, headers)
