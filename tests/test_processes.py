"""Many processes, threads and event loops on one file; and how processes end with it open."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.programs.files import documents, node, query, same, sound
from tests.programs.nodes import add_up, open_and_add, started
from tests.support import served, until
from tide import Tide
from tide.server import create_app


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


# Several at once


async def test_f48_updates_of_four_processes_at_once_are_all_there(path):
    times = 60
    async with Tide(path) as tide:
        await tide.collection("c").put("shared", {})
    processes = [started(add_up, path, times) for _ in range(4)]
    assert [pipe.recv() for _, pipe in processes] == [("done", None)] * 4
    for process, _ in processes:
        process.join()
    async with Tide(path) as tide:
        doc = await tide.collection("c").get("shared")
    assert doc is not None
    assert len(doc) == 4 * times
    assert len({name.partition(" ")[0] for name in doc}) == 4, "each open is a node of its own"
    assert node(path, "clock") == 4 * times + 1
    assert same(path)
    assert sound(path)


@pytest.mark.parametrize("attempt", range(3))
def test_f57_processes_that_open_a_fresh_file_at_once_all_work(path, attempt):
    processes = [started(open_and_add, path) for _ in range(6)]
    for _, pipe in processes:
        pipe.send("now")
    told = [pipe.recv() for _, pipe in processes]
    assert [how for how, _ in told] == ["done"] * 6, told
    for process, _ in processes:
        process.join()
    assert {id_ for _, id_ in documents(path)} == {id_ for _, id_ in told}
    assert query(path, "SELECT count(*) FROM node") == [(1,)]
    assert same(path)


def test_f61_sixteen_threads_with_loops_of_their_own_write_to_one_file(path):
    errors = []

    async def main(number):
        async with Tide(path) as tide:
            docs = tide.collection("docs")
            for n in range(15):
                await docs.put(f"{number} {n}", {"n": n})
                await docs.update(f"{number} {n}", {"by": number})

    def run(number):
        try:
            asyncio.run(main(number))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(documents(path)) == 16 * 15
    assert len({row[1:] for row in documents(path).values()}) == 16 * 15, "no stamp twice"
    assert same(path)
    assert sound(path)


def test_f61_one_event_loop_after_the_other_may_open_the_file(path):
    async def main(n):
        async with Tide(path) as tide:
            await tide.collection("docs").put(f"{n}", {"n": n})
            return await tide.collection("docs").count()

    assert [asyncio.run(main(n)) for n in range(10)] == list(range(1, 11))


async def test_f51_two_tides_that_sync_one_file_take_turns_and_lose_nothing(path, tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with Tide(path, endpoint) as one, Tide(path, endpoint) as two:
            async with one.sync_forever(0.02), two.sync_forever(0.02):
                for n in range(30):
                    await (one, two)[n % 2].collection("docs").put(f"{n % 20}", {"n": n})

                async def sent():
                    return await one.pending() == 0

                await until(sent)
            await asyncio.gather(one.sync_once(), two.sync_once())  # and without turns
            mine = await one.collection("docs").all()
        async with Tide(tmp_path / "other.db", endpoint) as other:
            await other.sync_once()
            assert await other.collection("docs").all() == mine
    assert len(mine) == 20
    assert sound(path)


# How a program ends

PROGRAM = """
import asyncio, signal, sys, threading
from tide import Tide

async def main():
    tide = Tide(sys.argv[1], *sys.argv[3:])
    await tide.open()
    docs = tide.collection("docs")
    syncing = tide.sync_forever(0.05) if len(sys.argv) > 3 else None
    if syncing:
        await syncing.__aenter__()
    for n in range(20):
        await docs.put(f"{n}", {"n": n})
        print(n, flush=True)
    more = [asyncio.ensure_future(docs.put(f"more {n}", {})) for n in range(50)]
    await asyncio.sleep(0)
    await END[sys.argv[2]](tide)

async def close(tide):
    await tide.close()

async def forget(tide):
    pass

async def leave(tide):
    sys.exit(3)

async def fail(tide):
    raise LookupError("on purpose")

async def wait(tide):
    print("waiting", flush=True)
    await asyncio.Event().wait()

END = {"close": close, "forget": forget, "exit": leave, "error": fail, "wait": wait}
asyncio.run(main())
"""
UNREACHABLE = "http://127.0.0.1:9/sync"


def start(*args):
    command = [sys.executable, "-c", PROGRAM, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(program):
    """What the *program* printed until it ended by itself, on both streams."""
    try:
        return program.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        program.kill()
        raise


async def check_kept(path, output):
    acknowledged = {line for line in output.split() if line.isdigit()}
    assert len(acknowledged) == 20
    assert acknowledged <= {id_ for _, id_ in documents(path)}
    assert same(path)
    async with Tide(path) as tide:
        assert tide.recovered is None
        await tide.collection("docs").put("again", {})
    assert sound(path)


@pytest.mark.parametrize("endpoint", [[], [UNREACHABLE]], ids=["local", "syncing"])
@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        ("close", 0, ""),
        ("forget", 0, ""),
        ("exit", 3, ""),
        ("error", 1, "LookupError: on purpose"),
    ],
)
async def test_f62_f63_a_program_ends_by_itself_and_keeps_what_was_written(
    path, end, code, says, endpoint
):
    with start(path, end, *endpoint) as program:
        output, errors = ended(program)
        assert program.returncode == code, errors
    assert errors.strip().endswith(says)
    assert bool(errors) == bool(says)
    await check_kept(path, output)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGTERM, {-15}), (signal.SIGINT, {-2, 1, 130})]
)
async def test_f62_a_program_that_is_told_to_end_does_so_and_keeps_what_was_written(
    path, number, codes
):
    with start(path, "wait", UNREACHABLE) as program:
        lines = []
        while "waiting" not in lines:
            lines.append(program.stdout.readline().strip())
        program.send_signal(number)
        ended(program)
        assert program.returncode in codes
    await check_kept(path, " ".join(lines))
