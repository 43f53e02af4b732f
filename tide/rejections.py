"""What an app does with an op that the server refused: try again, or let it go.

These functions are works of `Store.write`.
"""

from __future__ import annotations

from tide import outbox
from tide.errors import NotFoundError
from tide.limits import encode_document
from tide.outbox import RejectedOp
from tide.store import Delete, Put, StoreTransaction

__all__ = ["discard", "retry"]


def discard(tx: StoreTransaction, op: RejectedOp) -> None:
    """Forget *op*.

    Raises:
        NotFoundError: it is not among the rejected ops (any more).
    """
    if not outbox.take_rejected(tx.sql, op.number):
        raise NotFoundError(f"the op {op.number} is not rejected (any more); see rejected()")


def retry(tx: StoreTransaction, op: RejectedOp) -> None:
    """Write *op* again, as a new write of now.

    Raises:
        NotFoundError: it is not among the rejected ops (any more).
        DocumentError: its document was changed meanwhile, and can't be stored.
    """
    discard(tx, op)
    if op.doc is None:
        tx.write([Delete(op.collection, op.id)])
    else:
        tx.write([Put(op.collection, op.id, encode_document(op.doc))])
