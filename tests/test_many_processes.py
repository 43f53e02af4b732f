"""Many processes on one file: each hears of all that the others do, and one of them syncs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from tests.support import served, until
from tide import Tide
from tide.server import create_app

WRITER = """
import asyncio, sys
from tide import Tide

async def main(path, count):
    async with Tide(path, durability="relaxed") as tide:
        todos = tide.collection("todos")
        for start in range(0, count, 20):
            await asyncio.gather(
                *(todos.put(f"t{number:05}", {"n": number}) for number in range(start, start + 20))
            )

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

WORKER = """
import asyncio, json, os, sys
from tide import Tide

async def main(path, endpoint, name, acknowledged):
    out = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stop.set)
    async with Tide(path, endpoint, headers={"x-worker": name}, durability="relaxed") as tide:
        todos = tide.collection("todos")
        watcher = todos.watch()
        told = []

        async def watch():
            async for change in watcher:
                told.append(change.id)

        watching = asyncio.create_task(watch())
        async with todos.live() as query, tide.sync_forever(interval=0.2):
            began = list(query.items)
            number = 0
            print("ready", flush=True)
            while not stop.is_set():
                number += 1
                id_ = f"{name}-{number:05}"
                await todos.put(id_, {"by": name})
                os.write(out, f"{id_}\\n".encode())
                await todos.put("shared", {"by": name, "n": number})
                if number % 10 == 0:
                    await todos.delete(f"{name}-{number - 5:05}")
                    os.write(out, f"-{name}-{number - 5:05}\\n".encode())
                await asyncio.sleep(0.005)
            sys.stdin.readline()
            print("stopped", flush=True)
            expected = json.loads(await asyncio.to_thread(sys.stdin.readline))
            while query.items != expected or tide.status.pending:
                await asyncio.sleep(0.02)
        watcher.close()
        await watching
        print(json.dumps({"began": began, "told": told}), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Worker:
    """A process that writes, watches, shows and syncs one file until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process = process
        self.name = name

    @classmethod
    async def start(cls, folder: Path, endpoint: str, name: str) -> Worker:
        arguments = [str(folder / "app.db"), endpoint, name, str(folder / f"{name}.acknowledged")]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", WORKER, *arguments],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        worker = cls(process, name)
        assert await worker.line() == "ready"
        return worker

    async def line(self) -> str:
        assert self.process.stdout is not None
        with anyio.fail_after(60):
            return (await self.process.stdout.readline()).decode().strip()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


class Asked:
    """An ASGI app around another that notes who sends exchanges."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.by: list[str] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["method"] == "POST":
            self.by.append(dict(scope["headers"])[b"x-worker"].decode())
        await self.app(scope, receive, send)

    async def syncing(self, after: int) -> str:
        """Who sent the exchanges after the first *after* ones: one worker."""
        await until(lambda: len(self.by) > after + 5)
        (name,) = set(self.by[after + 1 :])  # one may have been on its way when another was killed
        return name


async def test_f50_ten_thousand_writes_of_another_process_are_told_each_once_in_order(tmp_path):
    path = tmp_path / "app.db"
    count = 10_000
    async with Tide(path, durability="relaxed") as tide:
        todos = tide.collection("todos")
        watcher, query = todos.watch(), await todos.live(key=lambda doc: -doc["n"])
        writer = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", WRITER, str(path), str(count)]
        )
        mine, told = 0, list[str]()
        with anyio.fail_after(120):
            while len(told) < count + mine:
                told.append((await anext(watcher)).id)
                if len(told) % 500 == 0:  # so that both write at once
                    mine += 1
                    await todos.put(f"mine{mine}", {"n": -mine})
        assert await writer.wait() == 0
        expected = [f"t{number:05}" for number in range(count)]
        assert [id_ for id_ in told if not id_.startswith("mine")] == expected
        assert len(set(told)) == len(told) == count + mine
        assert query.items == await todos.all()
        assert list(query.items)[:count] == expected[::-1]
        assert query.revision < count
        watcher.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs add_reader on stdin")
@pytest.mark.parametrize("seed", [1])
async def test_f50_f51_processes_that_are_killed_at_random_lose_nothing_and_one_syncs(
    tmp_path, seed
):
    print("seed", seed)  # noqa: T201 - to be shown with a failure
    chance = Random(seed)
    asked = Asked(create_app(tmp_path / "server.db"))
    workers: list[Worker] = []
    with served(asked) as endpoint:
        try:
            names = [f"w{number}" for number in range(4)]
            workers += [await Worker.start(tmp_path, endpoint, name) for name in names]
            leader = await asked.syncing(0)
            for number in range(4, 10):
                killed = next(worker for worker in workers if worker.name == leader)
                if number % 2:
                    killed = chance.choice(workers)
                await anyio.sleep(chance.uniform(0.0, 0.2))
                await killed.kill()
                before = len(asked.by)
                workers.remove(killed)
                following = await asked.syncing(before)
                assert (following == leader) is (killed.name != leader)
                assert following in {worker.name for worker in workers}
                leader = following
                workers.append(await Worker.start(tmp_path, endpoint, f"w{number}"))
            await agree(tmp_path, endpoint, workers)
        finally:
            for worker in workers:
                await worker.kill()


async def agree(folder: Path, endpoint: str, workers: list[Worker]) -> None:
    """All stop writing; then each shows the same, nothing acknowledged is lost or told twice."""
    for worker in workers:
        worker.say("stop")
    for worker in workers:
        assert await worker.line() == "stopped"
    async with Tide(folder / "app.db") as tide:
        assert await tide.rejected() == []
        stored = await tide.collection("todos").all()
    for worker in workers:
        worker.say(json.dumps(stored))
    reports = [json.loads(await worker.line()) for worker in workers]
    async with Tide(folder / "fresh.db", endpoint, headers={"x-worker": "fresh"}) as fresh:
        await fresh.sync_once()
        assert await fresh.collection("todos").all() == stored
    lines = acknowledged_lines(folder)
    put = {line for line in lines if line[0] != "-"}
    deleted = {line[1:] for line in lines if line[0] == "-"}
    assert len(put) > 200
    assert not deleted & stored.keys()
    lost = put - deleted - stored.keys()
    assert all(id_[-1] == "5" for id_ in lost)  # killed between the delete and its report
    unreported = stored.keys() - put - {"shared"}  # the same with a put
    assert len(lost) + len(unreported) <= 6  # one for each that was killed
    for report in reports:
        told = Counter(report["told"])
        assert stored.keys() <= {*report["began"], *told}
        for id_ in told.keys() - {"shared"}:
            assert told[id_] <= (2 if id_[-1] == "5" else 1)  # those with a 5 are deleted too


def acknowledged_lines(folder: Path) -> list[str]:
    """What the workers reported after each write had returned."""
    return [
        line
        for file in folder.glob("*.acknowledged")
        for line in file.read_text("ascii").split("\n")[:-1]
    ]
