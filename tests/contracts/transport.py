"""What every transport must do, yours too.

To run it on a transport, say how to reach a peer with it, in a test file of your own::

    class TestMyTransport(TransportContract):
        @asynccontextmanager
        async def reaching(self, handle):
            async with my_server(handle) as address:
                yield MyTransport(address)

        def reaching_nobody(self):
            return MyTransport("an address where nobody listens")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from tide import Answer, OfflineError, Tide, Transport
from tide.testing import memory_server

__all__ = ["Handle", "HungUpError", "TransportContract"]

Handle = Callable[[bytes, Mapping[str, str]], Awaitable[Answer]]
"""What the peer does with a request's body and headers."""

PATIENCE = 30.0  # seconds within which whatever ends has ended
JSON = {"content-type": "application/json"}


class HungUpError(Exception):
    """Raised by a `Handle`: the peer goes away without an answer."""


async def echo(body: bytes, headers: Mapping[str, str]) -> Answer:
    return Answer(200, body, JSON)


class TransportContract:
    """Subclass it, as the module says, to run its tests on a transport."""

    def reaching(self, handle: Handle) -> AbstractAsyncContextManager[Transport]:
        """A transport to a peer that answers as *handle* says, to be closed by the test.

        The answers' header names may change their case on the way, and more may be added.
        """
        raise NotImplementedError

    def reaching_nobody(self) -> Transport:
        """A transport to where nobody answers, and which notices that at once."""
        raise NotImplementedError

    @asynccontextmanager
    async def connected(self, handle: Handle) -> AsyncIterator[Transport]:
        """`reaching`, closed, and within a bounded time."""
        with anyio.fail_after(PATIENCE):
            async with self.reaching(handle) as transport:
                try:
                    yield transport
                finally:
                    await transport.aclose()

    async def test_the_body_arrives_byte_for_byte(self):
        body = '{"text":"☕ \\n","more":["\u2028", 1.0, 1e400]} '.encode() + bytes(range(256))
        received = []

        async def handle(body, headers):
            received.append(body)
            return Answer(200, b"{}", JSON)

        async with self.connected(handle) as transport:
            await transport.exchange(body, {})
        assert received == [body]

    async def test_the_headers_arrive(self):
        received = []

        async def handle(body, headers):
            received.append({name.lower(): value for name, value in headers.items()})
            return Answer(200, b"{}", JSON)

        async with self.connected(handle) as transport:
            await transport.exchange(b"{}", {"Authorization": "Bearer s3cret", "x-app": "a, b"})
        (headers,) = received
        assert headers["authorization"] == "Bearer s3cret"
        assert headers["x-app"] == "a, b"

    async def test_the_answer_arrives_byte_for_byte_with_its_headers_by_lower_case_name(self):
        body = '{"text":"☕ \\n"} '.encode() + bytes(range(256))

        async def handle(_body, headers):
            return Answer(200, body, {**JSON, "retry-after": "7"})

        async with self.connected(handle) as transport:
            answer = await transport.exchange(b"{}", {})
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["retry-after"] == "7"

    @pytest.mark.parametrize(
        "status", [200, 302, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503, 599]
    )
    async def test_whatever_the_status_is_it_is_an_answer(self, status):
        async def handle(body, headers):
            return Answer(status, b"<html>", {"content-type": "text/html"})

        async with self.connected(handle) as transport:
            answer = await transport.exchange(b"{}", {})
        assert (answer.status, answer.body) == (status, b"<html>")

    async def test_an_answer_may_be_empty(self):
        async def handle(body, headers):
            return Answer(503, b"", {})

        async with self.connected(handle) as transport:
            answer = await transport.exchange(b"{}", {})
        assert (answer.status, answer.body) == (503, b"")

    async def test_bodies_as_large_as_the_protocol_allows_pass_both_ways(self):
        body = b'"' + b"0123456789abcdef" * (8 << 16) + b'"'  # 8 MiB
        async with self.connected(echo) as transport:
            assert (await transport.exchange(body, {})).body == body

    async def test_exchanges_at_once_get_each_its_own_answer(self):
        async with self.connected(echo) as transport:
            answers = await asyncio.gather(
                *(transport.exchange(b"%d" % number, {}) for number in range(20))
            )
        assert [answer.body for answer in answers] == [b"%d" % number for number in range(20)]

    async def test_f41_a_redirect_is_an_answer_and_is_not_followed(self):
        calls = []

        async def handle(body, headers):
            calls.append(body)
            return Answer(307, b"", {"location": "/elsewhere"})

        async with self.connected(handle) as transport:
            answer = await transport.exchange(b"{}", {})
        assert (answer.status, answer.headers["location"]) == (307, "/elsewhere")
        assert len(calls) == 1

    async def test_a_peer_that_hangs_up_is_offline_and_may_come_back(self):
        away = True

        async def handle(body, headers):
            if away:
                raise HungUpError
            return await echo(body, headers)

        async with self.connected(handle) as transport:
            with pytest.raises(OfflineError):
                await transport.exchange(b"1", {})
            away = False
            assert (await transport.exchange(b"2", {})).body == b"2"

    async def test_nobody_there_is_offline(self):
        transport = self.reaching_nobody()
        with anyio.fail_after(PATIENCE), pytest.raises(OfflineError):
            await transport.exchange(b"{}", {})
        await transport.aclose()

    async def test_f60_an_exchange_can_be_cancelled_and_the_next_one_works(self):
        asked = asyncio.Event()

        async def handle(body, headers):
            if body == b"1":
                asked.set()
                await asyncio.Event().wait()
            return await echo(body, headers)

        async with self.connected(handle) as transport:
            exchange = asyncio.create_task(transport.exchange(b"1", {}))
            await asked.wait()
            exchange.cancel()
            with pytest.raises(asyncio.CancelledError):
                await exchange
            assert (await transport.exchange(b"2", {})).body == b"2"

    async def test_it_closes_without_ever_having_been_used(self):
        async with self.connected(echo):
            pass

    async def test_a_tide_that_is_opened_again_can_use_it_again(self, tmp_path):
        async with (
            memory_server(tmp_path / "server.db") as server,
            self.connected(server.transport().exchange) as transport,
        ):
            tide = Tide(tmp_path / "app.db", transport=transport)
            for number in range(2):
                async with tide:
                    await tide.collection("todos").put(str(number), {"text": "bread"})
                    assert (await tide.sync_once()).pushed == 1

    async def test_two_nodes_converge_through_it(self, tmp_path):
        async with (
            memory_server(tmp_path / "server.db") as server,
            self.connected(server.transport().exchange) as to_alice,
            self.connected(server.transport().exchange) as to_bob,
            Tide(tmp_path / "alice.db", transport=to_alice) as alice,
            Tide(tmp_path / "bob.db", transport=to_bob) as bob,
        ):
            await alice.collection("todos").put("1", {"text": "bread ☕"})
            await bob.collection("todos").put("2", {"text": "milk"})
            for tide in (alice, bob, alice):
                await tide.sync_once()
            expected = {"1": {"text": "bread ☕"}, "2": {"text": "milk"}}
            assert await alice.collection("todos").all() == expected
            assert await bob.collection("todos").all() == expected
