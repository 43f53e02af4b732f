"""Writes that happen together: collected in memory, then stored in one transaction."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any

from tide.codec import loads, loads_stored
from tide.errors import UsageError
from tide.limits import encode_document
from tide.session import Session
from tide.store import Delete, Merge, Put, Write

__all__ = ["Batch", "current_batch"]

_innermost: ContextVar[Batch | None] = ContextVar("tide batch", default=None)


class Batch:
    """All writes between entering and leaving it happen together, or, on an exception, not at all.

    Reading inside of it shows its own writes. It applies to the task that entered it, and to
    tasks which that one starts inside of it. Made by `Tide.batch`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._writes: dict[tuple[str, str], Write] = {}
        self._outer: Batch | None = None
        self._open = False

    async def __aenter__(self) -> Batch:
        self._session.use()
        self.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        writes = self.leave()
        if kind is None:
            await self.commit(writes)

    def enter(self) -> None:
        """From now on, writes made in this context belong to it.

        Raises:
            UsageError: this one, or another one, is open here already.
        """
        if self._open or current_batch(self._session):
            raise UsageError("a batch is already open here; a batch can't hold another one")
        self._open = True
        self._outer = _innermost.get()
        _innermost.set(self)

    def leave(self) -> list[Write]:
        """Collect no more; what was collected."""
        self._open = False
        _innermost.set(self._outer)
        writes, self._writes = list(self._writes.values()), {}
        return writes

    async def commit(self, writes: list[Write]) -> None:
        """Do all *writes* in one transaction."""
        if writes:
            await self._session.use().write(lambda tx: tx.write(writes))

    def stage(self, write: Write) -> None:
        """Add *write*, in place of an earlier one of its document.

        Raises:
            UsageError: the batch has ended meanwhile.
        """
        if not self._open:
            raise UsageError(
                f"the batch ended before this write of {write.id!r} got into it; "
                "await every write inside of the batch"
            )
        key = write.collection, write.id
        earlier = self._writes.pop(key, None)
        if isinstance(write, Merge) and isinstance(earlier, Put | Merge):
            merged = {**loads(earlier.text), **loads(write.text)}
            write = earlier._replace(text=encode_document(merged))
        self._writes[key] = write

    def staged(self, collection: str) -> list[str]:
        """The ids in *collection* that this batch writes."""
        return [id_ for name, id_ in self._writes if name == collection]

    def view(self, collection: str, id_: str, stored: str | None) -> dict[str, Any] | None:
        """A document as this batch makes it of the text that is *stored*."""
        write = self._writes.get((collection, id_))
        if isinstance(write, Delete):
            return None
        text = write.text if isinstance(write, Put) else stored
        if text is None:
            return None
        doc: dict[str, Any] = loads_stored(text)
        return {**doc, **loads(write.text)} if isinstance(write, Merge) else doc

    @property
    def is_open(self) -> bool:
        """Whether writes still belong to it."""
        return self._open

    @property
    def outer(self) -> Batch | None:
        """The batch of another store around this one, if any."""
        return self._outer

    @property
    def session(self) -> Session:
        """Whose writes it collects."""
        return self._session


def current_batch(session: Session) -> Batch | None:
    """The batch of *session* that the running task is in, if any."""
    batch = _innermost.get()
    while batch is not None and not (batch.is_open and batch.session is session):
        batch = batch.outer
    return batch
