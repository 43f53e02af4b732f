"""`tide tail`: every change, of any process, one line each, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess

import pytest

import tide.cli
from tests.commands.stores import BUFFERED, COMMAND, fill
from tide import Tide
from tide.testing import memory_server


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "app.db"
    fill(made, {"todos": {"old": {"text": "was there before"}}})
    return made


@contextlib.asynccontextmanager
async def tailing(path, *options):
    """A running `tide tail`, from when it surely listens."""
    program = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("tail", str(path), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=BUFFERED,
    )
    try:
        async with Tide(path) as store:
            await lines_until_it_listens(store, program)
            yield program, store
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.communicate()


async def lines_until_it_listens(store, program):
    """Write until the program tells of it, and then read what it tells of that."""
    names = ("todos", "notes", "a")  # whichever it tails
    reading = asyncio.ensure_future(program.stdout.readline())
    written = 0
    while not reading.done():
        written += 1
        for name in names:
            await store.collection(name).put("ready", {"n": written})
        await asyncio.wait([reading], timeout=0.2)
    for name in names:
        await store.collection(name).put("go", {})
    line = await reading
    while b"go" not in line or b"notes" in line or b"todos" in line:
        line = await asyncio.wait_for(program.stdout.readline(), 30)


async def next_line(program):
    return (await asyncio.wait_for(program.stdout.readline(), 30)).decode()


async def test_changes_of_all_collections_come_one_line_each_in_order(path):
    async with tailing(path) as (program, store):
        await store.collection("todos").put("t1", {"text": "two\nlines\u2028and a \x9b"})
        await store.collection("notes").put("n1", {"a": 1})
        await store.collection("todos").delete("old")
        lines = [await next_line(program) for _ in range(3)]
    assert r'  local   put       todos/t1  {"text": "two\nlines\u2028and a \x9b"}' in lines[0]
    assert '  local   put       notes/n1  {"a": 1}' in lines[1]
    assert lines[2].rstrip("\n").endswith("  local   delete    todos/old")


async def test_only_one_collection_if_it_is_named(path):
    async with tailing(path, "a") as (program, store):
        await store.collection("todos").put("t1", {})
        await store.collection("a").put("a1", {})
        assert "a/a1" in await next_line(program)


async def test_for_scripts_each_line_is_one_json_object(path):
    async with tailing(path, "--json") as (program, store):
        await store.collection("todos").put("t1", {"text": "日本"})
        told = json.loads(await next_line(program))
    assert told.pop("at")[4] == "-"
    assert told == {
        "source": "local",
        "kind": "put",
        "collection": "todos",
        "id": "t1",
        "doc": {"text": "日本"},
    }


async def test_what_sync_brings_and_what_the_server_refuses_is_told_as_such(path):
    def validate(write):
        return "not in winter" if write.id == "skates" else None

    async with memory_server(path.with_name("server.db"), validate=validate) as server:
        async with Tide(path.with_name("other.db"), transport=server.transport()) as other:
            await other.collection("todos").put("theirs", {})
            await other.sync_once()
        async with tailing(path) as (program, _), Tide(path, transport=server.transport()) as mine:
            await mine.sync_once()
            lines = [await next_line(program)]
            assert "  remote  put       todos/theirs  {}" in lines[0]
            await mine.collection("todos").put("skates", {})
            assert "  local   put       todos/skates" in await next_line(program)
            await mine.sync_once()
            assert "  rejected  todos/skates" in await next_line(program)


async def test_ctrl_c_ends_it_quietly(path):
    async with tailing(path) as (program, _):
        program.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(program.communicate(), 30)
    assert (program.returncode, out, err) == (130, b"", b"")


async def test_a_reader_that_leaves_ends_it_quietly(path):
    async with tailing(path) as (program, store):
        program.stdout._transport.close()
        while program.returncode is None:
            await store.collection("todos").put("t1", {})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(program.wait()), 0.1)
        assert program.returncode == 141
        assert await program.stderr.read() == b""


async def test_it_leaves_no_trace(path):
    async with tailing(path) as (program, _):
        program.send_signal(signal.SIGINT)
        await asyncio.wait_for(program.wait(), 30)
    assert sorted(part.name for part in path.parent.iterdir()) == ["app.db"]


async def test_a_program_that_closes_the_store_meanwhile_finds_all_of_it_in_one_file(path):
    async with tailing(path) as (program, store):
        await store.close()
        program.send_signal(signal.SIGINT)
        await asyncio.wait_for(program.wait(), 30)
    assert sorted(part.name for part in path.parent.iterdir()) == ["app.db"]


async def test_a_file_that_is_replaced_under_it_ends_it(path):
    async with tailing(path) as (program, _):
        path.rename(path.with_name("aside.db"))
        assert await asyncio.wait_for(program.wait(), 30) == 1
        assert b"is another file now, or none" in await program.stderr.read()


@pytest.mark.parametrize("name", ["1st", "", "a b", "x" * 65])
def test_a_name_that_is_none_is_a_wrong_use(path, capsys, name):
    with pytest.raises(SystemExit) as caught:
        tide.cli.main(["tail", str(path), name])
    assert caught.value.code == 2
    assert "can't name a collection" in capsys.readouterr().err


def test_a_pipe_that_is_closed_before_anything_came_is_fine(path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [*COMMAND, "outbox", str(path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")
