"""Killed at any moment, while writing and syncing: what was acknowledged is there, and whole."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.programs.files import documents, node, sound
from tests.programs.nodes import started, write_and_tell
from tests.support import served
from tide import Tide
from tide.server import create_app

KILLS = int(os.environ.get("TIDE_KILLS", "25"))


def kill_while_writing(rng, *args):
    """Let a process write and sync, kill it at some moment; the writes that it acknowledged."""
    process, pipe = started(write_and_tell, *args)
    assert pipe.recv() == "open"
    time.sleep(rng.random() * 0.12)  # not to wait for something: the moment is the test
    process.kill()
    process.join()
    told = []
    try:
        while True:
            told.append(pipe.recv())
    except (EOFError, ConnectionError):
        return told


async def test_f54_f03_a_process_killed_at_random_moments_keeps_every_acknowledged_write(tmp_path):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    path = tmp_path / "app.db"
    acknowledged = set()
    with served(create_app(tmp_path / "server.db")) as endpoint:
        for life in range(KILLS):
            acknowledged |= set(kill_while_writing(rng, path, endpoint, life * 1_000_000))
            stored = documents(path)
            assert acknowledged <= {int(id_) for _, id_ in stored}
            assert sound(path)
            assert all(doc == f'{{"n":{id_}}}' for (_, id_), (doc, _, _) in stored.items())
        assert len(acknowledged) > KILLS, "they did write"
        async with Tide(path, endpoint) as tide:
            assert tide.recovered is None
            await tide.sync_once()
            assert await tide.pending() == 0
        async with Tide(tmp_path / "other.db", endpoint) as other:
            await other.sync_once()
        assert documents(tmp_path / "other.db") == documents(path)
    assert sound(path)
    assert node(path, "clean") == 1


@pytest.mark.parametrize("life", range(2))
async def test_f54_one_of_two_processes_on_a_file_is_killed_and_the_other_goes_on(tmp_path, life):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    path = tmp_path / "app.db"
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with Tide(path, endpoint) as tide:
            acknowledged = set()
            for n in range(3):
                await tide.collection("docs").put(f"{n}", {"n": n})
                first = 1_000_000 * (n + 1)
                acknowledged |= set(kill_while_writing(rng, path, endpoint, first)) | {n}
                await tide.collection("docs").update(f"{n}", {"n": n})
            assert acknowledged <= {int(id_) for id_ in await tide.collection("docs").all()}
            await tide.sync_once()
            assert await tide.pending() == 0
    assert sound(path)
