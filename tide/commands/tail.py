"""`tide tail`: what changes in a store, as it happens, whichever process writes it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tide.change import Change
from tide.commands.running import collection_name, parser, run
from tide.commands.table import cut, printable, width
from tide.errors import StoreError
from tide.inspection import News, reading

__all__ = ["main"]

LOOK = 0.05
"""Seconds between two looks at whether something was committed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each change, until Ctrl-C."""
    options = parser(
        "tail", "Print what changes in a store, as it happens, until Ctrl-C. Changes nothing."
    )
    options.add_argument(
        "collection", nargs="?", type=collection_name, help="only of this one; default: of all"
    )
    options.add_argument("--json", action="store_true", help="a JSON object a line, for scripts")
    chosen = options.parse_args(argv)
    return run("tail", lambda: _follow(chosen.path, chosen.collection, as_json=chosen.json))


def _follow(path: Path, collection: str | None, *, as_json: bool) -> int:
    with reading(path) as sql:
        news, file = News(sql), _number(path)
        if sys.stderr.isatty():
            print(f"what changes in {path} comes here; Ctrl-C ends it", file=sys.stderr)
        while _number(path) == file:
            for committed in news.take():
                if committed.what != "acknowledged" and committed.collection == (
                    collection or committed.collection
                ):
                    _tell(committed.read(), as_json=as_json)
            time.sleep(LOOK)
    raise StoreError(f"{path} is another file now, or none; start again")


def _number(path: Path) -> int | None:
    """Which file it is that stands there; None if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _tell(change: Change, *, as_json: bool) -> None:
    now = datetime.now().astimezone()
    if as_json:
        line = json.dumps({"at": now.isoformat(), **change._asdict()}, ensure_ascii=False)
    else:
        doc = "" if change.doc is None else json.dumps(change.doc, ensure_ascii=False)
        at = now.strftime("%H:%M:%S.%f")[:-3]
        what = f"{at}  {change.source:6}  {change.kind:8}  {change.collection}/{change.id}  {doc}"
        line = cut(printable(what).rstrip(), width())
    print(line, flush=True)
