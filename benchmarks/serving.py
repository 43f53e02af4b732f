"""Servers in processes of their own, for what is measured."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Served", "echo_server", "server"]


class Served(NamedTuple):
    """A server that runs.

    Attributes:
        endpoint: its URL.
        pid: its process.
    """

    endpoint: str
    pid: int


def server(db: Path) -> contextlib.AbstractContextManager[Served]:
    """`tide serve`, on the database *db*."""
    return _running("tide.server", "--db", str(db))


def echo_server() -> contextlib.AbstractContextManager[Served]:
    """The reference: `benchmarks.echo`."""
    return _running("benchmarks.echo")


@contextlib.contextmanager
def _running(module: str, *options: str) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *options, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        yield Served(f"http://127.0.0.1:{port}/sync", process.pid)
    finally:
        process.terminate()
        process.wait()
