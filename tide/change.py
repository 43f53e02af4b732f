"""What a watcher is told after an op took effect."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

__all__ = ["Change"]


class Change(NamedTuple):
    """One document changed.

    Attributes:
        source: ``"local"`` for a write of this store, ``"remote"`` for one that sync brought.
        kind: ``"put"`` or ``"delete"``.
        collection: the collection's name.
        id: the document's id.
        doc: the document as it is now, the reader's own copy; None after a delete.
    """

    source: Literal["local", "remote"]
    kind: Literal["put", "delete"]
    collection: str
    id: str
    doc: dict[str, Any] | None
