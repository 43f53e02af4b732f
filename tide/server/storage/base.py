"""The seam between the server's rules and its database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from tide.protocol import Op

__all__ = ["Horizon", "Page", "Space", "Storage", "cut"]

T = TypeVar("T")


class Horizon(NamedTuple):
    """Which tombstones are forgotten (PROTOCOL.md, "Tombstones").

    Attributes:
        seq: tombstones up to here may be gone; 0 if none is.
        counter: the greatest counter of a forgotten one.
    """

    seq: int = 0
    counter: int = 0


class Page(NamedTuple):
    """A stretch of the sequence.

    Attributes:
        ops: in seq order.
        last: the seq of the last of them; where the page began if there are none.
        has_more: whether the stretch that was asked for goes on behind it.
    """

    ops: tuple[Op, ...]
    last: int
    has_more: bool


class Space(ABC):
    """One space inside a transaction: all that a work of `Storage.run` can see or change.

    Attributes:
        head: the seq that was given last; 0 at the start.
        clock: the highest counter accepted.
        horizon: which tombstones are forgotten.
        epoch: the identity of the sequence as it now goes on.
    """

    head: int
    clock: int
    horizon: Horizon
    epoch: str

    @abstractmethod
    def covers(self, epoch: str, seq: int) -> bool:
        """Whether *seq* in *epoch* lies on this space's history, so that nothing of it is lost."""

    @abstractmethod
    def find(self, key: tuple[str, str]) -> Op | None:
        """The op that is stored of a document, a tombstone too."""

    @abstractmethod
    def accept(self, ops: Sequence[Op]) -> None:
        """Store *ops*, each of another document, over what stood there, with the next seqs.

        The head moves by as many; the clock up to their highest counter. A seq is never given
        twice, whatever was removed.
        """

    @abstractmethod
    def page(self, after: int, upto: int, limit: int, max_bytes: int) -> Page:
        """The ops whose seq is greater than *after* and at most *upto*.

        At most *limit*, and not more than *max_bytes* of documents, but at least one if any is.
        """

    @abstractmethod
    def forget_tombstones(self, before: float) -> int:
        """Forget the tombstones stored before *before* (Unix seconds); how many."""


class Storage(ABC):
    """A database of spaces. The contract suite is ``tests/contracts/storage.py``."""

    @abstractmethod
    async def open(self) -> None:
        """Open the database; make it if there is none. Idempotent.

        Raises:
            StoreError: it can't be opened; the subclass says why.
        """

    @abstractmethod
    async def run(self, space: str, work: Callable[[Space], T]) -> T:
        """Run *work* on *space*, in one transaction, and return after its commit.

        *work* does no I/O of its own. It may run twice: works that wait at the same time share
        a commit, and when one of them raises, each runs again alone.

        Raises:
            StoreError: the database failed; nothing of *work* was kept.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what waits, and close the database. Idempotent."""


def cut(rows: Iterable[tuple[int, Op]], after: int, limit: int, max_bytes: int) -> Page:
    """The page that *rows*, each with its seq, make; for implementations of `Space.page`."""
    ops: list[Op] = []
    last, size = after, 0
    for seq, op in rows:
        size += len((op.doc or "").encode()) + len(op.id) + 200  # 200: the rest of an op, at most
        if len(ops) == limit or (ops and size > max_bytes):
            return Page(tuple(ops), last, has_more=True)
        ops.append(op)
        last = seq
    return Page(tuple(ops), last, has_more=False)
