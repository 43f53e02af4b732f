"""watch(): every change once, in commit order, and no watcher outlives its reader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
import weakref

import anyio
import pytest

from tests.support import until
from tide import Change, IdError, Tide
from tide.testing import memory_server


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


async def take(watcher, count):
    """The next *count* changes of *watcher*."""
    with anyio.fail_after(30):
        return [await anext(watcher) for _ in range(count)]


async def rest(watcher):
    """What *watcher* has still to tell, once it has ended."""
    with anyio.fail_after(30):
        return [change async for change in watcher]


async def waits(reading):
    """Let the task *reading* go as far as it can; it must be waiting then."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not reading.done()


async def test_each_write_is_told_once_in_the_order_of_the_commits(tide, todos):
    watcher = todos.watch()
    await todos.put("t1", {"a": 1})
    await todos.update("t1", {"b": 2})
    await todos.put("t2", {})
    await todos.delete("t1")
    await tide.close()
    assert await rest(watcher) == [
        Change("local", "put", "todos", "t1", {"a": 1}),
        Change("local", "put", "todos", "t1", {"a": 1, "b": 2}),
        Change("local", "put", "todos", "t2", {}),
        Change("local", "delete", "todos", "t1", None),
    ]


async def test_it_counts_from_the_call_not_from_the_first_step_of_the_loop(tide, todos):
    await todos.put("t1", {"before": True})
    watcher = todos.watch()
    await todos.put("t2", {"after": True})
    await tide.close()
    assert [change.id for change in await rest(watcher)] == ["t2"]


async def test_a_write_that_was_on_its_way_when_watching_began_is_told(todos):
    writing = asyncio.ensure_future(todos.put("t1", {}))
    await asyncio.sleep(0)
    watcher = todos.watch()
    await writing
    assert [change.id for change in await take(watcher, 1)] == ["t1"]


async def test_a_reader_that_waits_is_woken(todos):
    watcher = todos.watch()
    reading = asyncio.create_task(take(watcher, 2))
    await waits(reading)
    await todos.put("t1", {"a": 1})
    await todos.put("t2", {"a": 2})
    assert [(change.id, change.doc) for change in await reading] == [
        ("t1", {"a": 1}),
        ("t2", {"a": 2}),
    ]


async def test_200_writes_at_once_are_each_told_once_and_the_last_is_what_is_stored(tide, todos):
    watcher = todos.watch()
    await todos.put("t1", {})
    await asyncio.gather(*(todos.update("t1", {f"k{n}": n}) for n in range(200)))
    stored = await todos.get("t1")
    await tide.close()
    docs = [change.doc for change in await rest(watcher)]
    assert [len(doc) for doc in docs] == list(range(201))
    assert docs[-1] == stored


async def test_one_document_can_be_watched(tide, todos):
    watcher = todos.watch("t1")
    await todos.put("t2", {})
    await todos.put("t1", {"a": 1})
    await tide.collection("notes").put("t1", {"other": True})
    await todos.delete("t2")
    await todos.delete("t1")
    await tide.close()
    assert [(change.kind, change.id, change.doc) for change in await rest(watcher)] == [
        ("put", "t1", {"a": 1}),
        ("delete", "t1", None),
    ]


async def test_another_collection_is_not_told_of(tide, todos):
    watcher = todos.watch()
    await tide.collection("notes").put("n1", {})
    await tide.close()
    assert await rest(watcher) == []


async def test_what_changes_nothing_is_not_told(tide, todos):
    watcher = todos.watch()
    await todos.delete("nothing here")
    with pytest.raises(KeyError):
        await todos.update("nothing here", {"a": 1})
    with pytest.raises(ValueError, match="nan is no JSON number"):
        await todos.put("t1", {"a": float("nan")})
    await tide.close()
    assert await rest(watcher) == []


async def test_a_batch_is_told_after_its_end_in_order_and_not_at_all_if_it_failed(tide, todos):
    watcher = todos.watch()
    reading = asyncio.create_task(take(watcher, 1))
    async with tide.batch():
        await todos.put("t1", {})
        await todos.put("t2", {})
        await waits(reading)
    assert [change.id for change in await reading] == ["t1"]
    with contextlib.suppress(ZeroDivisionError):
        async with tide.batch():
            await todos.put("t3", {})
            raise ZeroDivisionError
    await tide.close()
    assert [change.id for change in await rest(watcher)] == ["t2"]


