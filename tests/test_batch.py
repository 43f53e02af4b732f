"""batch(): all of its writes happen together, or none."""

from __future__ import annotations

import asyncio
import sqlite3

import anyio
import pytest

from tide import DocumentError, NotFoundError, NotOpenError, Tide, UsageError


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


@pytest.fixture
def log(tide):
    return tide.collection("log")


class WrongError(Exception):
    """What goes wrong inside of a batch here."""


async def everything(tide):
    """All documents, by collection."""
    return {name: await tide.collection(name).all() for name in await tide.collections()}


async def test_the_writes_of_a_batch_are_there_after_it_across_collections(tide, todos, log):
    await todos.put("old", {"a": 1})
    await todos.put("gone", {})
    async with tide.batch():
        await todos.put("t1", {"n": 1})
        await todos.update("old", {"b": 2})
        await todos.delete("gone")
        id_ = await log.add({"did": "it"})
    assert await everything(tide) == {
        "log": {id_: {"did": "it"}},
        "todos": {"old": {"a": 1, "b": 2}, "t1": {"n": 1}},
    }
    assert await tide.pending() == 4


@pytest.mark.parametrize("error", [WrongError, KeyboardInterrupt, asyncio.CancelledError])
async def test_after_any_exception_nothing_of_a_batch_was_written(tide, todos, log, error):
    await todos.put("old", {"a": 1})
    await todos.put("gone", {})
    before = await everything(tide), await tide.pending()

    async def fail():
        async with tide.batch():
            await todos.put("t1", {})
            await todos.update("old", {"b": 2})
            await todos.delete("gone")
            await log.add({})
            raise error

    with pytest.raises(error):
        await fail()
    assert (await everything(tide), await tide.pending()) == before
    await todos.put("after", {})
    assert await todos.get("after") == {}


async def test_an_empty_batch_and_one_that_changes_nothing_do_nothing(tide, todos):
    async with tide.batch():
        pass
    async with tide.batch():
        assert await todos.delete("nothing here") is False
        await todos.put("t1", {})
        assert await todos.delete("t1") is True
    assert await everything(tide) == {}
    assert await tide.pending() == 0


async def test_nobody_else_sees_a_batch_in_part(tmp_path):
    async with Tide(tmp_path / "app.db") as writer, Tide(tmp_path / "app.db") as reader:
        seen = set()
        done = False

        async def look():
            shown = [reader.collection(name) for name in ("even", "odd")]
            while not done:
                docs = await shown[0].all()
                seen.add(len(docs))
                assert all(doc["n"] == docs["0"]["n"] for doc in docs.values())

        looking = asyncio.create_task(look())
        for number in range(30):
            async with writer.batch():
                for id_ in range(40):
                    await writer.collection("even").put(f"{id_}", {"n": number})
                    await asyncio.sleep(0)
        done = True
        await looking
        assert seen <= {0, 40}
        assert await reader.collection("even").count() == 40


async def test_a_batch_is_one_commit(tide, todos, tmp_path):
    with sqlite3.connect(tmp_path / "app.db") as other:  # told of commits by SQLite itself
        await todos.put("t0", {})
        versions = {other.execute("PRAGMA data_version").fetchone()}
        async with tide.batch():
            for number in range(50):
                await todos.put(f"t{number}", {})
                versions.add(other.execute("PRAGMA data_version").fetchone())
        assert len(versions) == 1
        (count,) = other.execute("SELECT count(*) FROM documents").fetchone()
        assert count == 50
    other.close()


