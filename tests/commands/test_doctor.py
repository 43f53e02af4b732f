"""`tide doctor`: what it tells of a store, that it changes nothing, and when it is alarmed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time

import pytest

import tide
import tide.cli
from tests.commands.stores import Documents, fill, refuse, untouched
from tests.commands.stores import tide as command
from tests.support import free_port, served, until
from tide import Tide
from tide.commands import location
from tide.inspection import has_wal_reset_bug
from tide.server import bearer, create_app
from tide.sync_loop import is_synced, lock_of
from tide.testing import memory_server

LINUX = sys.platform == "linux"
DOCUMENTS: Documents = {
    "todos": {"t1": {"text": "buy bread"}, "t2": {"text": "milk"}},
    "notes": {"n": {}},
}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "app.db"
    fill(made, DOCUMENTS)
    return made


def doctor(path, capsys):
    """The exit code, and the JSON."""
    code = tide.cli.main(["doctor", "--json", str(path)])
    return code, json.loads(capsys.readouterr().out)


def raw(path):
    return sqlite3.connect(path, isolation_level=None)


def test_it_tells_versions_counts_and_sizes(path, capsys):
    code, told = doctor(path, capsys)
    assert code == 0
    assert told["problems"] == told["damage"] == []
    assert told["tide"] == tide.__version__
    assert told["sqlite"] == sqlite3.sqlite_version
    assert told["documents"] == {"notes": 1, "todos": 2}
    assert told["pending"] == 3
    assert 0 < told["oldest_pending_age"] < 3600
    assert (told["rejected"], told["cursor"], told["last_synced_at"]) == (0, None, None)
    assert (told["state"], told["synced"], told["schema"]) == ("stopped", False, 1)
    assert told["size"] == path.stat().st_size
    assert told["wal_size"] == 0


def test_it_tells_where_a_synced_store_stands(path, capsys):
    async def sync():
        async with (
            memory_server(path.with_name("server.db")) as server,
            Tide(path, transport=server.transport()) as store,
        ):
            await store.sync_once()
            return store.node_id

    node_id = asyncio.run(sync())
    code, told = doctor(path, capsys)
    assert code == 0
    assert node_id.startswith(told["device"])
    assert told["cursor"]
    assert (told["pending"], told["oldest_pending_age"]) == (0, 0.0)
    assert time.time() - 3600 < told["last_synced_at"] <= time.time()


def test_people_get_the_same_in_words(path):
    ran = command("doctor", path)
    assert ran.returncode == 0
    for part in ("integrity", " ok", "3 documents: 1 in notes, 2 in todos", "3 ops, the oldest"):
        assert part in ran.stdout
    assert "nobody syncs this file now" in ran.stdout
    assert "never" in ran.stdout
    assert str(path) == ran.stdout.splitlines()[0]


def test_it_changes_nothing_and_leaves_nothing_behind(path):
    before = untouched(path.parent)
    assert command("doctor", path).returncode == 0
    assert untouched(path.parent) == before


async def test_it_sees_what_a_program_that_is_running_has_written_a_moment_ago(path, capsys):
    async with Tide(path) as store:
        await store.collection("todos").put("t3", {})
        code, told = await asyncio.to_thread(doctor, path, capsys)
        assert code == 0
        assert told["documents"]["todos"] == 3
        assert told["wal_size"] > 0
        await store.collection("todos").put("t4", {})  # and nothing got in its way


async def test_it_leaves_it_to_the_next_program_to_clear_up_after_a_crash(path, tmp_path):
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with Tide(path) as store:
        await store.collection("todos").put("t3", {})
        for part in ("app.db", "app.db-wal"):  # as the disk would be now without power
            (crashed / part).write_bytes((path.parent / part).read_bytes())
    before = untouched(crashed)
    ran = await asyncio.to_thread(command, "doctor", crashed / "app.db")
    assert "3 in todos" in ran.stdout
    after = untouched(crashed)
    after.pop("app.db-shm")  # an index of the WAL in shared memory, which readers need
    assert after == before


async def test_it_tells_which_process_syncs_and_how_that_goes(path):
    with served(create_app(path.with_name("server.db"))) as endpoint:
        async with Tide(path, endpoint) as store, store.sync_forever():
            await store.flushed()
            ran = await asyncio.to_thread(command, "doctor", path)
    assert ran.returncode == 0
    who = f"process {os.getpid()}" if LINUX else "a process"
    assert f"online, by {who}" in ran.stdout
    assert "nobody syncs" in command("doctor", path).stdout


async def told_while_syncing(path, endpoint, state, capsys):
    """What doctor says while a program syncs, and has come to *state*."""
    async with Tide(path, endpoint) as store, store.sync_forever():
        await until(lambda: store.status.state == state)
        return await asyncio.to_thread(doctor, path, capsys)


async def test_a_server_that_is_away_is_a_warning_with_the_reason(path, capsys):
    endpoint = f"http://127.0.0.1:{free_port()}/sync"
    code, told = await told_while_syncing(path, endpoint, "offline", capsys)
    assert code == 0
    assert told["state"] == "offline"
    assert any("syncing is offline: " in warning for warning in told["warnings"])


async def test_a_server_that_wants_other_credentials_is_a_problem(path, capsys):
    app = create_app(path.with_name("server.db"), authenticate=bearer({"secret": "somebody"}))
    with served(app) as endpoint:
        code, told = await told_while_syncing(path, endpoint, "unauthorized", capsys)
    assert code == 1
    assert any("syncing is unauthorized: " in problem for problem in told["problems"])


def test_rejected_ops_are_a_problem_with_the_command_that_shows_them(path):
    refuse(path, {"todos": {"t9": {}}})
    ran = command("doctor", path)
    assert ran.returncode == 1
    assert "PROBLEM: 4 writes were refused by the server" in ran.stdout
    assert f"`tide outbox {path}`" in ran.stdout


def test_a_damaged_page_is_told_and_the_file_stays_as_it_is(tmp_path, capsys):
    path = tmp_path / "app.db"
    fill(path, {"todos": {f"t{n}": {"text": "word " * 50} for n in range(500)}})
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] + b"\xa5" * 4096 + whole[half + 4096 :])
    before = untouched(tmp_path)
    code, told = doctor(path, capsys)
    assert code == 1
    assert told["damage"]
    assert "the file is damaged" in told["problems"][0]
    assert untouched(tmp_path) == before
    ran = command("doctor", path)
    assert ran.returncode == 1
    assert "PROBLEM: the file is damaged" in ran.stdout


@pytest.mark.parametrize("keep", [512, 5000])
def test_a_store_that_was_cut_short_is_told_and_stays_as_it_is(path, capsys, keep):
    path.write_bytes(path.read_bytes()[:keep])
    before = untouched(path.parent)
    code, told = doctor(path, capsys)
    assert code == 1
    assert told["damage"]
    assert untouched(path.parent) == before


def test_a_store_without_its_row_about_itself_is_damaged(path, capsys):
    with raw(path) as sql:
        sql.execute("DELETE FROM node")
    sql.close()
    code, told = doctor(path, capsys)
    assert code == 1
    assert "a row about itself is gone" in told["damage"][0]


def foreign(path):
    with raw(path) as sql:
        sql.execute("CREATE TABLE cats (name TEXT)")
    sql.close()


def newer(path):
    fill(path, {})
    with raw(path) as sql:
        sql.execute("PRAGMA user_version = 99")
    sql.close()


WRONG = {
    "there is no file": lambda path: None,
    "is a directory": lambda path: path.mkdir(),
    "is empty": lambda path: path.touch(),
    "is not a tide store, nor any SQLite file": lambda path: path.write_text("hello " * 900),
    "is a database of another program": foreign,
    "was written by a newer tide": newer,
}


@pytest.mark.parametrize("argv", ["doctor", "doctor --json", "tail", "outbox", "outbox --retry 1"])
@pytest.mark.parametrize("says", WRONG)
def test_a_wrong_file_is_told_in_one_sentence_and_left_alone(tmp_path, capsys, argv, says):
    path = tmp_path / "what ever?#%.db"
    WRONG[says](path)
    before = untouched(tmp_path)
    name, *options = argv.split()
    assert tide.cli.main([name, str(path), *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tide {name}: ")
    assert says in err
    assert err.count("\n") == 1
    assert untouched(tmp_path) == before


def test_a_file_that_is_locked_is_told_in_one_sentence(path, capsys, monkeypatch):
    monkeypatch.setattr("tide.inspection.PATIENCE", 0.05)
    sql = raw(path)
    sql.execute("PRAGMA locking_mode = EXCLUSIVE")
    sql.execute("BEGIN EXCLUSIVE")
    try:
        assert tide.cli.main(["doctor", str(path)]) == 1
        assert "another process keeps it locked" in capsys.readouterr().err
    finally:
        sql.close()
    assert tide.cli.main(["doctor", str(path)]) == 0


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_f56_which_sqlite_has_the_wal_reset_bug(path, capsys, monkeypatch, version, has):
    assert has_wal_reset_bug(version) is has
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    code, told = doctor(path, capsys)
    assert code == 0  # most have it, and nobody can change that in a hurry
    assert told["sqlite_wal_reset_bug"] is has
    assert any("WAL-reset bug" in warning for warning in told["warnings"]) is has


def test_f58_a_folder_that_another_program_syncs_is_a_warning(tmp_path, capsys):
    folder = tmp_path / "OneDrive - Cats" / "data"
    folder.mkdir(parents=True)
    fill(folder / "app.db", {})
    _, told = doctor(folder / "app.db", capsys)
    assert any("OneDrive - Cats is synced by another" in warning for warning in told["warnings"])


@pytest.mark.parametrize("folder", ["Dropboxes", "boxes", "drive", "my"])
def test_other_folders_are_no_reason_to_worry(tmp_path, folder):
    assert location.synced_by(tmp_path / folder / "Dropbox.db") is None


def test_f58_a_file_system_of_another_machine_is_known_by_its_mount(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "31 22 0:41 / /home\\040of/cats rw - nfs4 10.0.0.1:/cats rw\n"
        "32 22 0:42 / /home\\040of/cats/in rw - tmpfs tmpfs rw\n",
        "utf-8",
    )
    at = {
        name: location.file_system(type(tmp_path)(name), mounts)
        for name in ("/home of/cats/app.db", "/home of/cats/in/app.db", "/home of/catsy/app.db")
    }
    assert list(at.values()) == ["nfs4", "tmpfs", "ext4"]
    assert location.is_network(tmp_path, "nfs4")
    assert not location.is_network(tmp_path, "ext4")
    assert location.file_system(tmp_path, tmp_path / "none") is None


def test_a_network_file_system_is_a_warning(path, capsys, monkeypatch):
    monkeypatch.setattr(location, "file_system", lambda _: "cifs")
    code, told = doctor(path, capsys)
    assert code == 0
    assert any("on another machine (cifs)" in warning for warning in told["warnings"])


def test_asking_who_syncs_makes_no_file_and_takes_no_lock(path):
    assert not is_synced(path)
    assert not (path.parent / "app.db.tide-lock").exists()
    lock = lock_of(path)
    assert lock.take()
    assert is_synced(path)
    assert lock.is_held()
    lock.release()
    assert not is_synced(path)
    assert lock.holder() is None
