"""The store: document, outbox row and clock change together; each open is a node."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from typing import Any

import pytest

from tests.programs.files import documents, node, outbox, query, same, sound, sql_on
from tide import DocumentError, NotFoundError, Tide
from tide.testing import memory_server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


def copy(source, target):
    """A copy of a store that may be open, made by SQLite itself."""
    with sql_on(source) as live, sql_on(target) as copied:
        live.backup(copied)


async def put(path, **docs):
    """Open the store, put *docs*, and close it again; the node id that it had."""
    async with Tide(path) as tide:
        for id_, value in docs.items():
            await tide.collection("docs").put(id_, {"value": value})
        return tide.node_id


# One transaction


async def test_a_put_is_a_document_row_and_an_outbox_row_with_one_stamp(path):
    async with Tide(path) as tide:
        await tide.collection("docs").put("a", {"n": 1})
        expected = {("docs", "a"): ('{"n":1}', 1, tide.node_id)}
        assert documents(path) == outbox(path) == expected
        assert node(path, "clock") == 1


async def test_a_delete_leaves_a_tombstone_that_waits(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        assert await docs.delete("a")
        assert documents(path) == outbox(path) == {("docs", "a"): (None, 2, tide.node_id)}


async def test_deleting_what_is_not_there_writes_nothing(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        assert not await docs.delete("a")
        await docs.put("b", {})
        await docs.delete("b")
        assert not await docs.delete("b"), "a tombstone is not there either"
        assert list(documents(path)) == [("docs", "b")]
        assert node(path, "clock") == 2


async def test_the_outbox_has_one_op_for_a_document_the_newest_and_last(path):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        for id_ in "abca":
            await docs.put(id_, {"as": id_})
        await docs.update("b", {"n": 1})
        assert same(path)
        assert [id_ for (id_,) in query(path, "SELECT id FROM outbox ORDER BY position")] == [
            "c",
            "a",
            "b",
        ]


@pytest.mark.parametrize("table", ["INSERT ON documents", "INSERT ON outbox", "UPDATE ON node"])
@pytest.mark.parametrize("what", ["put", "update", "delete", "batch"])
async def test_a_write_that_fails_at_one_table_changes_none(path, table, what):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        before = documents(path), outbox(path), node(path, "clock")
        changes = docs.watch()
        with sql_on(path) as sql:
            sql.execute(
                f"CREATE TRIGGER broken BEFORE {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )

        async def write():
            if what == "put":
                await docs.put("a", {"n": 2})
            elif what == "update":
                await docs.update("a", {"n": 2})
            elif what == "delete":
                await docs.delete("a")
            else:
                async with tide.batch():
                    await docs.put("a", {"n": 2})
                    await docs.put("b", {"n": 2})

        with pytest.raises(sqlite3.DatabaseError, match="broken"):
            await write()
        assert (documents(path), outbox(path), node(path, "clock")) == before
        assert await docs.all() == {"a": {"n": 1}}
        with sql_on(path) as sql:
            sql.execute("DROP TRIGGER broken")
        await docs.put("z", {})
        told = await anext(changes)
        assert told.id == "z", "nobody was told of what was rolled back"
    assert same(path)
    assert sound(path)


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda docs: docs.put("a", {"n": float("nan")}), DocumentError),
        (lambda docs: docs.update("a", {"n": {1}}), DocumentError),
        (lambda docs: docs.update("a", {"n": "x" * (1 << 20)}), DocumentError),
        (lambda docs: docs.update("b", {"n": 1}), NotFoundError),
    ],
    ids=["NaN", "a set", "too large", "missing"],
)
async def test_what_is_refused_changes_nothing(path, write, error):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        before = documents(path), outbox(path)
        with pytest.raises(error):
            await write(docs)
        assert (documents(path), outbox(path)) == before


# The clock and the node id


async def test_f20_a_write_has_a_greater_stamp_than_all_before_it_also_after_a_reopen(path):
    stamps = []
    for n in range(3):
        await put(path, a=n, b=n)
        stamps += [row[1:] for row in documents(path).values()]
    assert [counter for counter, _ in stamps] == [1, 2, 3, 4, 5, 6]


async def test_f22_every_open_has_a_node_id_of_its_own_on_a_stable_device(path):
    ids = [await put(path) for _ in range(5)]
    assert len(set(ids)) == 5
    assert len({name.partition(".")[0] for name in ids}) == 1
    async with Tide(path) as one, Tide(path) as other:
        assert one.node_id != other.node_id


async def test_f21_a_store_copied_while_open_never_makes_a_stamp_twice(path, tmp_path):
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(path, transport=server.transport()) as tide,
    ):
        await tide.collection("docs").put("a", {"n": 0})
        copied = tmp_path / "copied.db"
        copy(path, copied)
        async with Tide(copied, transport=server.transport()) as twin:
            for n in range(5):
                await tide.collection("docs").put("a", {"original": n})
                await tide.collection("docs").put(f"mine {n}", {"original": n})
                await twin.collection("docs").put("a", {"copy": n})
                await twin.collection("docs").put(f"{n}", {"copy": n})
            stamps = {row[1:] for row in documents(path).values()}
            assert not stamps & {row[1:] for row in documents(copied).values()}
            for each in (tide, twin, tide, twin):
                await each.sync_once()
            assert await tide.pending() == await twin.pending() == 0
        assert documents(path) == documents(copied)
        assert len(documents(path)) == 11


async def test_f28_a_store_restored_from_an_old_backup_catches_up_and_goes_on(path, tmp_path):
    backup = tmp_path / "backup.db"
    async with memory_server(tmp_path / "server.db") as server:
        async with Tide(path, transport=server.transport()) as tide:
            docs = tide.collection("docs")
            await docs.put("pushed", {"n": 1})
            await tide.sync_once()
            await docs.put("waiting", {"n": 1})
            copy(path, backup)
            await docs.put("waiting", {"n": 2})
            await docs.put("later", {"n": 2})
            await docs.delete("pushed")
            await tide.sync_once()
            lost = documents(path)
        for suffix in ("-wal", "-shm"):
            assert not path.with_name(path.name + suffix).exists()
        shutil.copy(backup, path)
        async with Tide(path, transport=server.transport()) as tide:
            docs = tide.collection("docs")
            await docs.put("new", {"n": 3})
            assert documents(path)["docs", "new"][1:] not in {row[1:] for row in lost.values()}
            await tide.sync_once()
            assert await docs.all() == {"later": {"n": 2}, "waiting": {"n": 2}, "new": {"n": 3}}
            assert await tide.pending() == 0
        assert documents(path).items() > lost.items()
    assert sound(path)


async def test_f22_power_loss_makes_no_stamp_twice_and_all_nodes_agree(path, tmp_path):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    written: dict[Any, Any] = {}
    async with memory_server(tmp_path / "server.db") as server:
        for life in range(8):
            snapshot = tmp_path / f"{life}.db"
            async with Tide(path, transport=server.transport()) as tide:
                for n in range(10):
                    key = f"{rng.randrange(6)}"
                    await tide.collection("docs").put(key, {"life": life, "n": n})
                    text, *stamp = documents(path)["docs", key]
                    assert written.setdefault(tuple(stamp), text) == text
                    if n == 3:
                        copy(path, snapshot)
                    if n > 3 and rng.random() < 0.3:
                        await tide.sync_once()
            shutil.copy(snapshot, path)  # the disk forgot the last moments
        async with (
            Tide(path, transport=server.transport()) as tide,
            Tide(tmp_path / "other.db", transport=server.transport()) as other,
        ):
            await tide.sync_once()
            await other.sync_once()
            assert await tide.pending() == 0
        assert documents(path) == documents(tmp_path / "other.db")


# Whether it was closed properly


async def test_a_store_is_marked_as_open_while_it_is(path):
    async with Tide(path):
        assert node(path, "clean") == 0
    assert node(path, "clean") == 1
    assert not path.with_name(f"{path.name}-wal").exists(), "closing leaves a single file"


async def test_closing_twice_and_opening_again_is_fine(path):
    tide = Tide(path)
    for n in range(3):
        await tide.open()
        await tide.collection("docs").put(f"{n}", {})
        await tide.close()
        await tide.close()
    assert len(documents(path)) == 3


async def test_a_purely_local_store_pushes_all_that_it_holds_once_it_gets_an_endpoint(
    path, tmp_path
):
    await put(path, a=1, b=2)
    await put(path, c=3)
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(path, transport=server.transport()) as tide,
    ):
        assert (await tide.sync_once()).pushed == 3
    assert outbox(path) == {}


async def test_an_exception_inside_leaves_what_was_written(path):
    with contextlib.suppress(ZeroDivisionError):
        async with Tide(path) as tide:
            await tide.collection("docs").put("a", {})
            _ = 1 / 0
    assert same(path)
    assert len(documents(path)) == 1
