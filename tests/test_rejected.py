"""Ops that the server refuses for good: put back, told, kept aside, tried again."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from tests.lines import Line, Scripted, op
from tide import Answer, NotFoundError, OfflineError, SyncResult, Tide
from tide.testing import memory_server


def validate(write):
    if write.doc is not None and write.doc.get("text") == "tea":
        return "no tea here"
    return "this stays" if write.doc is None and write.id == "kept" else None


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db", validate=validate) as server:
        yield server


@asynccontextmanager
async def node(path, server, **access):
    line = Line(server.transport(**access))
    async with Tide(path, transport=line) as tide:
        yield tide, tide.collection("todos"), line


async def test_f11_a_refused_put_is_put_back_to_what_the_server_has(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        await todos.put("k", {"text": "bread"})
        await tide.sync_once()
        await todos.put("k", {"text": "tea"})
        watcher = todos.watch()
        assert await tide.sync_once() == SyncResult(pushed=0, pulled=0, rejected=1)
        assert await todos.get("k") == {"text": "bread"}
        change = await anext(watcher)
        assert (change.source, change.kind, change.id) == ("remote", "rejected", "k")
        assert change.doc == {"text": "bread"}
        (rejected,) = await tide.rejected()
        assert (rejected.collection, rejected.id, rejected.doc) == ("todos", "k", {"text": "tea"})
        assert (rejected.code, rejected.detail) == ("forbidden", "no tea here")
        assert await tide.pending() == 0


async def test_f11_a_refused_new_document_is_removed(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        watcher = todos.watch()
        await todos.put("k", {"text": "tea"})
        assert (await anext(watcher)).kind == "put"
        await tide.sync_once()
        change = await anext(watcher)
        assert (change.source, change.kind, change.id, change.doc) == (
            "remote",
            "rejected",
            "k",
            None,
        )
        assert await todos.all() == {}


async def test_f11_a_refused_delete_brings_the_document_back(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        await todos.put("kept", {"text": "bread"})
        await tide.sync_once()
        await todos.delete("kept")
        watcher = todos.watch("kept")
        await tide.sync_once()
        assert await todos.get("kept") == {"text": "bread"}
        assert (await anext(watcher)).doc == {"text": "bread"}
        (rejected,) = await tide.rejected()
        assert rejected.doc is None


async def test_f11_a_refused_op_blocks_neither_the_rest_nor_pulling(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (tide, todos, _),
        node(tmp_path / "b.db", server) as (other, theirs, _),
    ):
        await theirs.put("theirs", {})
        await other.sync_once()
        for number in range(9):
            await todos.put(f"k{number}", {"text": "tea" if number % 4 == 0 else "bread"})
        assert await tide.sync_once() == SyncResult(pushed=6, pulled=1, rejected=3)
        await other.sync_once()
        assert await todos.all() == await theirs.all()
        assert await todos.count() == 7
        assert [op.id for op in await tide.rejected()] == ["k0", "k4", "k8"]


async def test_who_may_not_write_keeps_reading(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server, write=False) as (tide, todos, _),
        node(tmp_path / "b.db", server) as (other, theirs, _),
    ):
        await theirs.put("k", {"n": 1})
        await other.sync_once()
        await todos.put("mine", {})
        await todos.put("k", {"n": "mine"})
        assert (await tide.sync_once()).rejected == 2
        assert await todos.all() == {"k": {"n": 1}}
        assert {op.code for op in await tide.rejected()} == {"forbidden"}


async def test_f20_the_next_write_is_greater_than_what_a_rejection_put_back(tmp_path, server):
    async with (
        node(tmp_path / "a.db", server) as (tide, todos, line),
        node(tmp_path / "b.db", server) as (other, theirs, _),
    ):
        await theirs.put("k", {"n": 0})
        for number in range(30):
            await theirs.put("k", {"n": number})
        await other.sync_once()
        await todos.put("k", {"text": "tea"})

        def only_the_result(fields, request):
            fields.update(changes=[], cursor=request["cursor"] or "none", clock=0)

        line.alter = only_the_result  # so that nothing but `current` tells of the counter
        await tide.sync_once()
        assert await todos.get("k") == {"n": 29}
        line.alter = None
        await todos.put("k", {"text": "milk"})
        await other.sync_once()
    line = Line(server.transport())
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"][0] > 31
        assert await tide.collection("todos").get("k") == {"text": "milk"}


async def test_rejected_ops_survive_reopening_and_keep_their_numbers(tmp_path, server):
    path = tmp_path / "a.db"
    async with node(path, server) as (tide, todos, _):
        for id_ in ("one", "two"):
            await todos.put(id_, {"text": "tea"})
        await tide.sync_once()
        before = await tide.rejected()
        await tide.discard(before[1])
    async with node(path, server) as (tide, todos, _):
        assert await tide.rejected() == before[:1]
        await todos.put("three", {"text": "tea"})
        await tide.sync_once()
        numbers = [op.number for op in await tide.rejected()]
        assert numbers[0] == before[0].number
        assert numbers[1] > before[1].number, "a number never names two ops"


async def test_a_retried_op_is_a_new_write(tmp_path):
    allowed: list[bool] = []
    async with (
        memory_server(
            tmp_path / "server.db", validate=lambda write: None if allowed else "not yet"
        ) as server,
        node(tmp_path / "a.db", server) as (tide, todos, _),
    ):
        await todos.put("k", {"n": 1})
        await tide.sync_once()
        (rejected,) = await tide.rejected()
        watcher = todos.watch()
        await tide.retry(rejected)
        assert (await anext(watcher)).source == "local"
        assert await todos.get("k") == {"n": 1}
        assert await tide.rejected() == []
        assert await tide.pending() == 1
        await tide.sync_once()
        (again,) = await tide.rejected()
        assert again.number > rejected.number
        allowed.append(True)
        await tide.retry(again)
        assert (await tide.sync_once()).pushed == 1
        assert await todos.get("k") == {"n": 1}
        assert await tide.rejected() == []


async def test_a_retried_op_wins_over_what_was_written_meanwhile(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        await todos.put("kept", {"n": 1})
        await tide.sync_once()
        await todos.delete("kept")
        await tide.sync_once()
        await todos.put("kept", {"n": 2})
        (rejected,) = await tide.rejected()
        await tide.retry(rejected)
        assert await todos.get("kept") is None
        assert await tide.pending() == 1


async def test_a_retried_delete_of_what_is_gone_does_nothing(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        await todos.put("kept", {"n": 1})
        await todos.delete("kept")
        await tide.sync_once()
        (rejected,) = await tide.rejected()
        await tide.retry(rejected)
        assert await tide.pending() == 0
        assert await tide.rejected() == []


@pytest.mark.parametrize("name", ["retry", "discard"])
async def test_a_rejected_op_that_is_gone_is_not_found(tmp_path, server, name):
    async with node(tmp_path / "a.db", server) as (tide, todos, _):
        for id_ in ("one", "two"):
            await todos.put(id_, {"text": "tea"})
        await tide.sync_once()
        one, two = await tide.rejected()
        await tide.discard(one)
        with pytest.raises(NotFoundError, match=r"not rejected .any more."):
            await getattr(tide, name)(one)
        assert await tide.rejected() == [two]
        assert await todos.count() == 0
        assert await tide.pending() == 0


async def test_an_op_that_was_overwritten_meanwhile_is_judged_anew_instead(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"text": "tea"})
        line.meanwhile = lambda: todos.put("k", {"text": "bread"})
        assert (await tide.sync_once()).rejected == 0
        assert await todos.get("k") == {"text": "bread"}
        assert (await tide.sync_once()).pushed == 1
        assert await tide.rejected() == []


async def test_f01_a_rejection_whose_answer_was_lost_is_filed_once(tmp_path, server):
    async with node(tmp_path / "a.db", server) as (tide, todos, line):
        await todos.put("k", {"text": "tea"})
        line.meanwhile = line.lost
        with pytest.raises(OfflineError):
            await tide.sync_once()
        assert await tide.rejected() == []
        await tide.sync_once()
        await tide.sync_once()
        assert len(await tide.rejected()) == 1


async def test_f21_each_copy_of_a_file_files_the_op_that_waited_in_both(tmp_path, server):
    async with Tide(tmp_path / "a.db") as tide:
        await tide.collection("todos").put("k", {"text": "tea"})
    (tmp_path / "copy.db").write_bytes((tmp_path / "a.db").read_bytes())
    for name in ("a.db", "copy.db"):
        async with node(tmp_path / name, server) as (tide, _, _):
            await tide.sync_once()
            assert [op.id for op in await tide.rejected()] == ["k"]


async def test_what_another_device_wrote_is_put_back_without_being_filed(tmp_path):
    """After a restore it is offered by all; whoever wrote it hears of the refusal."""
    path = tmp_path / "a.db"
    async with Tide(
        path, transport=Scripted(lambda request: {"changes": [op("k", {"n": 1}, 5)]})
    ) as tide:
        await tide.sync_once()
    async with (
        memory_server(tmp_path / "server.db", validate=lambda write: "no") as server,
        node(path, server) as (tide, todos, line),
    ):
        assert (await tide.sync_once()).rejected == 0
        assert line.sent() == [[], ["k"]]
        assert await tide.rejected() == []
        assert await todos.get("k") is None
        assert await tide.pending() == 0


@pytest.mark.parametrize("code", ["forbidden", "quota", "a_new_code", None, 5])
async def test_whatever_the_code_the_op_is_kept_aside(tmp_path, code):
    result = {"status": "rejected", "code": code, "detail": None, "current": None}
    line = Scripted(lambda request: {"results": [result] * len(request["ops"])})
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.collection("todos").put("k", {"n": 1})
        assert (await tide.sync_once()).rejected == 1
        (rejected,) = await tide.rejected()
        assert rejected.code == (code if isinstance(code, str) else "")
        assert rejected.doc == {"n": 1}


async def test_a_document_refused_by_a_server_that_tells_nothing_comes_back_from_a_pull(tmp_path):
    """A core server refuses whole batches: what it holds instead has to be pulled again."""
    held = [op("k", {"n": "server"}, 1), op("other", {"n": "server"}, 2)]

    def answer(request):
        if any(op["doc"] == {"n": "bad"} for op in request["ops"]):
            return Answer(422, b"{}")
        return {"changes": held if request["cursor"] is None else []}

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        todos = tide.collection("todos")
        await tide.sync_once()
        await todos.put("k", {"n": "bad"})
        for _ in range(3):
            assert await todos.get("k") == {"n": "bad"}
            await tide.sync_once()
        assert await todos.get("k") == {"n": "server"}
        assert [op.code for op in await tide.rejected()] == ["http_422"]
        await todos.put("k", {"n": "good"})
        await tide.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"][0] > 2
