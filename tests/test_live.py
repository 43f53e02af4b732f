"""LiveQuery: current, without gap or double, in few steps, and for as long as somebody wants it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import anyio
import pytest

from tests.support import until
from tide import Diff, NotOpenError, Placed, Tide, UsageError
from tide.testing import memory_server


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


@pytest.fixture
async def other(tmp_path, tide):
    """The same file, opened a second time."""
    async with Tide(tmp_path / "app.db", durability="relaxed") as other:
        yield other.collection("todos")


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


@pytest.fixture
def one_frame(monkeypatch):
    """A frame that does not end by itself, so that what belongs to one step is known."""
    monkeypatch.setattr("tide.live.FRAME", 3600.0)


async def fill(tide, collection, count, **fields):
    async with tide.batch():
        for number in range(count):
            await tide.collection(collection).put(f"t{number:05}", {"n": number, **fields})


async def take(reader, count=1):
    with anyio.fail_after(30):
        return [await anext(reader) for _ in range(count)]


async def rest(reader):
    """What *reader* has still to tell, once it has ended."""
    with anyio.fail_after(30):
        return [diff async for diff in reader]


def ids(placed: tuple[Placed, ...]):
    return [one.id for one in placed]


async def test_it_shows_what_matches_in_order(tide, todos):
    for id_, n, done in [("a", 3, False), ("b", 1, False), ("c", 2, True), ("d", 2, False)]:
        await todos.put(id_, {"n": n, "done": done})
    await tide.collection("others").put("e", {"n": 0, "done": False})
    async with todos.live(
        where=lambda doc: not doc["done"], key=lambda doc: doc["n"], reverse=True, limit=2
    ) as query:
        assert list(query.items.items()) == [
            ("a", {"n": 3, "done": False}),
            ("d", {"n": 2, "done": False}),
        ]
        assert len(query) == 2
        assert query.get("d") == {"n": 2, "done": False}
        assert query.get("b") is None  # beyond the limit
        assert query.get("c") is None  # does not match
        assert query.get("x") is None


async def test_a_write_shows_as_soon_as_it_returned(todos):
    query = await todos.live()
    for number in range(20):
        await todos.put(f"t{number:02}", {})
        assert len(query.items) == len(query) == number + 1
        assert query.revision == number + 2
    await todos.delete("t00")
    assert "t00" not in query.items


async def test_loading_empty_and_ready_can_be_told_apart(todos):
    query = todos.live(where=lambda doc: doc["shown"])
    assert (query.state, query.revision, query.items, len(query)) == ("loading", 0, {}, 0)
    await todos.put("a", {"shown": False})
    assert query.state == "loading"
    await query
    assert (query.state, query.revision) == ("empty", 1)
    await todos.put("a", {"shown": True})
    assert (query.state, query.revision) == ("ready", 2)


async def test_items_that_were_looked_at_while_loading_are_not_what_it_shows_then(todos):
    await todos.put("a", {})
    query = todos.live()
    assert query.items == {}
    await query
    assert query.items == {"a": {}}


async def test_it_has_to_be_started_before_it_is_read(todos):
    with pytest.raises(UsageError, match="was not started; use `async with"):
        async for _ in todos.live():
            pass


async def test_it_can_be_awaited_by_several_and_again(todos):
    await todos.put("a", {})
    query = todos.live()

    async def start():
        return await query

    assert await asyncio.gather(*(start() for _ in range(3))) == [query] * 3
    assert await query is query
    assert query.revision == 1


async def test_cancelling_who_waits_for_it_does_not_keep_others_from_it(todos):
    await todos.put("a", {})
    query = todos.live()
    first, second = (asyncio.ensure_future(start(query)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).items == {"a": {}}


async def start(query):
    return await query


async def test_a_query_whose_loading_failed_can_be_tried_again(todos, monkeypatch):
    def fail(sql, collection):
        raise OSError("no luck")

    await todos.put("a", {})
    query = todos.live()
    with monkeypatch.context() as patched:
        patched.setattr("tide.live._read", fail)
        with pytest.raises(OSError, match="no luck"):
            await query
    assert query.state == "loading"
    await todos.put("b", {})
    await query
    await todos.put("c", {})
    assert list(query.items) == ["a", "b", "c"]
    assert query.revision == 2


async def test_a_query_of_a_closed_tide_cannot_be_made_or_started(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        todos = tide.collection("todos")
        query = todos.live()
    with pytest.raises(NotOpenError):
        todos.live()
    with pytest.raises(NotOpenError):
        await query


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
async def test_a_limit_is_a_positive_whole_number(todos, limit):
    with pytest.raises(UsageError, match="limit must be a positive whole number"):
        todos.live(limit=limit)


async def later(_):
    pytest.fail("nobody awaits it")


class Later:
    __call__ = later


@pytest.mark.parametrize(
    ("given", "words"),
    [("text", "not 'text'"), (True, "not True"), (later, "is async"), (Later(), "is async")],
)
async def test_where_and_key_are_plain_functions(todos, given, words):
    looks = {"where": 'where=lambda doc: not doc["done"]', "key": 'key=lambda doc: doc["text"]'}
    for name, example in looks.items():
        with pytest.raises(
            UsageError, match=rf"^{name}= is a function, as in `.*{words}"
        ) as caught:
            todos.live(**{name: given})
        assert f"`{example}`" in str(caught.value)


# No gap, no double.


async def test_what_others_committed_before_it_was_read_is_not_told_again(todos, other):
    query = await todos.live()
    for number in range(20):
        await other.put(f"t{number}", {})  # the feed does not know of it yet
    late = await todos.live()
    revision, items = late.revision, late.items
    assert len(items) == 20
    await todos.put("last", {})  # tells of all that happened before
    assert len(query.items) == 21
    reader = aiter(late)
    assert late.items.keys() - items.keys() == {"last"}
    assert late.revision == revision + 1
    assert all(late.items[id_] is doc for id_, doc in items.items())
    assert [diff.revision for diff in await take(reader)] == [2]


async def test_writes_that_race_with_loading_come_once(todos, other):
    query = todos.live()
    writes = [
        asyncio.ensure_future(collection.put(f"{name}{number:03}", {}))
        for number in range(100)
        for name, collection in (("a", todos), ("b", other))
    ]
    await writes[20]
    reader = aiter(await query)
    await asyncio.gather(*writes)
    await until(lambda: len(query) == 200)
    query.close()
    whole, *diffs = await rest(reader)
    assert whole.whole
    assert not any(diff.updated or diff.removed or diff.whole for diff in diffs)
    came = [id_ for diff in (whole, *diffs) for id_ in ids(diff.added)]
    assert len(came) == 200
    assert set(came) == set(await todos.all())


async def test_what_waits_while_it_loads_is_no_step_of_its_own_if_it_was_read(todos):
    query = todos.live()
    writes = [asyncio.ensure_future(todos.put(f"t{number}", {})) for number in range(10)]
    await asyncio.gather(query_started := asyncio.ensure_future(start(query)), *writes)
    assert query_started.result() is query
    assert list(query.items) == [f"t{number}" for number in range(10)]
    assert query.revision <= 3  # the picture, and a step for each of two commits at most


# Steps.


async def test_a_lone_change_is_a_step_at_once_and_those_of_a_frame_are_one(todos, one_frame):
    query = await todos.live()
    reader = aiter(query)
    assert [diff.whole for diff in await take(reader)] == [True]
    told: list[Any] = []
    query.subscribe(told.append)
    await todos.put("a", {})
    assert [ids(diff.added) for diff in told] == [["a"]]  # at once
    await todos.put("c", {})
    await todos.put("b", {})
    await todos.put("a", {"n": 1})
    await todos.put("a", {"n": 2})
    await todos.put("x", {})
    await todos.delete("x")
    assert len(told) == 1
    assert list(query.items.values()) == [{"n": 2}, {}, {}]  # whoever looks sees all
    assert [(ids(d.added), ids(d.updated), ids(d.removed), d.revision) for d in told[1:]] == [
        (["b", "c"], ["a"], [], 3)
    ]
    assert await take(reader, 2) == told


async def test_the_frame_ends_by_itself(todos):
    query = await todos.live()
    told: list[Any] = []
    query.subscribe(told.append)
    for number in range(5):
        await todos.put(f"t{number}", {})
    await until(lambda: sum(len(diff.added) for diff in told) == 5)
    assert [diff.revision for diff in told] == list(range(2, 2 + len(told)))


async def test_what_does_not_show_is_no_step(todos):
    query = await todos.live(where=lambda doc: doc["shown"])
    items = query.items
    await todos.put("a", {"shown": False})
    await todos.delete("a")
    await todos.delete("nothing")
    assert query.items is items
    assert query.revision == 1


async def test_ten_thousand_remote_changes_in_one_exchange_are_few_steps(tmp_path, server):
    async with (
        Tide(tmp_path / "a.db", transport=server.transport(), durability="relaxed") as a,
        Tide(tmp_path / "b.db", transport=server.transport(), durability="relaxed") as b,
    ):
        await fill(a, "todos", 10_000)
        await a.sync_once()
        query = await b.collection("todos").live(key=lambda doc: -doc["n"])
        told: list[Any] = []
        query.subscribe(told.append)
        await b.sync_once()
        assert len(query) == 10_000
        assert query.revision == 1 + len(told) <= 31
        assert next(iter(query.items)) == "t09999"


async def test_documents_that_did_not_change_and_items_keep_their_identity(todos):
    await todos.put("a", {"tags": [{"x": 1}]})
    await todos.put("b", {})
    query = await todos.live()
    before = query.items
    assert query.items is before
    assert query.get("a") is before["a"]
    await todos.put("b", {"n": 1})
    after = query.items
    assert after is not before
    assert after["a"] is before["a"]
    assert before["b"] == {}  # what was handed out stays as it was


async def test_a_diff_tells_the_places(tide, todos):
    for id_ in "bdf":
        await todos.put(id_, {"n": id_})
    query = await todos.live(key=lambda doc: doc["n"])
    reader = aiter(query)
    whole = tuple(Placed(place, id_, {"n": id_}) for place, id_ in enumerate("bdf"))
    assert await take(reader) == [Diff(1, added=whole, whole=True)]
    async with tide.batch():
        await todos.put("a", {"n": "a"})
        await todos.put("b", {"n": "z"})
        await todos.delete("f")
    assert await take(reader) == [
        Diff(
            2,
            added=(Placed(0, "a", {"n": "a"}),),
            updated=(Placed(2, "b", {"n": "z"}),),
            removed=(Placed(2, "f", {"n": "f"}),),
        )
    ]


# Readers.


async def test_readers_are_independent_and_one_that_is_slow_gets_the_whole_picture(
    todos, monkeypatch
):
    monkeypatch.setattr("tide.live.FRAME", 0.0)
    query = await todos.live()
    slow, fast = aiter(query), aiter(query)
    await take(slow)
    await take(fast)
    seen = []
    for number in range(102):
        await todos.put(f"t{number:03}", {})
        seen += await take(fast)
    assert [ids(diff.added) for diff in seen] == [[f"t{number:03}"] for number in range(102)]
    (whole,) = await take(slow)
    assert whole.whole
    assert whole.revision == query.revision
    assert ids(whole.added) == list(query.items)
    await todos.delete("t000")
    assert await take(slow) == await take(fast)


async def test_a_reader_that_is_a_little_behind_gets_every_step(todos, monkeypatch):
    monkeypatch.setattr("tide.live.FRAME", 0.0)
    query = await todos.live()
    reader = aiter(query)
    await take(reader)
    for number in range(100):
        await todos.put(f"t{number:03}", {})
    assert [ids(diff.added) for diff in await take(reader, 100)] == [
        [f"t{number:03}"] for number in range(100)
    ]


async def test_two_tasks_cannot_share_a_reader(todos):
    reader = aiter(await todos.live())
    await take(reader)
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task reads here"):
        await anext(reader)
    await todos.put("a", {})
    assert ids((await waiting).added) == ["a"]


async def test_a_cancelled_reader_loses_no_step(todos, monkeypatch):
    monkeypatch.setattr("tide.live.FRAME", 0.0)
    query = await todos.live()
    reader = aiter(query)
    await take(reader)
    diffs = []
    for number in range(50):
        reading = asyncio.ensure_future(anext(reader))
        writing = asyncio.ensure_future(todos.put(f"t{number:02}", {}))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading, writing])
        if not reading.cancelled():
            diffs.append(reading.result())
    query.close()
    diffs += await rest(reader)
    assert [id_ for diff in diffs for id_ in ids(diff.added)] == [f"t{n:02}" for n in range(50)]


@pytest.mark.parametrize("closing", ["query", "tide"])
async def test_closing_it_or_the_tide_ends_readers_after_what_waits_for_them(tide, todos, closing):
    query = await todos.live()
    waits, busy, fresh = aiter(query), aiter(query), aiter(query)
    await take(waits)
    await take(busy)
    waiting = asyncio.ensure_future(rest(waits))
    await todos.put("a", {})
    await asyncio.sleep(0)
    await todos.put("b", {})
    if closing == "query":
        query.close()
        query.close()
    else:
        await tide.close()
    for reader in (await waiting, await rest(busy)):
        assert [id_ for diff in reader for id_ in ids(diff.added)] == ["a", "b"]
    assert [ids(diff.added) for diff in await rest(fresh)] == [["a", "b"]]
    assert [ids(diff.added) for diff in await rest(aiter(query))] == [["a", "b"]]
    assert list(query.items) == ["a", "b"]  # the last picture stays
    query.close()
    with pytest.raises(UsageError, match="the query was closed; make another one"):
        await query


async def test_a_closed_query_follows_no_more(todos):
    async with todos.live() as query:
        told: list[Any] = []
        query.subscribe(told.append)
    await todos.put("a", {})
    assert (query.items, query.revision, told) == ({}, 1, [])


async def test_closing_a_query_that_loads_is_fine(todos):
    await todos.put("a", {})
    query = todos.live()
    starting = asyncio.ensure_future(start(query))
    await asyncio.sleep(0)
    query.close()
    await starting
    await todos.put("b", {})
    assert list(query.items) == ["a"]


async def test_a_query_that_nobody_holds_is_gone(todos):
    query = await todos.live()
    query.subscribe(len).close()
    await todos.put("a", {})
    gone = weakref.ref(query)
    reader = aiter(query)
    await take(reader)
    del query, reader
    await asyncio.sleep(0.05)  # a frame, whose timer holds it
    gc.collect()
    assert gone() is None


async def test_a_reader_and_a_subscription_keep_it_alive(todos):
    reader = aiter(await todos.live())
    told: list[Any] = []
    subscription = (await todos.live()).subscribe(told.append)
    gc.collect()
    await take(reader)
    await todos.put("a", {})
    assert ids((await take(reader))[0].added) == ["a"]
    assert [ids(diff.added) for diff in told] == [["a"]]
    assert not subscription.closed


# Subscriptions.


class Owner:
    def __init__(self):
        self.told = []

    def hear(self, diff):
        self.told.append(diff)


async def test_subscribers_are_told_of_each_step(todos):
    query = await todos.live()
    owner, told = Owner(), list[Any]()
    query.subscribe(owner.hear)
    query.subscribe(told.append)
    query.subscribe(told.append)
    await todos.put("a", {})
    assert [ids(diff.added) for diff in told] == [["a"], ["a"]]
    assert owner.told == told[:1]


async def test_who_subscribes_before_the_picture_is_there_is_told_of_it_first(todos):
    await todos.put("a", {})
    query = todos.live()
    told: list[Any] = []
    query.subscribe(told.append)
    await query
    await todos.put("b", {})
    assert [(diff.whole, diff.revision, ids(diff.added)) for diff in told] == [
        (True, 1, ["a"]),
        (False, 2, ["b"]),
    ]


async def test_a_subscription_ends_with_the_object_whose_method_it_calls(todos):
    query = await todos.live()
    owner = Owner()
    told = owner.told
    subscription = query.subscribe(owner.hear)
    del owner
    gc.collect()
    assert subscription.closed
    await todos.put("a", {})
    assert query.revision == 2
    assert told == []


async def test_a_subscription_ends_with_its_owner(todos):
    query = await todos.live()
    owner, told = Owner(), list[Any]()
    subscription = query.subscribe(told.append, owner=owner)
    await todos.put("a", {})
    assert not subscription.closed
    del owner
    gc.collect()
    assert subscription.closed
    await todos.put("b", {})
    assert query.revision == 3
    assert len(told) == 1


async def test_an_owner_that_lives_on_does_not_keep_a_query_that_nobody_holds(todos):
    owner = Owner()
    query = await todos.live()
    gone = weakref.ref(query)
    query.subscribe(owner.told.append, owner=owner)
    del query
    gc.collect()
    assert gone() is None


async def test_close_ends_a_subscription_and_so_does_closing_the_query(todos):
    query = await todos.live()
    told: list[Any] = []
    first, second = query.subscribe(told.append), query.subscribe(told.append)
    first.close()
    first.close()
    assert first.closed
    assert not second.closed
    await todos.put("a", {})
    assert len(told) == 1
    query.close()
    assert second.closed


async def test_a_callback_may_close_itself_another_or_the_query(todos):
    query = await todos.live()
    told: list[Any] = []

    def close_all(diff):
        told.append("first")
        second.close()
        query.close()

    query.subscribe(close_all)
    second = query.subscribe(lambda diff: told.append("second"))
    third = query.subscribe(lambda diff: told.append("third"))
    await todos.put("a", {})
    await todos.put("b", {})
    assert told == ["first"]
    assert third.closed


async def test_a_callback_may_read_the_query(todos):
    query = await todos.live()
    seen = []
    query.subscribe(lambda diff: seen.append((list(query.items), query.revision, diff.revision)))
    await todos.put("a", {})
    assert seen == [(["a"], 2, 2)]


async def test_a_callback_that_raises_is_reported_and_breaks_nothing(todos, caplog):
    query = await todos.live()
    told: list[Any] = []

    def fail(diff):
        raise ZeroDivisionError("broken callback")

    subscription = query.subscribe(fail)
    query.subscribe(told.append)
    reader = aiter(query)
    await take(reader)
    await todos.put("a", {})
    assert len(told) == 1
    assert len(await take(reader)) == 1
    assert not subscription.closed
    (record,) = caplog.records
    assert record.name == "tide"
    assert record.levelno == logging.ERROR
    assert "ZeroDivisionError: broken callback" in caplog.text


async def test_an_async_callback_is_refused(todos):
    async def callback(diff):
        pass

    query = await todos.live()
    with pytest.raises(UsageError, match="async; start a task that does `async for diff in query`"):
        query.subscribe(callback)
    with pytest.raises(UsageError, match=r"as in `query\.subscribe\(lambda diff: .*, not 'print'"):
        query.subscribe("print")


# Functions of the app that fail, and keys of any kind.


async def test_a_document_where_where_or_key_raises_is_left_out_and_reported(todos, caplog):
    await todos.put("a", {"n": 1})
    await todos.put("bad", {"text": "no n"})
    await todos.put("worse", {})
    query = await todos.live(where=lambda doc: doc["n"] > 0)
    assert list(query.items) == ["a"]
    assert {id_: type(error) for id_, error in query.errors.items()} == {
        "bad": KeyError,
        "worse": KeyError,
    }
    (record,) = caplog.records  # one line for all of a step
    assert "failed for 2 documents" in record.message
    assert "'bad'" in record.message
    assert "test_live" in caplog.text  # where in the app it was
    await todos.put("b", {"n": 2})
    await todos.put("bad", {"n": 3})  # recovers
    assert list(query.items) == ["a", "b", "bad"]
    await todos.put("a", {"n": "text"})
    assert isinstance(query.errors["a"], TypeError)
    assert "a" not in query.items
    await todos.delete("worse")
    assert query.errors.keys() == {"a"}
    assert all(error.__traceback__ is None for error in query.errors.values())


async def test_keys_of_all_kinds_have_an_order(todos):
    keys = {
        "none": None,
        "nan": float("nan"),
        "decimal_nan": Decimal("nan"),
        "minus": -1.5,
        "true": True,
        "decimal": Decimal("1.5"),
        "big": 10**30,
        "inf": float("inf"),
        "empty": "",
        "text": "b",
        "list": [],
        "nested": [None, "a", float("nan")],
        "pair": (1, 2),
        "bytes": b"x",
        "uuid": UUID(int=5),
        "naive": datetime(2024, 1, 2),  # noqa: DTZ001 - that is the point
        "aware": datetime(2020, 1, 2, tzinfo=timezone.utc),
        "date": date(2024, 1, 1),
        "dict": {},
        "set": {1},
        "object": object(),
    }
    for id_ in keys:
        await todos.put(id_, {"name": id_})
    query = await todos.live(key=lambda doc: keys[doc["name"]])
    assert list(query.items) == [
        *("decimal_nan", "nan", "none", "minus", "true", "decimal", "big", "inf", "empty", "text"),
        *("list", "nested", "pair", "bytes", "uuid", "naive", "aware", "date"),
    ]
    assert query.errors.keys() == {"dict", "set", "object"}
    assert all("there is no order for" in str(error) for error in query.errors.values())
    await todos.put("last", {"name": "none"})
    assert list(query.items)[:4] == ["decimal_nan", "last", "nan", "none"]


async def test_a_listener_that_fails_does_not_hold_up_who_writes(todos, monkeypatch, caplog):
    query = await todos.live()

    def fail(changes):
        raise MemoryError

    monkeypatch.setattr(query, "tell", fail)
    with anyio.fail_after(30):
        await todos.put("a", {})
    assert "MemoryError" in caplog.text


# Pending and rejected.


async def test_a_document_is_pending_until_the_server_has_it(tmp_path, server):
    async with Tide(tmp_path / "app.db", transport=server.transport()) as tide:
        todos = tide.collection("todos")
        await todos.put("before", {})
        query = await todos.live()
        await todos.put("a", {})
        assert query.is_pending("before")
        assert query.is_pending("a")
        assert not query.is_pending("x")
        doc = query.get("a")
        reader = aiter(query)
        await take(reader)
        await tide.sync_once()
        assert not query.is_pending("before")
        assert not query.is_pending("a")
        (diff,) = await take(reader)
        assert ids(diff.updated) == ["a", "before"]  # so that a UI shows it anew
        assert not diff.added
        assert query.get("a") is doc
        await todos.delete("a")
        assert query.is_pending("a")
        await tide.sync_once()
        assert not query.is_pending("a")


async def test_a_document_is_not_pending_once_another_process_has_synced_it(tmp_path, server):
    path = tmp_path / "app.db"
    async with Tide(path) as tide, Tide(path, transport=server.transport()) as syncing:
        todos = tide.collection("todos")
        query = await todos.live()
        await todos.put("a", {})
        assert query.is_pending("a")
        await syncing.sync_once()
        await until(lambda: not query.is_pending("a"))
        assert query.get("a") == {}


async def test_a_write_that_lost_is_not_pending_whether_put_or_delete(tmp_path, server):
    async with (
        Tide(tmp_path / "a.db", transport=server.transport()) as a,
        Tide(tmp_path / "b.db", transport=server.transport()) as b,
    ):
        mine, theirs = a.collection("todos"), b.collection("todos")
        for id_ in ("put", "deleted"):
            await theirs.put(id_, {})
        await b.sync_once()
        await a.sync_once()
        query = await mine.live()
        await mine.put("put", {"mine": True})
        await mine.delete("deleted")
        for _ in range(3):
            await theirs.put("put", {"mine": False})
            await theirs.put("deleted", {})
        await theirs.delete("deleted")
        await b.sync_once()
        assert query.is_pending("put")
        assert query.is_pending("deleted")
        await a.sync_once()
        assert not query.is_pending("put")
        assert not query.is_pending("deleted")
        assert query.items == {"put": {"mine": False}}


async def test_a_rejected_write_is_told_and_put_back(tmp_path):
    def validate(write):
        return None if write.doc["fine"] else "not fine"

    async with (
        memory_server(tmp_path / "server.db", validate=validate) as server,
        Tide(tmp_path / "app.db", transport=server.transport()) as tide,
    ):
        todos = tide.collection("todos")
        await todos.put("a", {"fine": True})
        await tide.sync_once()
        query = await todos.live()
        watcher = todos.watch()
        await todos.put("a", {"fine": False})
        await todos.put("b", {"fine": False})
        assert query.is_pending("a")
        await tide.sync_once()
        assert query.items == {"a": {"fine": True}}
        assert not query.is_pending("a")
        assert not query.is_pending("b")
        with anyio.fail_after(30):
            told = [await anext(watcher) for _ in range(4)]
        assert [(c.source, c.kind, c.id, c.doc) for c in told] == [
            ("local", "put", "a", {"fine": False}),
            ("local", "put", "b", {"fine": False}),
            ("remote", "rejected", "a", {"fine": True}),
            ("remote", "rejected", "b", None),
        ]
        assert [op.id for op in await tide.rejected()] == ["a", "b"]
