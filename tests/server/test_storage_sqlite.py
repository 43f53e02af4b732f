"""The SQLite storage: the contract, and what concerns its file, its processes and its thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import sqlite3
import stat
import threading

import pytest

from tests.contracts.storage import StorageContract, keep, put
from tests.support import until
from tide import ForkedError, NewerStoreError, NotAStoreError, StoreError, Tide
from tide.errors import StoreBusyError, StoreCorruptError
from tide.server.storage import sqlite
from tide.server.storage.sqlite import SqliteStorage


class TestSqliteStorage(StorageContract):
    def make(self, folder, now):
        return SqliteStorage(folder / "server.db", now)


@pytest.fixture
async def storage(tmp_path):
    storage = SqliteStorage(tmp_path / "server.db")
    yield storage
    await storage.aclose()


def head(space):
    return space.head


# The file


async def test_the_file_and_its_side_files_are_for_their_owner_only(storage, tmp_path):
    old = os.umask(0)
    try:
        await storage.run("default", keep(put("1")))
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"server.db", "server.db-wal", "server.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_closing_leaves_one_file_that_can_be_copied(storage, tmp_path):
    await storage.run("default", keep(put("1")))
    await storage.aclose()
    assert [path.name for path in tmp_path.iterdir()] == ["server.db"]


async def test_an_empty_file_becomes_a_database(tmp_path, storage):
    (tmp_path / "server.db").touch()
    await storage.run("default", keep(put("1")))
    assert await storage.run("default", head) == 1


def execute(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for statement in statements:
            sql.execute(statement)


def foreign(path):
    execute(path, "CREATE TABLE mine (a)")


def foreign_by_its_id(path):
    execute(path, "PRAGMA application_id = 77")


def newer(path):
    identity = f"PRAGMA application_id = {sqlite.APPLICATION_ID}"
    execute(path, identity, "PRAGMA user_version = 99", "CREATE TABLE future (a)")


def no_database(path):
    path.write_text("a letter to a friend\n" * 100, "utf-8")


def damaged(path):
    foreign(path)
    image = bytearray(path.read_bytes())
    image[100:4096] = b"\xff" * 3996  # the root of the schema
    path.write_bytes(image)


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (foreign, NotAStoreError, "another program's file"),
        (foreign_by_its_id, NotAStoreError, "another program's file"),
        (newer, NewerStoreError, "newer tide .schema 99"),
        (no_database, NotAStoreError, "not a database"),
        (damaged, StoreCorruptError, "restore a backup"),
    ],
)
async def test_f57_a_file_that_is_none_of_ours_is_refused_and_left_untouched(
    storage, tmp_path, make, kind, match
):
    path = tmp_path / "server.db"
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(kind, match=match) as caught:
            await storage.open()
        assert str(path) in str(caught.value)
    with pytest.raises(kind):
        await storage.run("default", head)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["server.db"]


async def test_a_nodes_file_is_not_served_by_mistake(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        await tide.collection("todos").put("1", {"text": "bread"})
    with pytest.raises(NotAStoreError, match="another program's file"):
        await SqliteStorage(tmp_path / "app.db").open()


@pytest.mark.parametrize("name", ["missing/server.db", "."])
async def test_a_path_that_can_hold_no_file_is_told(tmp_path, name):
    with pytest.raises(StoreError, match="directory"):
        await SqliteStorage(tmp_path / name).open()


async def test_a_file_that_could_not_be_opened_can_be_later(tmp_path):
    storage = SqliteStorage(tmp_path / "later" / "server.db")
    with pytest.raises(StoreError):
        await storage.run("default", head)
    (tmp_path / "later").mkdir()
    assert await storage.run("default", head) == 0
    await storage.aclose()


async def test_f48_a_file_that_stays_locked_fails_all_who_wait_and_is_used_again_after(
    storage, tmp_path, monkeypatch
):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    await storage.open()
    other = sqlite3.connect(tmp_path / "server.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    works = [storage.run("default", keep(put(str(n)))) for n in range(5)]
    failed = await asyncio.gather(*works, return_exceptions=True)
    assert all(isinstance(error, StoreBusyError) for error in failed)
    other.execute("ROLLBACK")
    other.close()
    assert await storage.run("default", head) == 0


async def test_f67_whatever_collections_and_ids_are_called_the_tables_stay_the_same(
    storage, tmp_path
):
    names = ["x'; DROP TABLE documents; --", '"', "\\", "%_", "documents", "todos\x1f", "⚓" * 60]
    await storage.open()
    other = sqlite3.connect(tmp_path / "server.db")
    tables = other.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    ops = [put(name)._replace(collection=other_name) for name in names for other_name in names]
    await storage.run("'; DELETE FROM spaces; --", keep(*ops))
    page = await storage.run(
        "'; DELETE FROM spaces; --", lambda s: s.page(0, s.head, 5000, 1 << 20)
    )
    assert page.ops == tuple(ops)
    assert other.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == tables
    other.close()


async def test_f70_every_statement_names_the_space(storage, tmp_path):
    seen: list[str] = []
    await storage.run("default", lambda space: space._sql.set_trace_callback(seen.append))
    await storage.run("default", keep(put("1", 1, None)))
    await storage.run("default", lambda space: space.page(0, 1, 10, 1000))
    await storage.run("default", lambda space: space.find(("todos", "1")))
    await storage.run("default", lambda space: space.covers(space.epoch, 1))
    await storage.run("default", lambda space: space.forget_tombstones(2e9))
    await storage.run("default", lambda space: space._sql.set_trace_callback(None))
    statements = [text for text in seen if text.split()[0] in {"SELECT", "UPDATE", "DELETE"}]
    assert len(statements) > 10
    assert [text for text in statements if "space = 'default'" not in text] == []


# Works


async def test_works_that_wait_share_a_commit(storage):
    commits: list[str] = []

    def trace(space):
        space._sql.set_trace_callback(commits.append)

    await storage.run("default", trace)
    commits.clear()
    gate = threading.Event()
    first = asyncio.ensure_future(storage.run("default", lambda _: gate.wait(30)))
    rest = [storage.run("default", keep(put(str(n)))) for n in range(50)]
    waiting = asyncio.gather(*rest)
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, waiting)
    await storage.run("default", lambda space: space._sql.set_trace_callback(None))
    assert commits.count("COMMIT") <= 2  # that of the one that held them up, and theirs


async def test_f20_two_starts_share_the_newest_epoch(tmp_path):
    old, new = SqliteStorage(tmp_path / "server.db"), SqliteStorage(tmp_path / "server.db")
    first = await old.run("default", lambda space: space.epoch)
    second = await new.run("default", lambda space: space.epoch)
    assert first != second
    assert await old.run("default", lambda space: (space.epoch, space.covers(first, 0))) == (
        second,
        True,
    )
    await old.aclose()
    await new.aclose()


async def test_f27_a_restored_file_covers_nothing_of_what_it_forgot(tmp_path):
    path, backup = tmp_path / "server.db", tmp_path / "backup.db"
    server = SqliteStorage(path)
    await server.run("default", keep(put("1"), put("2")))
    await server.aclose()
    backup.write_bytes(path.read_bytes())
    server = SqliteStorage(path)
    await server.run("default", keep(put("3"), put("4")))
    lost = await server.run("default", lambda space: (space.epoch, space.head))
    await server.aclose()
    path.write_bytes(backup.read_bytes())
    server = SqliteStorage(path)
    others = [put(str(number)) for number in range(10, 20)]
    await server.run("default", keep(*others))  # its head passes the old one
    assert await server.run("default", head) > lost[1]
    assert not await server.run("default", lambda space: space.covers(*lost))
    await server.aclose()


# Processes


def _write(path, number):
    async def write():
        storage = SqliteStorage(path)
        heads = []
        for count in range(25):
            op = put(f"{number}.{count}")
            heads.append(await storage.run("default", keep(op)))
        await storage.aclose()
        return heads

    return asyncio.run(write())


async def test_f14_two_processes_on_one_file_share_the_sequence(tmp_path):
    def both():
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            paths = [(tmp_path / "server.db", number) for number in range(2)]
            heads = pool.starmap(_write, paths)
            pool.close()
            pool.join()
            return heads

    one, two = await asyncio.to_thread(both)
    assert sorted(one + two) == list(range(1, 51))
    assert one == sorted(one)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_f59_use_after_a_fork_is_refused_in_the_child(storage):
    await storage.run("default", head)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # the event loop is the parent's: step by hand
        try:
            storage.run("default", head).send(None)
        except ForkedError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    await asyncio.to_thread(os.waitpid, child, 0)
    assert "forked" in told
    assert await storage.run("default", head) == 0


# Closing


async def test_f62_a_storage_that_is_dropped_closes_its_file(tmp_path):
    storage = SqliteStorage(tmp_path / "server.db")
    await storage.run("default", keep(put("1")))
    (thread,) = [t for t in threading.enumerate() if t.name.endswith(str(storage.path))]
    del storage
    gc.collect()
    await asyncio.to_thread(thread.join, 30)
    assert [path.name for path in tmp_path.iterdir()] == ["server.db"]


async def test_f62_closing_while_works_wait_does_them_and_ends_the_thread(storage, tmp_path):
    gate = threading.Event()
    first = asyncio.ensure_future(storage.run("default", lambda _: gate.wait(30)))
    await until(lambda: storage._jobs)  # the first work has opened it
    rest = [asyncio.ensure_future(storage.run("default", keep(put(id_)))) for id_ in "123"]
    closing = asyncio.ensure_future(storage.aclose())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *rest, closing)
    assert not [t for t in threading.enumerate() if t.name.endswith(str(storage.path))]
    assert [path.name for path in tmp_path.iterdir()] == ["server.db"]


async def test_a_loop_that_was_closed_meanwhile_troubles_nobody(tmp_path):
    storage = SqliteStorage(tmp_path / "server.db")
    gate = threading.Event()

    def elsewhere():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(storage.open())
        task = loop.create_task(storage.run("default", lambda _: gate.wait(30)))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    await asyncio.to_thread(elsewhere)
    gate.set()
    assert await storage.run("default", head) == 0
    await storage.aclose()
