"""What a watcher is told after an op took effect."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from tide.codec import loads

__all__ = ["Change", "Committed", "What"]

What = Literal["local", "remote", "rejected", "acknowledged"]


class Change(NamedTuple):
    """One document changed.

    Attributes:
        source: ``"local"`` for a write of this store, whichever process made it; ``"remote"`` for
            what sync brought.
        kind: ``"put"``; ``"delete"``; or ``"rejected"``: the server refused a write of this store
            for good, and *doc* is what the document was put back to, see `Tide.rejected`.
        collection: the collection's name.
        id: the document's id.
        doc: the document as it is now, the reader's own copy; None if it is gone.
    """

    source: Literal["local", "remote"]
    kind: Literal["put", "delete", "rejected"]
    collection: str
    id: str
    doc: dict[str, Any] | None


class Committed(NamedTuple):
    """A committed change, its document still as text, since each watcher gets a copy of its own.

    Attributes:
        lsn: the file's own number of it, growing from commit to commit.
        what: how it came about; ``"acknowledged"`` leaves the document as it was: its op is on the
            server now.
        collection: the collection's name.
        id: the document's id.
        doc: the document's JSON text; None if it is gone.
    """

    lsn: int
    what: What
    collection: str
    id: str
    doc: str | None

    def read(self) -> Change:
        """The change as a watcher's reader gets it."""
        source: Literal["local", "remote"] = "local" if self.what == "local" else "remote"
        doc = None if self.doc is None else loads(self.doc)
        if self.what == "rejected":
            return Change(source, "rejected", self.collection, self.id, doc)
        return Change(source, "delete" if doc is None else "put", self.collection, self.id, doc)
