"""What becomes of one op: the server's half of the conflict rule. Pure."""

from __future__ import annotations

import json
from typing import Final

from tide.codec import loads
from tide.protocol import Op, Result
from tide.server.storage.base import Horizon
from tide.stamp import MAX_WIRE_COUNTER

__all__ = ["MAX_JUMP", "judge"]

MAX_JUMP: Final = 2**20
"""How far over the highest counter of its space an op's may be."""

_OK = Result("ok")


def judge(op: Op, stored: Op | None, clock: int, horizon: Horizon) -> tuple[Result, bool]:
    """What to answer to *op*, and whether to store it (PROTOCOL.md, "Results").

    Args:
        op: what a node pushes.
        stored: what the server holds of that document.
        clock: the highest counter accepted in the space so far.
        horizon: which tombstones are forgotten.
    """
    if op.stamp.counter > min(clock + MAX_JUMP, MAX_WIRE_COUNTER):
        return Result("restamp", min_counter=clock, reason="clock_ahead"), False
    if stored is None:
        return _judge_new(op, clock, horizon)
    if op.stamp > stored.stamp:
        return _OK, True
    if op.stamp < stored.stamp:
        return Result("superseded", current=stored), False
    if _same(op.doc, stored.doc):
        return _OK, False  # sent again: the answer was lost on its way
    # Two different writes under one stamp, from a copied file or a faulty node: nodes could never
    # agree on one of them, so this one gets a stamp of its own.
    return Result("restamp", min_counter=clock, reason="stamp_reused"), False


def _judge_new(op: Op, clock: int, horizon: Horizon) -> tuple[Result, bool]:
    """What to answer to *op* of a document that is not stored, or whose tombstone is forgotten."""
    if op.stamp.counter > horizon.counter:
        return _OK, True
    if op.doc is None:
        return _OK, False  # deleted already, as far as anybody remembers
    return Result("restamp", min_counter=max(clock, horizon.counter), reason="forgotten"), False


def _same(one: str | None, other: str | None) -> bool:
    """Whether two documents are equal, however their JSON was written; 1, 1.0 and true differ."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    return _canonical(one) == _canonical(other)


def _canonical(text: str) -> str:
    return json.dumps(loads(text), sort_keys=True)
