"""The tables: made and brought up to date in atomic steps; files of others are left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.programs.files import documents, query, same, sound, sql_on
from tests.programs.nodes import open_and_die, started
from tide import NewerStoreError, NotAStoreError, StoreError, Tide, schema


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


async def fill(path):
    async with Tide(path) as tide:
        for n in range(10):
            await tide.collection("docs").put(f"{n}", {"n": n})


def contents(folder):
    """Every byte of every file in *folder*."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Interrupted


def test_f57_a_process_killed_at_any_statement_of_the_first_open_leaves_a_file_that_opens(tmp_path):
    statement = 0
    outcome = "killed"
    while outcome != "opened":
        statement += 1
        path = tmp_path / f"{statement}.db"
        process, pipe = started(open_and_die, path, statement)
        try:
            outcome = pipe.recv()
        except EOFError:
            outcome = "killed"
        process.join()
        assert process.exitcode == (0 if outcome == "opened" else -signal.SIGKILL)
        asyncio.run(fill(path))
        assert same(path)
        assert sound(path)
    assert statement > 10, "migrating is several statements"


def connection(path, factory):
    """A connection of the class *factory*, to be closed."""
    return contextlib.closing(sqlite3.connect(path, factory=factory, isolation_level=None))


class Flaky(sqlite3.Connection):
    """A connection that fails once, at a statement of one's choice."""

    left = 0

    def execute(self, *args):
        self.left -= 1
        if self.left == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(*args)


NEXT = ("CREATE TABLE more (x)", "ALTER TABLE documents ADD COLUMN extra TEXT DEFAULT 'new'")
AFTER = ("DROP TABLE more", "CREATE TABLE even_more (x)")


async def test_f57_a_later_migration_that_fails_at_any_statement_is_whole_or_not_there(
    path, tmp_path, monkeypatch
):
    await fill(path)
    before = documents(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT, AFTER))
    for statement in range(2, 20):
        copied = tmp_path / f"{statement}.db"
        shutil.copy(path, copied)
        with contextlib.closing(
            sqlite3.connect(copied, factory=Flaky, isolation_level=None)
        ) as sql:
            sql.left = statement
            with contextlib.suppress(sqlite3.OperationalError):
                schema.migrate(sql)
            finished = sql.left > 0
        tables = {name for (name,) in query(copied, "SELECT name FROM sqlite_master")}
        [(version,)] = query(copied, "PRAGMA user_version")
        assert ("more" in tables, "even_more" in tables) == {
            1: (False, False),
            2: (True, False),
            3: (False, True),
        }[version]
        await fill(copied)
        assert query(copied, "PRAGMA user_version") == [(3,)]
        assert documents(copied).keys() == before.keys()
        assert sound(copied)
        if finished:
            return
    pytest.fail("it never ended")


