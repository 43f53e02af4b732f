"""Write on A, change seen on B: two processes, and the server in a third, over loopback."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.serving import echo_server, server
from tide import Tide, Transport
from tide.transports.http import HttpTransport

__all__ = ["measure_push"]

ROUNDS = 3
Write = Callable[[int], Awaitable[object]]


class Polling(HttpTransport):
    """HTTP as to a server without live streams."""

    listen = Transport.listen


async def measure_push(folder: Path) -> None:
    """The rows of the table."""
    taken: dict[str, list[float]] = {"push": [], "polling at 1 s": [], "bare event stream": []}
    for number in range(ROUNDS):
        with server(folder / f"push{number}.db") as tide, echo_server() as echo:
            taken["push"] += await _tide(folder / f"push{number}", tide.endpoint, "push", 200)
            taken["bare event stream"] += await _echo(echo.endpoint, 200)
            taken["polling at 1 s"] += await _tide(
                folder / f"poll{number}", tide.endpoint, "polling", 20
            )
    reference = statistics.median(taken["bare event stream"])
    for name, times in taken.items():
        p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
        median = statistics.median(times)
        print(
            f"{name:32} median {median:8.1f} ms   p99 {p99:8.1f} ms"
            f"   {median / reference:6.2f} of bare   ({len(times)} writes)",
            flush=True,
        )


async def _tide(path: Path, endpoint: str, how: str, count: int) -> list[float]:
    async with (
        _other("tide", f"{path}-b.db", endpoint, how) as other,
        Tide(f"{path}-a.db", transport=_transport(endpoint, how)) as tide,
        tide.sync_forever(interval=1.0),
    ):
        todos = tide.collection("todos")
        await tide.flushed(60)
        await asyncio.sleep(3)  # until both listen
        pause = 1.0 if how == "polling" else 0.02
        return await _times(other, lambda sent: todos.put("1", {"sent": sent}), count, pause)


async def _echo(endpoint: str, count: int) -> list[float]:
    async with _other("echo", endpoint) as other, httpx.AsyncClient() as http:
        await asyncio.sleep(0.5)
        return await _times(
            other, lambda sent: http.post(endpoint, content=str(sent).encode()), count, 0.02
        )


async def _times(other: Process, write: Write, count: int, pause: float) -> list[float]:
    """Milliseconds from before each write to when the *other* process saw it."""
    assert other.stdout
    times = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(0, pause))
        sent = time.monotonic_ns()
        await write(sent)
        while True:
            n, seen = map(int, (await other.stdout.readline()).split())
            if n == sent:
                break
        times.append((seen - sent) / 1e6)
    return times


@asynccontextmanager
async def _other(*arguments: str) -> AsyncIterator[Process]:
    """Process B: prints what it sees, and when."""
    command = [sys.executable, "-m", "benchmarks.push", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def _transport(endpoint: str, how: str) -> Transport:
    return Polling(endpoint) if how == "polling" else HttpTransport(endpoint)


def _seen(sent: object) -> None:
    print(sent, time.monotonic_ns(), flush=True)


async def _watch_tide(path: str, endpoint: str, how: str) -> None:
    async with (
        Tide(path, transport=_transport(endpoint, how)) as tide,
        tide.sync_forever(interval=1.0),
    ):
        async for change in tide.collection("todos").watch():
            if change.doc is not None:
                _seen(change.doc["sent"])


async def _watch_echo(endpoint: str) -> None:
    async with (
        httpx.AsyncClient(timeout=None) as http,
        http.stream("GET", endpoint) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                _seen(line.removeprefix("data: "))


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    asyncio.run(_watch_tide(*rest) if kind == "tide" else _watch_echo(*rest))
