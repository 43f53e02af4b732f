"""The HTTP transport against servers that behave, and servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import socket
import tracemalloc
import zlib
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tide.transports.http as module
from tests.contracts.transport import HungUpError, TransportContract
from tests.raw_http import Framing, always, html, raw_server, wire
from tests.support import free_port, until
from tide import Answer, EndpointError, OfflineError, ProtocolError, SyncError, Tide
from tide.transports.http import MAX_INFLATED, MAX_WIRE, HttpTransport

JSON = {"content-type": "application/json"}
GZIP = {**JSON, "content-encoding": "gzip"}
MIB = 1 << 20


@asynccontextmanager
async def connected(respond):
    """A transport to a raw server, and that server; nothing in it may hang."""
    with anyio.fail_after(30):
        async with raw_server(respond) as server:
            transport = HttpTransport(server.endpoint)
            try:
                yield transport, server
            finally:
                await transport.aclose()


async def answer_to(respond):
    async with connected(respond) as (transport, _):
        return await transport.exchange(b"{}", {})


async def error_of(respond):
    with pytest.raises(SyncError) as caught:
        await answer_to(respond)
    return caught.value


class TestHttpTransport(TransportContract):
    framing: Framing = "length"

    @asynccontextmanager
    async def reaching(self, handle):
        async def respond(sent, writer):
            try:
                answer = await handle(sent.body, sent.headers)
            except HungUpError:
                writer.close()
                return
            writer.write(wire(self.encoded(answer), self.framing))
            if self.framing == "close":
                writer.close()

        async with raw_server(respond) as server:
            yield HttpTransport(server.endpoint)

    def reaching_nobody(self):
        return HttpTransport(f"http://127.0.0.1:{free_port()}/sync")

    def encoded(self, answer):
        return answer


class TestHttpTransportChunked(TestHttpTransport):
    framing = "chunked"


class TestHttpTransportOneRequestPerConnection(TestHttpTransport):
    framing = "close"


class TestHttpTransportGzipped(TestHttpTransport):
    def encoded(self, answer):
        headers = {**answer.headers, "content-encoding": "gzip"}
        return Answer(answer.status, gzip.compress(answer.body, compresslevel=1), headers)


# What it asks


async def test_one_connection_is_kept_and_used_again():
    async with connected(always(wire(Answer(200, b"{}", JSON)))) as (transport, server):
        for _ in range(5):
            await transport.exchange(b"{}", {})
    assert (len(server.requests), server.connections) == (5, 1)


async def test_closing_lets_go_of_every_connection():
    async with connected(always(wire(Answer(200, b"{}", JSON)))) as (transport, server):
        await asyncio.gather(*(transport.exchange(b"{}", {}) for _ in range(3)))
        assert server.open >= 1
        await transport.aclose()
        await until(lambda: server.open == 0)


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced():
    async def respond(sent, writer):
        writer.write(wire(Answer(200, b"{}", JSON)))  # promises to keep it open, and does not
        writer.close()

    async with connected(respond) as (transport, server):
        for _ in range(3):
            assert (await transport.exchange(b"{}", {})).status == 200
            await until(lambda: server.open == 0)
    assert server.connections == 3


async def test_an_exchange_does_not_wait_for_another_one():
    second = asyncio.Event()

    async def respond(sent, writer):
        if sent.body == b"1":
            await second.wait()
        writer.write(wire(Answer(200, sent.body, JSON)))

    async with connected(respond) as (transport, _):
        first = asyncio.create_task(transport.exchange(b"1", {}))
        assert (await transport.exchange(b"2", {})).body == b"2"
        second.set()
        assert (await first).body == b"1"


async def test_it_posts_json_whatever_the_headers_say():
    headers = {"Content-Type": "text/plain", "CONTENT-LENGTH": "7", "Accept-Encoding": "br"}
    async with connected(always(wire(Answer(200, b"{}", JSON)))) as (transport, server):
        await transport.exchange(b'{"a":1}', {**headers, "X-App": "mine"})
        await transport.exchange(b"{}", headers)
    for sent, body in zip(server.requests, [b'{"a":1}', b"{}"], strict=True):
        assert sent.first_line == "POST /sync HTTP/1.1"
        assert sent.body == body
        assert sent.headers["content-type"] == "application/json"
        assert sent.headers["accept-encoding"] == "identity"
    assert server.requests[0].headers["x-app"] == "mine"


async def test_answers_are_compressed_on_a_network_and_not_on_this_machine(monkeypatch):
    """The network is a proxy here: it gets what is for another host."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    body = b'{"a":"' + b"x" * 1000 + b'"}'

    async def respond(sent, writer):
        zipped = sent.headers["accept-encoding"] == "gzip"
        answer = Answer(200, gzip.compress(body), GZIP) if zipped else Answer(200, body, JSON)
        writer.write(wire(answer))

    async with raw_server(respond) as server:
        monkeypatch.setenv("http_proxy", server.endpoint.removesuffix("/sync"))
        far = HttpTransport("http://tide.example/sync")
        assert (await far.exchange(b"{}", {})).body == body
        await far.aclose()
        monkeypatch.delenv("http_proxy")
        near = HttpTransport(server.endpoint)
        assert (await near.exchange(b"{}", {})).body == body
        await near.aclose()
    assert [sent.headers["accept-encoding"] for sent in server.requests] == ["gzip", "identity"]
    assert server.requests[0].first_line == "POST http://tide.example/sync HTTP/1.1"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_has_several_names(host):
    assert HttpTransport(f"http://{host}:8000/sync")._encodings == "identity"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer s3cret\n"},
        {"Authorization": "Bearer s3cret\r\nx: y"},
        {"Authorization": " s3cret"},
        {"Authorization": "Bearer s3cret ☕"},
        {"Authorization s3cret": "x"},
        {"": "s3cret"},
        {"☕ s3cret": "x"},
    ],
)
async def test_f41_headers_that_http_cant_carry_are_told_without_being_shown(
    headers, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG, logger="tide")
    async with (
        raw_server(always(wire(html(500)))) as server,
        Tide(tmp_path / "app.db", server.endpoint, headers=headers) as node,
    ):
        with pytest.raises(SyncError, match="headers=") as caught:
            await node.sync_once()
        async with node.sync_forever() as syncing:
            await until(lambda: syncing.error)
    assert not isinstance(caught.value, OfflineError)  # trying again can't help
    assert caught.value.__cause__ is None
    assert "syncing failed" in caplog.text
    assert "s3cret" not in f"{caught.value}{syncing.error}{caplog.text}"
    assert server.requests == []


