"""Syncing over real HTTP, with all that stands on the way to a server and answers in its place."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sqlite3
from collections import ChainMap
from contextlib import asynccontextmanager, closing, suppress
from random import Random

import anyio
import pytest

import tide.sync
import tide.transports.http
from tests.raw_http import always, html, raw_server, wire
from tests.support import free_port, served, until
from tide import (
    Answer,
    ForbiddenError,
    MisconfiguredError,
    OfflineError,
    ProtocolError,
    SyncError,
    Tide,
    Transport,
    UnauthorizedError,
    UnavailableError,
)
from tide.server import bearer, create_app
from tide.testing import FaultyTransport, memory_server
from tide.transports.http import HttpTransport

JSON = {"content-type": "application/json"}


def rows(path):
    """All that the store at *path* holds, of documents and of where syncing stands."""
    tables = ("node", "documents", "outbox", "rejected", "unseen")
    with closing(sqlite3.connect(path)) as sql:
        return {table: sql.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


class Way:
    """A node, and a server at the other end of real HTTP, with something between them.

    The node shows one document that the server has too, a write of it waits, and so does a
    delete; the server has a document that is news to the node.
    """

    def __init__(self, node, path, raw, server):
        self.node = node
        self.todos = node.collection("todos")
        self.path = path
        self.raw = raw
        self._to_server = server.transport()

    async def forward(self, sent):
        """What the server answers."""
        return await self._to_server.exchange(sent.body, sent.headers)

    async def straight(self, sent, writer):
        """Nothing stands between."""
        writer.write(wire(await self.forward(sent)))

    def changing(self, change):
        """The server gets the request, and *change* decides what becomes of its answer."""

        async def respond(sent, writer):
            writer.write(wire(change(await self.forward(sent))))

        return respond

    async def fails(self, respond):
        """The error of syncing while *respond* answers; nothing may have changed in the store."""
        before = rows(self.path)
        self.raw.respond = respond
        with anyio.fail_after(30), pytest.raises(SyncError) as caught:
            await self.node.sync_once()
        assert rows(self.path) == before
        return caught.value

    async def recovers(self):
        """As soon as nothing stands between any more, all is as if nothing had been."""
        self.raw.respond = self.straight
        with anyio.fail_after(30):
            result = await self.node.sync_once()
        assert result == (2, 1, 0)
        assert await self.node.pending() == 0
        assert await self.todos.all() == {"1": {"text": "rye bread"}, "3": {"text": "tea"}}


@asynccontextmanager
async def on_the_way(tmp_path, **options):
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "other.db", transport=server.transport()) as other,
        raw_server(always(b"")) as raw,
        Tide(tmp_path / "app.db", raw.endpoint, **options) as node,
    ):
        way = Way(node, tmp_path / "app.db", raw, server)
        await way.todos.put("1", {"text": "bread"})
        await way.todos.put("2", {"text": "milk"})
        raw.respond = way.straight
        await node.sync_once()
        await other.collection("todos").put("3", {"text": "tea"})
        await other.sync_once()
        await way.todos.put("1", {"text": "rye bread"})
        await way.todos.delete("2")
        yield way


@pytest.fixture
async def way(tmp_path):
    async with on_the_way(tmp_path) as way:
        yield way


# Statuses

UNAVAILABLE = [408, 425, 429, 500, 501, 502, 503, 504, 507, 511, 520, 599]
MISCONFIGURED = [201, 202, 204, 206, 402, 404, 405, 406, 409, 410, 411, 415, 418, 426, 431, 451]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        *((status, MisconfiguredError) for status in MISCONFIGURED),
        *((status, UnavailableError) for status in UNAVAILABLE),
    ],
)
async def test_f37_each_status_is_its_own_error_and_costs_nothing(status, kind, way):
    answer = html(status, retry_after="7")
    if status == 204:  # which has no body
        answer = answer._replace(body=b"")
    error = await way.fails(always(wire(answer)))
    assert type(error) is kind
    assert error.retry_after == 7
    assert str(status) in str(error)
    assert len(way.raw.requests) == 2  # one before, and no second try of its own
    await way.recovers()


@pytest.mark.parametrize("status", UNAVAILABLE)
async def test_f37_an_error_after_the_server_took_the_ops_costs_nothing(status, way):
    error = await way.fails(way.changing(lambda _: html(status)))
    assert type(error) is UnavailableError
    assert error.retry_after == 0
    await way.recovers()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_f37_a_server_that_refuses_even_to_be_asked_is_misconfigured(status, tmp_path):
    async with (
        raw_server(always(wire(html(status)))) as raw,
        Tide(tmp_path / "app.db", raw.endpoint) as node,
    ):
        with pytest.raises(MisconfiguredError, match="even a request without ops"):
            await node.sync_once()
    assert len(raw.requests) == 1


async def test_f37_the_loop_outlives_an_outage_and_then_pushes(way):
    way.raw.respond = always(wire(html(503)))
    async with way.node.sync_forever() as syncing:
        await until(lambda: syncing.error)
        assert (syncing.online, type(syncing.error)) == (False, UnavailableError)
        way.raw.respond = way.straight
        await until(lambda: syncing.online)
    assert syncing.error is None
    assert await way.node.pending() == 0


# Answers that are none


def fields(answer, **changed):
    """*answer* with fields of its body changed; None removes one."""
    body = {**json.loads(answer.body), **changed}
    body = {name: value for name, value in body.items() if value is not None}
    return answer._replace(body=json.dumps(body).encode())


@pytest.mark.parametrize(
    "portal",
    [
        html(200),
        html(200)._replace(headers=JSON),
        html(200)._replace(headers={}),
        Answer(200, b"", JSON),
        Answer(200, b"{}", JSON),
        Answer(200, b"[]", JSON),
        Answer(200, b"null", JSON),
        Answer(200, b"true", JSON),
        Answer(200, b'"ok"', JSON),
        Answer(200, b'{"status":"ok"}', JSON),
        Answer(200, b'{"cursor":"1"}', JSON),
        Answer(200, b'{"changes":[]}', JSON),
        Answer(200, b'{"cursor":null,"changes":[]}', JSON),
        Answer(200, b'{"cursor":1,"changes":[]}', JSON),
        Answer(200, b'{"cursor":"1","changes":{}}', JSON),
        Answer(200, b'{"cursor":"1","changes":[{}]}', JSON),
        Answer(200, b'{"cursor":"1","changes":[]}{}', JSON),
        Answer(200, b"[" * 100_000, JSON),
        Answer(200, b'{"cursor":"1","changes":[' + b"[" * 100_000, JSON),
    ],
    ids=lambda portal: f"{portal.headers.get('content-type')}: {portal.body[:40]!r}",
)
async def test_f38_a_portal_that_answers_200_is_no_server(portal, way):
    assert type(await way.fails(always(wire(portal)))) is ProtocolError
    await way.recovers()


def headed(**headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: answer._replace(headers=named)


def encoded(encoding):
    return lambda answer: answer._replace(body=answer.body.decode().encode(encoding))


CHANGES = {
    "html": headed(content_type="text/html"),
    "jsonp": headed(content_type="application/jsonp"),
    "no type": headed(),
    "utf-16": encoded("utf-16"),
    "utf-16 without a mark": encoded("utf-16-le"),
    "utf-32": encoded("utf-32"),
    "utf-8 with a mark": encoded("utf-8-sig"),
    "something behind": lambda answer: answer._replace(body=answer.body + b"<!-- a portal -->"),
    "twice": lambda answer: answer._replace(body=answer.body * 2),
    "no utf-8": lambda answer: answer._replace(body=answer.body.replace(b"tea", b"t\xffa")),
    "another request": lambda answer: fields(answer, request_id="another"),
    "a number for a request": lambda answer: fields(answer, request_id=7),
    "no cursor": lambda answer: fields(answer, cursor=None),
    "no changes": lambda answer: fields(answer, changes=None),
    "clock below 0": lambda answer: fields(answer, clock=-1),
    "clock too far": lambda answer: fields(answer, clock=2**63),
    "no text as receipt": lambda answer: fields(answer, receipt=["x"]),
    "a change too many": lambda answer: fields(
        answer, changes=[*json.loads(answer.body)["changes"], {}]
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_f38_a_real_answer_that_was_changed_on_its_way_is_not_applied(change, way):
    assert type(await way.fails(way.changing(change))) is ProtocolError
    await way.recovers()


async def test_f38_a_cache_that_answers_with_what_it_has_is_no_server(way):
    stale = await way.forward(way.raw.requests[0])
    assert stale.status == 200
    error = await way.fails(always(wire(stale)))
    assert type(error) is ProtocolError
    assert "another request" in str(error)
    await way.recovers()


# Answers that are cut


def gzipped(answer):
    headers = {**answer.headers, "content-encoding": "gzip"}
    return answer._replace(body=gzip.compress(answer.body, mtime=0), headers=headers)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("encoded", [lambda answer: answer, gzipped], ids=["plain", "gzip"])
async def test_f39_an_answer_that_is_cut_at_any_byte_is_not_applied(framing, encoded, way):
    missing = size = 0

    async def respond(sent, writer):
        nonlocal size
        answer = await way.forward(sent)
        whole = wire(encoded(answer._replace(headers=JSON)), framing)
        size = len(whole)
        writer.write(whole[: max(size - missing, 0)])
        writer.close()

    while missing <= size:
        missing += 1
        error = await way.fails(respond)
        assert type(error) in (OfflineError, ProtocolError), missing
    assert size > 200
    missing = 0
    way.raw.respond = respond
    assert await way.node.sync_once() == (2, 1, 0)  # so it was the cut that made it fail


# Bodies that are too large, or refused


def limited(way, limit, answer):
    """Something on the way lets only requests of at most *limit* bytes pass."""

    async def respond(sent, writer):
        if len(sent.body) > limit:
            writer.write(wire(answer))
        else:
            await way.straight(sent, writer)

    return respond


TOO_LARGE = Answer(413, b'{"code":"too_large","max_bytes":8192}', JSON)


@pytest.mark.parametrize(
    "answer", [html(413), html(413)._replace(body=b""), TOO_LARGE], ids=["html", "empty", "problem"]
)
async def test_f36_a_batch_that_is_too_large_for_a_proxy_is_halved_until_it_passes(answer, way):
    for number in range(200):
        await way.todos.put(f"n{number}", {"text": "x" * 300})
    way.raw.respond = limited(way, 8192, answer)
    assert await way.node.sync_once() == (202, 1, 0)
    assert await way.node.pending() == 0
    assert await way.node.rejected() == []
    sizes = [len(json.loads(sent.body)["ops"]) for sent in way.raw.requests[1:]]
    assert sizes[:6] == [202, 101, 50, 25, 12, 24]  # and it grows again
    assert len(sizes) < 60


@pytest.mark.parametrize("room", [-1, 0, 1])
async def test_f36_one_op_that_is_too_large_is_rejected_and_the_others_pass(room, way):
    await way.node.sync_once()
    await way.todos.put("large", {"text": "x" * 10_000})
    limit = 0

    async def respond(sent, writer):
        nonlocal limit
        limit = limit or len(sent.body) + room
        await limited(way, limit, html(413))(sent, writer)

    way.raw.respond = respond
    result = await way.node.sync_once()
    assert await way.node.pending() == 0
    rejected = await way.node.rejected()
    if room >= 0:
        assert (result.pushed, result.rejected, rejected) == (1, 0, [])
        return
    assert (result.pushed, result.rejected) == (0, 1)
    (op,) = rejected
    assert (op.id, op.doc, op.code) == ("large", {"text": "x" * 10_000}, "too_large")
    assert await way.todos.get("large") is None


async def test_f36_one_op_that_is_too_large_never_stands_in_the_way(way):
    for number in range(20):
        await way.todos.put(f"n{number}", {"text": "x" * (20_000 if number == 7 else 300)})
    way.raw.respond = limited(way, 8192, html(413))
    assert await way.node.sync_once() == (21, 1, 1)
    assert [op.id for op in await way.node.rejected()] == ["n7"]
    assert len(await way.todos.all()) == 21
    assert (await way.todos.get("3")) == {"text": "tea"}


def poisoned(way, status):
    """Something on the way refuses whatever it does not like, and tells nothing."""

    async def respond(sent, writer):
        if b"poison" in sent.body:
            writer.write(wire(html(status)))
        else:
            await way.straight(sent, writer)

    return respond


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("place", [0, 13, 29])
async def test_f36_a_poison_op_is_found_and_rejected_after_three_tries(status, place, way):
    await way.node.sync_once()
    for number in range(30):
        await way.todos.put(f"n{number}", {"text": "poison" if number == place else "bread"})
    way.raw.respond = poisoned(way, status)
    result = await way.node.sync_once()
    assert (result.pushed, result.rejected) == (29, 0)
    assert (await way.node.sync_once()).rejected == 0
    assert await way.node.pending() == 1
    assert (await way.node.sync_once()).rejected == 1
    assert await way.node.pending() == 0
    (op,) = await way.node.rejected()
    assert (op.id, op.doc, op.code) == (f"n{place}", {"text": "poison"}, f"http_{status}")
    assert str(status) in op.detail
    assert await way.todos.get(f"n{place}") is None


@pytest.mark.parametrize("status", [400, 422])
async def test_f12_pulling_goes_on_beside_a_poison_op_and_its_document_comes_back(status, way):
    way.raw.respond = poisoned(way, status)
    await way.todos.put("1", {"text": "poison"})
    result = await way.node.sync_once()
    assert (result.pushed, result.pulled) == (1, 1)  # the delete, and the news
    assert await way.todos.get("3") == {"text": "tea"}
    assert await way.todos.get("1") == {"text": "poison"}
    await way.node.sync_once()
    assert (await way.node.sync_once()).rejected == 1
    assert await way.todos.get("1") == {"text": "bread"}
    (op,) = await way.node.rejected()
    await way.node.retry(op)
    way.raw.respond = way.straight
    assert (await way.node.sync_once()).pushed == 1
    assert await way.todos.get("1") == {"text": "poison"}


async def test_a_poison_op_that_is_written_over_is_let_go(way):
    way.raw.respond = poisoned(way, 422)
    await way.todos.put("1", {"text": "poison"})
    await way.node.sync_once()
    await way.node.sync_once()
    await way.todos.put("1", {"text": "rye bread"})
    assert (await way.node.sync_once()).pushed == 1
    assert await way.node.rejected() == []


# Time


async def test_f43_an_answer_that_never_comes_to_its_end_is_given_up(way, monkeypatch):
    monkeypatch.setattr(tide.sync, "DEADLINE", 0.2)

    async def drip(sent, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:  # each byte comes in time, the end never does
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    error = await way.fails(drip)
    assert type(error) is OfflineError
    await until(lambda: way.raw.open == 0)  # it hung up
    monkeypatch.undo()
    await way.recovers()


async def test_f43_a_transport_that_does_not_let_go_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tide.sync, "DEADLINE", 0.05)
    release = asyncio.Event()

    class Deaf(Transport):
        async def exchange(self, body, headers):
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await release.wait()
            raise RuntimeError("too late")

    async with Tide(tmp_path / "app.db", transport=Deaf()) as node:
        with anyio.fail_after(30), pytest.raises(OfflineError, match="no answer within"):
            await node.sync_once()
        release.set()
        await asyncio.sleep(0)


async def test_a_server_that_is_started_again_is_found_again(tmp_path):
    port = free_port()
    app = create_app(tmp_path / "server.db")
    async with Tide(tmp_path / "app.db", f"http://127.0.0.1:{port}/sync") as node:
        for number in range(3):
            await node.collection("todos").put(str(number), {"text": "bread"})
            with pytest.raises(OfflineError):
                await node.sync_once()
            assert await node.pending() == 1
            with served(app, port=port):
                assert (await node.sync_once()).pushed == 1


# Credentials


class Recorder:
    """An ASGI app that notes the headers of what passes through it, both ways."""

    def __init__(self, app):
        self.app = app
        self.requests = []
        self.answers = []

    async def __call__(self, scope, receive, send):
        async def noting(message):
            if message["type"] == "http.response.start":
                self.answers.append(decoded(message["headers"]))
            await send(message)

        if scope["type"] == "http":
            self.requests.append(decoded(scope["headers"]))
        await self.app(scope, receive, noting)


def decoded(headers):
    return {name.decode(): value.decode() for name, value in headers}


@pytest.fixture
def guarded(tmp_path):
    """A server that lets in who says `good`; gives what passed, and the endpoint."""
    app = Recorder(create_app(tmp_path / "server.db", authenticate=bearer({"good": "alice"})))
    with served(app) as endpoint:
        yield app, endpoint


def authorization(token):
    return {"Authorization": f"Bearer {token}"}


async def ready(headers):
    await asyncio.sleep(0)
    return headers


@pytest.mark.parametrize(
    "headers",
    [
        authorization("good"),
        lambda: authorization("good"),
        lambda: ready(authorization("good")),
    ],
    ids=["mapping", "function", "async function"],
)
async def test_headers_are_a_mapping_or_a_function_or_an_async_function(headers, guarded, tmp_path):
    app, endpoint = guarded
    async with Tide(tmp_path / "app.db", endpoint, headers=headers) as node:
        await node.collection("todos").put("1", {"text": "bread"})
        assert (await node.sync_once()).pushed == 1
    assert app.requests[0]["authorization"] == "Bearer good"


async def test_headers_are_asked_for_each_request(guarded, tmp_path):
    app, endpoint = guarded
    calls = 0

    def headers():
        nonlocal calls
        calls += 1
        return {**authorization("good"), "x-call": str(calls)}

    async with Tide(tmp_path / "app.db", endpoint, headers=headers) as node:
        async with node.batch():
            for number in range(1100):  # more than two requests hold
                await node.collection("todos").put(str(number), {})
        await node.sync_once()
        await node.sync_once()
    assert [sent["x-call"] for sent in app.requests] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("wrap", [lambda headers: headers, ready], ids=["sync", "async"])
async def test_f37_after_a_401_the_headers_are_asked_for_once_more(wrap, guarded, tmp_path):
    app, endpoint = guarded
    tokens = iter(["expired", "good"])
    headers = lambda: wrap(authorization(next(tokens)))  # noqa: E731 - it is what is tested
    async with Tide(tmp_path / "app.db", endpoint, headers=headers) as node:
        await node.collection("todos").put("1", {"text": "bread"})
        assert (await node.sync_once()).pushed == 1
    assert [sent["authorization"] for sent in app.requests] == ["Bearer expired", "Bearer good"]


@pytest.mark.parametrize(
    ("headers", "tries"),
    [
        (None, 1),
        (authorization("bad"), 1),
        (lambda: authorization("bad"), 2),
        (lambda: ready(authorization("bad")), 2),
    ],
    ids=["none", "mapping", "function", "async function"],
)
async def test_f37_credentials_that_stay_refused_are_an_error_and_cost_nothing(
    headers, tries, guarded, tmp_path
):
    app, endpoint = guarded
    async with Tide(tmp_path / "app.db", endpoint, headers=headers) as node:
        await node.collection("todos").put("1", {"text": "bread"})
        before = rows(tmp_path / "app.db")
        with pytest.raises(UnauthorizedError):
            await node.sync_once()
        assert rows(tmp_path / "app.db") == before
    assert len(app.requests) == tries


async def failing():
    raise KeyError("token")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (lambda: os.environ["NO SUCH VARIABLE"], "failed: KeyError"),
        (failing, r"failed: KeyError\('token'\)"),
        (lambda: None, "returned None instead of a dict such as"),
        (lambda: ready(None), "returned None"),
        (lambda: 5, "returned something of type int"),
        (lambda: "Bearer good", "returned something of type str"),
        (
            lambda: {"Authorization": None, "x": b"y"},
            "returned a mapping that holds NoneType, bytes instead",
        ),
        (lambda needed: {}, "failed: TypeError"),
        (lambda: ChainMap({"x": "good"}, None), "failed: TypeError"),  # type: ignore[arg-type]
    ],
    ids=[
        "raises",
        "raises later",
        "None",
        "None later",
        "a number",
        "text",
        "no text in it",
        "wants an argument",
        "can't be read",
    ],
)
async def test_a_function_for_headers_that_fails_is_a_sync_error(headers, words, guarded, tmp_path):
    app, endpoint = guarded
    async with Tide(tmp_path / "app.db", endpoint, headers=headers) as node:
        await node.collection("todos").put("1", {"text": "bread"})
        with pytest.raises(SyncError, match=f"the function given as headers= {words}") as caught:
            await node.sync_once()
        assert not isinstance(caught.value, OfflineError)
        assert "good" not in str(caught.value)
        assert await node.pending() == 1
    assert app.requests == []


# All of it


async def test_f40_what_the_server_compresses_arrives_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(tide.transports.http, "_LOOPBACK", ())
    app = Recorder(create_app(tmp_path / "server.db"))
    docs = {f"{number:04}": {"text": "bread ☕" * 20, "n": number} for number in range(1500)}
    with served(app) as endpoint:
        async with (
            Tide(tmp_path / "alice.db", endpoint) as alice,
            Tide(tmp_path / "bob.db", endpoint) as bob,
        ):
            async with alice.batch():
                for id_, doc in docs.items():
                    await alice.collection("todos").put(id_, doc)
            await alice.sync_once()
            app.answers.clear()
            assert (await bob.sync_once()).pulled == 1500
            assert await bob.collection("todos").all() == docs
    assert [answer.get("content-encoding") for answer in app.answers] == ["gzip", "gzip"]


@pytest.mark.parametrize("seed", range(2))
async def test_nodes_converge_over_http_that_fails_half_of_the_time(seed, tmp_path):
    random = Random(seed)
    with served(create_app(tmp_path / "server.db")) as endpoint:
        networks = [FaultyTransport(HttpTransport(endpoint), random, rate=0.5) for _ in range(2)]
        async with (
            Tide(tmp_path / "0.db", transport=networks[0]) as one,
            Tide(tmp_path / "1.db", transport=networks[1]) as two,
        ):
            for number in range(40):
                node = random.choice([one, two])
                await node.collection("todos").put(str(random.randrange(9)), {"n": number})
                with suppress(SyncError):
                    await node.sync_once()
            assert all(network.happened for network in networks)
            for network in networks:
                network.rate = 0.0
            for node in (one, two, one):
                await node.sync_once()
            assert await one.collection("todos").all() == await two.collection("todos").all()
            assert await one.pending() == await two.pending() == 0
