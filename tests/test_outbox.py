"""The outbox: what waits, what ends its waiting, and what must not."""

from __future__ import annotations

import json

import pytest

from tests.lines import Line, Scripted, op
from tests.support import until
from tide import Answer, SyncResult, Tide
from tide.testing import memory_server


def each(result):
    """A server that gives *result*, or what it makes of the op, to each op."""

    def answer(request):
        make = result if callable(result) else lambda op: result
        return {"results": [make(op) for op in request["ops"]]}

    return answer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.db"


async def test_only_the_newest_op_of_a_document_waits(path):
    line = Scripted(lambda request: {})
    async with Tide(path, transport=line) as tide:
        todos, other = tide.collection("todos"), tide.collection("other")
        for number in range(3):
            await todos.put("k", {"n": number})
        await other.put("k", {"n": "another collection's"})
        await todos.put("gone", {})
        await todos.delete("gone")
        assert await tide.pending() == 3
        await tide.sync_once()
        sent = [(op["collection"], op["id"], op["doc"]) for op in line.requests[0]["ops"]]
        assert sent == [
            ("todos", "k", {"n": 2}),
            ("other", "k", {"n": "another collection's"}),
            ("todos", "gone", None),
        ]
        assert await tide.pending() == 0


async def test_ops_go_in_the_order_of_their_last_writing(path):
    line = Scripted(lambda request: {})
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        for id_ in ("a", "b", "c", "a"):
            await todos.put(id_, {})
        await tide.sync_once()
    assert [op["id"] for op in line.requests[0]["ops"]] == ["b", "c", "a"]


async def test_what_waits_survives_reopening(path):
    async with Tide(path) as tide:
        await tide.collection("todos").put("k", {"n": 1})
        await tide.collection("todos").delete("k")
    line = Scripted(lambda request: {})
    async with Tide(path, transport=line) as tide:
        assert await tide.pending() == 1
        await tide.sync_once()
    assert line.requests[0]["ops"][0]["doc"] is None


async def test_f02_an_acknowledgement_of_an_older_stamp_ends_no_waiting(tmp_path):
    """Also if the newer write is in another process, on the same file."""
    async with memory_server(tmp_path / "server.db") as server:
        line = Line(server.transport())
        async with (
            Tide(tmp_path / "a.db", transport=line) as one,
            Tide(tmp_path / "a.db", transport=server.transport()) as two,
        ):
            await one.collection("todos").put("k", {"n": 1})
            line.meanwhile = lambda: two.collection("todos").put("k", {"n": 2})
            await one.sync_once()
            assert await one.pending() == 1
            assert await one.collection("todos").get("k") == {"n": 2}
            assert (await two.sync_once()).pushed == 1
            assert await one.pending() == 0


async def test_f09_a_remote_winner_drops_the_op_that_it_beat(path):
    changes = [op("k", {"n": "remote"}, 50), op("draw", {"n": "remote"}, 1, "z" * 8)]
    # The server has not judged the ops: their results are missing.
    line = Scripted(lambda request: {"changes": changes, "results": []})
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        for id_ in ("draw", "k", "mine"):
            await todos.put(id_, {"n": "local"})
        result = await tide.sync_once()
        assert result == SyncResult(pushed=0, pulled=2, rejected=0)
        assert await tide.pending() == 1
        assert await todos.get("k") == await todos.get("draw") == {"n": "remote"}
        await tide.sync_once()
        assert [op["id"] for op in line.requests[-1]["ops"]] == ["mine"]


async def test_f09_a_remote_loser_leaves_the_op_and_the_document_alone(path):
    line = Scripted(lambda request: {"changes": [op("k", {"n": "old"}, 1, "0" * 8)], "results": []})
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": "new"})
        assert (await tide.sync_once()).pulled == 0
        assert await tide.pending() == 1
        assert await todos.get("k") == {"n": "new"}


