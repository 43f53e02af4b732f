"""Nodes that edit at random end up equal, and lose nothing, whatever happens between them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.fleet import COLLECTIONS, IDS, REFUSED, Fleet, Node, Record, Recorder, read_rows
from tests.support import free_port, until
from tide import Answer, Tide, Transport
from tide.testing import FAULTS, memory_server
from tide.transports.http import HttpTransport

DAY = 86400.0


def seeded(seed: int | None = None) -> Random:
    """Chance that can be had again: its seed is shown when the test fails."""
    seed = secrets.randbelow(10**9) if seed is None else seed
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    return Random(seed)


async def edit(node: Node, random: Random) -> None:
    """One write, of some kind, of some document."""
    key = random.choice(COLLECTIONS), random.choice(IDS)
    doc = {"n": random.randrange(1000), "text": random.choice(["tea ☕", "brot", "", "\U0001f30a"])}
    kind = random.randrange(10)
    if kind < 4:
        bad = {"bad": True} if key[1] == REFUSED and random.random() < 0.5 else {}
        await node.put(key, {**doc, **bad})
    elif kind < 6 and key in await node.documents():
        await node.update(key, {"n": random.randrange(1000)})
    elif kind < 8:
        await node.delete(key)
    else:
        keys = [(random.choice(COLLECTIONS), random.choice(IDS)) for _ in range(3)]
        await node.batch({key: random.choice([doc, None]) for key in keys})


async def act(fleet: Fleet, node: Node) -> None:
    """A few edits and syncs of one node, while others do the same."""
    random = fleet.random
    for _ in range(random.randrange(1, 5)):
        if random.random() < 0.5:
            await edit(node, random)
        else:
            await asyncio.gather(node.try_sync(), edit(node, random))


async def happen(fleet: Fleet) -> None:
    """Perhaps something happens to a file or to the server."""
    random = fleet.random
    node = random.choice(fleet.nodes)
    chance = random.random()
    if chance < 0.15:
        await node.close()
        await node.open()
    elif chance < 0.2 and len(fleet.nodes) < 5:
        (await fleet.add(copied=node)).network.rate = fleet.nodes[0].network.rate
    elif chance < 0.3:
        await fleet.restart()
    elif chance < 0.4:
        fleet.backup("backup.db")
    elif chance < 0.45 and (fleet.folder / "backup.db").exists():
        await fleet.restart()  # so that the history to be lost is of an epoch that the backup lacks
        await asyncio.gather(*[act(fleet, node) for node in fleet.nodes])
        await fleet.restore(fleet.folder / "backup.db")


async def live_through(fleet: Fleet, *, nodes: int, rounds: int, rate: float) -> None:
    await fleet.start()
    for _ in range(nodes):
        (await fleet.add()).network.rate = rate
    for _ in range(rounds):
        restart = [fleet.restart()] if fleet.random.random() < 0.1 else []
        await asyncio.gather(*[act(fleet, node) for node in fleet.nodes], *restart)
        await happen(fleet)


@pytest.fixture
def small(monkeypatch):
    """A few documents take many exchanges."""
    monkeypatch.setattr("tide.sync.PAGE", 3)
    monkeypatch.setattr("tide.sync.MAX_OPS", 4)


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("seed", [1, 2, None])
async def test_nodes_converge_over_a_network_that_fails(nodes, seed, tmp_path, small):
    # Threads take turns as they like, so a seed repeats most of a run, not all.
    fleet = Fleet(tmp_path, seeded(seed))
    try:
        await live_through(fleet, nodes=nodes, rounds=30, rate=0.5)
        happened = Counter(
            [fault for node in fleet.nodes for fault in node.network.happened.elements()]
        )
        assert set(happened) == set(FAULTS)
        await fleet.check()
    finally:
        await fleet.aclose()


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def serving(db: Path, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`tide serve` in a process of its own; killed, not stopped, in the end."""
    command = [sys.executable, "-m", "tide.server", "--db", str(db), "--port", str(port)]
    with started(command) as server:
        try:
            async with httpx.AsyncClient() as client:
                await until(lambda: answers(client, f"http://127.0.0.1:{port}/healthz"))
            yield server
        finally:
            server.kill()


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False


def more_than(record: Record, count: int) -> bool:
    return len(record.docs) > count


async def write_on(tide: Tide, random: Random, stop: asyncio.Event) -> int:
    """Write until told to stop; how many writes that were."""
    written = 0
    while not stop.is_set():
        todos = tide.collection("todos")
        await todos.put(random.choice("abcdefghij"), {"n": written, "by": tide.node_id})
        if random.random() < 0.2:
            await todos.delete(random.choice("abcdefghij"))
        written += 1
        await asyncio.sleep(0.001)  # leaves the others their turn
    return written


async def test_f01_nodes_converge_over_http_though_the_server_is_killed_again_and_again(tmp_path):
    chance = seeded()
    port, db, record, stop = free_port(), tmp_path / "server.db", Record(), asyncio.Event()
    paths = [tmp_path / f"node{number}.db" for number in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        tides = []
        for path in paths:
            line = Recorder(HttpTransport(f"http://127.0.0.1:{port}/sync"), record)
            tide = await stack.enter_async_context(Tide(path, transport=line, durability="relaxed"))
            await stack.enter_async_context(tide.sync_forever(0.02))
            tides.append(tide)
        writers = [
            asyncio.create_task(write_on(tide, Random(chance.random()), stop)) for tide in tides
        ]
        for _ in range(3):
            seen = len(record.docs)
            async with serving(db, port):
                await until(functools.partial(more_than, record, seen + 20))
        stop.set()
        assert min(await asyncio.gather(*writers)) > 20
        async with serving(db, port):
            for _ in range(2):
                for tide in tides:
                    await tide.sync_once()
            assert [await tide.pending() for tide in tides] == [0, 0, 0]
    stored = read_rows(db)
    assert {key: row.stamp for key, row in stored.items()} == record.accepted
    for path in paths:
        assert read_rows(path) == stored


class SmallProxy(Transport):
    """Something on the way that lets no request through that holds *word*."""

    def __init__(self, transport: Transport, word: bytes) -> None:
        self._transport = transport
        self._word = word

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._word in body:
            return Answer(413, b"<html>Request Entity Too Large</html>")
        return await self._transport.exchange(body, headers)


async def test_f29_what_was_forgotten_goes_even_if_an_op_is_refused_on_the_way_back(tmp_path):
    now = 1000 * DAY
    async with memory_server(tmp_path / "server.db", now=lambda: now) as server:
        long_away = SmallProxy(server.transport(), b"large")
        async with (
            Tide(tmp_path / "a.db", transport=server.transport()) as a,
            Tide(tmp_path / "b.db", transport=long_away) as b,
        ):
            here, there = a.collection("todos"), b.collection("todos")
            await here.put("gone", {"n": 1})
            await here.put("kept", {"n": 2})
            await a.sync_once()
            await b.sync_once()
            await here.delete("gone")
            await a.sync_once()
            now += 91 * DAY  # the server forgets the tombstone
            await there.put("new", {"text": "large"})
            assert (await b.sync_once()).rejected == 1
            assert await there.all() == await here.all() == {"kept": {"n": 2}}