async def test_reading_inside_shows_what_the_batch_has_written(tide, todos):
    await todos.put("a", {"n": 1})
    await todos.put("b", {"n": 2})
    async with tide.batch():
        await todos.put("c", {"n": 3})
        await todos.put("a", {"n": 10})
        assert await todos.delete("b") is True
        assert await todos.get("a") == {"n": 10}
        assert await todos.get("b") is None
        assert await todos.get("c") == {"n": 3}
        assert await todos.all() == {"a": {"n": 10}, "c": {"n": 3}}
        assert await todos.count() == 2
        assert await todos.update("c", {"m": 4}) == {"n": 3, "m": 4}
        assert await todos.update("c", {"n": 5}) == {"n": 5, "m": 4}
        assert await todos.delete("b") is False
        with pytest.raises(NotFoundError):
            await todos.update("b", {"n": 0})
        await todos.put("b", {"n": 20})
        assert await todos.all() == {"a": {"n": 10}, "b": {"n": 20}, "c": {"n": 5, "m": 4}}
    assert await todos.all() == {"a": {"n": 10}, "b": {"n": 20}, "c": {"n": 5, "m": 4}}


async def test_reading_inside_is_ordered_by_the_bytes_of_the_ids_too(tide, todos):
    ids = ["\uffff", "😀", "é", "z", "Z", "9", "10"]
    for id_ in ids[::2]:
        await todos.put(id_, {})
    async with tide.batch():
        for id_ in ids[1::2]:
            await todos.put(id_, {})
        inside = list(await todos.all())
    assert inside == list(await todos.all()) == sorted(ids, key=str.encode)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["put", "put"], {"put": 1}),
        (["put", "update"], {"put": 0, "update": 1}),
        (["put", "update", "update"], {"put": 0, "update": 2}),
        (["put", "delete"], None),
        (["put", "delete", "put"], {"put": 2}),
        (["put", "update", "delete"], None),
        (["delete", "put", "update"], {"put": 1, "update": 2}),
        (["delete", "put", "delete"], None),
    ],
)
async def test_the_last_write_of_a_document_counts(tide, todos, stored, steps, expected):
    if stored:
        await todos.put("t1", {"old": True})
    watcher = todos.watch()
    async with tide.batch():
        for number, verb in enumerate(steps):
            arguments = [] if verb == "delete" else [{verb: number}]
            await getattr(todos, verb)("t1", *arguments)
        assert await todos.get("t1") == expected
    assert await todos.get("t1") == expected
    await tide.close()
    changes = [change.doc async for change in watcher]
    assert changes == ([expected] if stored or expected is not None else [])


async def test_a_batch_is_told_in_the_order_of_the_last_writes(tide, todos):
    watcher = todos.watch()
    async with tide.batch():
        for id_ in ("a", "b", "c", "a"):
            await todos.put(id_, {})
        await todos.update("b", {"n": 1})
    await tide.close()
    assert [change.id async for change in watcher] == ["c", "a", "b"]


async def test_updates_of_a_stored_document_in_a_batch_add_up(tide, todos):
    await todos.put("t1", {"a": 1, "b": 1})
    async with tide.batch():
        assert await todos.update("t1", {"a": 2}) == {"a": 2, "b": 1}
        assert await todos.update("t1", {"c": 3}) == {"a": 2, "b": 1, "c": 3}
        assert await todos.get("t1") == {"a": 2, "b": 1, "c": 3}
        assert await todos.all() == {"t1": {"a": 2, "b": 1, "c": 3}}
    assert await todos.get("t1") == {"a": 2, "b": 1, "c": 3}


async def test_an_update_in_a_batch_keeps_what_others_wrote_meanwhile(tide, todos):
    await todos.put("t1", {"a": 1})
    waiting = asyncio.Event()

    async def elsewhere():
        await waiting.wait()
        await todos.update("t1", {"theirs": True})

    task = asyncio.create_task(elsewhere())
    async with tide.batch():
        await todos.update("t1", {"mine": True})
        waiting.set()
        await task
    assert await todos.get("t1") == {"a": 1, "mine": True, "theirs": True}


async def test_a_batch_that_updates_what_others_deleted_meanwhile_writes_nothing(tide, todos):
    await todos.put("t1", {"a": 1})
    waiting = asyncio.Event()

    async def elsewhere():
        await waiting.wait()
        await todos.delete("t1")

    task = asyncio.create_task(elsewhere())

    async def both():
        async with tide.batch():
            await todos.put("t2", {})
            await todos.update("t1", {"b": 2})
            waiting.set()
            await task

    with pytest.raises(NotFoundError, match="no document 't1'"):
        await both()
    assert await everything(tide) == {}


