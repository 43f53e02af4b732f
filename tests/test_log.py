"""What another Tide commits to the file is told here: all of it, once, in order, and cheaply."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from tests.support import until
from tide import Change, NotFoundError, StoreBusyError, Tide
from tide.database import Database
from tide.store import Store
from tide.testing import memory_server


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


@pytest.fixture
async def server(tmp_path):
    def validate(write):
        return "not fine" if write.doc == {"fine": False} else None

    async with memory_server(tmp_path / "server.db", validate=validate) as server:
        yield server


@pytest.fixture
async def second(tmp_path, tide, server):
    """The same file, opened a second time."""
    path = tmp_path / "app.db"
    async with Tide(path, transport=server.transport(), durability="relaxed") as second:
        yield second


@pytest.fixture
def others(second):
    return second.collection("todos")


@pytest.fixture
def never_looks(monkeypatch):
    """It hears of others only with its own next write, so that a test decides when that is."""
    monkeypatch.setattr("tide.feed.LOOK", 3600.0)


async def take(watcher, count):
    with anyio.fail_after(30):
        return [await anext(watcher) for _ in range(count)]


async def told_until(watcher, id_):
    """The changes up to that of the document *id_*."""
    changes: list[Change] = []
    with anyio.fail_after(30):
        while not changes or changes[-1].id != id_:
            changes.append(await anext(watcher))
    return changes


def brief(changes):
    return [(change.source, change.kind, change.id, change.doc) for change in changes]


async def test_f50_what_another_tide_commits_reaches_watchers_and_queries(todos, others):
    everything, one, query = todos.watch(), todos.watch("b"), await todos.live()
    await others.put("a", {"n": 1})
    await others.put("b", {"n": 2})
    await others.delete("a")
    await until(lambda: list(query.items) == ["b"])
    assert query.is_pending("b")
    assert brief(await take(one, 1)) == [("local", "put", "b", {"n": 2})]
    last = {change.id: change for change in await told_until(everything, "a")}
    if last["a"].kind == "put":
        last |= {change.id: change for change in await take(everything, 2)}
    assert brief([last["b"], last["a"]]) == [
        ("local", "put", "b", {"n": 2}),
        ("local", "delete", "a", None),
    ]


async def test_f50_it_is_told_in_the_order_of_the_commits_and_once(todos, others, never_looks):
    watcher, other = todos.watch(), others.watch()
    for number in range(30):
        await (todos, others)[number % 3 > 0].put(f"t{number}", {})
    await todos.put("last", {})
    await others.put("last", {})
    written = [f"t{number}" for number in range(30)]
    assert [change.id for change in await told_until(watcher, "last")] == [*written, "last"]
    assert [change.id for change in await told_until(other, "last")] == [*written, "last"]
    assert [change.id for change in await take(other, 1)] == ["last"]


async def test_f50_of_what_happened_to_a_document_between_two_looks_the_outcome_is_told(
    todos, others, never_looks
):
    watcher = todos.watch()
    for number in range(3):
        await others.put("a", {"n": number})
        await others.put(f"b{number}", {})
    await todos.put("last", {})
    assert brief(await told_until(watcher, "last")) == [
        ("local", "put", "b0", {}),
        ("local", "put", "b1", {}),
        ("local", "put", "a", {"n": 2}),
        ("local", "put", "b2", {}),
        ("local", "put", "last", {}),
    ]


async def test_f50_a_write_that_fails_loses_nothing_of_what_others_did(todos, others, never_looks):
    watcher = todos.watch()
    await others.put("a", {})
    with pytest.raises(NotFoundError):
        await todos.update("nothing", {})
    await asyncio.gather(
        todos.put("b", {}), todos.update("nothing", {}), todos.put("c", {}), return_exceptions=True
    )
    assert [change.id for change in await take(watcher, 3)] == ["a", "b", "c"]


async def test_f50_what_another_tide_synced_is_told_as_remote(
    tmp_path, todos, others, second, server
):
    async with Tide(tmp_path / "third.db", transport=server.transport()) as third:
        await third.collection("todos").put("a", {"n": 1})
        await third.sync_once()
    watcher = todos.watch()
    await second.sync_once()
    assert brief(await take(watcher, 1)) == [("remote", "put", "a", {"n": 1})]
    query = await todos.live()
    await others.put("a", {"fine": False})
    assert brief(await take(watcher, 1)) == [("local", "put", "a", {"fine": False})]
    await second.sync_once()
    assert brief(await take(watcher, 1)) == [("remote", "rejected", "a", {"n": 1})]
    await until(lambda: not query.is_pending("a"))
    assert query.items == {"a": {"n": 1}}


async def test_f50_who_begins_to_watch_is_not_told_of_what_is_long_past(
    tide, todos, others, monkeypatch
):
    monkeypatch.setattr("tide.feed.IDLE", 0.01)
    await todos.put("first", {})
    for number in range(10):
        await others.put(f"t{number}", {})
    await until(lambda: tide.status.pending == 11)  # it has looked, although nobody listens
    watcher = todos.watch()
    await others.put("new", {})
    assert [change.id for change in await take(watcher, 1)] == ["new"]


# Far behind.


@pytest.fixture
def short_log(monkeypatch, never_looks):
    monkeypatch.setattr("tide.log.KEEP", 5)
    monkeypatch.setattr("tide.store._PRUNE", 1)


async def logged(tide):
    def count(sql):
        return sql.execute("SELECT count(*) FROM log").fetchone()[0]

    return await tide._session.use().read(count)


async def test_f50_who_is_further_behind_than_the_log_goes_is_told_of_every_document(
    tide, todos, others, second, short_log
):
    await todos.put("old", {"n": 0})
    await todos.put("gone", {})
    await second.sync_once()
    watcher, query = todos.watch(), await todos.live()
    assert query.is_pending("old") is False
    for number in range(20):
        await others.put(f"t{number:02}", {"n": number})
    await others.delete("gone")
    await others.put("t00", {"n": 100})
    await second.sync_once()
    await others.put("t01", {"n": 101})
    assert await logged(tide) <= 6
    assert len(query.items) == 2
    await todos.put("last", {})
    stored = await todos.all()
    assert query.items == stored
    assert len(stored) == 22
    assert [id_ for id_ in stored if query.is_pending(id_)] == ["last", "t01"]
    changes = await told_until(watcher, "last")
    assert {change.id: change.doc for change in changes} == {**stored, "gone": None}
    assert len(changes) == 23
    assert {change.id for change in changes if change.source == "local"} == {"t01", "last"}


async def test_f50_a_document_without_a_row_is_not_lost_even_then(todos, others, second, short_log):
    """A refused write of a new document leaves nothing that a tombstone could tell of."""
    watcher, query = todos.watch(), await todos.live()
    await others.put("bad", {"fine": False})
    await others.put("again", {"fine": False})
    await todos.put("seen", {})
    assert list(query.items) == ["again", "bad", "seen"]
    await second.sync_once()
    await others.put("again", {"fine": True})
    for number in range(20):
        await others.put(f"t{number:02}", {})
    await others.put("later", {"fine": False})
    await second.sync_once()
    for number in range(20):
        await others.put(f"t{number:02}", {})
    await todos.put("last", {})
    stored = await todos.all()
    assert query.items == stored
    assert not {"bad", "later"} & stored.keys()
    assert "again" in stored
    told = {change.id: change.doc for change in await told_until(watcher, "last")}
    assert told["bad"] is None
    assert not query.is_pending("bad")
    assert {id_: doc for id_, doc in told.items() if doc is not None} == stored


async def test_f50_after_that_every_step_is_told_again(todos, others, short_log):
    watcher = todos.watch()
    for number in range(20):
        await others.put(f"t{number}", {})
    await todos.put("last", {})
    await told_until(watcher, "last")
    await others.put("t1", {"n": 1})
    await todos.put("last", {})
    assert [change.id for change in await take(watcher, 2)] == ["t1", "last"]


async def test_one_batch_that_is_longer_than_the_log_is_told(todos, others, second, short_log):
    watcher = todos.watch()
    async with second.batch():
        for number in range(30):
            await others.put(f"t{number:02}", {})
    await todos.put("last", {})
    assert [change.id for change in await told_until(watcher, "last")] == [
        *(f"t{number:02}" for number in range(30)),
        "last",
    ]


async def test_the_log_does_not_grow_for_ever(tide, todos, monkeypatch):
    monkeypatch.setattr("tide.log.KEEP", 50)
    monkeypatch.setattr("tide.store._PRUNE", 10)
    for number in range(200):
        await todos.put(f"t{number % 7}", {})
    assert 50 <= await logged(tide) <= 60


# The cost of looking.


@pytest.fixture
def looks(monkeypatch):
    """How often it looked, and how often it began a transaction."""
    counted = {"looks": 0, "writes": 0}
    look, write = Database.changed_elsewhere, Store.write

    def looked(self):
        counted["looks"] += 1
        return look(self)

    def wrote(self, work):
        counted["writes"] += 1
        return write(self, work)

    monkeypatch.setattr(Database, "changed_elsewhere", looked)
    monkeypatch.setattr(Store, "write", wrote)
    return counted


async def test_f50_looking_begins_no_transaction_while_nothing_happens(todos, looks, monkeypatch):
    monkeypatch.setattr("tide.feed.LOOK", 0.0)
    watcher = todos.watch()
    await until(lambda: looks["looks"] > 1)  # the first one does not know what was before
    writes = looks["writes"]
    await until(lambda: looks["looks"] > 20)
    assert looks["writes"] == writes
    watcher.close()


async def test_f50_it_looks_rarely_while_nobody_listens(todos, looks, monkeypatch):
    monkeypatch.setattr("tide.feed.LOOK", 0.0)
    monkeypatch.setattr("tide.feed.IDLE", 3600.0)
    watcher = todos.watch()
    await until(lambda: looks["looks"] > 2)
    watcher.close()
    query = await todos.live()
    query.close()
    await asyncio.sleep(0.05)  # a look that was due
    before = looks["looks"]
    for _ in range(20):
        await todos.count()
    await asyncio.sleep(0.05)
    assert looks["looks"] == before
    watcher = todos.watch()
    await until(lambda: looks["looks"] > before)
    watcher.close()


async def test_f50_many_listeners_share_one_look(todos, looks):
    watchers: list[Any] = [todos.watch() for _ in range(50)]
    await until(lambda: looks["looks"] >= 3)
    assert looks["looks"] < 50
    for watcher in watchers:
        watcher.close()


@pytest.mark.parametrize("error", [StoreBusyError("locked"), OSError("odd")])
async def test_f50_a_look_that_fails_is_reported_once_and_it_looks_again(
    todos, others, monkeypatch, caplog, error
):
    monkeypatch.setattr("tide.feed.LOOK", 0.001)
    failed = []

    def fail(self):
        failed.append(1)
        raise error

    watcher = todos.watch()
    with monkeypatch.context() as patched:
        patched.setattr(Database, "changed_elsewhere", fail)
        await until(lambda: len(failed) > 5)
    await others.put("a", {})
    assert [change.id for change in await take(watcher, 1)] == ["a"]
    lines = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert {record.message for record in lines} == {
        f"can't see what other processes write: {error}"
    }
    assert len(lines) <= 2  # each of the two Tides once
    watcher.close()


async def test_a_closed_tide_looks_no_more(tmp_path, looks, monkeypatch):
    monkeypatch.setattr("tide.feed.IDLE", 0.0)
    monkeypatch.setattr("tide.feed.LOOK", 0.0)
    async with Tide(tmp_path / "other.db"):
        await until(lambda: looks["looks"] > 3)
    before = looks["looks"]
    await asyncio.sleep(0.05)
    assert looks["looks"] == before
