"""The server's rules over a real storage: cursors, pages, resets, counters, names, spaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tide.errors import RequestError
from tide.protocol import Op
from tide.server.access import Access, Write
from tide.server.service import DAY, Service
from tide.server.storage import sqlite
from tide.server.storage.sqlite import SqliteStorage
from tide.stamp import MAX_COUNTER, MAX_WIRE_COUNTER, Stamp

NODE = "alice.phone.0001"
OTHER = "bob.laptop.0001"
JUMP = 2**20
EVERYTHING = Access("alice")


def op(id_="1", counter=1, doc="put", node=NODE, collection="todos"):
    doc = {"n": counter} if doc == "put" else doc
    return {"collection": collection, "id": id_, "doc": doc, "stamp": [counter, node]}


class Server:
    """A service on a file of its own, with a time of its own."""

    def __init__(self, path, **options):
        self.time = 1_000_000_000.0
        self.service = Service(SqliteStorage(path, self.now), now=self.now, **options)

    def now(self):
        return self.time

    async def ask(self, *ops, cursor=None, space="default", access=EVERYTHING, **fields):
        body = {"node_id": NODE, "cursor": cursor, "ops": ops, "v": 1, **fields}
        return json.loads(await self.service.exchange(space, json.dumps(body).encode(), access))

    async def push(self, *ops, **fields):
        """The statuses of the ops, with the reason or code of one that is not taken."""
        return [
            (result["status"], result["reason"] if "reason" in result else result.get("code"))
            if result["status"] in {"restamp", "rejected"}
            else result["status"]
            for result in (await self.ask(*ops, **fields))["results"]
        ]

    async def refused(self, *ops, **fields):
        with pytest.raises(RequestError) as caught:
            await self.ask(*ops, **fields)
        return caught.value.problem

    async def held(self, **fields):
        """All that the server has, page by page."""
        cursor, found = None, []
        while True:
            page = await self.ask(cursor=cursor, **fields)
            found += page["changes"]
            cursor = page["cursor"]
            if not page.get("has_more"):
                return found


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path / "server.db")
    yield server
    await server.service.aclose()


def seq(cursor):
    return int(cursor.split(":")[1])


# Idempotency and results


async def test_f01_a_replay_gets_the_same_answer_and_no_seq(server):
    first = await server.ask(op("1", 1), op("2", 2))
    for _ in range(3):
        again = await server.ask(op("1", 1), op("2", 2))
        assert again["results"] == [{"status": "ok"}] * 2
        assert again["receipt"] == first["receipt"]


async def test_f14_what_others_wrote_is_never_left_out_because_of_ones_own_ops(server):
    await server.ask(op("1", 1))
    answer = await server.ask(op("2", 2))
    assert [change["id"] for change in answer["changes"]] == ["1"]
    assert seq(answer["cursor"]) == 2


async def test_f25_a_node_gets_back_what_it_wrote_when_it_starts_anew(server):
    await server.ask(op("1", 1))
    assert (await server.ask())["changes"] == [op("1", 1)]


async def test_the_greater_stamp_stays_whatever_comes_first(server):
    assert await server.push(op("1", 5, {"a": 1}, NODE)) == ["ok"]
    assert await server.push(op("1", 5, {"a": 2}, OTHER)) == ["ok"]
    assert await server.push(op("1", 5, {"a": 1}, NODE), op("2", 4)) == ["superseded", "ok"]
    assert await server.push(op("1", 4, None, "zzzzzzzz")) == ["superseded"]
    assert (await server.held())[0] == op("1", 5, {"a": 2}, OTHER)


async def test_f22_two_writes_under_one_stamp_are_told_apart(server):
    await server.push(op("1", 5, {"a": 1}))
    assert await server.push(op("1", 5, {"a": 1.0})) == [("restamp", "stamp_reused")]
    assert await server.push(op("1", 5, None)) == [("restamp", "stamp_reused")]
    assert await server.push(op("1", 5, {"a": 1})) == ["ok"]


# Counters


@pytest.mark.parametrize("counter", [0, -1, 2**53, 2**63 - 1, 2**63, 1e300, "5", True, 1.5, None])
async def test_f19_what_is_no_counter_is_rejected_alone(server, counter):
    odd = {**op("odd"), "stamp": [counter, NODE]}
    assert await server.push(odd, op("2", 3)) == [("rejected", "invalid_doc"), "ok"]
    assert (await server.ask())["clock"] == 3


@pytest.mark.parametrize("counter", [JUMP + 1, MAX_WIRE_COUNTER, MAX_WIRE_COUNTER + 1, MAX_COUNTER])
async def test_f18_a_counter_far_ahead_is_sent_back_and_moves_no_clock(server, counter):
    (result,) = (await server.ask(op("1", counter)))["results"]
    assert result == {"status": "restamp", "min_counter": 0, "reason": "clock_ahead"}
    assert await server.push(op("1", 1)) == ["ok"]
    assert (await server.ask())["clock"] == 1


async def test_f18_the_clock_moves_by_a_jump_at_most_with_each_op(server):
    steps = [op(str(n), JUMP * n) for n in range(1, 4)]
    assert await server.push(*steps) == ["ok"] * 3
    assert await server.push(op("4", JUMP * 4 + 1)) == [("restamp", "clock_ahead")]
    assert await server.push(op("5", JUMP * 3 + JUMP), op("4", JUMP * 4 + 1)) == ["ok"] * 2


async def test_f18_no_counter_above_the_last_one_of_the_wire_is_accepted(server):
    near = Op("todos", "near", "{}", Stamp(MAX_WIRE_COUNTER - 1, NODE))  # as after 2^33 jumps
    await server.service._storage.run("default", lambda space: space.accept([near]))
    assert await server.push(op("1", MAX_WIRE_COUNTER + 1)) == [("restamp", "clock_ahead")]
    assert await server.push(op("1", MAX_WIRE_COUNTER)) == ["ok"]
    assert await server.push(op("1", MAX_WIRE_COUNTER + 1)) == [("restamp", "clock_ahead")]


# Names


@pytest.mark.parametrize(
    ("collection", "id_", "code"),
    [
        *(
            (name, "1", "unknown_collection")
            for name in (
                "", "1a", "_a", "a b", "a/b", "é", "a\0", "a" * 65, "todos'--", 'a"; DROP', None, 5,
            )
        ),
        *(
            ("todos", id_, "invalid_id")
            for id_ in ("", "\0", "a\nb", "\x7f", "\x9f", "a" * 256, "é" * 128, None, 5, ["1"])
        ),
    ],
)  # fmt: skip
async def test_f66_f67_a_name_that_is_none_is_rejected_alone(server, collection, id_, code):
    bad = op(id_, 1, collection=collection)
    assert await server.push(bad, op("2", 2)) == [("rejected", code), "ok"]
    assert await server.held() == [op("2", 2)]


@pytest.mark.parametrize("collection", ["a", "Z9._-", "a" * 64])
@pytest.mark.parametrize(
    "id_",
    [".", "..", " ", "a ", "%2F", "/", "☕", "e\u0301", "é", "a" * 255, "🚀" * 63, "'; DROP TABLE"],
)
async def test_f66_any_other_name_comes_back_as_it_was(server, collection, id_):
    assert await server.push(op(id_, 1, collection=collection)) == ["ok"]
    assert await server.held() == [op(id_, 1, collection=collection)]


# Validate


async def test_validate_sees_the_write_and_its_words_reach_its_author(tmp_path):
    seen = []

    def validate(write: Write) -> str | None:
        seen.append((write.who, write.space, write.collection, write.id, write.doc))
        return "no deletes, please" if write.doc is None else None

    server = Server(tmp_path / "server.db", validate=validate)
    answer = await server.ask(op("1", 1, {"a": [1]}), op("2", 2, None), op("", 3), space="home")
    assert seen == [
        ("alice", "home", "todos", "1", {"a": [1]}),
        ("alice", "home", "todos", "2", None),
    ]
    assert answer["results"][1] == {
        "status": "rejected",
        "code": "forbidden",
        "detail": "no deletes, please",
        "current": None,
    }
    await server.service.aclose()


@pytest.mark.parametrize("reason", ["", "x" * 100_000, "\ud800 half a smiley"])
async def test_whatever_validate_says_the_answer_can_be_sent(tmp_path, reason):
    server = Server(tmp_path / "server.db", validate=lambda write: reason)
    (result,) = (await server.ask(op()))["results"]
    assert (result["status"], result["code"]) == ("rejected", "forbidden")
    assert len(result["detail"]) <= 1000
    await server.service.aclose()


async def test_a_validate_that_fails_stores_nothing(tmp_path):
    def validate(write: Write) -> str | None:
        return None if write.id == "1" else str((write.doc or {})["no such key"])

    server = Server(tmp_path / "server.db", validate=validate)
    with pytest.raises(KeyError):
        await server.ask(op("1", 1), op("2", 2))
    assert await server.held() == []
    await server.service.aclose()


# Cursors and receipts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "x",
        "ffffffffffffffff:0",
        "ffffffffffffffff:1",
        ":1",
        "{epoch}",
        "{epoch}:",
        "{epoch}:-1",
        "{epoch}:3",
        "{epoch}:999999999999999999",
        "{epoch}:9999999999999999999999",
        "{epoch}:1:2:3",
        "{epoch}: 1",
        "{epoch}:1 ",
        "{epoch}:١",
        "another server's; with' odd \" things",
        "9" * 256,
    ],
)
@pytest.mark.parametrize("field", ["cursor", "receipt"])
async def test_f26_a_position_that_is_not_on_its_history_resets_the_node(server, field, text):
    epoch = (await server.ask(op("1", 1), op("2", 2)))["cursor"].split(":")[0]
    problem = await server.refused(op("3", 3), **{field: text.format(epoch=epoch)})
    assert (problem.status, problem.code, dict(problem.extra)) == (
        409,
        "reset",
        {"reset": "restored"},
    )
    assert [change["id"] for change in await server.held()] == ["1", "2"]


async def test_f27_a_restore_is_noticed_after_new_writes_passed_the_cursor(tmp_path):
    path = tmp_path / "server.db"
    server = Server(path)
    old = await server.ask(op("1", 1))
    await server.service.aclose()
    backup = path.read_bytes()
    server = Server(path)
    lost = await server.ask(op("2", 2), op("3", 3))
    await server.service.aclose()
    path.write_bytes(backup)
    server = Server(path)
    await server.ask(*(op(str(n), n) for n in range(10, 20)))
    for position in (lost["cursor"], lost["receipt"]):
        assert (await server.refused(cursor=position)).extra["reset"] == "restored"
        assert (await server.refused(receipt=position)).extra["reset"] == "restored"
    assert len((await server.ask(cursor=old["cursor"], receipt=old["receipt"]))["changes"]) == 10
    await server.service.aclose()


async def test_f08_a_receipt_covers_what_was_acknowledged_beyond_the_cursor(tmp_path):
    path = tmp_path / "server.db"
    server = Server(path)
    await server.ask(*(op(str(n), n) for n in range(1, 4)))
    await server.service.aclose()
    backup = path.read_bytes()
    server = Server(path)
    answer = await server.ask(op("9", 9), limit=1)
    assert (seq(answer["cursor"]), seq(answer["receipt"])) == (1, 4)
    await server.service.aclose()
    path.write_bytes(backup)
    server = Server(path)
    assert seq((await server.ask(cursor=None))["cursor"]) == 3
    problem = await server.refused(cursor=answer["cursor"], receipt=answer["receipt"])
    assert problem.extra["reset"] == "restored"
    await server.service.aclose()


async def test_f26_restarts_alone_reset_nobody(tmp_path):
    position: dict[str, str] = {}
    for start in range(1, 6):
        server = Server(tmp_path / "server.db")
        answer = await server.ask(op(str(start), start), **position)
        position = {"cursor": answer["cursor"], "receipt": answer["receipt"]}
        await server.service.aclose()
    assert seq(answer["cursor"]) == 5


async def test_f70_a_position_of_another_space_resets_the_node(server):
    one = await server.ask(op("1", 1), space="one")
    await server.ask(op("2", 2), op("3", 3), space="two")
    for position in ({"cursor": one["cursor"]}, {"receipt": one["receipt"]}):
        problem = await server.refused(op("4", 4), space="two", **position)
        assert problem.extra["reset"] == "restored"


# Tombstones


async def test_f29_tombstones_are_kept_for_90_days_then_old_cursors_start_over(server):
    await server.ask(op("1", 1), op("2", 2))
    old = await server.ask()
    await server.ask(op("1", 3, None))
    new = await server.ask()
    server.time += 89 * DAY
    assert (await server.ask(cursor=old["cursor"]))["changes"] == [op("1", 3, None)]
    server.time += 2 * DAY
    problem = await server.refused(op("3", 4), cursor=old["cursor"])
    assert (problem.status, dict(problem.extra)) == (409, {"reset": "horizon"})
    assert (await server.ask(cursor=new["cursor"]))["changes"] == []
    assert await server.held() == [op("2", 2)]


async def test_f29_how_long_can_be_chosen(tmp_path):
    server = Server(tmp_path / "server.db", tombstone_days=0.5)
    await server.ask(op("1", 1, None))
    server.time += 1.1 * DAY
    assert await server.held() == []
    await server.service.aclose()


@pytest.mark.parametrize("counter", [1, 4, 5])
async def test_f30_an_op_older_than_what_was_forgotten_brings_nothing_back(server, counter):
    await server.ask(op("1", 5, None))
    server.time += 91 * DAY
    old = op("1", counter, {"zombie": True}, node="zzzzzzzz")
    (result,) = (await server.ask(old))["results"]
    assert result == {"status": "restamp", "min_counter": 5, "reason": "forgotten"}
    assert await server.push({**old, "doc": None}) == ["ok"]
    assert await server.held() == []
    assert await server.push(op("1", 6, {"alive": True})) == ["ok"]


async def test_f31_a_newer_write_of_a_forgotten_document_is_just_a_write(server):
    await server.ask(op("1", 5, None))
    server.time += 91 * DAY
    assert await server.push(op("1", 6), op("2", 5)) == ["ok", ("restamp", "forgotten")]


async def test_f32_a_pull_from_nothing_ends_although_it_pages_below_the_horizon(server):
    await server.ask(*(op(str(n), n) for n in range(1, 6)))
    await server.ask(op("5", 6, None))
    server.time += 91 * DAY
    assert [change["id"] for change in await server.held(limit=1)] == ["1", "2", "3", "4"]


async def test_f32_a_pull_starts_over_if_more_is_forgotten_meanwhile(server):
    await server.ask(*(op(str(n), n) for n in range(1, 6)))
    await server.ask(op("5", 6, None))
    server.time += 45 * DAY
    await server.ask(op("4", 7, None))
    server.time += 46 * DAY
    page = await server.ask(limit=1)
    page = await server.ask(cursor=page["cursor"], limit=1)
    server.time += 45 * DAY
    assert (await server.refused(cursor=page["cursor"])).extra["reset"] == "horizon"
    assert [change["id"] for change in await server.held(limit=1)] == ["1", "2", "3"]


# Properties


OPS: st.SearchStrategy[list[Any]] = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "4"]),
        st.integers(1, 6),
        st.sampled_from([{"a": 1}, {"b": []}, None]),
        st.sampled_from([NODE, OTHER]),
    ),
    max_size=12,
)


@contextlib.contextmanager
def running():
    """A loop and a folder, for one example."""
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        yield loop.run_until_complete, Path(folder)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


class Node:
    """What a node knows: it takes each change whose stamp is greater."""

    def __init__(self):
        self.cursor, self.held = None, {}

    async def pull(self, server, limit, ops=()):
        answer = await server.ask(*ops, cursor=self.cursor, limit=limit)
        for change in answer["changes"]:
            found = self.held.get(change["id"])
            assert found is None or change["stamp"] > found["stamp"]  # never a step back
            self.held[change["id"]] = change
        self.cursor = answer["cursor"]
        return answer.get("has_more", False)


@settings(max_examples=40, deadline=None)
@given(OPS, st.integers(1, 5), st.integers(0, 12))
def test_f17_pages_of_any_size_taken_while_others_write_give_the_same_state(ops, limit, early):
    async def main(folder):
        server, node = Server(folder / "server.db"), Node()
        for number, (id_, counter, doc, who) in enumerate(ops):
            await server.ask(op(id_, counter, doc, who))
            if number >= early:
                await node.pull(server, limit)
        while await node.pull(server, limit):
            pass
        assert node.held == {change["id"]: change for change in await server.held()}
        await server.service.aclose()

    with running() as (run, folder):
        run(main(folder))


@settings(max_examples=25, deadline=None)
@given(OPS, st.lists(st.integers(-3600, 3600), min_size=12, max_size=12))
def test_f16_a_clock_that_jumps_changes_nothing(ops, jumps):
    async def main(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite, "token", lambda size: "e1" * size)
            steady, jumping = Server(folder / "one.db"), Server(folder / "two.db")
            cursor = None
            for (id_, counter, doc, who), jump in zip(ops, jumps, strict=False):
                jumping.time += jump
                one, two = [
                    await server.ask(op(id_, counter, doc, who), cursor=cursor, limit=1)
                    for server in (steady, jumping)
                ]
                assert one == two
                cursor = one["cursor"]
        await steady.service.aclose()
        await jumping.service.aclose()

    with running() as (run, folder):
        run(main(folder))


async def test_f16_a_clock_that_jumps_years_ahead_costs_tombstones_only(server):
    await server.ask(op("1", 1), op("2", 2, None))
    server.time += 3650 * DAY
    await server.ask(op("3", 3), op("4", 4, None))
    server.time -= 3650 * DAY
    answer = await server.ask(op("5", 5))
    assert answer["changes"] == [op("1", 1), op("3", 3), op("4", 4, None)]
    assert seq(answer["cursor"]) == 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), OPS), max_size=6))
def test_f70_each_of_two_spaces_answers_as_if_it_were_alone(requests):
    async def main(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite, "token", lambda size: "e1" * size)
            both = Server(folder / "both.db")
            alone = {name: Server(folder / f"{name}.db") for name in ("one", "two")}
            cursors = dict.fromkeys(alone)
            for space, ops in requests:
                batch = {id_: op(id_, n, doc, who) for id_, n, doc, who in ops}.values()
                asked = {"space": space, "cursor": cursors[space], "limit": 2}
                answer = await both.ask(*batch, **asked)
                assert answer == await alone[space].ask(*batch, **asked)
                cursors[space] = answer["cursor"]
            for server in (both, *alone.values()):
                await server.service.aclose()

    with running() as (run, folder):
        run(main(folder))