async def test_f41_credentials_in_the_url_are_not_shown():
    port = free_port()
    transport = HttpTransport(f"http://alice:s3cret@127.0.0.1:{port}/sync?token=s3cret")
    with pytest.raises(OfflineError, match=f"http://127.0.0.1:{port}/sync: ") as caught:
        await transport.exchange(b"{}", {})
    assert "s3cret" not in str(caught.value)
    await transport.aclose()


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "sync",
        "/sync",
        "example.com/sync",
        "localhost:8000/sync",
        "ftp://example.com/sync",
        "ws://example.com/sync",
        "file:///sync",
        "http:",
        "http:///sync",
        "http://:80/sync",
        "http://@/sync",
        "//example.com/sync",
        " https://example.com/sync",
        "https://example.com/sync\n",
        "http://[::1/sync",
        "http://[::g]/sync",
        "http://example.com:a/sync",
        "http://example.com:0/sync",
        "http://example.com:-1/sync",
        "http://example.com:65536/sync",
        "http://example..com/sync",
        f"http://{'a' * 64}.com/sync",
        "http://xn--/sync",
        "http://\ud800/sync",
        "http://example.com/\ud800",
        "http://example.com/\0",
        f"http://example.com/{'a' * 70_000}",
        b"http://example.com/sync",
        5,
    ],
    ids=lambda endpoint: ascii(endpoint)[:40],
)
def test_what_is_no_http_url_is_refused(endpoint, tmp_path):
    with pytest.raises(EndpointError):
        HttpTransport(endpoint)
    with pytest.raises(EndpointError):
        Tide(tmp_path / "app.db", endpoint)


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("/sync", "/sync"),
        ("/sync/", "/sync"),
        ("/sync/home/", "/sync/home"),
        ("/sync/?a=/", "/sync?a=/"),
        ("/a%2F", "/a%2F"),
        ("/", "/"),
        ("", "/"),
    ],
)
async def test_a_slash_at_the_end_of_an_endpoint_does_no_harm(endpoint, asked):
    async with raw_server(always(wire(html(500)))) as server:
        origin = server.endpoint.removesuffix("/sync")
        assert origin != server.endpoint
        transport = HttpTransport(origin + endpoint)
        await transport.exchange(b"{}", {})
        await transport.aclose()
    assert [sent.first_line for sent in server.requests] == [f"POST {asked} HTTP/1.1"]