async def test_several_watchers_are_told_each_for_itself(tide, todos):
    first, second = todos.watch(), tide.collection("todos").watch()
    await todos.put("t1", {"tags": []})
    (change,) = await take(first, 1)
    assert change.doc is not None
    change.doc["tags"].append("mine")
    first.close()
    await todos.put("t2", {})
    await tide.close()
    assert [change.doc for change in await rest(second)] == [{"tags": []}, {}]
    assert await rest(first) == []


async def test_f69_changing_what_a_watcher_told_changes_nothing(todos):
    watcher = todos.watch()
    await todos.put("t1", {"tags": []})
    (change,) = await take(watcher, 1)
    assert change.doc is not None
    change.doc["tags"].append("mine")
    assert await todos.get("t1") == {"tags": []}


async def test_remote_changes_are_told_and_what_was_pushed_is_not_told_again(tmp_path):
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "a.db", transport=server.transport()) as alice,
        Tide(tmp_path / "b.db", transport=server.transport()) as bob,
    ):
        watchers = [node.collection("todos").watch() for node in (alice, bob)]
        await alice.collection("todos").put("t1", {"a": 1})
        await bob.collection("todos").put("t2", {"b": 2})
        for node in (alice, bob, alice, bob):
            await node.sync_once()
        await bob.collection("todos").delete("t1")
        for node in (bob, alice, bob):
            await node.sync_once()
        await alice.close()
        await bob.close()
        told = [[change[:2] + change[3:] for change in await rest(w)] for w in watchers]
    assert told == [
        [
            ("local", "put", "t1", {"a": 1}),
            ("remote", "put", "t2", {"b": 2}),
            ("remote", "delete", "t1", None),
        ],
        [
            ("local", "put", "t2", {"b": 2}),
            ("remote", "put", "t1", {"a": 1}),
            ("local", "delete", "t1", None),
        ],
    ]


async def test_f45_a_reader_1000_changes_behind_gets_every_step(tide, todos):
    watcher = todos.watch()
    async with tide.batch():
        for number in range(990):
            await todos.put(f"t{number:04}", {})
    for number in range(10):
        await todos.put("t0000", {"n": number})
    await tide.close()
    told = await rest(watcher)
    assert [change.id for change in told] == [f"t{n:04}" for n in range(990)] + ["t0000"] * 10


async def test_f45_a_reader_further_behind_gets_the_latest_of_each_document(tide, todos):
    watcher, one = todos.watch(), todos.watch("t2")
    await todos.put("gone", {})
    for number in range(400):
        async with tide.batch():
            for id_ in ("t1", "t2", "t3"):
                await todos.put(id_, {"n": number})
    await todos.delete("gone")
    await todos.put("t2", {"n": "last"})
    await tide.close()
    assert [(change.id, change.doc) for change in await rest(watcher)] == [
        ("t1", {"n": 399}),
        ("t3", {"n": 399}),
        ("gone", None),
        ("t2", {"n": "last"}),
    ]
    assert len(await rest(one)) == 401  # which is not that far behind


async def test_f45_a_reader_that_has_caught_up_gets_every_step_again(tide, todos):
    watcher = todos.watch()
    async with tide.batch():
        for number in range(1500):
            await todos.put(f"t{number}", {})
    await take(watcher, 1500)
    await todos.put("t1", {"n": 1})
    await todos.put("t1", {"n": 2})
    assert [change.doc for change in await take(watcher, 2)] == [{"n": 1}, {"n": 2}]


async def test_f45_changes_that_come_while_it_catches_up_are_not_lost(tide, todos):
    watcher = todos.watch()
    async with tide.batch():
        for number in range(1100):
            await todos.put(f"t{number}", {"n": 0})
    told = await take(watcher, 600)
    await todos.put("t0", {"n": 1})  # told already
    await todos.put("t1000", {"n": 1})  # not yet told
    await tide.close()
    told += await rest(watcher)
    assert {change.id: change.doc for change in told} == {
        f"t{number}": {"n": int(number in (0, 1000))} for number in range(1100)
    }
    assert [change.id for change in told[-2:]] == ["t0", "t1000"]
    assert len(told) == 1101


async def test_f45_what_waits_for_a_reader_that_never_reads_is_bounded(tide, todos):
    watcher = todos.watch()

    async def write(count):
        for _ in range(count):
            async with tide.batch():
                for id_ in range(10):
                    await todos.put(f"t{id_}", {"text": "x" * 10_000})

    await write(110)
    gc.collect()
    tracemalloc.start()
    try:
        await write(200)  # 20 MB in all
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 2_000_000
    await tide.close()
    assert len(await rest(watcher)) == 10


async def one(todos, told):
    async for change in todos.watch():
        told.append(change)
        break


