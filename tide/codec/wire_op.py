"""An op as it stands in a message, before anything but its document was checked."""

from __future__ import annotations

from typing import NamedTuple

from tide.errors import DocumentError

__all__ = ["WireOp"]


class WireOp(NamedTuple):
    """An op as it stands in a message; only its document has been checked.

    Attributes:
        collection: whatever stood there; likewise *id* and *stamp*.
        id: see *collection*.
        doc: the document's JSON text, None for a delete, or what is wrong with it.
        stamp: see *collection*.
    """

    collection: object
    id: object
    doc: str | DocumentError | None
    stamp: object
