"""Many live streams on one server: what they cost while nothing happens, and one change for all."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.serving import Served, echo_server, server

__all__ = ["measure_listeners"]

IDLE = 20.0  # seconds
WARM_UP = b'{"node_id":"reader.0001","cursor":null,"ops":[]}'


async def measure_listeners(folder: Path, count: int) -> None:
    """The rows of the table."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers too
    op = {"collection": "todos", "id": "1", "doc": {"n": 1}, "stamp": [1, "writer.0001"]}
    body = json.dumps({"node_id": "writer.0001", "cursor": None, "ops": [op]}).encode()
    with server(folder / "listeners.db") as tide:
        await _measure(f"{count:,} listeners", tide, body, count)
    with echo_server() as echo:
        await _measure("bare event stream", echo, b"{}", count)


async def _measure(name: str, served: Served, body: bytes, count: int) -> None:
    await asyncio.to_thread(
        _post, served.endpoint, b'{"node_id":"reader.0001","cursor":null,"ops":[]}'
    )
    before = _memory(served.pid)
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(count):
            streams.append(await _listen(served.endpoint))
            stack.callback(streams[-1][1].close)
        await asyncio.sleep(2)
        memory, began = (_memory(served.pid) - before) / count, _cpu(served.pid)
        await asyncio.sleep(IDLE)
        busy = (_cpu(served.pid) - began) / IDLE
        times = await _one_change(served, body, [reader for reader, _ in streams])
    print(
        f"{name:32} {memory / 1024:6.1f} KiB each   idle CPU {busy:6.2%} in all"
        f"   one change: first {times[0]:6.1f} ms, half {times[count // 2]:6.1f} ms,"
        f" all {times[-1]:6.1f} ms",
        flush=True,
    )


async def _listen(endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(endpoint)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        f"GET {url.path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
    )
    await reader.readuntil(b"\n\n")
    return reader, writer


async def _one_change(
    served: Served, body: bytes, readers: list[asyncio.StreamReader]
) -> list[float]:
    """Milliseconds from the request to when each listener has it, sorted."""
    began = time.perf_counter()

    async def seen(reader: asyncio.StreamReader) -> float:
        while b"data: " not in await reader.readuntil(b"\n\n"):
            pass
        return (time.perf_counter() - began) * 1000

    waiting = [asyncio.ensure_future(seen(reader)) for reader in readers]
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await asyncio.to_thread(_post, served.endpoint, body)
    return sorted(await asyncio.gather(*waiting))


def _post(endpoint: str, body: bytes) -> None:
    request = urllib.request.Request(endpoint, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


def _memory(pid: int) -> int:
    """Bytes that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def _cpu(pid: int) -> float:
    """Seconds of CPU time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
