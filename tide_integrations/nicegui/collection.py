"""A collection that is kept current for all pages, and the elements that show it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tide import Collection, Diff, LiveQuery, Placed
from tide_integrations._framework import needs
from tide_integrations.nicegui.document import SyncedDocument, flush_all
from tide_integrations.nicegui.opening import at_start, before_closing, opened

with needs("nicegui"):
    from nicegui import Client, Event, app, background_tasks, context, ui
    from nicegui.events import GenericEventArguments

__all__ = ["SyncedCollection", "SyncedGrid", "SyncedList"]

Document = dict[str, Any]

DEBOUNCE = 0.3
"""Seconds without another keystroke after which what was typed is written."""

_all: weakref.WeakSet[SyncedCollection] = weakref.WeakSet()


class SyncedCollection:
    """A collection, kept current by one `LiveQuery` however many pages show it.

    >>> todos = SyncedCollection(tide.collection("todos"))

    Args:
        collection: the collection, of a store that is open or was made by `connect`.
        query: *where*, *key*, *reverse*, *limit* as of `Collection.live`.

    Attributes:
        changed: an `Event` with the `Diff` of each step: ``todos.changed.subscribe(draw)``.
    """

    def __init__(self, collection: Collection, **query: Any) -> None:
        self.collection = collection
        self.changed: Event[[Diff]] = Event()
        self._options = query
        self._query: LiveQuery | None = None
        self._starting: asyncio.Task[None] | None = None
        self._views: weakref.WeakSet[SyncedList | SyncedGrid] = weakref.WeakSet()
        self._docs: dict[str, weakref.WeakSet[SyncedDocument]] = {}
        self._tabs: weakref.WeakKeyDictionary[Client, weakref.WeakSet[SyncedDocument]]
        self._tabs = weakref.WeakKeyDictionary()
        _all.add(self)
        at_start(self._start)

    def _start(self) -> None:
        if self._starting is None or (self._starting.done() and self._query is None):
            self._starting = background_tasks.create(self._follow(), name="tide follows")

    async def _follow(self) -> None:
        await opened(self.collection)
        query = self._query = self.collection.live(**self._options)
        query.subscribe(self._take)
        await query

    def _take(self, diff: Diff) -> None:
        for view in list(self._views):
            _give(view, diff)
        for placed in (*diff.added, *diff.updated):
            for doc in list(self._docs.get(placed.id, ())):
                doc.follow()
        for id_ in [id_ for id_, docs in self._docs.items() if not docs]:
            del self._docs[id_]
        self.changed.emit(diff)

    async def ready(self) -> None:
        """Wait until `items` are there."""
        self._start()
        if self._starting is not None:
            await asyncio.shield(self._starting)

    @property
    def items(self) -> Mapping[str, Document]:
        """``{id: doc}`` in order, as of now; they can't be changed in place."""
        return {} if self._query is None else self._query.items

    @property
    def rows(self) -> list[Document]:
        """The documents in order, each with its id as ``id``: what a `ui.table` shows."""
        return [_row(id_, doc) for id_, doc in self.items.items()]

    def get(self, id_: str, /) -> Document | None:
        """The document *id_*, if it is among the items."""
        return None if self._query is None else self._query.get(id_)

    def is_pending(self, id_: str, /) -> bool:
        """Whether the newest write of the document *id_* is not on the server yet."""
        return self._query is not None and self._query.is_pending(id_)

    async def put(self, id_: str, doc: Document, /) -> None:
        """See `Collection.put`."""
        await opened(self.collection)
        await self.collection.put(id_, doc)

    async def add(self, doc: Document, /) -> str:
        """See `Collection.add`."""
        await opened(self.collection)
        return await self.collection.add(doc)

    async def update(self, id_: str, fields: Document, /) -> Document:
        """See `Collection.update`."""
        await opened(self.collection)
        return await self.collection.update(id_, fields)

    async def delete(self, id_: str, /) -> bool:
        """See `Collection.delete`."""
        await opened(self.collection)
        return await self.collection.delete(id_)

    def doc(self, id_: str, /, *, debounce: float = DEBOUNCE) -> SyncedDocument:
        """The document *id_*, to bind elements of this page to, both ways.

        Args:
            id_: its id.
            debounce: how many seconds to wait for more before what was typed is written; it is
                also written when the page is closed.
        """
        doc = SyncedDocument(id_, partial(self.get, id_), partial(self.update, id_), debounce)
        self._docs.setdefault(id_, weakref.WeakSet()).add(doc)
        client = context.client
        if client not in self._tabs:
            docs = self._tabs[client] = weakref.WeakSet()
            client.on_delete(partial(flush_all, docs))
        self._tabs[client].add(doc)
        return doc

    def each(
        self, render: Callable[[SyncedDocument], object], *, debounce: float = DEBOUNCE
    ) -> SyncedList:
        """A column with what *render* makes of each document, in order.

        It is called once for each, with the document to bind to, when that comes in.
        """
        return SyncedList(self, render, debounce)

    def grid(self, columns: Sequence[Document], /, **options: Any) -> SyncedGrid:
        """A `ui.aggrid` of the documents, one row each, that gets only what changed.

        Args:
            columns: AG Grid's *columnDefs*; those that are ``editable`` write what is entered.
            options: AG Grid's other options.
        """
        return SyncedGrid(self, columns, options)

    def show(self, view: SyncedList | SyncedGrid) -> None:
        """Let *view* take each step from now on; first of all what there is."""
        self._start()
        self._views.add(view)
        placed = enumerate(self.items.items())
        view.take(Diff(0, tuple(Placed(place, *item) for place, item in placed), whole=True))

    def hide(self, view: SyncedList | SyncedGrid) -> None:
        """It takes no more."""
        self._views.discard(view)

    async def finish(self) -> None:
        """Write what waits to be written, and end; the next page begins anew."""
        await flush_all([doc for docs in self._docs.values() for doc in docs])
        self._query = self._starting = None


