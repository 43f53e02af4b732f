"""What every demo needs before its UI starts: its options, a file of its own, and a server."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from demos.server import PORT, EmbeddedServer
from tide import EndpointError
from tide.lock import FileLock
from tide.transports.http import HttpTransport

__all__ = ["Launch", "launched"]

FOLDER = Path("tide-demo")

DESCRIPTION = f"""\
A todo list, kept in a file and synced with other todo lists.

Start it in two terminals: each gets a file of its own, in {FOLDER}/, and what
you do in one shows in the other. The first one also runs a sync server on
127.0.0.1:{PORT}; when it quits, another one that is running takes over.
"""


class Launch(NamedTuple):
    """What a demo was started with.

    Attributes:
        db: the store's file, which no other demo has open.
        endpoint: the server to sync with; None to stay local.
        server: the server to start when none answers at *endpoint*; None to start none.
    """

    db: Path
    endpoint: str | None
    server: EmbeddedServer | None


@contextlib.contextmanager
def launched(framework: str, argv: Sequence[str]) -> Iterator[Launch]:
    """Read the command line, and hold the file and the server until the demo has ended.

    Raises:
        SystemExit: the command line is wrong, or asks for help, or the file is in use.
    """
    parser = _parser(framework)
    options = parser.parse_args(argv)
    try:
        db, lock = _open_file(framework, options.db)
    except OSError as error:
        parser.exit(1, f"can't use {options.db or FOLDER}: {error.strerror or error}\n")
    server = EmbeddedServer(db.with_name("server.db"))
    own = not options.offline and options.endpoint is None
    endpoint = None if options.offline else options.endpoint or server.endpoint
    try:
        yield Launch(db, endpoint, server if own else None)
    finally:
        server.stop()
        lock.release()


def _parser(framework: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m demos {framework}",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--db",
        metavar="FILE",
        type=Path,
        help=f"the todo list's file (default: the first of {FOLDER}/{framework}-1.db, "
        f"-2.db, … that no other demo has open); the server's server.db is beside it",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--endpoint",
        metavar="URL",
        type=_endpoint,
        help="sync with this server, such as http://127.0.0.1:8000/sync, and start none",
    )
    where.add_argument("--offline", action="store_true", help="sync with no server")
    return parser


def _endpoint(text: str) -> str:
    """(argparse) *text*, if a Tide takes it as its endpoint."""
    try:
        HttpTransport(text)
    except EndpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _open_file(framework: str, chosen: Path | None) -> tuple[Path, FileLock]:
    """The file to use, and the lock that keeps other demos from it.

    Any number of processes may have one store open, but a watcher is told only of what its own
    process wrote or pulled: two demos on one file would not show each other's changes.
    """
    if chosen is not None:
        lock = _lock(chosen)
        if not lock.take():
            raise OSError("it is open in another demo, and each needs a file of its own")
        return chosen, lock
    FOLDER.mkdir(exist_ok=True)
    numbers = itertools.count(1)
    while True:
        db = FOLDER / f"{framework}-{next(numbers)}.db"
        lock = _lock(db)
        if lock.take():
            return db, lock


def _lock(db: Path) -> FileLock:
    return FileLock(Path(f"{db}.demo-lock"))
