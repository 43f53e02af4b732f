"""The documents of a LiveQuery in order, and what a step changes of them. Pure: no I/O, no loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tide.frozen import FrozenDict
from tide.ordered import Entry, Ordered, sort_key

__all__ = ["Diff", "Picture", "Placed"]

logger = logging.getLogger("tide")

Document = dict[str, Any]


class Placed(NamedTuple):
    """A document and where it stands in the order.

    Attributes:
        place: its index.
        id: the document's id.
        doc: the document; it can't be changed in place, `copy` it for that.
    """

    place: int
    id: str
    doc: Document


class Diff(NamedTuple):
    """One step of a LiveQuery.

    To follow along in a list of your own: take out all of *removed* and *updated* by their ids,
    then insert all of *updated* and *added* in the order of their places.

    Attributes:
        revision: the query's revision after it.
        added: what came in, by place.
        updated: what changed, or is not pending any more, by its place now.
        removed: what went away, with its last document, by the place that it had before the step.
        whole: whether *added* is the whole picture, and what was known before is void: the first
            diff of a reader, and the next one of a reader that fell far behind.
    """

    revision: int
    added: tuple[Placed, ...] = ()
    updated: tuple[Placed, ...] = ()
    removed: tuple[Placed, ...] = ()
    whole: bool = False


class Picture:
    """Documents by id, filtered, sorted and cut off.

    Args:
        where: whether a document is in the picture; None: all are.
        key: what to sort by; None: the id. Equal keys are in the order of their ids.
        reverse: whether the greatest comes first.
        limit: how many are visible at most; None: all.

    Attributes:
        errors: why documents are left out for which *where* or *key* raised, by id.
    """

    def __init__(
        self,
        where: Callable[[Document], Any] | None,
        key: Callable[[Document], Any] | None,
        *,
        reverse: bool,
        limit: int | None,
    ) -> None:
        self.errors: dict[str, Exception] = {}
        self._where = where
        self._key = key
        self._reverse = reverse
        self._limit = limit
        self._order = Ordered()
        self._entries: dict[str, Entry] = {}
        self._docs: dict[str, FrozenDict] = {}

    def load(self, docs: Mapping[str, FrozenDict]) -> None:
        """Begin with *docs*, in place of whatever was there."""
        self._docs = {}
        self._entries = {}
        self._let_in(docs)
        self._order = Ordered(self._entries.values())

    def __len__(self) -> int:
        return len(self._order) if self._limit is None else min(self._limit, len(self._order))

    def visible(self) -> Iterator[tuple[str, FrozenDict]]:
        """The ids and documents in the picture, in order."""
        for id_ in self._window():
            yield id_, self._docs[id_]

    def find(self, id_: str) -> FrozenDict | None:
        """The document *id_*, if it is in the picture."""
        entry = self._entries.get(id_)
        return None if entry is None or self._hidden(entry) else self._docs[id_]

    def step(self, changed: Mapping[str, FrozenDict | None], marked: Iterable[str]) -> Diff | None:
        """Let documents change; None goes away.

        Args:
            changed: what they are now.
            marked: further ids whose documents are to count as updated.

        Returns:
            What that changes of the picture, its revision yet to be filled in; None if nothing.
        """
        before = {id_: self._placed(id_) for id_ in (*changed, *marked) if id_ in self._entries}
        window = None if self._limit is None else {id_: self._docs[id_] for id_ in self._window()}
        for id_ in changed:
            self._drop(id_)
        for entry in self._let_in({id_: doc for id_, doc in changed.items() if doc is not None}):
            self._order.add(entry)
        if window is None:
            return self._diff(before, {*changed, *marked})
        return self._diff_of_window(window, {*changed, *marked})

    def _diff(self, before: Mapping[str, Placed], touched: Iterable[str]) -> Diff | None:
        now = {id_: self._placed(id_) for id_ in touched if id_ in self._entries}
        return _difference(before, now)

    def _diff_of_window(self, before: Mapping[str, FrozenDict], touched: set[str]) -> Diff | None:
        """The difference where documents come in and go out because others do."""
        now = list(self._window())
        stays = before.keys() & set(now)
        return _difference(
            {
                id_: Placed(place, id_, doc)
                for place, (id_, doc) in enumerate(before.items())
                if id_ in touched or id_ not in stays
            },
            {
                id_: Placed(place, id_, self._docs[id_])
                for place, id_ in enumerate(now)
                if id_ in touched or id_ not in stays
            },
        )

    def _let_in(self, docs: Mapping[str, FrozenDict]) -> list[Entry]:
        """Take those of *docs* that belong in the picture; their entries."""
        failed: dict[str, Exception] = {}
        entries: list[Entry] = []
        for id_, doc in docs.items():
            try:
                entry = self._judge(id_, doc)
            except Exception as error:  # noqa: BLE001 - an app's function; reported, by its document
                failed[id_] = error
                continue
            if entry is not None:
                self._docs[id_], self._entries[id_] = doc, entry
                entries.append(entry)
        self._report(failed)
        return entries

    def _judge(self, id_: str, doc: FrozenDict) -> Entry | None:
        """Where *doc* belongs in the order; None if it is not in the picture."""
        if self._where is not None and not self._where(doc):
            return None
        return (0, id_) if self._key is None else (sort_key(self._key(doc)), id_)

    def _report(self, failed: dict[str, Exception]) -> None:
        """Say once for all of a step which documents are left out, and why."""
        if not failed:
            return
        id_, error = next(iter(failed.items()))
        logger.warning(
            "where= or key= failed for %d documents, which are left out; for %r with %r",
            len(failed),
            id_,
            error,
            exc_info=error,
        )
        for one in failed.values():
            one.__traceback__ = None  # it would hold all that was there at the time
        self.errors.update(failed)

    def _drop(self, id_: str) -> None:
        self.errors.pop(id_, None)
        if entry := self._entries.pop(id_, None):
            self._order.remove(entry)
            del self._docs[id_]

    def _window(self) -> Iterator[str]:
        entries = reversed(self._order) if self._reverse else iter(self._order)
        for number, entry in enumerate(entries):
            if number == self._limit:
                return
            yield entry[1]

    def _placed(self, id_: str) -> Placed:
        return Placed(self._place(self._entries[id_]), id_, self._docs[id_])

    def _place(self, entry: Entry) -> int:
        place = self._order.place(entry)
        return len(self._order) - 1 - place if self._reverse else place

    def _hidden(self, entry: Entry) -> bool:
        return self._limit is not None and self._place(entry) >= self._limit


def _difference(before: Mapping[str, Placed], now: Mapping[str, Placed]) -> Diff | None:
    if not before and not now:
        return None
    return Diff(
        revision=0,
        added=_by_place(placed for id_, placed in now.items() if id_ not in before),
        updated=_by_place(placed for id_, placed in now.items() if id_ in before),
        removed=_by_place(placed for id_, placed in before.items() if id_ not in now),
    )


def _by_place(placed: Iterable[Placed]) -> tuple[Placed, ...]:
    return tuple(sorted(placed, key=lambda one: one.place))
