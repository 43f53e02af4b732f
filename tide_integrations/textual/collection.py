"""Following a collection, and the widget that does so without being seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tide import Collection, Diff, LiveQuery
from tide_integrations._framework import needs

with needs("textual"):
    from textual._context import active_message_pump
    from textual.message import Message
    from textual.message_pump import MessagePump
    from textual.reactive import reactive
    from textual.widget import Widget

__all__ = ["Document", "Synced", "SyncedCollection"]

Document = dict[str, Any]

if TYPE_CHECKING:
    _Widget = Widget
else:
    _Widget = object  # Textual takes styles and bindings from the first base alone


class Synced(_Widget):
    """Follows a collection from mount to unmount, and changes it."""

    def __init__(self, collection: Collection, **options: Any) -> None:
        names = {"where", "key", "reverse", "limit"} & options.keys()
        self._query_options = {name: options.pop(name) for name in names}
        super().__init__(**options)
        self.collection = collection
        self._query: LiveQuery | None = None

    def on_mount(self) -> None:
        """Begin to follow."""
        query = self.collection.live(**self._query_options)
        self.run_worker(self._follow(query), name="follow", group="tide", exclusive=True)

    def show(self, **query: Any) -> None:
        """Show something else: *where*, *key*, *reverse*, *limit* as of `Collection.live`."""
        self._query_options = query
        if self.is_mounted:
            Synced.on_mount(self)

    async def _follow(self, query: LiveQuery) -> None:
        self._query = query
        try:
            await query
            async for diff in query:
                await self._take(query, diff)
        finally:
            query.close()

    async def _take(self, query: LiveQuery, diff: Diff) -> None:
        raise NotImplementedError

    def is_pending(self, id_: str, /) -> bool:
        """Whether the newest write of the document *id_* is not on the server yet."""
        return self._query is not None and self._query.is_pending(id_)

    async def put(self, id_: str, doc: Document, /) -> None:
        """See `Collection.put`."""
        await self.collection.put(id_, doc)

    async def add(self, doc: Document, /) -> str:
        """See `Collection.add`."""
        return await self.collection.add(doc)

    async def update(self, id_: str, fields: Document, /) -> Document:
        """See `Collection.update`."""
        return await self.collection.update(id_, fields)

    async def delete(self, id_: str, /) -> bool:
        """See `Collection.delete`."""
        return await self.collection.delete(id_)


class SyncedCollection(Synced, Widget, can_focus=False):
    """A collection as a widget that is not seen: it keeps `items` current and posts `Changed`.

    >>> def compose(self):
    ...     yield SyncedCollection(tide.collection("todos")).feeds(TodoApp.todos)

    Args:
        collection: the collection; its name is the widget's *id*, unless another one is given.
        options: *where*, *key*, *reverse*, *limit* as of `Collection.live`, and those of a widget.

    Attributes:
        items: ``{id: doc}`` in order; a reactive.
    """

    DEFAULT_CSS = "SyncedCollection { display: none; }"

    items: reactive[Mapping[str, Document]] = reactive[Mapping[str, Document]](dict, init=False)

    class Changed(Message):
        """Posted once for all changes of a frame; the first one tells of the whole picture.

        Attributes:
            collection: the `SyncedCollection`, whose *items* are the new ones already.
            diff: what changed; see `LiveQuery`.
        """

        def __init__(self, collection: SyncedCollection, diff: Diff) -> None:
            super().__init__()
            self.collection = collection
            self.diff = diff

        @property
        def control(self) -> SyncedCollection:
            """What ``@on(SyncedCollection.Changed, "#todos")`` looks at."""
            return self.collection

    def __init__(self, collection: Collection, **options: Any) -> None:
        super().__init__(collection, **{"id": collection.name, **options})
        self._fed: list[tuple[MessagePump, str]] = []

    def feeds(self, target: Any) -> SyncedCollection:
        """Set a reactive of the app, screen or widget that composes this, whenever it changes.

        Others can bind that one: ``Summary().data_bind(TodoApp.todos)``. From a sibling, as this
        is, `data_bind` can't read.
        """
        self._fed.append((active_message_pump.get(), target.name))
        return self

    async def _take(self, query: LiveQuery, diff: Diff) -> None:
        self.items = query.items
        for node, name in self._fed:
            setattr(node, name, self.items)
        self.post_message(self.Changed(self, diff))
