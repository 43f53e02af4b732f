"""One SQLite file: shared commits, reads beside writes, cancellation, a busy file, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import anyio
import pytest

from tests.programs.files import documents, query, same, sound, sql_on
from tide import (
    NotFoundError,
    NotOpenError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    Tide,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


async def on_the_writer(tide, work):
    """Run *work* with the connection that writes."""
    return await tide._session.use().write(lambda tx: work(tx.sql))


async def statements_of(tide):
    """The list to which every statement of the writer is added from now on."""
    statements: list[str] = []
    await on_the_writer(tide, lambda sql: sql.set_trace_callback(statements.append))
    statements.clear()
    return statements


def seeded(seed):
    """Chance that can be repeated; None for a seed that nobody tried."""
    seed = random.randrange(10**9) if seed is None else seed
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    return random.Random(seed)


# Commits


async def test_a_hundred_puts_at_once_share_few_commits(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        statements = await statements_of(tide)
        await asyncio.gather(*(docs.put(f"{n}", {"n": n}) for n in range(100)))
        assert statements.count("COMMIT") <= 3
        assert await docs.count() == 100
    assert same(path)


async def test_puts_one_after_the_other_have_a_commit_each(path):
    async with Tide(path) as tide:
        statements = await statements_of(tide)
        for n in range(5):
            await tide.collection("docs").put(f"{n}", {"n": n})
            assert statements.count("COMMIT") == n + 1


async def test_a_batch_is_one_commit(path):
    async with Tide(path) as tide:
        statements = await statements_of(tide)
        async with tide.batch():
            for n in range(100):
                await tide.collection(f"c{n % 3}").put(f"{n}", {"n": n})
        assert statements.count("COMMIT") == 1
    assert len(documents(path)) == 100


async def test_a_write_that_fails_does_not_fail_those_that_wait_with_it(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        writes: list[Any] = [docs.put(f"{n}", {"n": n}) for n in range(10)]
        writes += [docs.update("missing", {"n": 1})]
        writes += [docs.put(f"{n}", {"n": n}) for n in range(10, 20)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        failed = [result for result in results if result is not None]
        assert [type(error) for error in failed] == [NotFoundError]
        assert await docs.count() == 20
    assert same(path)
    assert sound(path)


async def test_writes_happen_in_the_order_of_the_calls(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await asyncio.gather(*(docs.put("one", {"n": n}) for n in range(50)))
        assert await docs.get("one") == {"n": 49}


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("relaxed", 1)])
async def test_durability_decides_what_a_commit_waits_for(path, durability, synchronous):
    async with Tide(path, durability=durability) as tide:
        await tide.collection("docs").put("a", {})
        found = await on_the_writer(
            tide, lambda sql: sql.execute("PRAGMA synchronous").fetchone()[0]
        )
        assert found == synchronous
        assert query(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_program_may_close_while_its_writes_are_on_their_way(path):
    tide = Tide(path)
    await tide.open()
    docs = tide.collection("docs")
    writes = [asyncio.create_task(docs.put(f"{n}", {"n": n})) for n in range(50)]
    await asyncio.sleep(0)
    await tide.close()
    assert await asyncio.gather(*writes) == [None] * 50
    assert len(documents(path)) == 50
    with pytest.raises(NotOpenError, match="not open"):
        await docs.put("late", {})


# Reads


async def test_reads_do_not_wait_for_a_long_write(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        with sql_on(path) as other:
            other.execute("BEGIN IMMEDIATE")
            put = asyncio.create_task(docs.put("a", {"n": 2}))
            for _ in range(20):
                assert await docs.get("a") == {"n": 1}
                assert await docs.all() == {"a": {"n": 1}}
                assert await docs.count() == 1
                assert await tide.pending() == 1
            assert not put.done()
            other.execute("ROLLBACK")
        await put
        assert await docs.get("a") == {"n": 2}


async def test_a_read_sees_every_write_that_returned_before_it(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")

        async def write_and_read(name):
            for n in range(20):
                await docs.put(name, {"n": n})
                assert await docs.get(name) == {"n": n}

        await asyncio.gather(*(write_and_read(f"{n}") for n in range(10)))


async def test_a_read_of_all_sees_a_batch_whole_or_not_at_all(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")

        async def write():
            for n in range(30):
                async with tide.batch():
                    for name in "abcd":
                        await docs.put(name, {"n": n})

        writing = asyncio.create_task(write())
        while not writing.done():
            found = await docs.all()
            assert len({doc["n"] for doc in found.values()}) <= 1
            assert len(found) in (0, 4)
        await writing


# Cancellation


@pytest.mark.parametrize("seed", [1, 2, 3, None])
async def test_f60_puts_cancelled_at_random_are_written_whole_or_not_at_all(path, seed):
    rng = seeded(seed)
    async with Tide(path) as tide:
        docs = tide.collection("docs")

        async def write(n):
            key = f"{n % 40}"
            what = rng.randrange(4)
            if what == 0:
                await docs.delete(key)
            elif what == 1:
                with contextlib.suppress(NotFoundError):
                    await docs.update(key, {f"{n}": n})
            elif what == 2:
                async with tide.batch():
                    await docs.put(key, {"n": n})
                    await docs.put(f"twin of {key}", {"n": n})
            else:
                await docs.put(key, {"n": n})

        tasks = []
        for n in range(200):
            tasks.append(asyncio.create_task(write(n)))
            if rng.random() < 0.5:
                rng.choice(tasks).cancel()
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = [result for result in results if isinstance(result, asyncio.CancelledError)]
        assert cancelled
        assert set(results) <= {None, *cancelled}, "no write failed"
        await docs.put("after", {"works": True})
        assert await docs.get("after") == {"works": True}
    assert same(path)
    assert sound(path)


@pytest.mark.parametrize("seed", [1, None])
async def test_f60_cancel_scopes_and_timeouts_cancel_the_waiting_not_the_write(path, seed):
    rng = seeded(seed)
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        ended = []

        async def write(n):
            way = rng.randrange(3)
            if way == 0:
                with anyio.move_on_after(rng.random() * 0.005):
                    await docs.put(f"{n}", {"n": n})
                    ended.append(f"{n}")
            elif way == 1:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(docs.put(f"{n}", {"n": n}), rng.random() * 0.005)
            else:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await docs.put(f"{n}", {"n": n})
                    ended.append(f"{n}")

        async with anyio.create_task_group() as group:
            for n in range(150):
                group.start_soon(write, n)
                await asyncio.sleep(0)
        await docs.put("after", {})
        assert set(ended) | {"after"} <= set(await docs.all())
    assert same(path)
    assert sound(path)


async def test_f60_a_cancelled_put_that_was_on_its_way_is_written(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        with sql_on(path) as other:
            other.execute("BEGIN IMMEDIATE")
            put = asyncio.create_task(docs.put("a", {"n": 1}))
            await asyncio.sleep(0)
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert await docs.get("a") is None
            other.execute("ROLLBACK")
        await docs.put("b", {})
        assert await docs.get("a") == {"n": 1}
    assert same(path)


async def test_f60_a_batch_cancelled_inside_writes_nothing(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        inside = asyncio.Event()

        async def write():
            async with tide.batch():
                await docs.put("a", {})
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await docs.all() == {}
    assert documents(path) == {}


async def test_f60_opening_may_be_cancelled_at_every_step(path):
    steps = 0
    while True:
        tide = Tide(path)
        opening = asyncio.create_task(tide.open())
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        opening.cancel()
        [result] = await asyncio.gather(opening, return_exceptions=True)
        if result is None:
            break
        assert isinstance(result, asyncio.CancelledError)
        await tide.open()  # the same object opens a moment later
        await tide.collection("docs").put(f"{steps}", {"n": steps})
        await tide.close()
        steps += 1
    await tide.close()
    assert len(documents(path)) == steps
    assert same(path)


# A busy file


async def test_f48_a_file_that_stays_locked_is_a_typed_error_and_works_afterwards(
    path, monkeypatch
):
    monkeypatch.setattr("tide.database.BUSY_TIMEOUT", 0.1)
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        with sql_on(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusyError, match="another process keeps it locked"):
                await docs.put("a", {"n": 2})
            other.execute("ROLLBACK")
        assert await docs.get("a") == {"n": 1}
        await docs.put("a", {"n": 3})
        assert await docs.get("a") == {"n": 3}
    assert same(path)


async def test_f48_writes_that_wait_for_a_locked_file_wait_once_for_all(path, monkeypatch):
    monkeypatch.setattr("tide.database.BUSY_TIMEOUT", 0.1)
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        statements = await statements_of(tide)
        with sql_on(path) as other:
            other.execute("BEGIN IMMEDIATE")
            puts = [docs.put(f"{n}", {}) for n in range(20)]
            results = await asyncio.gather(*puts, return_exceptions=True)
            other.execute("ROLLBACK")
        assert {type(result) for result in results} == {StoreBusyError}
        assert statements.count("BEGIN IMMEDIATE") <= 3


async def test_f48_a_put_waits_for_another_process_to_finish_its_write(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        with sql_on(path) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE node SET clock = 100")
            put = asyncio.create_task(docs.put("a", {}))
            await docs.get("a")
            assert not put.done()
            other.execute("COMMIT")
        await put
    assert documents(path)["docs", "a"][1] == 101, "the clock was read after the wait"


async def test_closing_works_while_another_process_keeps_the_file_locked(path, monkeypatch):
    monkeypatch.setattr("tide.database.BUSY_TIMEOUT", 0.1)
    with contextlib.ExitStack() as until_the_end:
        async with Tide(path) as tide:
            await tide.collection("docs").put("a", {})
            other = until_the_end.enter_context(sql_on(path))
            other.execute("BEGIN IMMEDIATE")
    assert len(documents(path)) == 1


# A full disk


async def fill(tide):
    """Let the file grow no more, as if the disk were full, and write until that shows."""
    await on_the_writer(
        tide,
        lambda sql: sql.execute(
            f"PRAGMA max_page_count = {sql.execute('PRAGMA page_count').fetchone()[0] + 10}"
        ).fetchone(),
    )
    acknowledged: list[str] = []
    while True:
        name = f"{len(acknowledged)}"
        try:
            await tide.collection("docs").put(name, {"text": "x" * 1000})
        except StoreFullError as error:
            assert "free some space" in str(error)  # noqa: PT017 - when it comes is open
            return acknowledged
        acknowledged.append(name)


async def free(tide):
    """Make space again."""
    await on_the_writer(tide, lambda sql: sql.execute("PRAGMA max_page_count = 1000000").fetchone())


async def test_f52_on_a_full_disk_nothing_is_half_written_and_it_works_again_after(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        acknowledged = await fill(tide)
        assert acknowledged
        for _ in range(5):
            with pytest.raises(StoreFullError):
                await docs.put("big", {"text": "x" * 100_000})
        assert sorted(await docs.all()) == sorted(acknowledged)
        assert same(path)
        await free(tide)
        await docs.put("big", {"text": "x" * 100_000})
    assert same(path)
    assert sound(path)
    assert len(documents(path)) == len(acknowledged) + 1


async def test_f52_writes_that_fit_are_not_failed_by_one_that_does_not(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("small", {"n": 1})
        await fill(tide)
        writes = [
            docs.put("small", {"n": 2}),
            docs.put("big", {"text": "x" * 100_000}),
            docs.put("small", {"n": 3}),
        ]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), StoreFullError, type(None)]
        assert await docs.get("small") == {"n": 3}
    assert same(path)


async def test_f52_a_batch_that_does_not_fit_is_not_written_at_all(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        acknowledged = await fill(tide)
        with pytest.raises(StoreFullError):  # noqa: PT012 - it is leaving the batch that writes
            async with tide.batch():
                for n in range(100):
                    await docs.put(f"batch {n}", {"text": "x" * 1000})
        assert sorted(await docs.all()) == sorted(acknowledged)
    assert same(path)


async def test_closing_works_on_a_full_disk(path):
    async with Tide(path) as tide:
        await on_the_writer(tide, lambda sql: sql.execute(CLOSING_NEEDS_SPACE))
        acknowledged = await fill(tide)
    assert len(documents(path)) == len(acknowledged)
    with sql_on(path) as sql:
        sql.execute("DROP TRIGGER needs_space")
    async with Tide(path) as tide:
        await tide.collection("docs").put("works", {"again": True})


CLOSING_NEEDS_SPACE = """
    CREATE TRIGGER needs_space BEFORE UPDATE ON node WHEN NEW.clean BEGIN
        INSERT INTO documents VALUES ('c', 'x', hex(zeroblob(1000000)), 1, 'x');
    END
"""


# Opening


@pytest.mark.parametrize("name", ["missing/app.db", "."])
async def test_a_path_where_no_file_can_be_is_a_typed_error_that_says_why(tmp_path, name):
    with pytest.raises(StoreError, match="does its directory exist"):
        await Tide(tmp_path / name).open()
