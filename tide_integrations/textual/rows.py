"""A table and a list with a line for each document."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tide import Collection, Diff, LiveQuery
from tide_integrations._framework import needs
from tide_integrations.textual.collection import Document, Synced

with needs("textual"):
    from rich.cells import cell_len
    from rich.text import Text
    from textual.coordinate import Coordinate
    from textual.geometry import Size
    from textual.visual import VisualType
    from textual.widgets import DataTable, OptionList
    from textual.widgets.data_table import ColumnKey
    from textual.widgets.option_list import Option

__all__ = ["SyncedDataTable", "SyncedOptionList"]

MANY = 50  # rows; to remove more of them, the table is filled anew, which is faster
SLICE = 250  # rows that are added before others get a turn


class _Rows(Synced):
    """A line for each document. The line under the cursor stays where it is on the screen."""

    def __init__(self, collection: Collection, **options: Any) -> None:
        super().__init__(collection, **options)
        self._docs: dict[str, Document] = {}  # as they are shown, in the order they came
        self._order: list[str] = []
        self._wanted: str | None = None

    @property
    def items(self) -> Mapping[str, Document]:
        """``{id: doc}`` of what is shown, in order."""
        return {id_: self._docs[id_] for id_ in self._order}

    @property
    def current_id(self) -> str | None:
        """The id of the document under the cursor."""
        place = self._cursor()
        return self._order[place] if place is not None and place < len(self._order) else None

    def select(self, id_: str) -> None:
        """Put the cursor on a document; if it is not shown yet, then as soon as it is."""
        self._wanted = id_
        if id_ in self._docs:
            self._wanted = None
            self._go(self._order.index(id_))

    async def _take(self, query: LiveQuery, diff: Diff) -> None:
        await self._draw(query.items, {placed.id for placed in diff.updated})
        if self._wanted in self._docs:
            self.select(self._wanted)

    async def _draw(self, items: Mapping[str, Document], marked: set[str]) -> None:
        """Show *items*; *marked* are to be drawn anew also if they are the same."""
        raise NotImplementedError

    def _cursor(self) -> int | None:
        raise NotImplementedError

    def _go(self, place: int) -> None:
        """Put the cursor there, and scroll to it."""
        raise NotImplementedError

    def _put_cursor(self, place: int, *, tell: bool) -> None:
        """Without scrolling."""
        raise NotImplementedError

    @contextmanager
    def _steady(self, now: Mapping[str, Document]) -> Iterator[None]:
        """Change lines inside; cursor and view stay with their documents, or with the next ones."""
        top, cursor, before = int(self.scroll_offset.y), self._cursor() or 0, self._order
        anchor = cursor if top <= cursor < top + self.size.height else top
        current, fixed = _left(before, cursor, now), _left(before, anchor, now)
        self._put_cursor(0, tell=False)  # where it is valid whatever happens
        with self.app.batch_update():
            yield
            self._order = list(now)
            if now:
                place = self._order.index(current) if current else 0
                self._put_cursor(place, tell=current is None or current != before[cursor])
            if fixed:
                y = top + self._order.index(fixed) - anchor
                self.scroll_to(y=y, animate=False, force=True, immediate=True)


_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "�")
_BLANKS = dict.fromkeys(map(ord, "\t\n\r"), " ")


def _one_line(text: str) -> str:
    """*text* on one line, without control characters: a terminal would obey them."""
    return text.translate({**_CONTROLS, **_BLANKS})


def _left(order: Sequence[str], place: int, now: Mapping[str, Document]) -> str | None:
    """The first that is left of those at *place* and below, else the nearest above."""
    nearest = (*order[place:], *reversed(order[:place]))
    return next((id_ for id_ in nearest if id_ in now), None)


class SyncedDataTable(_Rows, DataTable[Any]):
    """A table with a row for each document of a collection; the row's key is the id.

    >>> SyncedDataTable(todos, {"Title": "title", "Done": lambda id_, doc: "✓" * doc["done"]})

    Args:
        collection: the collection.
        columns: what stands in each column, by its label: the name of a field, or a function of
            a document's id and the document.
        options: *where*, *key*, *reverse*, *limit* as of `Collection.live`, and those of a
            `DataTable`; the cursor is a row unless they say otherwise.
    """

    DEFAULT_CSS = "SyncedDataTable { height: 1fr; }"

    def __init__(
        self,
        collection: Collection,
        columns: Mapping[str, str | Callable[[str, Document], object]],
        **options: Any,
    ) -> None:
        super().__init__(collection, **{"cursor_type": "row", **options})
        self._cells = columns

    def on_mount(self) -> None:
        """Make the columns; Textual calls `Synced.on_mount`, too."""
        for label in self._cells:
            self.add_column(label, key=label)

    def _cursor(self) -> int | None:
        return self.cursor_row if self.row_count else None

    def _go(self, place: int) -> None:
        self.move_cursor(row=place)

    def _put_cursor(self, place: int, *, tell: bool) -> None:
        # By assigning it, the table would scroll there.
        self.set_reactive(DataTable.cursor_coordinate, Coordinate(place, self.cursor_column))
        # It learns of its new height only once it is idle: too late for scrolling with the rows.
        height = self.row_count + self.header_height * self.show_header
        self.virtual_size = Size(self.virtual_size.width, height)
        if tell:
            key = self.coordinate_to_cell_key(Coordinate(place, 0)).row_key
            self.post_message(self.RowHighlighted(self, place, key))

    async def _draw(self, items: Mapping[str, Document], marked: set[str]) -> None:
        gone = self._docs.keys() - items.keys()
        changed = {id_ for id_, doc in self._docs.items() if items.get(id_) is not doc} | marked
        if len(gone) <= MANY:
            await self._add_many([id_ for id_ in items if id_ not in self._docs], items)
        with self._steady(items):
            self._remove(gone)
            self._redraw(changed & self._docs.keys(), items)
            self._add([id_ for id_ in items if id_ not in self._docs], items)
            if list(items) != list(self._docs):
                self._sort(items)

    async def _add_many(self, ids: Sequence[str], items: Mapping[str, Document]) -> None:
        """Add rows, below all others, until so few are left that they are no trouble."""
        for start in range(0, len(ids) - SLICE, SLICE):
            self._add(ids[start : start + SLICE], items)
            await asyncio.sleep(0)

    def _add(self, ids: Sequence[str], items: Mapping[str, Document]) -> None:
        for id_ in ids:
            self.add_row(*self._row(id_, items[id_]), key=id_)
            self._docs[id_] = items[id_]
        self._order += ids

    def _remove(self, ids: set[str]) -> None:
        if len(ids) > MANY:
            self.clear()
            self._docs = {}
        else:
            for id_ in ids:
                self.remove_row(id_)
                del self._docs[id_]

    def _redraw(self, ids: set[str], items: Mapping[str, Document]) -> None:
        rows = {id_: self._row(id_, items[id_]) for id_ in ids}
        for number, label in enumerate(self._cells if rows else ()):
            widths = {id_: cell_len(str(row[number])) for id_, row in rows.items()}
            widest = max(widths, key=widths.__getitem__)
            grows = widths[widest] > self.columns[ColumnKey(label)].content_width
            for id_, row in rows.items():
                # Not for all: each time, the table may measure the whole column.
                wider = grows and id_ == widest
                self.update_cell(id_, label, row[number], update_width=wider)
        self._docs.update({id_: items[id_] for id_ in ids})

    def _row(self, id_: str, doc: Document) -> list[object]:
        cells = (
            str(doc.get(cell, "")) if isinstance(cell, str) else cell(id_, doc)
            for cell in self._cells.values()
        )
        # What somebody typed is never read as markup.
        return [Text(_one_line(cell)) if isinstance(cell, str) else cell for cell in cells]

    def _sort(self, items: Mapping[str, Document]) -> None:
        """Put the rows in the order of *items*."""
        places = {id_: place for place, id_ in enumerate(items)}
        ids = iter(self._docs)  # the table asks for the rows' keys in the order they were added in
        self.sort(key=lambda _: places[next(ids)])


class SyncedOptionList(_Rows, OptionList):
    """A list with a line for each document of a collection; the option's id is the document's.

    >>> SyncedOptionList(todos, lambda id_, doc: doc["title"], hint="Nothing to do")

    Args:
        collection: the collection.
        prompt: what to show for a document, made of its id and itself; text is not read as markup
            unless *options* say so.
        options: *where*, *key*, *reverse*, *limit* as of `Collection.live`, and those of an
            `OptionList`.

    Attributes:
        hint: what to show instead of nothing.
    """

    DEFAULT_CSS = """
    SyncedOptionList { height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(
        self,
        collection: Collection,
        prompt: Callable[[str, Document], VisualType],
        *,
        hint: VisualType | None = None,
        **options: Any,
    ) -> None:
        super().__init__(collection, **{"markup": False, **options})
        self.hint = hint
        self._prompt = prompt

    def _cursor(self) -> int | None:
        return self.highlighted

    def _go(self, place: int) -> None:
        self.highlighted = place
        self.call_after_refresh(self.scroll_to_highlight)  # once the list has its new height

    def _put_cursor(self, place: int, *, tell: bool) -> None:
        # By assigning it, the list would scroll there.
        self.set_reactive(OptionList.highlighted, place if self._docs else None)
        if tell:
            self.post_message(self.OptionHighlighted(self, self.options[place], place))

    async def _draw(self, items: Mapping[str, Document], marked: set[str]) -> None:
        changed = {id_ for id_, doc in items.items() if self._docs.get(id_) is not doc}
        changed |= marked & items.keys()
        prompts = {id_: self._line(id_, items[id_]) for id_ in changed}
        if self._order and self._order == list(items)[: len(self._order)]:
            for id_ in changed & self._docs.keys():
                self.replace_option_prompt(id_, prompts[id_])
            added = list(items)[len(self._order) :]
            self.add_options(Option(prompts[id_], id=id_) for id_ in added)
            self._docs, self._order = dict(items), list(items)
        else:
            options = [
                Option(prompts[id_], id=id_) if id_ in prompts else self.get_option(id_)
                for id_ in items
            ]
            with self._steady(items):
                self._docs = dict(items)
                self.clear_options()
                self.add_options(options or self._hints())

    def _line(self, id_: str, doc: Document) -> VisualType:
        prompt = self._prompt(id_, doc)
        return _one_line(prompt) if isinstance(prompt, str) else prompt

    def _hints(self) -> list[Option]:
        return [] if self.hint is None else [Option(self.hint, disabled=True)]
