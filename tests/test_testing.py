"""The helpers for the tests of apps: a server in memory, and a network that fails."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from tests.contracts.transport import HungUpError, TransportContract
from tide import (
    Answer,
    OfflineError,
    ProtocolError,
    SyncError,
    Tide,
    UnavailableError,
)
from tide.testing import FAULTS, FaultyTransport, memory_server
from tide.transports.memory import MemoryTransport

DAY = 86400.0


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


class Echo:
    """A peer that notes what it is asked and says it back; closable."""

    def __init__(self, answer=None):
        self.answer = answer
        self.asked = []

    async def exchange(self, body, headers):
        self.asked.append(body)
        return self.answer or Answer(200, body)

    def network(self, random, **options):
        return FaultyTransport(MemoryTransport(self.exchange), random, **options)


class Always(Random):
    """Chance that takes one option wherever it is on offer."""

    def __init__(self, option):
        super().__init__(1)
        self.option = option

    def choice(self, options):
        return self.option if self.option in options else super().choice(options)


async def outcome(network, body):
    """What comes of an exchange: the answer's status and body, or the error's type."""
    try:
        answer = await network.exchange(body, {})
    except SyncError as error:
        return type(error)
    return answer.status, answer.body


# FaultyTransport


class TestFaultyTransportThatWorks(TransportContract):
    """Without faults it is as good as what it stands before."""

    @asynccontextmanager
    async def reaching(self, handle):
        async def exchange(body, headers):
            try:
                return await handle(body, headers)
            except HungUpError:
                raise OfflineError("the peer hung up") from None

        yield FaultyTransport(MemoryTransport(exchange), Random(1), rate=0.0)

    def reaching_nobody(self):
        async def exchange(body, headers):
            raise OfflineError("nobody is there")

        return FaultyTransport(MemoryTransport(exchange), Random(1), rate=0.0)


@pytest.mark.parametrize(
    ("fault", "result", "arrived"),
    [
        ("drop", OfflineError, 0),
        ("lose", OfflineError, 1),
        ("double", (200, b"body"), 2),
        ("late", OfflineError, 0),
        ("html", (200, b"<html>Please log in</html>"), 0),
        ("busy", (503, b"<html>Bad gateway</html>"), 0),
    ],
)
async def test_each_fault_does_what_its_name_says(fault, result, arrived):
    peer = Echo()
    network = peer.network(Always(fault), rate=1.0)
    assert await outcome(network, b"body") == result
    assert peer.asked == [b"body"] * arrived
    assert network.happened == {fault: 1}


async def test_cut_gives_a_part_of_the_answer_never_all_of_it():
    peer = Echo()
    network = peer.network(Always("cut"), rate=1.0)
    parts = {await outcome(network, b"body") for _ in range(100)}
    assert parts == {(200, b"body"[:size]) for size in range(4)}
    assert peer.asked == [b"body"] * 100


async def test_an_empty_answer_can_be_cut_too():
    network = Echo(Answer(204, b"")).network(Always("cut"), rate=1.0)
    assert await outcome(network, b"body") == (204, b"")


async def test_late_arrives_before_a_later_exchange_also_once_healed():
    peer = Echo()
    network = peer.network(Always("late"), rate=1.0)
    assert await outcome(network, b"first") == OfflineError
    assert await outcome(network, b"second") == OfflineError
    assert peer.asked == [b"first"]
    network.rate = 0.0
    assert await outcome(network, b"third") == (200, b"third")
    assert peer.asked == [b"first", b"second", b"third"]
    assert await outcome(network, b"fourth") == (200, b"fourth")
    assert peer.asked[3:] == [b"fourth"]


async def test_the_rate_is_the_share_of_exchanges_that_go_wrong():
    network = Echo().network(Random(1), rate=0.25)
    for _ in range(400):
        await outcome(network, b"body")
    assert set(network.happened) == set(FAULTS)
    assert 60 < sum(network.happened.values()) < 140
    happened = Counter(network.happened)
    network.rate = 0.0
    for _ in range(100):
        assert await outcome(network, b"body") == (200, b"body")
    assert network.happened == happened


async def test_one_seed_makes_the_same_faults_each_time_and_another_makes_others():
    async def story(seed):
        peer = Echo()
        network = peer.network(Random(seed), rate=0.5)
        outcomes = [await outcome(network, b"%d" % number) for number in range(50)]
        return outcomes, peer.asked, network.happened

    assert await story(1) == await story(1)
    assert await story(1) != await story(2)


async def test_closing_it_closes_what_it_stands_before():
    class Closable(MemoryTransport):
        closed = 0

        async def aclose(self):
            self.closed += 1

    inner = Closable(Echo().exchange)
    await FaultyTransport(inner, Random(1)).aclose()
    assert inner.closed == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_f02_no_fault_loses_or_doubles_anything(fault, server, tmp_path):
    network = FaultyTransport(server.transport(), Always(fault), rate=1.0)
    async with (
        Tide(tmp_path / "app.db", transport=network) as node,
        Tide(tmp_path / "other.db", transport=server.transport()) as other,
    ):
        todos = node.collection("todos")
        await other.collection("todos").put("1", {"text": "bread"})
        await other.sync_once()
        await todos.put("2", {"text": "milk"})
        with suppress(SyncError):  # all but "double" raise
            await node.sync_once()
        await todos.put("2", {"text": "oat milk"})
        network.rate = 0.0
        await node.sync_once()
        await other.sync_once()
        expected = {"1": {"text": "bread"}, "2": {"text": "oat milk"}}
        assert await todos.all() == await other.collection("todos").all() == expected
        assert await node.pending() == 0
        assert network.happened[fault] >= 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("drop", OfflineError),
        ("lose", OfflineError),
        ("late", OfflineError),
        ("cut", ProtocolError),
        ("html", ProtocolError),
        ("busy", UnavailableError),
    ],
)
async def test_a_tide_sees_each_fault_as_the_error_that_it_is(fault, kind, server, tmp_path):
    network = FaultyTransport(server.transport(), Always(fault), rate=1.0)
    async with Tide(tmp_path / "app.db", transport=network) as node:
        with pytest.raises(SyncError) as caught:
            await node.sync_once()
    assert type(caught.value) is kind


# memory_server


async def synced(tmp_path, transport, **docs):
    """The documents of a fresh node after it put *docs* and synced; and what that did."""
    name = f"{len(list(tmp_path.iterdir()))}.db"
    async with Tide(tmp_path / name, transport=transport) as node:
        todos = node.collection("todos")
        for id_, doc in docs.items():
            await todos.put(id_, doc)
        result = await node.sync_once()
        return await todos.all(), tuple(result), await node.rejected()


async def test_nodes_meet_on_a_server_in_memory(server, tmp_path):
    bread = {"text": "bread"}
    assert await synced(tmp_path, server.transport(), a=bread) == ({"a": bread}, (1, 0, 0), [])
    assert await synced(tmp_path, server.transport()) == ({"a": bread}, (0, 1, 0), [])


async def test_its_file_can_be_served_again(tmp_path):
    for number in range(2):
        async with memory_server(tmp_path / "server.db") as server:
            docs, _, _ = await synced(tmp_path, server.transport(), **{f"n{number}": {}})
    assert docs == {"n0": {}, "n1": {}}


async def test_spaces_do_not_see_each_other(server, tmp_path):
    await synced(tmp_path, server.transport("one"), a={})
    assert (await synced(tmp_path, server.transport("one")))[0] == {"a": {}}
    assert (await synced(tmp_path, server.transport("two")))[0] == {}
    assert (await synced(tmp_path, server.transport()))[0] == {}


async def test_who_may_only_read_gets_their_writes_rejected(server, tmp_path):
    await synced(tmp_path, server.transport(), a={"n": 1})
    docs, result, rejected = await synced(tmp_path, server.transport(write=False), a={}, b={})
    assert docs == {"a": {"n": 1}}
    assert (result[0], result[2]) == (0, 2)
    assert [(op.id, op.doc, op.code) for op in rejected] == [
        ("a", {}, "forbidden"),
        ("b", {}, "forbidden"),
    ]


async def test_who_may_only_write_sees_nothing_of_others(server, tmp_path):
    await synced(tmp_path, server.transport(), a={"n": 1})
    docs, result, rejected = await synced(tmp_path, server.transport(read=False), b={"n": 2})
    assert (docs, result, rejected) == ({"b": {"n": 2}}, (1, 0, 0), [])
    assert (await synced(tmp_path, server.transport()))[0] == {"a": {"n": 1}, "b": {"n": 2}}


async def test_validate_sees_each_write_and_who_it_is_by_and_its_words_arrive(tmp_path):
    seen = []

    def validate(write):
        seen.append((write.who, write.space, write.collection, write.id, write.doc))
        return "tea is forbidden" if write.doc == {"text": "tea"} else None

    async with memory_server(tmp_path / "server.db", validate=validate) as server:
        transport = server.transport("shop", who="alice")
        docs, result, (op,) = await synced(tmp_path, transport, a={"text": "tea"}, b={})
    assert seen == [
        ("alice", "shop", "todos", "a", {"text": "tea"}),
        ("alice", "shop", "todos", "b", {}),
    ]
    assert (docs, result) == ({"b": {}}, (1, 0, 1))
    assert (op.id, op.code, op.detail) == ("a", "forbidden", "tea is forbidden")


async def test_f29_time_can_be_moved_to_where_deletions_are_forgotten(tmp_path):
    time = 1e9
    async with (
        memory_server(tmp_path / "server.db", tombstone_days=1.0, now=lambda: time) as server,
        Tide(tmp_path / "one.db", transport=server.transport()) as one,
        Tide(tmp_path / "two.db", transport=server.transport()) as two,
    ):
        await one.collection("todos").put("1", {"text": "bread"})
        await one.sync_once()
        await two.sync_once()
        await one.collection("todos").delete("1")
        await one.sync_once()
        time += 3 * DAY
        await one.collection("todos").put("2", {"text": "milk"})
        await one.sync_once()
        await two.sync_once()
        assert await two.collection("todos").all() == {"2": {"text": "milk"}}
        assert await two.pending() == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b'{"node_id":"alice.phone.0001","cursor":null,"ops":[1]}', 400, "invalid_request"),
        (
            b'{"node_id":"alice.phone.0001","cursor":null,"ops":[%b]}' % b",".join([b"{}"] * 501),
            413,
            "too_large",
        ),
    ],
    ids=["empty", "no fields", "no ops", "too many ops"],
)
async def test_what_http_would_answer_as_a_problem_it_answers_too(body, status, code, server):
    answer = await server.transport().exchange(body, {})
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert f'"code":"{code}"'.encode() in answer.body.replace(b": ", b":")


async def test_a_database_that_fails_is_a_server_that_cant_serve_now(tmp_path):
    (tmp_path / "server.db").write_bytes(b"not a database" * 100)
    async with memory_server(tmp_path / "server.db") as server:
        with pytest.raises(UnavailableError):
            await synced(tmp_path, server.transport(), a={})