async def test_another_task_is_not_in_the_batch(tide, todos):
    inside, written = asyncio.Event(), asyncio.Event()

    async def other():
        await inside.wait()
        assert await todos.get("mine") is None
        await todos.put("theirs", {})
        written.set()

    task = asyncio.create_task(other())

    async def fail():
        async with tide.batch():
            await todos.put("mine", {})
            inside.set()
            await written.wait()
            assert await todos.all() == {"mine": {}, "theirs": {}}
            raise WrongError

    with pytest.raises(WrongError):
        await fail()
    await task
    assert await todos.all() == {"theirs": {}}


async def test_tasks_started_inside_are_in_the_batch(tide, todos):
    async def fail():
        async with tide.batch():
            await asyncio.gather(*(todos.put(f"t{n}", {}) for n in range(20)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(todos.put, "t20", {})
            assert await todos.count() == 21
            raise WrongError

    with pytest.raises(WrongError):
        await fail()
    assert await todos.count() == 0

    async with tide.batch():
        await asyncio.gather(*(todos.put(f"t{n}", {}) for n in range(20)))
    assert await todos.count() == 20


async def test_updates_of_one_document_by_tasks_inside_lose_nothing(tide, todos):
    await todos.put("t1", {})
    async with tide.batch():
        await asyncio.gather(*(todos.update("t1", {f"k{n}": n}) for n in range(50)))
    assert await todos.get("t1") == {f"k{n}": n for n in range(50)}


async def test_a_task_that_outlives_the_batch_writes_on_its_own(tide, todos):
    ended = asyncio.Event()

    async def later():
        await ended.wait()
        await todos.put("later", {})
        return await todos.get("later")

    async with tide.batch():
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    ended.set()
    assert await task == {}
    assert await todos.all() == {"later": {}}


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_a_write_that_is_still_on_its_way_when_the_batch_ends_is_an_error(tide, todos, verb):
    await todos.put("t1", {"a": 1})
    async with tide.batch():
        arguments = [{"b": 2}] if verb == "update" else []
        task = asyncio.create_task(getattr(todos, verb)("t1", *arguments))
        await asyncio.sleep(0)  # it has begun to read the document
    with pytest.raises(UsageError, match="await every write inside of the batch"):
        await task
    assert await todos.get("t1") == {"a": 1}


async def test_two_batches_of_two_tasks_keep_apart(tide, todos):
    async def run(name, *, fails):
        async with tide.batch():
            for number in range(5):
                await todos.put(f"{name}{number}", {})
                await asyncio.sleep(0)
            assert await todos.count() == 5
            if fails:
                raise WrongError

    results = await asyncio.gather(
        run("a", fails=False), run("b", fails=True), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), WrongError]
    assert list(await todos.all()) == [f"a{number}" for number in range(5)]


async def test_a_batch_in_a_batch_is_an_error_and_the_outer_goes_on(tide, todos):
    async with tide.batch():
        await todos.put("t1", {})
        with pytest.raises(UsageError, match="a batch can't hold another one"):
            await tide.batch().__aenter__()
        await todos.put("t2", {})
    assert list(await todos.all()) == ["t1", "t2"]


async def test_the_batches_of_two_tides_nest(tmp_path):
    async with Tide(tmp_path / "a.db") as a, Tide(tmp_path / "b.db") as b:

        async def fail():
            async with a.batch():
                await a.collection("c").put("1", {})
                async with b.batch():
                    await b.collection("c").put("1", {})
                    await a.collection("c").put("2", {})
                raise WrongError

        with pytest.raises(WrongError):
            await fail()
        assert await a.collection("c").all() == {}
        assert await b.collection("c").all() == {"1": {}}
        async with a.batch(), b.batch():
            await a.collection("c").put("3", {})
        assert await a.collection("c").all() == {"3": {}}


async def test_a_batch_object_begins_empty_each_time(tide, todos):
    batch = tide.batch()
    with pytest.raises(WrongError):
        await _failing(batch, todos)
    async with batch:
        await todos.put("t2", {"n": 1})
    await todos.put("t2", {"n": 2})
    async with batch:
        await todos.put("t3", {})
    assert await todos.all() == {"t2": {"n": 2}, "t3": {}}


async def _failing(batch, todos):
    async with batch:
        await todos.put("t1", {})
        raise WrongError


async def test_one_batch_object_cannot_be_entered_twice_at_once(tide, todos):
    batch = tide.batch()
    inside = asyncio.Event()

    async def other():
        await inside.wait()
        with pytest.raises(UsageError):
            await batch.__aenter__()

    task = asyncio.create_task(other())
    async with batch:
        inside.set()
        await task
        await todos.put("t1", {})
    assert await todos.all() == {"t1": {}}


async def test_f68_what_cannot_be_stored_is_refused_where_it_stands_and_the_batch_goes_on(
    tide, todos
):
    async with tide.batch():
        await todos.put("t1", {"a": "x" * 600_000})
        with pytest.raises(DocumentError) as caught:
            await todos.put("t2", {"a": {1}})
        assert caught.value.path == "a"
        with pytest.raises(DocumentError, match="too large"):
            await todos.update("t1", {"b": "x" * 600_000})
    assert await todos.count() == 1
    assert list(await todos.get("t1")) == ["a"]


async def test_f69_changing_what_was_staged_or_read_changes_nothing(tide, todos):
    await todos.put("t2", {"tags": []})
    async with tide.batch():
        doc = {"tags": ["a"]}
        await todos.put("t1", doc)
        doc["tags"].append("b")
        fields = {"more": ["a"]}
        updated = await todos.update("t2", fields)
        fields["more"].append("b")
        updated["tags"].append("c")
        updated["more"].append("c")
        for read in (await todos.get("t1"), (await todos.all())["t1"]):
            read["tags"].append("d")
    assert await todos.all() == {"t1": {"tags": ["a"]}, "t2": {"tags": [], "more": ["a"]}}


@pytest.mark.parametrize("steps", range(8))
async def test_f60_a_batch_cancelled_at_any_step_of_its_end_happens_whole_or_not_at_all(
    tide, todos, steps
):
    leaving = asyncio.Event()

    async def run():
        async with tide.batch():
            for number in range(100):
                await todos.put(f"t{number}", {})
            leaving.set()

    task = asyncio.create_task(run())
    await leaving.wait()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await todos.put("after", {})  # behind whatever is being committed
    count = await todos.count()
    assert count in (1, 101)
    if not task.cancelled():
        assert count == 101
    assert await tide.pending() == count


async def test_f60_a_batch_cancelled_in_the_middle_writes_nothing(tide, todos):
    inside = asyncio.Event()

    async def run():
        async with tide.batch():
            await todos.put("t1", {})
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await inside.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await todos.count() == 0
    assert await tide.pending() == 0


async def test_a_failing_batch_does_not_touch_what_is_written_at_the_same_time(tide, todos):
    async def bad():
        async with tide.batch():
            await todos.put("bad", {})
            await todos.put("t1", {"mine": True})
            raise WrongError

    results = await asyncio.gather(
        *(todos.put(f"t{n}", {}) for n in range(20)), bad(), return_exceptions=True
    )
    assert [type(result) for result in results if result is not None] == [WrongError]
    assert await todos.all() == {f"t{n}": {} for n in range(20)}


async def test_a_batch_needs_an_open_tide(tmp_path):
    tide = Tide(tmp_path / "app.db")
    with pytest.raises(NotOpenError, match=r"await tide\.open\(\)"):
        await tide.batch().__aenter__()


async def test_a_tide_closed_inside_a_batch_writes_nothing_of_it_and_says_so(tmp_path):
    tide = Tide(tmp_path / "app.db")

    async def run():
        async with tide.batch():
            await tide.collection("c").put("1", {})
            await tide.close()

    await tide.open()
    with pytest.raises(NotOpenError):
        await run()
    async with tide:
        assert await tide.collection("c").count() == 0