async def failing(todos, told):
    async for change in todos.watch():
        told.append(change)
        raise ZeroDivisionError


async def endless(todos, told):
    async for change in todos.watch():
        told.append(change)


@pytest.mark.parametrize("leaving", [one, failing, endless])
async def test_leaving_the_loop_by_break_exception_or_cancellation_lets_go_of_it(
    todos, monkeypatch, leaving
):
    made = []
    watch = type(todos).watch

    def watched(self):
        watcher = watch(self)
        made.append(weakref.ref(watcher))
        return watcher

    monkeypatch.setattr(type(todos), "watch", watched)
    told: list[Change] = []
    reading = asyncio.create_task(leaving(todos, told))
    await until(lambda: made)
    assert made[0]() is not None
    await todos.put("t1", {})
    await until(lambda: told)
    if leaving is endless:
        reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled() is (leaving is endless)
    if leaving is failing:
        assert isinstance(reading.exception(), ZeroDivisionError)
    del reading
    gc.collect()
    assert made[0]() is None
    await todos.put("t2", {})
    assert [change.id for change in told] == ["t1"]


async def test_a_watcher_that_nobody_holds_is_gone(todos):
    watcher = weakref.ref(todos.watch())
    gc.collect()
    assert watcher() is None
    await todos.put("t1", {})


async def test_a_watcher_that_is_held_goes_on_after_a_loop_was_left(todos):
    watcher = todos.watch()
    await todos.put("t1", {})
    await todos.put("t2", {})
    async for change in watcher:
        assert change.id == "t1"
        break
    assert [change.id for change in await take(watcher, 1)] == ["t2"]


async def test_cancelling_a_reader_loses_no_change(todos):
    watcher = todos.watch()
    told = []

    async def read():
        async for change in watcher:
            told.append(change.id)

    for number in range(50):
        reading = asyncio.create_task(read())
        writing = asyncio.create_task(todos.put(f"t{number}", {}))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading, writing])
    watcher.close()
    told += [change.id for change in await rest(watcher)]
    assert told == [f"t{number}" for number in range(len(told))]


async def test_every_change_reaches_a_reader_that_is_cancelled_again_and_again(todos):
    watcher = todos.watch()
    told = []
    for number in range(50):
        reading = asyncio.create_task(anext(watcher))
        writing = asyncio.create_task(todos.put(f"t{number}", {}))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading, writing])
        if not reading.cancelled():
            told.append(reading.result())
    told += await take(watcher, 50 - len(told))
    assert [change.id for change in told] == [f"t{number}" for number in range(50)]


async def test_close_ends_the_loop_at_once_and_can_be_called_again(todos):
    watcher = todos.watch()
    await todos.put("t1", {})
    watcher.close()
    watcher.close()
    await todos.put("t2", {})
    assert await rest(watcher) == []


async def test_close_wakes_a_reader_that_waits(todos):
    watcher = todos.watch()
    reading = asyncio.create_task(rest(watcher))
    await waits(reading)
    watcher.close()
    assert await reading == []


async def test_closing_the_tide_ends_every_loop_after_what_happened_before(tide, todos):
    busy, idle = todos.watch(), todos.watch("t9")
    waiting = asyncio.create_task(rest(idle))
    await waits(waiting)
    await todos.put("t1", {})
    last = asyncio.ensure_future(todos.put("t2", {}))
    await asyncio.sleep(0)
    await tide.close()
    await last
    assert await waiting == []
    assert [change.id for change in await rest(busy)] == ["t1", "t2"]
    assert await rest(busy) == []
    busy.close()


async def test_two_tasks_cannot_read_one_watcher_and_the_first_reads_on(todos):
    watcher = todos.watch()
    reading = asyncio.create_task(take(watcher, 1))
    await waits(reading)
    with pytest.raises(RuntimeError, match=r"another task reads this watcher; call watch\(\) for"):
        await anext(watcher)
    await todos.put("t1", {})
    assert [change.id for change in await reading] == ["t1"]


@pytest.mark.parametrize("id_", ["", "a\x00", "a" * 256, 5])
async def test_f66_what_is_no_id_cannot_be_watched(todos, id_):
    with pytest.raises(IdError):
        todos.watch(id_)


async def test_watching_first_and_reading_then_misses_nothing(todos):
    watcher = todos.watch()
    writes = [asyncio.ensure_future(todos.put(f"t{n}", {"n": n})) for n in range(50)]
    shown = await todos.all()
    await asyncio.gather(*writes)
    for change in await take(watcher, 50):
        shown[change.id] = change.doc
    assert shown == await todos.all()
