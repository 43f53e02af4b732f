"""The transport in memory keeps the contract of transports."""

from __future__ import annotations

from contextlib import asynccontextmanager

from tests.contracts.transport import HungUpError, TransportContract
from tide import OfflineError
from tide.transports.memory import MemoryTransport


class TestMemoryTransport(TransportContract):
    @asynccontextmanager
    async def reaching(self, handle):
        async def exchange(body, headers):
            try:
                return await handle(body, headers)
            except HungUpError:
                raise OfflineError("the peer hung up") from None

        yield MemoryTransport(exchange)

    def reaching_nobody(self):
        async def exchange(body, headers):
            raise OfflineError("nobody is there")

        return MemoryTransport(exchange)
