"""Live push: changes come by themselves; without a stream, or with a bad one, all the same.

Where the interval is `NEVER`, nobody ever polls: what arrives came over the stream, and each
exchange has another reason.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from random import Random

import pytest

from tests.support import free_port, served, until
from tide import Change, Tide, Transport, listening, sync_loop
from tide.errors import OfflineError, ProtocolError, UnavailableError
from tide.protocol import Event, Response, parse_page
from tide.server import Access, create_app
from tide.testing import memory_server
from tide.transports.http import HttpTransport
from tide.transports.memory import MemoryTransport

NEVER = 1e6  # seconds


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(listening, "AGAIN", 0.02)
    monkeypatch.setattr(listening, "MAX_AGAIN", 0.1)
    monkeypatch.setattr(sync_loop, "MAX_OFFLINE", 0.1)


class Line(Transport):
    """Counts what goes over it."""

    def __init__(self, inner):
        self.inner = inner
        self.exchanges = 0
        self.ops = []
        self.streams = 0
        self.events = 0

    async def exchange(self, body, headers):
        self.exchanges += 1
        self.ops.append(len(json.loads(body)["ops"]))
        return await self.inner.exchange(body, headers)

    async def listen(self, cursor, headers):
        self.streams += 1
        async for event in self.inner.listen(cursor, headers):
            self.events += 1
            yield event

    async def aclose(self):
        await self.inner.aclose()


class Node:
    """A Tide that syncs in the background."""

    def __init__(self, tide, loop, line):
        self.tide = tide
        self.loop = loop
        self.line = line
        self.todos = tide.collection("todos")

    @property
    def live(self):
        return self.loop._listening.live

    async def ids(self):
        return sorted(await self.todos.all())

    async def has(self, *ids):
        await until(lambda: self._holds(ids))

    async def _holds(self, ids):
        return set(ids) <= set(await self.todos.all())

    async def quiet(self):
        """Wait until it listens, and all that it heard was taken."""
        await until(lambda: self.live)
        await until(lambda: not self.loop._listening._pages and not self.loop._busy)


@asynccontextmanager
async def syncing(path, line, *, interval=NEVER, live=True, **options):
    line = line if isinstance(line, Line) else Line(line)
    async with (
        Tide(path, transport=line, **options) as tide,
        tide.sync_forever(interval=interval) as loop,
    ):
        node = Node(tide, loop, line)
        await until(lambda: loop.online)
        if live:
            await node.quiet()
        yield node


@pytest.fixture(params=["http", "memory"])
async def transport(request, tmp_path):
    """Makes ways to one server."""
    if request.param == "http":
        with served(create_app(tmp_path / "server.db")) as endpoint:
            yield lambda: HttpTransport(endpoint)
    else:
        async with memory_server(tmp_path / "server.db") as server:
            yield server.transport


@pytest.fixture
async def pair(transport, tmp_path):
    async with (
        syncing(tmp_path / "a.db", transport()) as a,
        syncing(tmp_path / "b.db", transport()) as b,
    ):
        yield a, b


# What comes


async def test_what_one_node_writes_is_seen_on_another_though_nobody_polls(pair):
    a, b = pair
    watching = a.todos.watch()
    before = a.line.exchanges
    for number in range(5):
        await b.todos.put("1", {"n": number})
        change = await anext(watching)
        assert (change.id, change.doc, change.source) == ("1", {"n": number}, "remote")
    await b.todos.delete("1")
    assert (await anext(watching)).doc is None
    await a.quiet()
    assert a.line.exchanges == before


async def test_a_write_is_pushed_at_once_and_once(pair):
    a, b = pair
    before = a.line.exchanges
    await a.todos.put("1", {})
    await a.tide.flushed(timeout=30)
    await b.has("1")
    await b.todos.put("2", {})  # comes after what the server told of the first
    await a.has("2")
    assert a.line.exchanges == before + 1


async def test_f06_what_a_node_pushed_itself_costs_no_pull_when_it_comes_back(pair):
    a, b = pair
    told = a.todos.watch()
    before = a.line.exchanges
    for number in range(20):
        await a.todos.put(str(number), {"n": number})
        await a.tide.flushed(timeout=30)
    await b.has("19")
    await a.quiet()
    assert a.line.exchanges <= before + 20
    assert sum(a.line.ops) == 20
    told.end()
    assert [(change.source, change.id) async for change in told] == [
        ("local", str(number)) for number in range(20)
    ]


class Changing(Line):
    """Events come when *gate* is open, as *change* makes them."""

    def __init__(self, inner, change=lambda event: event):
        super().__init__(inner)
        self.gate = asyncio.Event()
        self.gate.set()
        self.change = change

    async def listen(self, cursor, headers):
        async for event in super().listen(cursor, headers):
            await self.gate.wait()
            yield self.change(event)


async def test_f06_nor_does_it_when_it_comes_back_late(transport, tmp_path):
    line = Changing(transport())
    async with (
        syncing(tmp_path / "a.db", line) as a,
        syncing(tmp_path / "b.db", transport()) as b,
    ):
        line.gate.clear()
        before = line.exchanges
        for number in range(5):
            heard = b.line.events
            await a.todos.put(str(number), {})
            await a.tide.flushed(timeout=30)
            await until(lambda: b.line.events > heard)  # noqa: B023 - waits right here
        line.gate.set()
        await b.todos.put("theirs", {})
        await a.has("theirs")
        assert line.exchanges == before + 5


async def test_a_page_that_says_there_is_more_makes_the_node_ask_for_it(transport, tmp_path):
    def shorten(event):
        if event.name != "changes" or len(parse_page(event.data).changes) < 3:
            return event
        page = parse_page(event.data)
        epoch, _, seq = page.cursor.partition(":")
        left_out = len(page.changes) - 1
        page = page._replace(
            cursor=f"{epoch}:{int(seq) - left_out}", changes=page.changes[:1], has_more=True
        )
        return Event("changes", page.encode())

    async with (
        syncing(tmp_path / "a.db", Changing(transport(), shorten)) as a,
        syncing(tmp_path / "b.db", transport()) as b,
    ):
        async with b.tide.batch():
            for number in range(3):
                await b.todos.put(str(number), {})
        await a.has("0", "1", "2")


async def test_writes_made_together_travel_together(pair):
    a, b = pair
    before = a.line.exchanges
    async with a.tide.batch():
        for number in range(100):
            await a.todos.put(str(number), {})
    await a.tide.flushed(timeout=30)
    assert a.line.exchanges == before + 1
    await asyncio.gather(*[a.todos.put(f"more{number}", {}) for number in range(100)])
    await a.tide.flushed(timeout=30)
    assert sum(a.line.ops) == 200
    assert a.line.exchanges <= before + 5
    await b.has("0", "more99")


async def test_more_than_a_page_of_a_stream_holds_comes_too(pair):
    a, b = pair
    async with b.tide.batch():
        for number in range(1200):
            await b.todos.put(str(number), {"text": "x" * 500})
    await until(lambda: counts(a, 1200))


async def counts(node, count):
    return await node.todos.count() == count


async def test_a_document_as_large_as_can_be_comes_too(pair):
    a, b = pair
    before = a.line.exchanges
    doc = {"text": "x" * (1_000_000)}
    await b.todos.put("1", doc)
    await a.has("1")
    assert await a.todos.get("1") == doc
    assert a.line.exchanges == before


# How often the server is asked


async def test_while_the_stream_is_live_the_server_is_asked_only_rarely(transport, tmp_path):
    async with syncing(tmp_path / "a.db", transport(), interval=0.01) as a:
        now = asyncio.get_running_loop().time
        await until(lambda: a.loop._due - now() > 0.5 * sync_loop.LIVE_INTERVAL)
        before = a.line.exchanges
        await asyncio.sleep(0.2)  # twenty intervals
        assert a.line.exchanges == before


async def test_it_is_asked_all_the_same_in_case_something_was_lost(
    transport, tmp_path, monkeypatch
):
    monkeypatch.setattr(sync_loop, "LIVE_INTERVAL", 0.02)
    async with syncing(tmp_path / "a.db", transport(), interval=0.01) as a:
        before = a.line.exchanges
        await until(lambda: a.line.exchanges > before + 5)
        assert a.live


# Without a stream


class Failing(Line):
    """Fails while *away*."""

    away = False

    async def exchange(self, body, headers):
        answer = await super().exchange(body, headers)
        if self.away:
            raise OfflineError("away")
        return answer

    async def listen(self, cursor, headers):
        async for event in super().listen(cursor, headers):
            if self.away:
                raise OfflineError("away")
            yield event


async def test_f46_while_the_server_is_away_only_exchanges_look_for_it(transport, tmp_path):
    line = Failing(transport())
    async with (
        syncing(tmp_path / "a.db", line) as a,
        syncing(tmp_path / "b.db", transport()) as b,
    ):
        line.away = True
        await b.todos.put("1", {})  # the next event, which fails
        await until(lambda: not a.loop.online)
        streams, exchanges = line.streams, line.exchanges
        await until(lambda: line.exchanges > exchanges + 10)
        assert line.streams <= streams + 1
        line.away = False
        await until(lambda: a.live)
        await a.has("1")


@pytest.mark.parametrize("status", [429, 503])
async def test_who_serves_no_streams_for_a_while_says_for_how_long(status, tmp_path):
    way = Way(create_app(tmp_path / "server.db"), "busy")
    way.status = status
    with served(way) as endpoint:
        transport = HttpTransport(endpoint)
        with pytest.raises(UnavailableError) as caught:
            await anext(transport.listen("", {}))
        await transport.aclose()
    assert caught.value.retry_after == 7.0


class Way:
    """An app between a node and *app*, which does something to live streams."""

    def __init__(self, app, how):
        self.app = app
        self.state = app.state
        self.how = how
        self.streams = 0
        self.status = 503

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] == "POST":
            await self.app(scope, receive, send)
            return
        self.streams += 1
        await getattr(self, self.how)(scope, receive, send)

    async def straight(self, scope, receive, send):
        await self.app(scope, receive, send)

    async def answer(self, send, status, kind, body=b"{}"):
        headers = [(b"content-type", kind), (b"retry-after", b"7")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def s404(self, scope, receive, send):
        await self.answer(send, 404, b"text/html", b"<html>")

    async def s405(self, scope, receive, send):
        await self.answer(send, 405, b"application/problem+json")

    async def s406(self, scope, receive, send):
        await self.answer(send, 406, b"application/problem+json")

    async def busy(self, scope, receive, send):
        await self.answer(send, self.status, b"text/html")

    async def json(self, scope, receive, send):
        await self.answer(send, 200, b"application/json")

    async def html(self, scope, receive, send):
        await self.answer(send, 200, b"text/event-stream", b"<html>\n\n<p>log in\n\n")

    async def held(self, scope, receive, send):
        """A proxy that keeps what comes until it has all of it."""
        while (await receive())["type"] != "http.disconnect":
            pass

    async def cut(self, scope, receive, send):
        """A proxy that hangs up behind the first event."""

        async def once(message):
            await send({**message, "more_body": False})

        await self.app(scope, receive, once)


NO_STREAM = ["s404", "s405", "s406", "json", "html", "held"]


@pytest.mark.parametrize("how", NO_STREAM)
async def test_without_a_stream_a_node_polls(how, tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "FIRST", 0.05)
    way = Way(create_app(tmp_path / "server.db"), how)
    with served(way) as endpoint:
        async with (
            syncing(tmp_path / "a.db", HttpTransport(endpoint), interval=0.02, live=False) as a,
            syncing(tmp_path / "b.db", HttpTransport(endpoint), live=False) as b,
        ):
            await until(lambda: way.streams >= 2)
            await b.todos.put("1", {})
            await a.has("1")
            assert not a.live
            way.how = "straight"  # and when there is one some day, it is used
            await until(lambda: a.live and b.live)
            await a.todos.put("2", {})
            await b.has("2")


async def test_streams_that_are_cut_again_and_again_lose_nothing(tmp_path):
    way = Way(create_app(tmp_path / "server.db"), "cut")
    with served(way) as endpoint:
        async with (
            syncing(tmp_path / "a.db", HttpTransport(endpoint), live=False) as a,
            syncing(tmp_path / "b.db", HttpTransport(endpoint), live=False) as b,
        ):
            for number in range(5):
                await b.todos.put(str(number), {})
                await a.has(str(number))  # nobody polls: the first event of a new stream tells


async def test_f46_asking_does_not_get_faster_for_streams_that_are_cut(tmp_path):
    way = Way(create_app(tmp_path / "server.db"), "cut")
    with served(way) as endpoint:
        async with syncing(tmp_path / "a.db", HttpTransport(endpoint), live=False) as a:
            await until(lambda: way.streams >= 10)
            assert a.line.exchanges <= 2


async def test_a_server_that_knows_no_streams_is_polled(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        deaf = MemoryTransport(server.transport().exchange)
        async with (
            syncing(tmp_path / "a.db", deaf, interval=0.02, live=False) as a,
            syncing(tmp_path / "b.db", server.transport()) as b,
        ):
            await b.todos.put("1", {})
            await a.has("1")
            assert not a.live


# Ends and beginnings


async def test_a_server_that_starts_again_is_found_and_nothing_is_missed(tmp_path):
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/sync"
    app = create_app(tmp_path / "server.db")
    async with AsyncExitStack() as stack:
        with served(app, port=port):
            a, b = [
                await stack.enter_async_context(
                    syncing(tmp_path / f"{name}.db", HttpTransport(endpoint))
                )
                for name in "ab"
            ]
        for number in range(2):
            await a.todos.put(f"down{number}", {})
            await until(lambda: not b.live)
            with served(create_app(tmp_path / "server.db"), port=port):
                await b.has(f"down{number}")
                await until(lambda: a.live and b.live)
                await b.todos.put(f"up{number}", {})
                await a.has(f"up{number}")


async def test_f27_a_server_that_was_restored_gets_back_what_it_lost(tmp_path):
    port = free_port()
    async with AsyncExitStack() as stack:
        with served(create_app(tmp_path / "server.db"), port=port) as endpoint:
            a, b = [
                await stack.enter_async_context(
                    syncing(tmp_path / f"{name}.db", HttpTransport(endpoint))
                )
                for name in "ab"
            ]
            await a.todos.put("old", {})
            await b.has("old")
            with (
                closing(sqlite3.connect(tmp_path / "server.db")) as source,
                closing(sqlite3.connect(tmp_path / "backup.db")) as target,
            ):
                source.backup(target)
            await a.todos.put("new", {})
            await b.has("new")
        for path in tmp_path.glob("server.db*"):
            path.unlink()
        shutil.copy(tmp_path / "backup.db", tmp_path / "server.db")
        with served(create_app(tmp_path / "server.db"), port=port) as endpoint:
            await until(lambda: a.live and b.live)
            await b.todos.put("newer", {})
            await a.has("newer")
            async with Tide(tmp_path / "c.db", endpoint) as c:
                await c.sync_once()
                assert set(await c.collection("todos").all()) == {"old", "new", "newer"}


async def test_when_the_token_expires_the_stream_goes_on_with_the_next(tmp_path):
    seen = []

    async def authenticate(request, space):
        token = request.headers.get("authorization", "")
        if request.method == "GET":
            seen.append(token)
        return Access("alice", expires_at=time.time() + 0.2) if token else None

    tokens = iter(range(1_000_000))
    with served(create_app(tmp_path / "server.db", authenticate=authenticate)) as endpoint:

        def headers():
            return {"authorization": f"token {next(tokens)}"}

        async with (
            syncing(tmp_path / "a.db", HttpTransport(endpoint), headers=headers) as a,
            syncing(tmp_path / "b.db", HttpTransport(endpoint), headers=headers) as b,
        ):
            await until(lambda: a.line.streams > 3)
            await b.todos.put("1", {})
            await a.has("1")
            assert len(set(seen)) == len(seen)
            assert a.loop.state == "online"


async def test_who_may_no_longer_read_does_not_listen_until_they_may_again(tmp_path):
    access = Access("alice", expires_at=time.time() + 0.2)

    async def authenticate(request, space):
        return access

    app = create_app(tmp_path / "server.db", authenticate=authenticate)
    with served(app) as endpoint:
        async with syncing(tmp_path / "a.db", HttpTransport(endpoint)) as a:
            access = Access("alice", read=False)
            await until(lambda: a.line.streams > 2)
            assert not a.live
            await a.todos.put("1", {})
            await a.tide.flushed(timeout=30)
            access = Access("alice")
            await until(lambda: a.live)


# Bad events


FAULTS = ("lose", "double", "swap", "late", "forge", "large", "garbage", "cut")


class Mangling(Line):
    """A live stream in which events are lost, doubled, reordered, late, forged, or too large."""

    def __init__(self, inner, random, faults=FAULTS, rate=0.5):
        super().__init__(inner)
        self.random = random
        self.faults = faults
        self.rate = rate
        self.held = []
        self.happened = set()

    async def listen(self, cursor, headers):
        async for event in super().listen(cursor, headers):
            out = [event]
            if event.name == "changes" and self.random.random() < self.rate:
                fault = self.random.choice(self.faults)
                self.happened.add(fault)
                if fault == "cut":
                    raise OfflineError("cut")
                if fault == "garbage":
                    out = [Event("changes", b"{")]
                elif fault == "large":
                    raise ProtocolError("the live stream has an event of more than 8388608 bytes")
                else:
                    out = self.mangle(fault, event)
            for one in out:
                yield one

    def mangle(self, fault, event):
        page = parse_page(event.data)
        if fault == "lose":
            return []
        if fault == "double":
            return [event, event]
        if fault == "swap":  # with the one that was held back before it
            held, self.held = self.held, [] if self.held else [event]
            return [event, *held] if held else []
        if fault == "late":
            self.held.append(event)
            self.random.shuffle(self.held)
            return [self.held.pop() for _ in range(self.random.randrange(len(self.held) + 1))]
        cursors = [page.cursor, page.since, "f00:7", "f00:8", self.random.choice("abc")]
        forged = Response(
            cursor=self.random.choice(cursors),
            changes=page.changes if self.random.random() < 0.5 else (),
            has_more=self.random.random() < 0.5,
            receipt=self.random.choice([None, "f00:9", page.cursor]),
            since=self.random.choice(cursors),
        )
        return [Event("changes", forged.encode()), event]


@pytest.mark.parametrize("faults", [*[(fault,) for fault in FAULTS], FAULTS], ids="-".join)
async def test_f13_bad_events_cost_time_never_correctness(faults, tmp_path, monkeypatch):
    seed = Random().randrange(1 << 30)
    print("seed", seed)  # noqa: T201
    random = Random(seed)
    monkeypatch.setattr(sync_loop, "LIVE_INTERVAL", 0.1)  # by then, what was lost is asked for
    async with memory_server(tmp_path / "server.db") as server, AsyncExitStack() as stack:
        lines = [Mangling(server.transport(), random, faults) for _ in range(2)]
        nodes = [
            await stack.enter_async_context(
                syncing(tmp_path / f"{number}.db", line, interval=0.05, live=False)
            )
            for number, line in enumerate(lines)
        ]
        watching = [node.todos.watch() for node in nodes]
        told: list[list[Change]] = [[], []]
        readers = [
            asyncio.create_task(collect(watcher, into))
            for watcher, into in zip(watching, told, strict=True)
        ]
        for number in range(60):
            node = random.choice(nodes)
            id_ = random.choice("abcdef")
            if random.random() < 0.2:
                await node.todos.delete(id_)
            else:
                await node.todos.put(id_, {"n": number})
            await asyncio.sleep(random.random() * 0.01)
        await until(lambda: equal(nodes))
        for watcher, reader in zip(watching, readers, strict=True):
            watcher.end()
            await reader
        for node, changes in zip(nodes, told, strict=True):
            check_told(changes, await node.todos.all())
        assert set.union(*[line.happened for line in lines]) <= set(faults)
        assert any(line.happened for line in lines)


async def collect(watcher, into):
    async for change in watcher:
        into.append(change)


async def equal(nodes):
    for node in nodes:
        if await node.tide.pending():
            return False
    first, *others = [await node.todos.all() for node in nodes]
    return all(docs == first for docs in others)


def check_told(changes, docs):
    """No write was told twice, and the last that was told is what is stored."""
    seen = set()
    last = {}
    for change in changes:
        last[change.id] = change.doc
        if change.doc is not None:
            step = change.id, change.doc["n"]
            assert step not in seen, changes
            seen.add(step)
    assert {id_: doc for id_, doc in last.items() if doc is not None} == docs
