"""`python -m benchmarks`: put, push and pull, beside raw sqlite3 in the same run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from tide import Tide

Durability = Literal["full", "relaxed"]
ROUNDS = 5
TEXT = (
    '{"text":"buy bread and a litre of milk","done":false,"priority":3,'
    '"tags":["home","shop"],"n":%d}'
)


def doc(n: int) -> dict[str, Any]:
    """A small document, about 100 bytes of JSON."""
    return {
        "text": "buy bread and a litre of milk",
        "done": False,
        "priority": 3,
        "tags": ["home", "shop"],
        "n": n,
    }


def raw(path: Path, durability: Durability) -> sqlite3.Connection:
    """The reference: two tables as tide has them, written without tide."""
    sql = sqlite3.connect(path, isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute(
        "PRAGMA synchronous = FULL" if durability == "full" else "PRAGMA synchronous = NORMAL"
    )
    for table in ("documents", "outbox"):
        sql.execute(
            f"CREATE TABLE {table} (collection, id, doc, counter, node_id,"
            " PRIMARY KEY (collection, id))"
        )
    return sql


def raw_rows(sql: sqlite3.Connection, name: str, start: int, count: int, each: int) -> float:
    """Seconds to write *count* documents and outbox rows, *each* a commit."""
    began = time.perf_counter()
    for first in range(start, start + count, each):
        rows = [
            ("todos", f"{name}{n:07}", TEXT % n, n + 1, "raw") for n in range(first, first + each)
        ]
        sql.execute("BEGIN IMMEDIATE")
        for table in ("documents", "outbox"):
            sql.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)", rows)
        sql.execute("COMMIT")
    return time.perf_counter() - began


async def one_at_a_time(tide: Tide, start: int, count: int) -> None:
    """Each put waits for the one before."""
    todos = tide.collection("todos")
    for n in range(start, start + count):
        await todos.put(f"one{n:07}", doc(n))


async def hundred_at_once(tide: Tide, start: int, count: int) -> None:
    """A hundred puts wait together."""
    todos = tide.collection("todos")
    for first in range(start, start + count, 100):
        await asyncio.gather(*[todos.put(f"hun{n:07}", doc(n)) for n in range(first, first + 100)])


async def batches(tide: Tide, start: int, count: int) -> None:
    """A thousand puts in each batch."""
    todos = tide.collection("todos")
    for first in range(start, start + count, 1000):
        async with tide.batch():
            for n in range(first, first + 1000):
                await todos.put(f"bat{n:07}", doc(n))


async def measure_puts(durability: Durability, folder: Path) -> None:
    """The put rows of the table."""
    cases: list[tuple[str, Callable[[Tide, int, int], Any], int, int]] = [
        ("put, one at a time", one_at_a_time, 400, 1),
        ("put, 100 at once", hundred_at_once, 4000, 1),
        ("put, batch of 1,000", batches, 10000, 1000),
    ]
    sql = raw(folder / f"raw-{durability}.db", durability)
    async with Tide(folder / f"tide-{durability}.db", durability=durability) as tide:
        for name, run, count, each in cases:
            ours, theirs = [], []
            for number in range(ROUNDS):
                began = time.perf_counter()
                await run(tide, number * count, count)
                ours.append(count / (time.perf_counter() - began))
                reference = min(count, 400) if each == 1 else count
                theirs.append(reference / raw_rows(sql, name[5:8], number * count, reference, each))
            report(f"{name}, {durability}", ours, theirs)
    sql.close()


async def measure_sync(count: int, folder: Path) -> None:
    """The push and pull rows of the table."""
    sql = raw(folder / "raw-sync.db", "full")
    push, pull, reference = [], [], []
    for number in range(3):
        with server(folder / f"server{number}.db") as endpoint:
            async with Tide(folder / f"a{number}.db", endpoint) as tide:
                await batches(tide, 0, count)
                push.append(count / await seconds(tide.sync_once()))
            async with Tide(folder / f"b{number}.db", endpoint) as tide:
                pull.append(count / await seconds(tide.sync_once()))
                assert await tide.collection("todos").count() == count
        reference.append(count / raw_rows(sql, "syn", number * count, count, 1000))
    sql.close()
    report(f"push {count:,}", push, reference)
    report(f"pull {count:,}", pull, reference)


async def seconds(awaitable: Any) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await awaitable
    return time.perf_counter() - began


@contextlib.contextmanager
def server(db: Path) -> Iterator[str]:
    """`tide serve` in a process of its own; its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tide.server", "--db", str(db), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/sync"
    finally:
        process.terminate()
        process.wait()


def report(name: str, ours: list[float], theirs: list[float]) -> None:
    """One line of the table: medians a second, and the median of the rounds' ratios."""
    ratio = statistics.median([a / b for a, b in zip(ours, theirs, strict=True)])
    print(
        f"{name:32} {statistics.median(ours):>10,.0f}/s   raw {statistics.median(theirs):>10,.0f}/s"
        f"   {ratio:6.2f} of raw",
        flush=True,
    )


def main() -> None:
    """Run all, or what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000, help="to push and pull")
    count: int = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as folder:
        durabilities: tuple[Durability, ...] = ("full", "relaxed")
        for durability in durabilities:
            asyncio.run(measure_puts(durability, Path(folder)))
        asyncio.run(measure_sync(count, Path(folder)))


if __name__ == "__main__":
    main()