@given(st.text() | st.text().map("http://{}/sync".format) | st.text().map("http://x/{}".format))
def test_any_text_is_an_endpoint_or_an_endpoint_error(endpoint):
    with contextlib.suppress(EndpointError):
        HttpTransport(endpoint)


# Redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_f41_a_redirect_to_another_port_never_sees_the_token(status, tmp_path):
    async with raw_server(always(wire(Answer(200, b"{}", JSON)))) as thief:
        redirect = Answer(status, b"", {"location": thief.endpoint})
        async with raw_server(always(wire(redirect))) as server:
            headers = {"Authorization": "Bearer s3cret"}
            async with Tide(tmp_path / "app.db", server.endpoint, headers=headers) as node:
                await node.collection("todos").put("1", {})
                with pytest.raises(OfflineError, match="redirects"):
                    await node.sync_once()
                assert await node.pending() == 1
    assert len(server.requests) == 1
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
    assert thief.connections == 0


# Servers that hang


async def hang(sent, writer):
    await asyncio.Event().wait()


def hang_after(size):
    async def respond(sent, writer):
        writer.write(wire(Answer(200, b'{"cursor":"1","changes":[]}', JSON))[:size])
        await writer.drain()
        await asyncio.Event().wait()

    return respond


@pytest.mark.parametrize(
    "respond",
    [hang, hang_after(1), hang_after(30), hang_after(-1)],
    ids=["says nothing", "stops in the first line", "stops in the head", "stops in the body"],
)
async def test_f43_a_server_that_hangs_is_offline(respond, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", httpx.Timeout(0.05))
    assert type(await error_of(respond)) is OfflineError


async def test_f43_a_server_that_accepts_nobody_is_offline(monkeypatch):
    """The system takes the connection for it, and takes the request too."""
    monkeypatch.setattr(module, "_TIMEOUT", httpx.Timeout(0.05))
    port = free_port()
    transport = HttpTransport(f"http://127.0.0.1:{port}/sync")
    with (
        socket.create_server(("127.0.0.1", port)),
        anyio.fail_after(30),
        pytest.raises(OfflineError),
    ):
        await transport.exchange(b"{}", {})
    await transport.aclose()


async def test_f43_time_has_a_limit_in_every_phase():
    limits = module._TIMEOUT
    assert (limits.connect, limits.read, limits.write, limits.pool) == (5, 30, 30, 5)
    transport = HttpTransport("http://127.0.0.1/sync")
    assert (await transport._connected()).timeout == limits
    await transport.aclose()


# What is no HTTP


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n{}",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * MIB,
    ],
    ids=lambda response: repr(response)[:40],
)
async def test_what_is_no_http_is_offline(response):
    assert type(await error_of(always(response, close=True))) is OfflineError


async def test_hints_before_the_answer_are_skipped():
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    answer = await answer_to(always(hints + wire(Answer(200, b"{}", JSON))))
    assert (answer.status, answer.body) == (200, b"{}")


