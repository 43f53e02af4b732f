"""`tide outbox`: what waits for the server and what it refused; to list, retry and discard."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tide import outbox
from tide.client import Tide
from tide.codec import loads
from tide.commands.running import parser, require_sound, run
from tide.commands.table import age, columns, many, width
from tide.errors import NotFoundError
from tide.inspection import snapshot
from tide.outbox import RejectedOp, WaitingOp

__all__ = ["main"]

SHOWN = 20
"""How many pending ops are listed without --all."""


def main(argv: Sequence[str] | None = None) -> int:
    """List the ops, or do as the options say with the rejected ones."""
    chosen = _parser().parse_args(argv)

    def work() -> int:
        if chosen.retry or chosen.discard or chosen.retry_all or chosen.discard_all:
            asyncio.run(_act(chosen))
        else:
            _list(chosen.path, whole=chosen.all, as_json=chosen.json)
        return 0

    return run("outbox", work)


def _parser() -> argparse.ArgumentParser:
    options = parser("outbox", "List what waits for the server, and what it refused for good.")
    options.add_argument("--all", action="store_true", help=f"list more than {SHOWN} pending ops")
    options.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    acts = options.add_mutually_exclusive_group()
    acts.add_argument(
        "--retry",
        type=int,
        nargs="+",
        metavar="N",
        help="write these rejected ops again, as new writes of now",
    )
    acts.add_argument(
        "--discard", type=int, nargs="+", metavar="N", help="forget these rejected ops"
    )
    acts.add_argument("--retry-all", action="store_true", help="write all rejected ops again")
    acts.add_argument("--discard-all", action="store_true", help="forget all rejected ops")
    return options


async def _act(chosen: argparse.Namespace) -> None:
    require_sound(chosen.path)
    again = bool(chosen.retry or chosen.retry_all)
    async with Tide(chosen.path) as tide:
        rejected = {op.number: op for op in await tide.rejected()}
        numbers = dict.fromkeys(chosen.retry or chosen.discard or rejected)
        for number in numbers:
            if number not in rejected:
                raise NotFoundError(f"there is no rejected op {number}; nothing was done")
        done = [rejected[number] for number in numbers]
        for op in done:
            await (tide.retry(op) if again else tide.discard(op))
    if chosen.json:
        print(json.dumps({"retried" if again else "discarded": [*map(_rejected, done)]}))
    else:
        print(("retried " if again else "discarded ") + many(len(done), "op"))


def _list(path: Path, *, whole: bool, as_json: bool) -> None:
    with snapshot(path) as sql:
        waiting, refused = outbox.waiting_ops(sql), outbox.rejected_ops(sql)
    if as_json:
        found = {
            "pending": [_waiting(op) for op in waiting],
            "rejected": [_rejected(op) for op in refused],
        }
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    _show_waiting(waiting, len(waiting) if whole else SHOWN)
    _show_rejected(path, refused)


def _show_waiting(waiting: list[WaitingOp], most: int) -> None:
    print(f"pending: {many(len(waiting), 'op')}")
    if not waiting:
        return
    rows = [("waits", "kind", "collection", "id", "document")]
    for op in waiting[:most]:
        waits = age(max(0.0, time.time() - op.written_at))
        rows.append((waits, _kind(op), op.collection, op.id, op.doc or ""))
    for line in columns(rows, width()):
        print(line)
    if len(waiting) > most:
        print(f"  and {len(waiting) - most:,} more; --all lists them")


def _show_rejected(path: Path, refused: list[RejectedOp]) -> None:
    print(f"rejected: {many(len(refused), 'op')}")
    if not refused:
        return
    rows = [("N", "kind", "collection", "id", "code", "why")]
    rows += [
        (str(op.number), _kind(op), op.collection, op.id, op.code, op.detail) for op in refused
    ]
    for line in columns(rows, width()):
        print(line)
    print(
        f"`tide outbox {path} --retry N` writes one again, as a new write of now; "
        "`--discard N` forgets it."
    )


def _kind(op: WaitingOp | RejectedOp) -> str:
    return "delete" if op.doc is None else "put"


def _waiting(op: WaitingOp) -> dict[str, Any]:
    doc = None if op.doc is None else loads(op.doc)
    return {**op._asdict(), "kind": _kind(op), "doc": doc}


def _rejected(op: RejectedOp) -> dict[str, Any]:
    return {**op._asdict(), "kind": _kind(op)}
