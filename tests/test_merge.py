"""Merging answers: all of one or nothing, by the order of stamps, and told as it happened."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import sqlite3
from contextlib import closing

import pytest

from tests.lines import Line, Scripted, op
from tide import OfflineError, ProtocolError, StoreError, Tide
from tide.stamp import MAX_WIRE_COUNTER
from tide.testing import memory_server

LOW, HIGH = "0" * 8, "z" * 8  # node ids below and above each that a node makes


def node(path, transport):
    return Tide(path, transport=transport)


async def told(tide, watcher):
    """All that *watcher* has been told; closes *tide*, which ends it."""
    await tide.close()
    return [change async for change in watcher]


BAD_CHANGES = [
    {"collection": "todos", "id": "bad", "doc": {}, "stamp": [0, "other.00000001"]},
    {"collection": "todos", "id": "bad", "doc": {}, "stamp": [1.5, "other.00000001"]},
    {"collection": "todos", "id": "bad", "doc": {}, "stamp": [2**53, "other.00000001"]},
    {"collection": "todos", "id": "bad", "doc": {}, "stamp": [1, "OTHER.00000001"]},
    {"collection": "todos", "id": "bad", "doc": {}, "stamp": [1]},
    {"collection": "todos", "id": "bad", "doc": {}},
    {"collection": "todos", "id": "bad", "stamp": [1, "other.00000001"]},
    {"collection": "todos", "id": "bad", "doc": [], "stamp": [1, "other.00000001"]},
    {"collection": "todos", "id": "a\u0000b", "doc": {}, "stamp": [1, "other.00000001"]},
    {"collection": "1", "id": "bad", "doc": {}, "stamp": [1, "other.00000001"]},
    {"id": "bad", "doc": {}, "stamp": [1, "other.00000001"]},
    {"kind": "something new"},
    "text",
    None,
]


@pytest.mark.parametrize("bad", BAD_CHANGES)
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_f04_one_bad_change_spoils_its_page_and_no_cursor_moves(tmp_path, bad, at):
    good = [op("one", {}, 8), op("two", {}, 9)]
    page = {"changes": [*good[:at], bad, *good[at:]], "cursor": "c2", "receipt": "r2", "clock": 99}
    line = Scripted(lambda request: page)
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        await todos.put("mine", {})
        for _ in range(2):
            with pytest.raises(ProtocolError):
                await tide.sync_once()
        assert await todos.all() == {"mine": {}}
        assert await tide.pending() == 1
        page["changes"] = good
        await tide.sync_once()
        assert [(r["cursor"], r.get("receipt")) for r in line.requests] == [(None, None)] * 3
        assert await todos.count() == 3


PARTS = ["outbox DELETE", "documents INSERT", "documents UPDATE", "documents DELETE", "node UPDATE"]


@pytest.mark.parametrize("part", [*PARTS, "rejected INSERT"])
async def test_f04_a_failure_anywhere_in_a_page_leaves_no_part_of_it(tmp_path, part):
    """Each kind of statement of applying an answer is made to fail, by a trigger."""
    path = tmp_path / "a.db"
    theirs = [op("old", {"n": 2}, 50), op("new", {"n": 2}, 51), op("gone", None, 52)]
    pages = [[op("old", {"n": 1}, 5), op("gone", {"n": 1}, 6)], theirs]
    line = Scripted(lambda request: {})
    async with node(path, line) as tide:
        todos = tide.collection("todos")
        line._answer = lambda request: {"changes": pages[0], "clock": 7, "receipt": "r1"}
        await tide.sync_once()
        await todos.put("mine", {"n": 1})
        await todos.put("refused", {"n": 1})
        await todos.put("removed", {"n": 1})
        before = await todos.all()
        watcher = tide.collection("todos").watch()
        current = op("refused", {"n": 0}, 3)
        rejected = {"status": "rejected", "code": "forbidden", "detail": "no"}
        line._answer = lambda request: {
            "changes": pages[1],
            "cursor": "c2",
            "clock": 99,
            "receipt": "r2",
            "results": [
                {"status": "ok"},
                {**rejected, "current": current},
                {**rejected, "current": None},
            ],
        }
        table, action = part.split()
        column = " OF cursor" if table == "node" else ""
        with closing(sqlite3.connect(path)) as sql:
            sql.execute(
                f"CREATE TRIGGER failing AFTER {action}{column} ON {table}"
                " BEGIN SELECT RAISE(ABORT, 'injected'); END"
            )
            sql.commit()
        with pytest.raises((sqlite3.Error, StoreError), match="injected"):
            await tide.sync_once()
        assert await todos.all() == before
        assert await tide.pending() == 3
        assert await tide.rejected() == []
        with closing(sqlite3.connect(path)) as sql:
            sql.execute("DROP TRIGGER failing")
            sql.commit()
        await tide.sync_once()
        assert [r["cursor"] for r in line.requests] == [None, "c1", "c1"]
        assert [r.get("receipt") for r in line.requests] == [None, "r1", "r1"]
        assert await todos.all() == {
            "mine": {"n": 1},
            "old": {"n": 2},
            "new": {"n": 2},
            "refused": {"n": 0},
        }
        assert len(await tide.rejected()) == 2
        assert len(await told(tide, watcher)) == 5


async def test_f04_a_result_about_another_document_spoils_the_answer(tmp_path):
    wrong = {"status": "superseded", "current": op("other", {"n": 1}, 9)}
    line = Scripted(lambda request: {"results": [{"status": "ok"}, wrong], "cursor": "c2"})
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        await todos.put("a", {})
        await todos.put("b", {})
        for _ in range(2):
            with pytest.raises(ProtocolError, match="asked about"):
                await tide.sync_once()
        assert await tide.pending() == 2
        assert line.requests[1]["cursor"] is None
        assert await todos.all() == {"a": {}, "b": {}}


async def test_f06_a_node_is_told_nothing_of_its_own_writes_that_come_back(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        line = Line(server.transport())
        async with node(tmp_path / "a.db", line) as tide:
            todos = tide.collection("todos")
            await todos.put("k", {"n": 1})
            await todos.put("gone", {})
            await todos.delete("gone")
            watcher = tide.collection("todos").watch()
            line.meanwhile = line.lost  # so that the server gives them back as changes
            with pytest.raises(OfflineError):
                await tide.sync_once()
            result = await tide.sync_once()
            assert b'"changes":[{' in line.answers[1].body
            assert result.pulled == 0
            assert await told(tide, watcher) == []


async def test_f06_equal_stamps_are_equal_whatever_the_spelling_of_the_document(tmp_path):
    changes = [op("k", {"a": 1, "b": 2}, 5)]
    line = Scripted(lambda request: {"changes": changes})
    async with node(tmp_path / "a.db", line) as tide:
        await tide.sync_once()
        watcher = tide.collection("todos").watch()
        changes[:] = [op("k", {"b": 2, "a": 1}, 5)]
        assert (await tide.sync_once()).pulled == 0
        assert await told(tide, watcher) == []


async def test_f07_replays_and_losers_tell_nothing(tmp_path):
    changes = [op("k", {"n": 1}, 5), op("gone", None, 6)]
    line = Scripted(lambda request: {"changes": changes})
    async with node(tmp_path / "a.db", line) as tide:
        watcher = tide.collection("todos").watch()
        assert (await tide.sync_once()).pulled == 2
        for page in (changes, [op("k", {"n": 0}, 4)], [op("k", {"n": 0}, 5, LOW)], []):
            changes[:] = page
            assert (await tide.sync_once()).pulled == 0
        changes[:] = [op("gone", None, 9)]
        assert (await tide.sync_once()).pulled == 1
        steps = await told(tide, watcher)
        assert [(c.source, c.kind, c.id, c.doc) for c in steps] == [
            ("remote", "put", "k", {"n": 1})
        ]


async def test_f07_a_document_that_is_twice_in_a_page_is_told_once_as_it_ends(tmp_path):
    changes = [op("k", {"n": 1}, 5), op("k", {"n": 3}, 7), op("k", {"n": 2}, 6)]
    changes += [op("brief", {}, 8), op("brief", None, 9)]
    async with node(tmp_path / "a.db", Scripted(lambda request: {"changes": changes})) as tide:
        watcher = tide.collection("todos").watch()
        await tide.sync_once()
        assert await tide.collection("todos").all() == {"k": {"n": 3}}
        steps = await told(tide, watcher)
        assert [(c.id, c.doc) for c in steps] == [("k", {"n": 3})]


def refuse_sevens(write):
    return "no" if write.doc is not None and write.doc["n"] % 7 == 0 else None


async def step(draw, tide, line, number):
    """Something that happens to a node: it writes, syncs, loses an answer, writes meanwhile."""
    todos = tide.collection("todos")
    write = functools.partial(todos.put, draw.choice("abcd"), {"n": number})
    if draw.random() < 0.3:
        write = functools.partial(todos.delete, draw.choice("abcd"))
    line.meanwhile = draw.choice([None, line.lost, write])
    if draw.random() < 0.4:
        await write()
    else:
        with contextlib.suppress(OfflineError):
            await tide.sync_once()


@pytest.mark.parametrize("seed", range(4))
async def test_f07_once_quiet_the_last_told_is_the_document(tmp_path, seed):
    draw = random.Random(seed)
    async with memory_server(tmp_path / "server.db", validate=refuse_sevens) as server:
        lines = [Line(server.transport()) for _ in range(2)]
        tides = [node(tmp_path / f"{n}.db", line) for n, line in enumerate(lines)]
        async with tides[0], tides[1]:
            watchers = [tide.collection("todos").watch() for tide in tides]
            for number in range(60):
                which = draw.randrange(2)
                await step(draw, tides[which], lines[which], number)
            for line in lines:
                line.meanwhile = None
            for tide in tides * 3:
                await tide.sync_once()
            held = [await tide.collection("todos").all() for tide in tides]
        assert held[0] == held[1]
        for tide, watcher in zip(tides, watchers, strict=True):
            steps = await told(tide, watcher)
            last = {change.id: change.doc for change in steps}
            assert {id_: doc for id_, doc in last.items() if doc is not None} == held[0]
            # The numbers differ, so what is told twice in a row of a document was told twice.
            for id_ in last:
                docs = [change.doc for change in steps if change.id == id_]
                assert all(a != b for a, b in itertools.pairwise(docs))


@pytest.mark.parametrize(
    ("first", "second", "winner"),  # node ids compare as bytes
    [
        ((5, "aaaaaaaa"), (6, "aaaaaaaa"), 1),
        ((6, "aaaaaaaa"), (5, "zzzzzzzz"), 0),
        ((5, "aaaaaaaa"), (5, "aaaaaaab"), 1),
        ((5, "zzzzzzzz"), (5, "aaaaaaaa"), 0),
        ((5, "99999999"), (5, "aaaaaaaa"), 1),
        ((5, "aaaaaaaa"), (5, "aaaaaaaa."), 1),
        ((5, "aaaaaaaa.0"), (5, "aaaaaaaa0."), 1),
        ((5, "........"), (5, "00000000"), 1),
        ((9, "aaaaaaaa"), (10, "aaaaaaaa"), 1),
        ((2**31, "aaaaaaaa"), (2**32, "aaaaaaaa"), 1),
        ((MAX_WIRE_COUNTER - 1, "zzzzzzzz"), (MAX_WIRE_COUNTER, "aaaaaaaa"), 1),
    ],
)
@pytest.mark.parametrize("arrival", ["in order", "reversed", "paged", "paged reversed"])
async def test_f23_the_greater_stamp_wins_whatever_the_order_of_arrival(
    tmp_path, first, second, winner, arrival
):
    changes = [op("k", {"n": 0}, *first), op("k", {"n": 1}, *second)]
    if "reversed" in arrival:
        changes.reverse()
    pages = [[change] for change in changes] if "paged" in arrival else [changes]
    line = Scripted(lambda request: {"changes": pages.pop(0)})
    async with node(tmp_path / "a.db", line) as tide:
        while pages:
            await tide.sync_once()
        assert await tide.collection("todos").get("k") == {"n": winner}


@pytest.mark.parametrize(
    "fields",
    [
        {"clock": MAX_WIRE_COUNTER + 1},
        {"clock": 2**63},
        {"clock": -1},
        {"clock": 1.5},
        {"clock": "5"},
        {"clock": True},
        {"changes": [op("k", {}, MAX_WIRE_COUNTER + 1)]},
        {"results": [{"status": "restamp", "min_counter": MAX_WIRE_COUNTER + 1}]},
        {"results": [{"status": "superseded", "current": op("mine", {}, MAX_WIRE_COUNTER + 1)}]},
    ],
)
async def test_f18_a_counter_out_of_bounds_is_taken_from_no_field(tmp_path, fields):
    line = Scripted(lambda request: fields)
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        await todos.put("mine", {})
        with pytest.raises(ProtocolError):
            await tide.sync_once()
        await todos.put("mine", {})
        assert await tide.pending() == 1
        fields.clear()
        await tide.sync_once()
        assert [op["stamp"][0] for request in line.requests for op in request["ops"]] == [1, 2]


async def test_f18_after_the_greatest_counter_that_is_taken_there_is_room_to_write(tmp_path):
    changes = [op("k", {"n": 0}, MAX_WIRE_COUNTER)]
    line = Scripted(lambda request: {"changes": changes})
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        await tide.sync_once()
        await todos.put("k", {"n": 1})
        assert (await tide.sync_once()).pushed == 1
        assert await todos.get("k") == {"n": 1}


SEEN = op("k", {"n": "theirs"}, 40)
PATHS = {
    "a change": lambda request: {"changes": [SEEN]},
    "a change that loses": lambda request: {"changes": [op("first", {}, 40), op("first", {}, 9)]},
    "the clock": lambda request: {"clock": 40},
    "superseded": lambda request: {"results": [{"status": "superseded", "current": SEEN}]},
    "rejected": lambda request: {
        "results": [{"status": "rejected", "code": "x", "detail": "", "current": SEEN}]
    },
    "restamp": lambda request: {
        "results": [
            {"status": "restamp", "min_counter": 40, "reason": "forgotten"}
            if op["stamp"][0] < 40
            else {"status": "ok"}
            for op in request["ops"]
        ]
    },
}


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("id_", ["k", "another"])
async def test_f20_each_way_in_moves_the_clock_also_across_reopening(tmp_path, way, id_):
    path = tmp_path / "a.db"
    async with node(path, Scripted(PATHS[way])) as tide:
        await tide.collection("todos").put("k", {"n": "mine"})
        await tide.sync_once()
    line = Scripted(lambda request: {})
    async with node(path, line) as tide:
        await tide.collection("todos").put(id_, {"n": "next"})
        await tide.sync_once()
        stamps = {op["id"]: op["stamp"][0] for op in line.requests[0]["ops"]}
        assert stamps[id_] > 40


async def test_f33_a_deleted_document_stays_deleted_whatever_older_comes(tmp_path):
    changes = [op("k", {"n": 1}, 5)]
    line = Scripted(lambda request: {"changes": changes})
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        await tide.sync_once()
        await todos.delete("k")
        for page in ([op("k", {"n": 1}, 5)], [op("k", {"n": 2}, 5, HIGH)], [op("k", {}, 4)]):
            changes[:] = page
            assert (await tide.sync_once()).pulled == 0
            assert await todos.get("k") is None
    async with node(tmp_path / "a.db", line) as tide:
        todos = tide.collection("todos")
        assert (await tide.sync_once()).pulled == 0
        assert await todos.all() == {}
        changes[:] = [op("k", {"n": 3}, 9)]
        await tide.sync_once()
        assert await todos.get("k") == {"n": 3}


async def test_f33_a_remote_delete_keeps_older_writes_out_too(tmp_path):
    changes = [op("k", None, 5)]
    line = Scripted(lambda request: {"changes": changes})
    async with node(tmp_path / "a.db", line) as tide:
        await tide.sync_once()
        changes[:] = [op("k", {"n": 1}, 4)]
        assert (await tide.sync_once()).pulled == 0
        assert await tide.collection("todos").get("k") is None
        await tide.collection("todos").put("k", {"n": 2})
        await tide.sync_once()
        assert line.requests[-1]["ops"][0]["stamp"][0] == 6