async def test_https_to_what_speaks_only_http_is_offline_and_leaves_nothing_open(monkeypatch):
    clients = []

    class Client(httpx.AsyncClient):
        def __init__(self, **options):
            super().__init__(**options)
            clients.append(self)

    monkeypatch.setattr(httpx, "AsyncClient", Client)

    def hang_up(reader, writer):
        writer.write(b"HTTP/1.1 400 Speak HTTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = HttpTransport(f"https://127.0.0.1:{port}/sync")
        errors = await asyncio.gather(
            *(transport.exchange(b"{}", {}) for _ in range(3)), return_exceptions=True
        )
        await transport.aclose()
    assert [type(error) for error in errors] == [OfflineError] * 3
    assert [client.is_closed for client in clients] == [True]


# Bodies without end


def zipped(parts):
    """The gzip of *parts*, made without holding all of them."""
    deflater = zlib.compressobj(level=1, wbits=31)
    return b"".join([*(deflater.compress(part) for part in parts), deflater.flush()])


def zeros():
    return zipped(b"\0" * MIB for _ in range(4 * MAX_INFLATED // MIB))


def spaces():
    """Valid JSON."""
    many = [b" " * MIB] * (4 * MAX_INFLATED // MIB)
    return zipped([b'{"cursor":"1","changes":[]', *many, b"}"])


def just_too_much():
    return zipped([b'"', b"x" * (MAX_INFLATED - 1), b'"'])


@pytest.mark.parametrize("bomb", [zeros, spaces, just_too_much])
async def test_f40_a_gzip_bomb_is_refused_before_it_has_grown(bomb):
    async with connected(always(wire(Answer(200, bomb(), GZIP)))) as (transport, _):
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match="inflates to more than"):
                await transport.exchange(b"{}", {})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < MAX_INFLATED + 16 * MIB


async def test_f40_an_answer_may_just_fit():
    body = b"x" * MAX_INFLATED
    answer = await answer_to(always(wire(Answer(200, zipped([body]), GZIP))))
    assert answer.body == body


async def test_f40_a_bomb_in_a_bomb_stays_packed():
    inner = zipped(b"\0" * MIB for _ in range(4 * MAX_INFLATED // MIB))
    answer = await answer_to(always(wire(Answer(200, zipped([inner]), GZIP))))
    assert answer.body == inner
    twice = {**JSON, "content-encoding": "gzip, gzip"}
    assert type(await error_of(always(wire(Answer(200, zipped([inner]), twice))))) is ProtocolError


@pytest.mark.parametrize("headers", [JSON, GZIP], ids=["plain", "gzip"])
async def test_f40_an_endless_answer_is_not_read_to_its_end(headers):
    """Its end never comes; what was sent tells when the node hung up."""
    size = 0
    noise = zipped([os.urandom(MIB)])[:MIB]  # what can't be compressed grows no bomb

    async def respond(sent, writer):
        nonlocal size
        head, _, _ = wire(Answer(200, b"", headers), "chunked").partition(b"0\r\n")
        writer.write(head)
        deflater = zlib.compressobj(level=0, wbits=31)
        while True:
            chunk = deflater.compress(noise) if headers is GZIP else noise
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            size += len(chunk)
            await writer.drain()

    async with connected(respond) as (transport, _):
        with pytest.raises(ProtocolError, match=f"more than {MAX_WIRE} bytes"):
            await transport.exchange(b"{}", {})
    assert MAX_WIRE < size < 2 * MAX_WIRE


async def test_f40_a_length_is_not_believed():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n"
    error = await error_of(always(head + b"x" * (MAX_WIRE + 1), close=True))
    assert type(error) is ProtocolError


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "x-gzip"])
async def test_f40_a_body_that_is_not_the_gzip_that_it_says_it_is(encoding):
    answer = Answer(200, b'{"cursor":"1","changes":[]}', {**JSON, "content-encoding": encoding})
    assert type(await error_of(always(wire(answer)))) is ProtocolError


async def test_f40_a_gzip_body_with_a_wrong_checksum():
    body = bytearray(gzip.compress(b'{"cursor":"1","changes":[]}'))
    body[-8] ^= 1
    assert type(await error_of(always(wire(Answer(200, bytes(body), GZIP))))) is ProtocolError


@pytest.mark.parametrize(
    "answer",
    [
        Answer(413, b"<html>", {"content-encoding": "br"}),
        Answer(413, b"<html>", {"content-encoding": "gzip"}),
        Answer(413, b"", {"content-encoding": "gzip"}),
        Answer(413, b"x" * (MAX_WIRE + 1), {}),
    ],
    ids=["unknown encoding", "not gzip", "empty", "too long"],
)
async def test_f37_a_status_counts_even_if_its_body_cant_be_read(answer):
    got = await answer_to(always(wire(answer), close=True))
    assert (got.status, got.body) == (413, b"")
