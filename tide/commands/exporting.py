"""`tide export`: the documents of a store as JSON lines."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tide import documents
from tide.commands.lines import encode
from tide.commands.progress import Progress
from tide.commands.running import collection_name, parser, run
from tide.commands.table import many
from tide.errors import NotFoundError, UsageError
from tide.inspection import snapshot

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the documents."""
    options = parser(
        "export",
        'Write documents as JSON lines: {"collection": …, "id": …, "doc": …}. Changes nothing in '
        "the store, which may be in use: what is written is one moment of it.",
    )
    options.add_argument(
        "collection", nargs="*", type=collection_name, help="only of these; default: of all"
    )
    options.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="where to; default: -, standard output"
    )
    chosen = options.parse_args(argv)

    def work() -> int:
        count = _export(chosen.path, chosen.collection, chosen.output)
        if chosen.output != "-":
            print(f"exported {many(count, 'document')} to {chosen.output}", file=sys.stderr)
        return 0

    return run("export", work)


def _export(path: Path, wanted: Sequence[str], output: str) -> int:
    """How many documents were written."""
    done = 0
    with snapshot(path) as sql:
        held = {name: documents.count(sql, name) for name in _chosen(sql, path, wanted)}
        with _written(output) as file, Progress("exporting", sum(held.values())) as progress:
            for name in held:
                for id_, text in documents.each(sql, name):
                    file.write(encode(name, id_, text))
                    done += 1
                    progress.at(done)
            file.flush()
    return done


def _chosen(sql: sqlite3.Connection, path: Path, wanted: Sequence[str]) -> list[str]:
    there = documents.collections(sql)
    for name in wanted:
        if name not in there:
            holds = ", ".join(there) or "nothing"
            raise NotFoundError(f"{path} has no documents in {name}; it holds {holds}")
    return [name for name in there if not wanted or name in wanted]


@contextlib.contextmanager
def _written(output: str) -> Iterator[IO[bytes]]:
    """What to write to; a file is there only once it is complete."""
    if output == "-":
        yield sys.stdout.buffer
        return
    target = Path(output).resolve()
    if target.exists() and not target.is_file():  # such as a pipe
        with target.open("wb") as file:
            yield file
        return
    _spare_databases(target)
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _spare_databases(target: Path) -> None:
    """Refuse to put an export in the place of a database, or of a file that belongs to one."""
    owner = target.with_name(target.name.removesuffix("-wal").removesuffix("-shm"))
    for path in {target, owner}:
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(16) == b"SQLite format 3\0":
                    raise UsageError(f"{target} belongs to a database; write to another file")
