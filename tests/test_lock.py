"""The lock between processes: one holder at a time, and it dies with its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.programs.nodes import hold_lock, started
from tests.support import until
from tide.lock import FileLock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db.tide-lock"


def test_only_one_of_two_holders_in_a_process_gets_the_lock(path):
    first, second = FileLock(path), FileLock(path)
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert not first.take()
    second.release()


def test_taking_a_lock_that_one_holds_already_is_fine_and_one_release_lets_go_of_it(path):
    lock = FileLock(path)
    assert lock.take()
    assert lock.take()
    lock.release()
    lock.release()
    other = FileLock(path)
    assert other.take()
    other.release()


def test_the_file_stays_and_stays_empty(path):
    lock = FileLock(path)
    lock.take()
    lock.release()
    assert path.read_bytes() == b""


def test_f51_a_lock_holds_between_processes_and_dies_with_a_killed_one(path):
    process, pipe = started(hold_lock, path)
    assert pipe.recv()
    mine = FileLock(path)
    assert not mine.take()
    process.kill()
    process.join()
    assert mine.take()
    other, pipe = started(hold_lock, path)
    assert not pipe.recv()
    mine.release()
    other.kill()
    other.join()


async def test_f51_a_process_that_ends_lets_go_of_its_lock(path):
    process, pipe = started(hold_lock, path)
    assert pipe.recv()
    mine = FileLock(path)
    pipe.send("end")
    await until(mine.take)
    mine.release()
    process.join()
    assert process.exitcode == 0


def test_f59_a_forked_child_does_not_keep_the_lock_of_its_parent_nor_end_it(path):
    program = """
import os, sys
from pathlib import Path
from tide.lock import FileLock

lock, other = FileLock(Path(sys.argv[1])), FileLock(Path(sys.argv[1]))
lock.take()
ready, release = os.pipe(), os.pipe()
if not (child := os.fork()):
    lock.release()  # as the end of a block may do it in a child
    os.write(ready[1], b"x")
    os.read(release[0], 1)
    os._exit(0)
os.read(ready[0], 1)
print(other.take())
lock.release()
print(other.take())
os.write(release[1], b"x")
os.waitpid(child, 0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.split() == ["False", "True"]
