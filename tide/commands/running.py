"""What the commands share: errors in one sentence, a quiet end, and what their arguments can be."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tide import recovery
from tide.errors import CollectionNameError, TideError
from tide.inspection import reading
from tide.limits import check_collection

__all__ = ["collection_name", "parser", "require_sound", "run"]

INTERRUPTED = 130  # what shells make of Ctrl-C, and of a closed pipe
PIPE_CLOSED = 141


def run(command: str, work: Callable[[], int]) -> int:
    """Do *work*, the command's, which gives the exit code; an error is told and gives 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TideError, OSError) as error:
        print(f"tide {command}: {_in_words(error)}", file=sys.stderr)
        return 1
    return code


def parser(command: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command that works on a store's file."""
    made = argparse.ArgumentParser(prog=f"tide {command}", description=description, epilog=epilog)
    made.add_argument("path", type=Path, metavar="FILE", help="the store, such as app.db")
    return made


def collection_name(text: str) -> str:
    """The name of a collection, for argparse."""
    try:
        return check_collection(text)
    except CollectionNameError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def require_sound(path: Path) -> None:
    """Refuse a file which opening would make, or set aside.

    Raises:
        StoreError: as `tide.inspection.reading` does, and if it is damaged.
    """
    with reading(path) as sql:
        recovery.check(sql)


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _let_go_of_stdout() -> None:
    """Who read it is gone; Python would complain when it flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
