"""Exchanges: repeated, lost, doubled, reordered, foreign, in pages, by copies of a file."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from tests.lines import Line, Scripted, op
from tide import Answer, MisconfiguredError, OfflineError, ProtocolError, SyncError, Tide
from tide.testing import memory_server


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


@asynccontextmanager
async def node(path, server):
    """A Tide on *path*, with its collection ``todos`` and its line to *server*."""
    line = Line(server.transport())
    async with Tide(path, transport=line) as tide:
        yield tide, tide.collection("todos"), line


def head(tmp_path):
    """The seq that the server gave last."""
    with closing(sqlite3.connect(tmp_path / "server.db")) as sql:
        return sql.execute("SELECT head FROM spaces").fetchone()[0]


def copy_store(source, target):
    """Copy a store as somebody would who copies all of its files, open or not."""
    for suffix in ("", "-wal"):
        part = source.with_name(source.name + suffix)
        if part.exists():
            shutil.copy(part, target.with_name(target.name + suffix))


async def test_f01_an_op_whose_answer_was_lost_is_sent_again_and_stored_once(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"n": 1})
        await todos.put("gone", {"n": 2})
        await todos.delete("gone")
        line.meanwhile = line.lost
        with pytest.raises(OfflineError):
            await tide.sync_once()
        assert await tide.pending() == 2
        assert head(tmp_path) == 2
        assert (await tide.sync_once()).pushed == 2
        assert await tide.pending() == 0
        assert head(tmp_path) == 2
        assert line.requests[0]["ops"] == line.requests[1]["ops"]


async def test_f01_no_replay_of_any_request_moves_the_server(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (one, todos, line),
        node(tmp_path / "b.db", server) as (two, theirs, their_line),
    ):
        for number in range(3):
            await todos.put("k", {"n": number})
            await one.sync_once()
            await two.sync_once()
            await theirs.put("k", {"n": -number})
            await two.sync_once()
        before = head(tmp_path)
        for body in [*line.bodies, *their_line.bodies]:
            await server.transport().exchange(body, {})
        assert head(tmp_path) == before
        await one.sync_once()
        assert await todos.get("k") == await theirs.get("k") == {"n": -2}


@pytest.mark.parametrize("kind", ["put", "delete", "update"])
async def test_f02_a_write_during_its_own_push_is_pushed_too(tmp_path, server, kind):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"n": 1})

        async def write():
            if kind == "put":
                await todos.put("k", {"n": 2})
            elif kind == "update":
                await todos.update("k", {"n": 2})
            else:
                await todos.delete("k")

        line.meanwhile = write
        await tide.sync_once()
        assert await tide.pending() == 1
        expected = None if kind == "delete" else {"n": 2}
        assert await todos.get("k") == expected
        await tide.sync_once()
        assert await tide.pending() == 0
        async with node(tmp_path / "b.db", server) as (other, theirs, _):
            await other.sync_once()
            assert await theirs.get("k") == expected


async def test_f02_writing_the_old_value_again_during_the_push_is_a_write(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"n": 1})

        async def there_and_back():
            await todos.put("k", {"n": 2})
            await todos.put("k", {"n": 1})

        line.meanwhile = there_and_back
        await tide.sync_once()
        assert await tide.pending() == 1
        await tide.sync_once()
        assert line.requests[1]["ops"][0]["stamp"] > line.requests[0]["ops"][0]["stamp"]


async def test_f03_dying_between_the_answer_and_its_transaction_loses_nothing(tmp_path, server):
    path = tmp_path / "a.db"
    async with node(tmp_path / "b.db", server) as (other, theirs, _):
        await theirs.put("from b", {})
        await other.sync_once()
    async with node(path, server) as (tide, todos, line):
        await todos.put("k", {"n": 1})
        answered = asyncio.Event()

        async def hang():
            answered.set()
            await asyncio.Event().wait()

        line.meanwhile = hang
        syncing = asyncio.create_task(tide.sync_once())
        await answered.wait()
        copy_store(path, tmp_path / "died.db")  # what a crash leaves
        syncing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await syncing
    for survivor in (path, tmp_path / "died.db"):
        async with node(survivor, server) as (tide, todos, _):
            assert await tide.pending() == 1
            result = await tide.sync_once()
            assert (result.pushed, result.pulled) == (1, 1)
            assert await tide.pending() == 0
            assert await todos.get("from b") == {}
    assert head(tmp_path) == 2


async def test_f03_closing_during_an_exchange_loses_nothing(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"n": 1})
        line.meanwhile = tide.close
        with pytest.raises(Exception, match="closed"):
            await tide.sync_once()
    async with node(tmp_path / "a.db", server) as (tide, _, _):
        assert await tide.pending() == 1
        await tide.sync_once()
        assert await tide.pending() == 0
    assert head(tmp_path) == 1


async def test_f05_an_answer_that_another_overtook_is_not_applied(tmp_path, server):
    """Two Tides on one file: the first one's answer comes after the second has synced."""
    path = tmp_path / "a.db"
    async with (
        node(path, server) as (one, todos, line),
        node(path, server) as (two, _, _),
        node(tmp_path / "b.db", server) as (other, theirs, _),
    ):
        await todos.put("mine", {})

        async def overtake():
            await theirs.put("k", {"n": 1})
            await other.sync_once()
            await two.sync_once()

        line.meanwhile = overtake
        await one.sync_once()
        assert await todos.get("k") == {"n": 1}
        assert line.requests[1]["cursor"] is not None, "it goes on from where the other one got to"
        before = line.requests[-1]["cursor"]
        await one.sync_once()
        assert int(line.requests[-1]["cursor"].split(":")[1]) == 2 == head(tmp_path)
        assert before is not None
        assert await one.pending() == 0