@pytest.mark.parametrize(
    ("results", "waiting"),
    [
        ([], "abc"),
        ([{"status": "ok"}], "bc"),
        ([{"status": "ok"}] * 2, "c"),
        ([{"status": "ok"}] * 3, ""),
        ([{"status": "ok"}] * 9, ""),
        ([{"status": "maybe"}, {"status": "ok"}, {"status": "OK"}], "ac"),
        ([{"status": None}, {}, {"status": 5}], "abc"),
        ([{"status": ["ok"]}, {"status": True}, {"status": "ok"}], "ab"),
        ([{"status": "deferred"}, {"status": "ok"}, {"status": "deferred"}], "ac"),
    ],
)
async def test_f10_an_op_without_a_known_result_waits_on(path, results, waiting):
    line = Scripted(lambda request: {"results": results} if request["ops"] else {})
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        for id_ in "abc":
            await todos.put(id_, {"id": id_})
        assert (await tide.sync_once()).pushed == 3 - len(waiting)
        assert await tide.pending() == len(waiting)
        assert await todos.count() == 3
        assert await tide.rejected() == []
    again = Scripted(lambda request: {})
    async with Tide(path, transport=again) as tide:
        await tide.sync_once()
    assert [op["id"] for op in again.requests[0]["ops"]] == list(waiting)


@pytest.mark.parametrize("results", [{}, "ok", [1], [None], [[]], ["ok"]])
async def test_f10_results_that_are_no_results_apply_nothing(path, results):
    fields = {"results": results, "changes": [op("theirs", {}, 9)]}
    async with Tide(path, transport=Scripted(lambda request: fields)) as tide:
        await tide.collection("todos").put("k", {})
        with pytest.raises(Exception, match="answer"):
            await tide.sync_once()
        assert await tide.pending() == 1
        assert await tide.collection("todos").count() == 1


async def test_f12_a_superseded_op_with_the_winner_gives_way_to_it(path):
    winner = op("k", {"n": "theirs"}, 9)
    line = Scripted(each({"status": "superseded", "current": winner}))
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": "mine"})
        watcher = todos.watch()
        assert await tide.sync_once() == SyncResult(pushed=0, pulled=1, rejected=0)
        assert await tide.pending() == 0
        assert await todos.get("k") == {"n": "theirs"}
        change = await anext(watcher)
        assert (change.source, change.kind, change.doc) == ("remote", "put", {"n": "theirs"})
        await todos.put("k", {"n": "mine again"})
        await tide.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"][0] == 10


@pytest.mark.parametrize("counter", [None, 1])
async def test_f12_a_superseded_op_without_the_winner_waits_until_a_page_brings_it(path, counter):
    lesser = None if counter is None else op("k", {"n": "older"}, counter, "0" * 8)
    pages = [[], [op("k", {"n": "theirs"}, 9)]]

    def answer(request):
        results = [{"status": "superseded", "current": lesser}] * len(request["ops"])
        return {"results": results, "changes": pages.pop(0), "cursor": f"c{len(pages)}"}

    async with Tide(path, transport=Scripted(answer)) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": "mine"})
        await tide.sync_once()
        assert await tide.pending() == 1
        assert await todos.get("k") == {"n": "mine"}
        await tide.sync_once()
        assert await tide.pending() == 0
        assert await todos.get("k") == {"n": "theirs"}


async def test_f12_a_winner_that_has_lost_meanwhile_does_not_come_in(path):
    async with Tide(path) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": "mine"})
    # The winner is just above the op; the writes made meanwhile are above the winner.
    current = op("k", {"n": "theirs"}, 1, "z" * 8)
    line = Line(Scripted(each({"status": "superseded", "current": current})))
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        line.meanwhile = lambda: todos.put("k", {"n": "newer"})
        await tide.sync_once()
        assert await todos.get("k") == {"n": "newer"}
        assert await tide.pending() == 1


@pytest.mark.parametrize("reason", ["forgotten", "stamp_reused", "clock_ahead", "new reason"])
async def test_a_restamped_op_is_sent_again_at_once_above_the_counter_that_was_told(path, reason):
    def judge(op):
        if op["stamp"][0] > 70:
            return {"status": "ok"}
        return {"status": "restamp", "reason": reason, "min_counter": 70}

    line = Scripted(each(judge))
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": 1})
        await todos.put("gone", {})
        await todos.delete("gone")
        assert (await tide.sync_once()).pushed == 2
        assert await tide.pending() == 0
        assert await todos.all() == {"k": {"n": 1}}
        first, second = (request["ops"] for request in line.requests)
        assert [(op["id"], op["doc"]) for op in first] == [(op["id"], op["doc"]) for op in second]
        await todos.put("k", {"n": 2})
        await tide.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"] > max(op["stamp"] for op in second)


