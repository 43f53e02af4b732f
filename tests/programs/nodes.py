"""What other processes do to a store, and how tests start them.

They fork from a process that has tide loaded and nothing open, so that starting one is quick.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tide import Tide
from tide.lock import FileLock

__all__ = [
    "add_up",
    "hold_lock",
    "open_and_add",
    "open_and_die",
    "recover_and_die",
    "started",
    "write_and_die",
    "write_and_tell",
]

_METHODS = multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
if "forkserver" in _METHODS:
    _context.set_forkserver_preload(["pytest", "tide.transports.http", __name__])


def started(function: Any, *args: Any) -> tuple[BaseProcess, Connection]:
    """Start *function* in another process, with the other end of a pipe as first argument."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=function, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()  # so that reading ends when the process does
    return process, ours


def hold_lock(pipe: Connection, path: Path) -> None:
    """Take the lock at *path*, tell whether that worked, and hold it until told to end."""
    lock = FileLock(path)
    pipe.send(lock.take())
    pipe.recv()


def add_up(pipe: Connection, path: Path, times: int) -> None:
    """Update one document *times* times, each time with a field that is nobody else's."""

    async def main() -> None:
        async with Tide(path) as tide:
            for number in range(times):
                await tide.collection("c").update("shared", {f"{tide.node_id} {number}": number})

    _reported(pipe, main)


def open_and_add(pipe: Connection, path: Path) -> None:
    """When told to, open the store and add a document."""

    async def main() -> str:
        pipe.recv()
        async with Tide(path) as tide:
            return await tide.collection("c").add({"by": tide.node_id})

    _reported(pipe, main)


def write_and_tell(pipe: Connection, path: Path, endpoint: str, first: int) -> None:
    """Write without end while syncing; tell the number of each write after it returned."""

    async def main() -> None:
        async with Tide(path, endpoint) as tide, tide.sync_forever(interval=0.02):
            pipe.send("open")
            await asyncio.gather(*(write(tide, first + each) for each in range(3)))

    async def write(tide: Tide, number: int) -> None:
        docs = tide.collection("docs")
        while True:
            await docs.put(f"{number}", {"n": number})
            pipe.send(number)
            number += 3

    asyncio.run(main())


def _reported(pipe: Connection, main: Any) -> None:
    """Run *main*, and send what it returned or the error it raised, in words."""
    try:
        pipe.send(("done", asyncio.run(main())))
    except BaseException as error:  # noqa: BLE001 - the test shows it
        pipe.send(("failed", repr(error)))


def open_and_die(pipe: Connection, path: Path, statement: int) -> None:
    """Open the store, but be killed right before the given *statement*, counted from 1."""
    left = statement

    class Mortal(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*args)

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Mortal, **kwargs)  # type: ignore[assignment]
    asyncio.run(Tide(path).open())
    pipe.send("opened")


def recover_and_die(pipe: Connection, path: Path, step: int) -> None:
    """Open a damaged store, but be killed at a *step*: a renaming, or a statement behind one."""
    left = step
    moving = False

    def count() -> None:
        nonlocal left
        left -= moving
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal moving
        if event == "os.rename":
            moving = True
            count()

    class Mortal(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            if "LIMIT 1" not in args[0] and "= ?" not in args[0]:  # not at each row that is saved
                count()
            return super().execute(*args)

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Mortal, **kwargs)  # type: ignore[assignment]
    sys.addaudithook(hook)
    asyncio.run(Tide(path).open())
    pipe.send("opened")


def write_and_die(pipe: Connection, path: Path, docs: dict[str, dict[str, Any]]) -> None:
    """Put *docs* one after the other, and be killed with the store open."""

    async def main() -> None:
        async with Tide(path) as tide:
            for id_, doc in docs.items():
                await tide.collection("docs").put(id_, doc)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
