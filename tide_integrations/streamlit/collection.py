"""Collections on a page: what they hold, what can be done to them, and a table to edit them in."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from tide import BlockingCollection
from tide_integrations._framework import needs
from tide_integrations.streamlit.push import Source, Streamlit, follow

with needs("streamlit"):
    import streamlit as st

__all__ = ["Document", "SyncedCollection", "live", "synced_editor", "watch"]

Document = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

FALLBACK = 1.0  # seconds between two reruns where there is no push


class SyncedCollection(Source):
    """A collection, filtered and in order, for all sessions of an app: keep it in a cache.

    >>> @st.cache_resource
    ... def open_todos():
    ...     return SyncedCollection(db.collection("todos"), where=lambda doc: not doc["done"])

    Args:
        collection: a collection of `tide.connect`.
        query: *where*, *key*, *reverse*, *limit* as of `BlockingCollection.live`.
    """

    def __init__(self, collection: BlockingCollection, **query: Any) -> None:
        super().__init__()
        self.collection = collection
        self._query = collection.live(**query)
        self.changed(self._query.revision)
        self._query.subscribe(lambda diff: self.changed(diff.revision), owner=self)

    def number(self) -> int:
        """The revision, with what was written just now."""
        return self._query.revision

    @property
    def items(self) -> Mapping[str, Document]:
        """``{id: doc}`` in order, as of now."""
        self.saw()
        return self._query.items

    def is_pending(self, id_: str, /) -> bool:
        """Whether the newest write of the document *id_* is not on the server yet."""
        return self._query.is_pending(id_)

    def put(self, id_: str, doc: Document, /) -> None:
        """See `Collection.put`."""
        self.collection.put(id_, doc)

    def add(self, doc: Document, /) -> str:
        """See `Collection.add`."""
        return self.collection.add(doc)

    def update(self, id_: str, fields: Document, /) -> Document:
        """See `Collection.update`."""
        return self.collection.update(id_, fields)

    def delete(self, id_: str, /) -> bool:
        """See `Collection.delete`."""
        return self.collection.delete(id_)

    def close(self) -> None:
        """Follow no more; for ``on_release`` of the cache."""
        self._query.close()


_plain: weakref.WeakKeyDictionary[Any, dict[str, SyncedCollection]] = weakref.WeakKeyDictionary()


def _source(shown: BlockingCollection | Source) -> Source:
    if isinstance(shown, Source):
        return shown
    made = _plain.setdefault(shown._runner, {})  # noqa: SLF001 - what names its connection
    if shown.name not in made:
        made[shown.name] = SyncedCollection(shown)
    return made[shown.name]


def live(
    *collections: BlockingCollection | Source,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function an `st.fragment` that is drawn anew when one of *collections* changes.

    >>> @live(todos)
    ... def show():
    ...     st.table(todos.all())

    What has changed it does not matter: this session, another one, another program, or sync. Where
    the running Streamlit lacks what that needs, it is drawn anew every second.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if not Streamlit.probe():
            return st.fragment(run_every=FALLBACK)(function)
        sources = [_source(one) for one in collections]

        @functools.wraps(function)
        def followed(*args: P.args, **options: P.kwargs) -> T:
            follow(*sources)
            return function(*args, **options)

        return st.fragment(followed)

    return decorate


def watch(*collections: BlockingCollection | Source) -> None:
    """Run what called it anew, the whole script or the fragment, when one of *collections* changes.

    Call it before reading what is to be shown.
    """
    sources = [_source(one) for one in collections]
    if Streamlit.probe():
        follow(*sources)
        return
    before = [source.number() for source in sources]

    @st.fragment(run_every=FALLBACK)
    def look() -> None:
        if [source.number() for source in sources] != before:
            st.rerun()

    look()


def synced_editor(collection: SyncedCollection, *, key: str, **options: Any) -> None:
    """An `st.data_editor` of the documents: what is edited, added and deleted in it is written.

    Use it in what is `live` with the *collection*. When documents come, go or change places, the
    table is made anew; a change of a value just shows.

    Args:
        collection: what to edit.
        key: names the table, as in `st.data_editor`.
        options: as of `st.data_editor`; ``column_order`` says which fields are shown.
    """
    items = collection.items
    ids = tuple(items)
    memory = st.session_state.setdefault(f"{key}-rows", {"ids": ids, "number": 0})
    if memory["ids"] != ids:
        memory.update(ids=ids, number=memory["number"] + 1)
    name = f"{key}-{memory['number']}"

    def save() -> None:
        _save(collection, ids, st.session_state[name])
        memory["number"] += 1  # a new table: what was edited in this one is written

    fields = list(dict.fromkeys(field for doc in items.values() for field in doc))
    columns = {field: [doc.get(field) for doc in items.values()] for field in fields}
    options = {"num_rows": "dynamic", "hide_index": True, **options}
    st.data_editor(columns, key=name, on_change=save, **options)


def _save(collection: SyncedCollection, ids: Sequence[str], edits: Mapping[str, Any]) -> None:
    """Write what was edited in a table with a row for each of *ids*."""
    gone = {ids[row] for row in edits["deleted_rows"]}
    for id_ in gone:
        collection.delete(id_)
    for row, fields in edits["edited_rows"].items():
        if ids[int(row)] not in gone and ids[int(row)] in collection.items:
            collection.update(ids[int(row)], fields)
    for doc in edits["added_rows"]:
        if any(value is not None for value in doc.values()):
            collection.add({field: value for field, value in doc.items() if field[:1] != "_"})
