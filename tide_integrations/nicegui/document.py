"""A document whose fields can be bound to elements, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from tide import NotFoundError
from tide_integrations._framework import needs

with needs("nicegui"):
    from nicegui import background_tasks
    from nicegui.binding import BindableProperty
    from nicegui.elements.mixins.value_element import ValueElement

__all__ = ["SyncedDocument", "flush_all"]

Element = TypeVar("Element", bound=ValueElement[Any])

Read = Callable[[], Mapping[str, Any] | None]
Write = Callable[[dict[str, Any]], Awaitable[object]]


class SyncedDocument:
    """One document, for one page; made by `SyncedCollection.doc`.

    Each of its fields is an attribute, which can be bound and set:

    >>> ui.checkbox().bind_value(doc, "done")
    >>> ui.label().bind_text_from(doc, "text")

    What is set is written when nothing more was set for a moment. A field that was set and is not
    written yet is not changed by others; neither is one that `guard` guards. A document that was
    deleted elsewhere meanwhile stays deleted.

    Attributes:
        id: the document's id; a field of that name can't be bound, nor can one that begins with
            an underscore or has the name of a method.
    """

    id: str

    def __init__(self, id_: str, read: Read, write: Write, debounce: float) -> None:
        self.__dict__["id"] = id_
        self._read = read
        self._write = write
        self._debounce = debounce
        self._fields: set[str] = set()
        self._quiet = False  # while what others wrote is taken in
        self._dirty: dict[str, Any] = {}
        self._writing: dict[str, Any] = {}
        self._guarded: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        """The field *name*, which from now on can be bound; None if the document has no such."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in vars(SyncedDocument):
            field = BindableProperty(partial(_edited, name))
            field.__set_name__(SyncedDocument, name)
            setattr(SyncedDocument, name, field)
        self._fields.add(name)
        self._set(name, (self._read() or {}).get(name))
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            getattr(self, name)  # so that it is a field, and this a change of it
        super().__setattr__(name, value)

    @property
    def exists(self) -> bool:
        """Whether it is among the documents of its collection."""
        return self._read() is not None

    def guard(self, element: Element, name: str) -> Element:
        """Bind the value of *element* to the field *name*; others do not change it meanwhile.

        That is, while it has the focus. What it holds is written when it loses that, at the latest.
        """
        element.bind_value(self, name)
        element.on("focus", lambda: self._guarded.add(name))
        element.on("blur", partial(self._release, name))
        return element

    async def _release(self, name: str) -> None:
        self._guarded.discard(name)
        await self.flush()
        self.follow()

    async def flush(self) -> None:
        """Write now what was set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._lock:
            self._writing, self._dirty = self._dirty, {}
            try:
                if self._writing:
                    await self._write(self._writing)
            except NotFoundError:
                pass  # deleted meanwhile, and it stays so
            except BaseException:
                self._dirty = {**self._writing, **self._dirty}
                raise
            finally:
                self._writing = {}
        self.follow()

    def follow(self) -> None:
        """Take in what the document is now."""
        if (doc := self._read()) is not None:
            held = {*self._dirty, *self._writing, *self._guarded}
            for name in self._fields - held:
                self._set(name, doc.get(name))

    def _set(self, name: str, value: Any) -> None:
        self._quiet = True
        try:
            super().__setattr__(name, value.copy() if isinstance(value, dict | list) else value)
        finally:
            self._quiet = False

    def _edited(self, name: str, value: Any) -> None:
        if self._quiet:
            return
        self._dirty[name] = value
        if self._timer is not None:
            self._timer.cancel()
        wait = 0.0 if isinstance(value, bool) else self._debounce  # a click is no typing
        self._timer = asyncio.get_running_loop().call_later(wait, self._flush_soon)

    def _flush_soon(self) -> None:
        background_tasks.create(self.flush(), name=f"tide writes {self.id}")


def _edited(name: str, doc: SyncedDocument, value: Any) -> None:
    doc._edited(name, value)  # noqa: SLF001 - of this module


async def flush_all(docs: Iterable[SyncedDocument]) -> None:
    """Write now what was set in any of *docs*."""
    for doc in list(docs):
        await doc.flush()