class SyncedList(ui.column):
    """Made by `SyncedCollection.each`. A row is an element that stays as long as its document."""

    def __init__(
        self, synced: SyncedCollection, render: Callable[[SyncedDocument], object], debounce: float
    ) -> None:
        super().__init__()
        self.classes("w-full gap-0")
        self._synced = synced
        self._render = render
        self._debounce = debounce
        self._rows: dict[str, ui.element] = {}
        synced.show(self)

    def take(self, diff: Diff) -> None:
        """Show what changed."""
        gone = {placed.id for placed in diff.removed}
        if diff.whole:
            gone = self._rows.keys() - {placed.id for placed in diff.added}
        for id_ in gone:
            if id_ in self._rows:
                self._rows.pop(id_).delete()
        for placed in diff.added:
            if placed.id not in self._rows:
                self._add(placed.id)
        slot = self.default_slot
        rows = [self._rows[id_] for id_ in self._synced.items if id_ in self._rows]
        if slot.children != rows:
            slot.children[:] = rows
            self.update()

    def _add(self, id_: str) -> None:
        with self, ui.element().classes("w-full") as self._rows[id_]:
            self._render(self._synced.doc(id_, debounce=self._debounce))

    def _handle_delete(self) -> None:  # the page is closed, or this is taken off it
        self._synced.hide(self)
        super()._handle_delete()


class SyncedGrid(ui.aggrid):
    """Made by `SyncedCollection.grid`."""

    def __init__(
        self, synced: SyncedCollection, columns: Sequence[Document], options: Document
    ) -> None:
        by_id = {":getRowId": "params => params.data.id"}
        super().__init__({"columnDefs": [*columns], **by_id, **options})
        self._rows: list[Document] = []
        # What is sent with the page, and whenever the element itself changes. A plain list, put
        # there past NiceGUI, which would send all of it whenever one row changes.
        dict.__setitem__(self.options, "rowData", self._rows)
        self._synced = synced
        self.on("cellValueChanged", self._entered, args=["data", "colId", "newValue"])
        synced.show(self)

    def take(self, diff: Diff) -> None:
        """Send what changed."""
        before = {row["id"]: place for place, row in enumerate(self._rows)}
        self._rows[:] = self._synced.rows
        moved = any(self._moves(placed, diff, before) for placed in diff.updated)
        if diff.whole or moved or len(diff.added) > 1:
            self.run_grid_method("setGridOption", "rowData", [*self._rows])
            return
        transaction: dict[str, Any] = {
            "update": [_row(placed.id, placed.doc) for placed in diff.updated],
            "remove": [{"id": placed.id} for placed in diff.removed],
        }
        for placed in diff.added:
            transaction |= {"add": [_row(placed.id, placed.doc)], "addIndex": placed.place}
        self.run_grid_method("applyTransaction", transaction)

    @staticmethod
    def _moves(placed: Placed, diff: Diff, before: Mapping[str, int]) -> bool:
        place = before.get(placed.id, -1)
        place -= sum(gone.place < before.get(placed.id, -1) for gone in diff.removed)
        place += sum(new.place < placed.place for new in diff.added)
        return place != placed.place

    async def _entered(self, event: GenericEventArguments) -> None:
        id_, field = event.args["data"]["id"], event.args["colId"]
        doc = self._synced.get(id_)
        if doc is not None and doc.get(field) != event.args["newValue"]:
            await self._synced.update(id_, {field: event.args["newValue"]})

    def _handle_delete(self) -> None:  # the page is closed, or this is taken off it
        self._synced.hide(self)
        super()._handle_delete()


def _give(view: SyncedList | SyncedGrid, diff: Diff) -> None:
    try:
        view.take(diff)
    except Exception as error:  # noqa: BLE001 - one page must not disturb another
        app.handle_exception(error)


def _row(id_: str, doc: Mapping[str, Any]) -> Document:
    return {**doc, "id": id_}


async def _finish_all() -> None:
    for synced in list(_all):
        await synced.finish()


before_closing.append(_finish_all)