@pytest.mark.parametrize("tides", ["one", "two"])
async def test_f05_two_syncs_at_once_of_one_file_do_no_harm(tmp_path, server, monkeypatch, tides):
    monkeypatch.setattr("tide.sync.PAGE", 2)
    monkeypatch.setattr("tide.sync.MAX_OPS", 2)
    async with node(tmp_path / "b.db", server) as (other, theirs, _):
        for number in range(7):
            await theirs.put(f"b{number}", {"n": number})
        await other.sync_once()
        async with (
            node(tmp_path / "a.db", server) as (one, todos, _),
            node(tmp_path / "a.db", server) as (two, _, _),
        ):
            for number in range(7):
                await todos.put(f"a{number}", {"n": number})
            second = one if tides == "one" else two
            results = await asyncio.gather(one.sync_once(), second.sync_once())
            assert sum(result.pulled for result in results) == 7
            assert await one.pending() == 0
            await other.sync_once()
            assert await todos.all() == await theirs.all()
            assert await todos.count() == 14
    assert head(tmp_path) == 14


async def test_f05_an_earlier_answer_that_comes_back_is_refused(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (tide, todos, line),
        node(tmp_path / "b.db", server) as (other, theirs, _),
    ):
        await todos.put("k", {"n": 1})
        await tide.sync_once()
        await theirs.put("new", {})
        await other.sync_once()
        cached = json.loads(line.answers[0].body)

        def replay(fields, request):
            fields.clear()
            fields.update(cached)

        line.alter = replay
        await todos.put("k", {"n": 2})
        with pytest.raises(ProtocolError, match="another request"):
            await tide.sync_once()
        assert await tide.pending() == 1
        line.alter = None
        await tide.sync_once()
        assert line.requests[-1]["cursor"] == line.requests[-2]["cursor"], "it had not moved"
        assert await tide.pending() == 0
        assert await todos.get("new") == {}


