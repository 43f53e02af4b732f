"""An HTTP server on loopback that sends just the bytes that a test says, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

from tide import Answer

__all__ = ["Framing", "RawServer", "Respond", "Sent", "always", "html", "raw_server", "wire"]


class Sent(NamedTuple):
    """A request as it came over the wire; headers by lower-case name."""

    first_line: str
    headers: dict[str, str]
    body: bytes


Respond = Callable[[Sent, asyncio.StreamWriter], Awaitable[None]]
"""Answers a request by writing to its connection, which it may also close."""

Framing = Literal["length", "chunked", "close"]
"""How a response tells where it ends."""


class RawServer:
    """What `raw_server` serves.

    Attributes:
        respond: what it answers; may be changed at any time.
        endpoint: its URL.
        connections: how many came so far.
        open: how many of them are open.
        requests: what came over them.
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.endpoint = ""
        self.connections = 0
        self.open = 0
        self.requests: list[Sent] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes over one connection."""
        self.connections += 1
        self.open += 1
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                sent = await _read(reader)
                self.requests.append(sent)
                await self.respond(sent, writer)
                await writer.drain()
        with suppress(asyncio.CancelledError, ConnectionError):
            writer.close()
            await writer.wait_closed()
        self.open -= 1


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[RawServer]:
    """Serve on a port of 127.0.0.1, each request as *respond* says."""
    serving: set[asyncio.Task[None]] = set()
    raw = RawServer(respond)

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(raw.serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, limit=32 << 20)
    raw.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sync"
    try:
        yield raw
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def always(response: bytes, *, close: bool = False) -> Respond:
    """Answers everything with the bytes *response*, and then perhaps hangs up."""

    async def respond(sent: Sent, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        if close:
            writer.close()

    return respond


def html(status: int, **headers: str) -> Answer:
    """An answer of something that is no tide server."""
    body = b"<!doctype html><title>Something else</title>"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"content-type": "text/html", **named})


def wire(answer: Answer, framing: Framing = "length") -> bytes:
    """The bytes of *answer* as an HTTP response. After ``close``, hang up."""
    lines = [f"HTTP/1.1 {answer.status} Whatever"]
    lines += [f"{name.title()}: {value}" for name, value in answer.headers.items()]
    body = answer.body
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    else:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read(reader: asyncio.StreamReader) -> Sent:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first_line, *lines = head.splitlines()
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Sent(first_line, headers, body)
