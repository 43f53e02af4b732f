"""What the tests of the commands share: stores with something in them, and the command itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tide import Tide
from tide.testing import memory_server

__all__ = ["BUFFERED", "COMMAND", "Documents", "fill", "held", "refuse", "tide", "untouched"]

COMMAND = [sys.executable, "-m", "tide"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""The environment for a process that holds back what it prints, as they do for everybody."""

Documents = dict[str, dict[str, dict[str, Any]]]


def tide(*argv: object, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a process; what it reads and prints is UTF-8."""
    given = stdin if isinstance(stdin, bytes) else stdin.encode()
    command = [*COMMAND, *map(str, argv)]
    ran = subprocess.run(
        command, input=given, capture_output=True, timeout=60, check=False, env=BUFFERED
    )
    out, err = ran.stdout.decode(), ran.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(command, ran.returncode, out, err)


def fill(path: Path, documents: Documents) -> None:
    """Write *documents*, by collection and id, into the store at *path*, together."""

    async def run() -> None:
        async with Tide(path) as store, store.batch():
            for name, docs in documents.items():
                for id_, doc in docs.items():
                    await store.collection(name).put(id_, doc)

    asyncio.run(run())


def held(path: Path) -> Documents:
    """All documents of the store at *path*."""

    async def run() -> Documents:
        async with Tide(path) as store:
            return {name: await store.collection(name).all() for name in await store.collections()}

    return asyncio.run(run())


def refuse(path: Path, documents: Documents) -> None:
    """Write *documents*, and let a server refuse all of them."""
    fill(path, documents)

    async def run() -> None:
        async with (
            memory_server(
                path.with_name("server.db"), validate=lambda _: "not in winter"
            ) as server,
            Tide(path, transport=server.transport()) as store,
        ):
            await store.sync_once()
            assert await store.pending() == 0

    asyncio.run(run())


def untouched(folder: Path) -> dict[str, bytes]:
    """All files in *folder*, to be compared with what they are later."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