async def test_f57_migrating_keeps_what_is_there(path, monkeypatch):
    await fill(path)
    before = documents(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
    async with Tide(path) as tide:
        assert await tide.collection("docs").count() == 10
        assert await tide.pending() == 10
    assert documents(path) == before
    assert query(path, "SELECT DISTINCT extra FROM documents") == [("new",)]


async def test_f57_opening_again_migrates_nothing(path):
    await fill(path)
    before = query(path, "SELECT sql FROM sqlite_master"), query(path, "PRAGMA schema_version")
    await fill(path)
    assert (
        query(path, "SELECT sql FROM sqlite_master"),
        query(path, "PRAGMA schema_version"),
    ) == before


class Overtaken(sqlite3.Connection):
    """A connection beside which another one makes the store, between any two statements."""

    at = 0
    path = Path()

    def execute(self, *args):
        self.at -= 1
        if self.at == 0:
            with sql_on(self.path) as other:
                other.execute("PRAGMA busy_timeout = 0")
                with contextlib.suppress(sqlite3.OperationalError):  # it may have to wait
                    other.execute("PRAGMA journal_mode = WAL")
                    schema.migrate(other)
        return super().execute(*args)


@pytest.mark.parametrize("at", range(1, 14))
def test_f57_a_process_that_makes_the_store_meanwhile_does_no_harm(path, at):
    with connection(path, Overtaken) as sql:
        sql.at, sql.path = at, path
        schema.check(sql)
        sql.execute("PRAGMA journal_mode = WAL")
        schema.migrate(sql)
        schema.check(sql)
    assert query(path, "SELECT count(*) FROM node") == [(1,)]
    asyncio.run(fill(path))
    assert same(path)


# Not ours


def make(path, *statements):
    with sql_on(path) as sql:
        for statement in statements:
            sql.execute(statement)


SQLITE_OF_OTHERS = {
    "tables": ["CREATE TABLE node (device)", "INSERT INTO node VALUES ('mine')"],
    "version": ["PRAGMA user_version = 1"],
    "application": ["PRAGMA application_id = 7", "CREATE TABLE t (x)"],
    "wal": ["PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"],
}
OTHERS = {
    "text": b"Dear diary, this is not a database.\n" * 200,
    "random": os.urandom(20_000),
    "short": b"xyz",
    "long line": b"SQLite format 2\0" + b"\0" * 5000,
}


@pytest.mark.parametrize("statements", SQLITE_OF_OTHERS.values(), ids=SQLITE_OF_OTHERS)
async def test_f53_a_database_of_another_program_is_refused_untouched(path, statements):
    make(path, *statements)
    before = contents(path.parent)
    with pytest.raises(NotAStoreError, match="another program"):
        await Tide(path).open()
    assert contents(path.parent) == before


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
async def test_f53_a_file_that_is_no_database_is_refused_untouched(path, content):
    path.write_bytes(content)
    with pytest.raises(NotAStoreError, match="give tide a file of its own"):
        await Tide(path).open()
    assert contents(path.parent) == {path.name: content}


async def test_f53_an_unreadable_file_that_another_program_has_open_is_not_taken_for_ours(path):
    """So does an encrypted database look to SQLite."""
    make(path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
    with sql_on(path) as other:
        other.execute("INSERT INTO t VALUES (1)")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with path.open("r+b") as file:
            file.write(OTHERS["random"])
        with pytest.raises(NotAStoreError):
            await Tide(path).open()
        assert path.read_bytes() == OTHERS["random"]
        assert sorted(contents(path.parent)) == [path.name, f"{path.name}-shm", f"{path.name}-wal"]


async def test_f57_a_store_of_a_newer_tide_is_refused_untouched(path):
    await fill(path)
    make(path, "PRAGMA user_version = 99", "ALTER TABLE node ADD COLUMN wisdom")
    before = contents(path.parent)
    with pytest.raises(NewerStoreError, match="upgrade tide"):
        await Tide(path).open()
    assert contents(path.parent) == before


async def test_an_empty_file_becomes_a_store(path):
    path.touch()
    await fill(path)
    assert same(path)


async def test_a_refused_file_can_be_replaced_and_opened_by_the_same_object(path):
    path.write_bytes(b"x" * 1000)
    tide = Tide(path)
    with pytest.raises(StoreError):
        await tide.open()
    path.unlink()
    async with tide:
        await tide.collection("docs").put("a", {})
    assert same(path)


# The file and its locks


WATCHED = """
import asyncio, pathlib, sys
from tide import Tide

opened = []

def hook(event, args):
    if event in ("open", "shutil.copyfile", "os.rename", "os.remove"):
        opened.append(f"{event} {args[0]}")

async def main(path):
    sys.addaudithook(hook)
    for _ in range(2):
        async with Tide(path, "http://127.0.0.1:9/sync") as tide:
            docs = tide.collection("docs")
            async with tide.sync_forever(0.01), tide.batch():
                await docs.put("a", {"n": 1})
            await docs.update("a", {"n": 2})
            await docs.delete("a")
            await docs.all()
            async with Tide(path) as other:
                await other.collection("docs").put("b", {})

asyncio.run(main(sys.argv[1]))
print(*[line for line in opened if pathlib.Path(sys.argv[1]).name in line], sep="\\n")
"""


def test_f58_python_itself_never_opens_the_file_which_would_drop_sqlites_locks(path, run_program):
    lines = run_program(WATCHED, path).splitlines()
    assert set(lines) == {f"open {path}.tide-lock"}


@pytest.fixture
def run_program():
    import subprocess

    def run(code, *args):
        command = [sys.executable, "-c", code, *map(str, args)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert ran.stderr == ""
        return ran.stdout

    return run
