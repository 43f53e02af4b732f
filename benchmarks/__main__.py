"""`python -m benchmarks`: tide beside a reference in the same run; see README.md there."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from benchmarks.listeners import measure_listeners
from benchmarks.push import measure_push
from benchmarks.serving import server
from tide import Tide

Durability = Literal["full", "relaxed"]
ALL = ("put", "sync", "push", "listeners")
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


async def measure_puts(folder: Path) -> None:
    """The put rows of the table."""
    durabilities: tuple[Durability, ...] = ("full", "relaxed")
    for durability in durabilities:
        await _measure_puts(durability, folder)


async def _measure_puts(durability: Durability, folder: Path) -> None:
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
        with server(folder / f"server{number}.db") as (endpoint, _):
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
    parser.add_argument("which", nargs="*", metavar="WHICH", help=f"of {', '.join(ALL)}; all")
    parser.add_argument("--documents", type=int, default=100_000, help="to push and pull")
    parser.add_argument("--listeners", type=int, default=1000, help="on one server")
    options = parser.parse_args()
    if unknown := set(options.which) - set(ALL):
        parser.error(f"there is no {', '.join(sorted(unknown))}; only {', '.join(ALL)}")
    runs: dict[str, Callable[[Path], Coroutine[Any, Any, None]]] = {
        "put": measure_puts,
        "sync": lambda folder: measure_sync(options.documents, folder),
        "push": measure_push,
        "listeners": lambda folder: measure_listeners(folder, options.listeners),
    }
    for which in options.which or ALL:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(runs[which](Path(folder)))


if __name__ == "__main__":
    main()