async def test_f05_requests_that_arrive_late_and_doubled_change_nothing(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"n": 1})
        await tide.sync_once()
        late = line.bodies[0]
        await todos.put("k", {"n": 2})
        await tide.sync_once()
        await todos.delete("k")
        await tide.sync_once()
        for body in (late, *reversed(line.bodies), late):
            await server.transport().exchange(body, {})
        async with node(tmp_path / "b.db", server) as (other, theirs, _):
            await other.sync_once()
            assert await theirs.get("k") is None
        await tide.sync_once()
        assert await todos.get("k") is None


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
async def test_f17_pages_of_any_size_bring_the_same(tmp_path, server, monkeypatch, limit):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        for number in range(7):
            await todos.put(f"k{number}", {"n": number})
        await tide.sync_once()
        await todos.put("k0", {"n": "moved to the end"})
        await todos.delete("k3")
        await tide.sync_once()
        monkeypatch.setattr("tide.sync.PAGE", limit)
        async with node(tmp_path / "b.db", server) as (other, theirs, line):
            result = await other.sync_once()
            assert result.pulled == 7
            assert await theirs.all() == await todos.all()
            assert len(line.requests) == -(-7 // limit)
            await other.sync_once()
            assert json.loads(line.answers[-1].body)["changes"] == []


async def test_f17_a_document_that_changes_while_it_is_paged_arrives(tmp_path, server, monkeypatch):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        for number in range(4):
            await todos.put(f"k{number}", {"n": number})
        await tide.sync_once()
        monkeypatch.setattr("tide.sync.PAGE", 2)
        async with node(tmp_path / "b.db", server) as (other, theirs, line):

            async def change():
                for id_ in ("k0", "k3"):  # one that was read, one that was not
                    await todos.put(id_, {"n": "changed"})
                await tide.sync_once()

            line.meanwhile = change
            await other.sync_once()
            assert await theirs.all() == await todos.all()


async def test_f17_pages_and_batches_go_on_together(tmp_path, server, monkeypatch):
    monkeypatch.setattr("tide.sync.PAGE", 3)
    monkeypatch.setattr("tide.sync.MAX_OPS", 2)
    async with (
        node(tmp_path / "a.db", server) as (tide, todos, _),
        node(tmp_path / "b.db", server) as (other, theirs, line),
    ):
        for number in range(10):
            await todos.put(f"a{number}", {})
            await theirs.put(f"b{number}", {})
        assert (await tide.sync_once()).pushed == 10
        result = await other.sync_once()
        assert (result.pushed, result.pulled) == (10, 10)
        assert [len(ids) for ids in line.sent()[:5]] == [2] * 5
        assert json.loads(line.answers[4].body)["has_more"], "there were more pages than batches"
        await tide.sync_once()
        assert await todos.all() == await theirs.all()


async def test_f36_a_batch_ends_by_its_bytes_too(tmp_path, server, monkeypatch):
    monkeypatch.setattr("tide.sync.MAX_BATCH", 5000)
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        for number in range(6):
            await todos.put(f"k{number}", {"text": "é" * 1000})  # 2000 bytes each
        await todos.put("large", {"text": "x" * 10_000})
        await tide.sync_once()
        assert line.sent() == [["k0", "k1"], ["k2", "k3"], ["k4", "k5"], ["large"]]
        assert await tide.pending() == 0


async def test_has_more_without_progress_stops_the_pass(tmp_path):
    line = Scripted(lambda request: {"cursor": request["cursor"] or "c1", "has_more": True})
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        with pytest.raises(ProtocolError, match="does not move"):
            await tide.sync_once()
        assert len(line.requests) == 2
        with pytest.raises(ProtocolError, match="does not move"):
            await tide.sync_once()
        assert len(line.requests) == 3


async def test_f18_a_node_far_ahead_loses_nothing_and_comes_back_down(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (tide, todos, line),
        node(tmp_path / "b.db", server) as (other, theirs, their_line),
    ):
        await theirs.put("b", {})
        await other.sync_once()
        for id_ in ("k1", "k2"):
            await todos.put(id_, {"was": id_})
        await todos.put("gone", {})
        await todos.delete("gone")
        line.alter = lambda fields, request: fields.update(clock=2**40)
        await tide.sync_once()  # a server that went mad, or another server
        line.alter = None
        await todos.put("k3", {"was": "k3"})
        await todos.delete("k1")
        before = tide.node_id
        result = await tide.sync_once()
        assert await tide.pending() == 0
        assert result.rejected == 0
        stamps = [op["stamp"] for request in line.requests[-2:] for op in request["ops"]]
        assert [counter > 2**40 for counter, _ in stamps] == [True, True, False, False]
        assert tide.node_id != before, "it counts through the same numbers again, under a new name"
        assert tide.node_id.partition(".")[0] == before.partition(".")[0]
        await other.sync_once()
        assert await theirs.all() == await todos.all()
        assert list(await todos.all()) == ["b", "k2", "k3"]
        await theirs.put("k3", {"was": "beaten"})
        await other.sync_once()
        await tide.sync_once()
        assert await todos.get("k3") == {"was": "beaten"}
        assert their_line.requests[-1]["ops"][0]["stamp"][0] < 100


async def test_f46_a_server_that_always_asks_for_a_new_stamp_is_not_asked_forever(tmp_path):
    def answer(request):
        if len(line.requests) > 50:
            return OfflineError("a fast loop")
        result = {"status": "restamp", "min_counter": 1, "reason": "forgotten"}
        return {"cursor": f"c{len(line.requests)}", "results": [result] * len(request["ops"])}

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        for number in range(3):
            await tide.collection("todos").put(f"k{number}", {"n": number})
        with pytest.raises(ProtocolError, match="again and again"):
            await tide.sync_once()
        assert len(line.requests) < 6
        assert await tide.pending() == 3
        assert await tide.collection("todos").count() == 3


async def test_f21_writes_on_two_copies_of_a_file_never_share_a_stamp(tmp_path, server):
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with node(path, server) as (tide, todos, _):
        await todos.put("k", {"from": "before"})
        await tide.sync_once()
        copy_store(path, copy)  # while it is open
        async with node(copy, server) as (other, theirs, their_line):
            assert other.node_id != tide.node_id
            await todos.put("k", {"from": "original"})
            await theirs.put("k", {"from": "copy"})
            await todos.put("new", {"from": "original"})
            await theirs.put("new", {"from": "copy"})
            for _ in range(2):
                await tide.sync_once()
                await other.sync_once()
            assert await todos.all() == await theirs.all()
            assert await tide.pending() == await other.pending() == 0
            assert "restamp" not in str([answer.body for answer in their_line.answers])


async def test_f21_an_op_that_waits_in_both_copies_is_one_write(tmp_path, server):
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with node(path, server) as (tide, todos, _):
        await todos.put("k", {"n": 1})
    copy_store(path, copy)
    async with node(path, server) as (tide, _, _), node(copy, server) as (other, _, _):
        await tide.sync_once()
        result = await other.sync_once()
        assert (result.pushed, result.pulled) == (1, 0)
        assert head(tmp_path) == 1


async def test_f22_after_power_loss_a_node_hears_of_its_own_lost_writes(tmp_path, server):
    path, older = tmp_path / "a.db", tmp_path / "older.db"
    async with node(path, server) as (tide, todos, _):
        await todos.put("k", {"n": 1})
        await tide.sync_once()
        copy_store(path, older)
        await todos.put("k", {"n": 2})
        await todos.put("lost", {"n": 3})
        await tide.sync_once()
    async with node(older, server) as (tide, todos, line):  # the disk forgot the last commits
        await todos.put("other", {"n": 4})  # with a counter that it had used before
        result = await tide.sync_once()
        assert (result.pushed, result.pulled) == (1, 2)
        assert await todos.all() == {"k": {"n": 2}, "lost": {"n": 3}, "other": {"n": 4}}
        assert json.loads(line.answers[0].body)["results"] == [{"status": "ok"}]


async def test_f24_a_node_observes_the_clock_of_the_server(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (busy, todos, _),
        node(tmp_path / "b.db", server) as (idle, theirs, line),
    ):
        await theirs.put("k", {"n": "first"})
        await idle.sync_once()
        for number in range(50):
            await todos.put("chatter", {"n": number})
        await busy.sync_once()
        line.alter = lambda fields, request: fields.update(changes=[])
        await idle.sync_once()  # even if no change brought that counter
        line.alter = None
        await theirs.put("k", {"n": "later"})
        await idle.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"][0] > 50


async def test_f25_both_copies_of_a_file_hear_of_each_other(tmp_path, server):
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with node(path, server) as (tide, todos, _):
        await todos.put("k", {"n": 1})
        await tide.sync_once()
    copy_store(path, copy)
    async with node(path, server) as (tide, todos, _), node(copy, server) as (other, theirs, _):
        await todos.put("mine", {})
        await theirs.put("theirs", {})
        await tide.sync_once()
        await other.sync_once()
        await tide.sync_once()
        assert await todos.all() == await theirs.all()
        assert await todos.count() == 3


async def test_f28_a_node_restored_from_a_backup_catches_up(tmp_path, server):
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    async with node(path, server) as (tide, todos, _):
        await todos.put("synced", {"n": 1})
        await tide.sync_once()
        await todos.put("waits", {"n": 1})
        copy_store(path, backup)
        await todos.put("waits", {"n": 2})
        await todos.delete("synced")
        await tide.sync_once()
        await todos.put("newer", {})
        await tide.sync_once()
        async with node(backup, server) as (old, theirs, _):
            await old.sync_once()
            assert await old.pending() == 0
            assert await theirs.all() == await todos.all()
            assert await theirs.get("waits") == {"n": 2}
    assert head(tmp_path) == 4


async def test_a_server_that_refuses_even_an_empty_request_takes_no_op_away(tmp_path):
    """Not a tide server at all, such as a form that answers 422 to whatever comes."""
    line = Scripted(lambda request: Answer(422, b"{}", {}))
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        todos = tide.collection("todos")
        for number in range(3):
            await todos.put(f"k{number}", {"n": number})
        for _ in range(5):
            with pytest.raises(MisconfiguredError, match="without ops"):
                await tide.sync_once()
        assert await tide.pending() == 3
        assert await tide.rejected() == []
        assert await todos.count() == 3


async def test_a_transport_that_is_cancelled_inside_is_an_error_not_a_cancellation(tmp_path):
    line = Scripted(lambda request: asyncio.CancelledError())
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        with pytest.raises(SyncError, match="cancel"):
            await tide.sync_once()


async def test_f43_headers_that_never_come_end_with_the_deadline(tmp_path, monkeypatch):
    async def never():
        await asyncio.Event().wait()

    monkeypatch.setattr("tide.sync.DEADLINE", 0.01)
    line = Scripted(lambda request: {})
    async with Tide(tmp_path / "a.db", transport=line, headers=never) as tide:
        with pytest.raises(OfflineError, match="no answer within"):
            await tide.sync_once()
    assert line.requests == []


async def test_changes_of_a_core_server_are_taken_and_all_ops_acknowledged(tmp_path):
    line = Scripted(lambda request: {"changes": [op("theirs", {"n": 1}, 5)]})
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.collection("todos").put("mine", {})
        result = await tide.sync_once()
        assert (result.pushed, result.pulled, result.rejected) == (1, 1, 0)
        assert await tide.pending() == 0
        assert await tide.collection("todos").get("theirs") == {"n": 1}