async def test_an_op_that_was_overwritten_meanwhile_is_not_restamped(path):
    def judge(op):
        if op["doc"] == {"n": 2}:
            return {"status": "ok"}
        return {"status": "restamp", "reason": "forgotten", "min_counter": 70}

    line = Line(Scripted(each(judge)))
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("k", {"n": 1})
        line.meanwhile = lambda: todos.put("k", {"n": 2})
        await tide.sync_once()
        await tide.sync_once()
        assert await todos.get("k") == {"n": 2}
        assert await tide.pending() == 0


async def test_f46_a_deferred_op_is_not_sent_again_before_its_time_and_all_else_goes_on(path):
    def judge(op):
        if op["doc"] == {"n": "now"}:
            return {"status": "ok"}
        return {"status": "deferred", "retry_after": 3600}

    line = Scripted(lambda request: {**each(judge)(request), "changes": [op("theirs", {}, 9)]})
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("later", {"n": "later"})
        await tide.sync_once()
        await todos.put("k", {"n": "now"})
        await tide.sync_once()
        await tide.sync_once()
        sent = [[op["id"] for op in request["ops"]] for request in line.requests]
        assert sent == [["later"], ["k"], []]
        assert await todos.get("theirs") == {}
        assert await tide.pending() == 1
        await todos.put("later", {"n": "now"})  # a new write is a new op
        await tide.sync_once()
        assert await tide.pending() == 0


async def test_many_deferred_ops_do_not_stand_in_the_way_of_those_behind_them(path, monkeypatch):
    monkeypatch.setattr("tide.sync.MAX_OPS", 2)
    deferred = {"status": "deferred", "retry_after": 3600}
    line = Scripted(each(lambda op: {"status": "ok"} if op["id"] == "last" else deferred))
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        for number in range(5):
            await todos.put(f"k{number}", {})
        await tide.sync_once()
        await todos.put("last", {})
        assert (await tide.sync_once()).pushed == 1
        assert await tide.pending() == 5


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_deferred_op_is_sent_again_when_its_time_has_come(path, seconds):
    results = [{"status": "deferred", "retry_after": seconds}]
    line = Scripted(lambda request: {"results": [results.pop() if results else {"status": "ok"}]})
    async with Tide(path, transport=line) as tide:
        await tide.collection("todos").put("k", {})
        assert (await tide.sync_once()).pushed == 0
        assert await tide.pending() == 1

        async def pushed():
            return (await tide.sync_once()).pushed

        await until(pushed)
        assert await tide.pending() == 0


async def test_f11_ops_that_the_server_can_not_take_block_neither_the_others_nor_pulling(tmp_path):
    """A server that refuses batches whole (a core server), and one op in it that is poison."""

    def answer(request):
        if any(op["doc"] == {"n": "poison"} for op in request["ops"]):
            return Answer(422, b'{"code":"invalid_ops","detail":"no poison"}')
        return {"changes": [op("theirs", {"n": 1}, 9)]}

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        todos = tide.collection("todos")
        for number in range(20):
            await todos.put(f"k{number}", {"n": "poison" if number in (0, 7, 19) else number})
        assert await tide.sync_once() == SyncResult(pushed=17, pulled=1, rejected=0)
        assert await todos.get("theirs") == {"n": 1}
        assert await tide.pending() == 3, "perhaps it passes the next time"
        await tide.sync_once()
        assert (await tide.sync_once()).rejected == 3
        assert await tide.pending() == 0
        assert [(op.id, op.code) for op in await tide.rejected()] == [
            ("k0", "invalid_ops"),
            ("k7", "invalid_ops"),
            ("k19", "invalid_ops"),
        ]
        assert "no poison" in (await tide.rejected())[0].detail
        assert await todos.count() == 18
        before = len(line.requests)
        await tide.sync_once()
        assert len(line.requests) == before + 1


async def test_f36_an_op_too_large_for_what_stands_on_the_way_is_set_aside_alone(tmp_path):
    def answer(request):
        if len(json.dumps(request)) > 1000:
            return Answer(413, b"<html>Request Entity Too Large</html>")
        return {}

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        todos = tide.collection("todos")
        for number in range(20):
            await todos.put(f"k{number}", {"text": "x" * (2000 if number == 9 else 100)})
        result = await tide.sync_once()
        assert (result.pushed, result.rejected) == (19, 1)
        assert [(op.id, op.code) for op in await tide.rejected()] == [("k9", "too_large")]
        assert (await tide.rejected())[0].doc == {"text": "x" * 2000}
        await todos.put("more", {})
        await tide.sync_once()
        assert await tide.pending() == 0
