"""`tide import`: JSON lines into a store."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tide.client import Tide
from tide.commands.lines import Line, read, read_lines
from tide.commands.progress import Progress
from tide.commands.running import parser, require_sound, run
from tide.commands.table import many, printable

__all__ = ["main"]

BATCH = 500
"""How many documents are written together, at most,"""
BATCH_BYTES = 4 << 20
"""and how many bytes of lines, about."""
TOLD = 10
"""How many bad lines are told one by one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Store the documents; 1 if there is a bad line, and then nothing is stored."""
    chosen = _parser().parse_args(argv)

    def work() -> int:
        if not (chosen.create and not chosen.path.exists()):
            require_sound(chosen.path)
        with _lines_of(chosen.file) as file:
            start = file.tell()
            bad, good = _check(file)
            _tell(bad)
            if bad and not chosen.skip_bad:
                lines = many(len(bad), "bad line")
                print(f"tide import: nothing was imported, for {lines}", file=sys.stderr)
                return 1
            file.seek(start)
            asyncio.run(_import(chosen.path, file, good))
        skipped = f", skipped {many(len(bad), 'bad line')}" if bad else ""
        print(f"imported {many(good, 'document')} into {chosen.path}{skipped}", file=sys.stderr)
        return 0

    return run("import", work)


def _parser() -> argparse.ArgumentParser:
    options = parser(
        "import",
        'Store documents from JSON lines: {"collection": …, "id": …, "doc": …}. '
        "Each is a new write of now, which replaces what the store has under its id.",
    )
    options.add_argument("file", metavar="LINES", help="what export wrote; -: standard input")
    options.add_argument(
        "--skip-bad", action="store_true", help="import the good lines all the same"
    )
    options.add_argument("--create", action="store_true", help="make the store if there is none")
    return options


@contextlib.contextmanager
def _lines_of(name: str) -> Iterator[IO[bytes]]:
    """A file to read twice."""
    with contextlib.ExitStack() as stack:
        file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        if not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            file = copy
        yield file


def _check(file: IO[bytes]) -> tuple[list[tuple[int, str]], int]:
    """The number of each bad line with what is wrong with it, and how many good ones there are."""
    bad = []
    good = at = 0
    with Progress("checking", os.fstat(file.fileno()).st_size) as progress:
        for number, text in read_lines(file):
            try:
                read(text)
                good += 1
            except ValueError as error:
                bad.append((number, str(error)))
            at += len(text)
            progress.at(at)
    return bad, good


def _tell(bad: list[tuple[int, str]]) -> None:
    for number, why in bad[:TOLD]:
        print(f"line {number}: {printable(why)}", file=sys.stderr)
    if len(bad) > TOLD:
        print(f"and {len(bad) - TOLD:,} more", file=sys.stderr)


async def _import(path: Path, file: IO[bytes], total: int) -> None:
    done = 0
    try:
        async with Tide(path) as tide:
            with Progress("importing", total) as progress:
                for lines in _batches(file):
                    async with tide.batch():
                        for line in lines:
                            await tide.collection(line.collection).put(line.id, line.doc)
                    done += len(lines)
                    progress.at(done)
    except BaseException:
        print(
            f"stopped; at least {done:,} of {many(total, 'document')} were imported",
            file=sys.stderr,
        )
        raise


def _batches(file: IO[bytes]) -> Iterator[list[Line]]:
    lines: list[Line] = []
    size = 0
    for _, text in read_lines(file):
        with contextlib.suppress(ValueError):  # told already
            lines.append(read(text))
            size += len(text)
        if len(lines) >= BATCH or size >= BATCH_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines
