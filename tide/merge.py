"""Merging what the server answered into the store, all of an answer in one transaction.

One function, `adopt`, lets remote ops in: it compares, stores, observes the stamp, drops the
waiting op that was beaten, and tells watchers. These functions are works of `Store.write`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from tide import documents, outbox, status
from tide.errors import ProtocolError
from tide.ids import new_incarnation
from tide.protocol import Op, Response, Result
from tide.store import StoreTransaction

__all__ = ["Merged", "adopt", "apply_answer", "apply_reset", "confirm_reset", "reject_op"]

_MANY = 20  # a resync that removes more documents than this, and more than half, asks first

_TRACKING, _HELD = 1, 2  # values of node.resync; 0 is the usual: no resync


class Merged(NamedTuple):
    """What an answer changed.

    Attributes:
        pushed: ops that the server has now.
        pulled: changes that won over what the node held.
        rejected: ops that the server refused for good.
        restamped: ops that wait again with a new stamp.
        held: documents that a resync would remove, were it confirmed.
    """

    pushed: int = 0
    pulled: int = 0
    rejected: int = 0
    restamped: int = 0
    held: int = 0


def apply_answer(
    tx: StoreTransaction, answers: int, sent: Sequence[Op], response: Response
) -> Merged | None:
    """Apply *response* to a request that sent the ops *sent*.

    Args:
        tx: the transaction.
        answers: how many answers had been applied to the store when the request was made.
        sent: the ops of the request, in order.
        response: what the server answered.

    Returns:
        What changed, or None if another answer was applied since: then this one is out of date,
        nothing of it was applied, and asking again is safe.

    Raises:
        ProtocolError: a result names another document than its op.
    """
    if _answers(tx) != answers:
        return None
    results = [Result("ok")] * len(sent) if response.results is None else response.results
    merged = Merged()
    for op, result in zip(sent, results, strict=False):  # an op without a result waits on
        merged = _settle(tx, op, result, merged)
    pulled = adopt(tx, response.changes)
    tx.clock.observe(response.clock)
    tx.sql.execute(
        "UPDATE node SET cursor = ?, receipt = coalesce(?, receipt), answers = answers + 1",
        (response.cursor, response.receipt),
    )
    status.synced(tx.sql)
    held = _end_resync(tx) if tx.resync and not response.has_more else 0
    return merged._replace(pulled=merged.pulled + pulled, held=held)


def adopt(tx: StoreTransaction, ops: Iterable[Op]) -> int:
    """Let remote *ops* in, each if its stamp wins; how many won."""
    won: dict[tuple[str, str], Op] = {}
    seen: list[tuple[str, str]] = []
    shown: dict[tuple[str, str], bool] = {}
    for op in ops:
        tx.clock.observe(op.stamp.counter)
        seen.append(op.key)
        stored = won.get(op.key) or documents.find(tx.sql, op.key)
        if stored is None or op.stamp > stored.stamp:
            shown.setdefault(op.key, stored is not None and stored.doc is not None)
            won[op.key] = op
    documents.write(tx.sql, won.values())
    tx.pending -= outbox.drop(tx.sql, won)
    if tx.resync:
        documents.seen(tx.sql, seen)
    for op in won.values():
        _tell(tx, op.key, op.doc, was_shown=shown[op.key])
    return len(won)


def apply_reset(tx: StoreTransaction, answers: int, kind: Literal["restored", "horizon"]) -> None:
    """Start over from the beginning, as the server asked (PROTOCOL.md, "Reset").

    ``restored``: everything is offered again, so that the server gets back what it lost.
    ``horizon``: what the server does not show from now on is removed at the end.
    """
    if _answers(tx) != answers:
        return
    tx.sql.execute("DELETE FROM unseen")
    if kind == "restored":
        tx.pending += outbox.offer_everything(tx.sql, tx.lsn, time.time())
        tx.sql.execute("UPDATE node SET receipt = NULL")
        _set_resync(tx, 0)
    else:
        tx.sql.execute(
            "INSERT INTO unseen SELECT collection, id FROM documents"
            " EXCEPT SELECT collection, id FROM outbox"
        )
        _set_resync(tx, _TRACKING)
    tx.sql.execute("UPDATE node SET cursor = NULL, answers = answers + 1")


def confirm_reset(tx: StoreTransaction) -> int:
    """Remove what a held resync would remove; how many documents that were."""
    if tx.resync != _HELD:
        return 0
    return _sweep(tx)


def reject_op(tx: StoreTransaction, op: Op, code: str, detail: str) -> bool:
    """Move *op* to the rejected ops; whether it was filed there.

    For an op that is refused again and again by a server that does not tell what it holds: the
    document is removed, and everything is pulled again, which brings back what the server has.
    """
    if not outbox.waits(tx.sql, op):
        return False
    tx.sql.execute("UPDATE node SET cursor = NULL, answers = answers + 1")
    return _reject(tx, op, code, detail, None)


def _answers(tx: StoreTransaction) -> int:
    (answers,) = tx.sql.execute("SELECT answers FROM node").fetchone()
    return int(answers)


def _settle(tx: StoreTransaction, op: Op, result: Result, merged: Merged) -> Merged:
    """Do what *result* says of *op*; if it was deferred, or the status is unknown, it waits on."""
    current = result.current
    if current is not None and current.key != op.key:
        raise ProtocolError(f"the answer tells of {current.key} where it was asked about {op.key}")
    if result.status == "ok":
        _acknowledge(tx, op)
        return merged._replace(pushed=merged.pushed + 1)
    if result.status == "superseded" and current is not None and current.stamp > op.stamp:
        _acknowledge(tx, op)  # also if both are deletes, so that nothing else is told
        return merged._replace(pulled=merged.pulled + adopt(tx, [current]))
    if not outbox.waits(tx.sql, op):
        return merged  # overwritten since: the newer op will be judged on its own
    if result.status == "restamp":
        _restamp(tx, op, result)
        return merged._replace(restamped=merged.restamped + 1)
    if result.status == "rejected":
        filed = _reject(tx, op, result.code, result.detail, result.current)
        return merged._replace(rejected=merged.rejected + filed)
    return merged


def _acknowledge(tx: StoreTransaction, op: Op) -> None:
    if outbox.acknowledge(tx.sql, op):
        tx.pending -= 1
        tx.tell("acknowledged", op.key, op.doc)


def _restamp(tx: StoreTransaction, op: Op, result: Result) -> None:
    """Let *op* wait again, with a stamp that the server can accept."""
    if result.reason == "clock_ahead":
        if tx.clock.counter >= op.stamp.counter:
            # This node's clock ran too far ahead. It starts again from the server's, under a new
            # node id, so that no stamp of its can be made twice.
            tx.clock.node_id = new_incarnation(_device(tx.clock.node_id))
            tx.clock.counter = result.min_counter
        stamp = tx.clock.tick()
    else:
        stamp = tx.clock.tick(max(result.min_counter, op.stamp.counter))
    again = op._replace(stamp=stamp)
    documents.write(tx.sql, [again])
    outbox.restamp(tx.sql, again)


def _reject(tx: StoreTransaction, op: Op, code: str, detail: str, current: Op | None) -> bool:
    """Put the document of a refused *op* back to *current*; whether it was filed as rejected.

    Only this file's own writes are filed: others are offered again after a server lost them, and
    whoever wrote them hears of the refusal.
    """
    filed = _device(op.stamp.node_id) == _device(tx.clock.node_id)
    tx.pending -= outbox.acknowledge(tx.sql, op)
    if filed:
        outbox.reject(tx.sql, op, code, detail)
    if current is None:
        documents.remove(tx.sql, [op.key])
    else:
        tx.clock.observe(current.stamp.counter)
        documents.write(tx.sql, [current])
    if tx.resync:
        documents.seen(tx.sql, [op.key])
    if filed:
        tx.tell("rejected", op.key, current.doc if current else None)
    else:
        _tell(tx, op.key, current.doc if current else None, was_shown=op.doc is not None)
    return filed


def _end_resync(tx: StoreTransaction) -> int:
    """All pages of a resync are here: remove what they did not show.

    Returns:
        0 if that was done; else how many documents wait for `confirm_reset`, since they are more
        than half of all and more than 20: rather a mistake of the server's than a clean-up.
    """
    (unseen,) = tx.sql.execute(
        "SELECT count(*) FROM unseen JOIN documents USING (collection, id) WHERE doc IS NOT NULL"
    ).fetchone()
    (held,) = tx.sql.execute("SELECT count(*) FROM documents WHERE doc IS NOT NULL").fetchone()
    if unseen > _MANY and unseen * 2 > held:
        _set_resync(tx, _HELD)
        return int(unseen)
    _sweep(tx)
    return 0


def _sweep(tx: StoreTransaction) -> int:
    rows = tx.sql.execute(
        "SELECT collection, id, doc IS NOT NULL FROM unseen JOIN documents USING (collection, id)"
    ).fetchall()
    documents.remove(tx.sql, [(collection, id_) for collection, id_, _ in rows])
    for collection, id_, shown in rows:
        _tell(tx, (collection, id_), None, was_shown=shown)
    tx.sql.execute("DELETE FROM unseen")
    _set_resync(tx, 0)
    return sum(shown for _, _, shown in rows)


def _set_resync(tx: StoreTransaction, value: int) -> None:
    tx.sql.execute("UPDATE node SET resync = ?", [value])
    tx.resync = value  # the next work of this transaction has to know too


def _tell(tx: StoreTransaction, key: tuple[str, str], doc: str | None, *, was_shown: bool) -> None:
    """Tell watchers of a document, unless it was gone and still is."""
    if doc is not None or was_shown:
        tx.tell("remote", key, doc)


def _device(node_id: str) -> str:
    return node_id.partition(".")[0]
