"""A sorted sequence that stays fast when it is long: what puts a LiveQuery in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

__all__ = ["Ordered", "sort_key"]

CHUNK = 512
"""A chunk has at most twice as many entries; so one change moves few of them."""

Entry = tuple[Any, ...]


class Ordered:
    """Distinct entries in ascending order, in chunks: adding and removing one costs O(log n).

    Finding a place costs a walk over the chunks' lengths. (The idea is that of a B+ tree with one
    level, as in the sortedcontainers package.)
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        every = sorted(entries)
        self._chunks = [every[i : i + CHUNK] for i in range(0, len(every), CHUNK)]
        self._lasts = [chunk[-1] for chunk in self._chunks]
        self._size = len(every)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry]:
        return chain.from_iterable(self._chunks)

    def __reversed__(self) -> Iterator[Entry]:
        return chain.from_iterable(reversed(chunk) for chunk in reversed(self._chunks))

    def add(self, entry: Entry) -> None:
        """Put *entry* where it belongs."""
        self._size += 1
        if not self._chunks:
            self._chunks, self._lasts = [[entry]], [entry]
            return
        number = min(bisect_left(self._lasts, entry), len(self._chunks) - 1)
        chunk = self._chunks[number]
        insort(chunk, entry)
        if len(chunk) > 2 * CHUNK:
            self._chunks[number : number + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self._lasts[number : number + 1] = [chunk[CHUNK - 1], chunk[-1]]
        else:
            self._lasts[number] = chunk[-1]

    def remove(self, entry: Entry) -> None:
        """Take out *entry*, which is there."""
        number = bisect_left(self._lasts, entry)
        chunk = self._chunks[number]
        del chunk[bisect_left(chunk, entry)]
        self._size -= 1
        if chunk:
            self._lasts[number] = chunk[-1]
        else:
            del self._chunks[number], self._lasts[number]

    def place(self, entry: Entry) -> int:
        """How many entries stand before *entry*, which is there."""
        number = bisect_left(self._lasts, entry)
        before = sum(map(len, self._chunks[:number]))
        return before + bisect_left(self._chunks[number], entry)


def sort_key(value: Any) -> Entry:
    """What to sort by instead of *value*, such that values of all kinds have one order.

    None and NaN come first, then numbers, text, lists and tuples, bytes, UUIDs, dates, times
    (those without a time zone before those with one), and durations; so a document that lacks a
    field does not break the order of the others. Nothing else is let in: one comparison that
    fails, or contradicts another, would spoil the order of all.

    Raises:
        TypeError: there is no order for it.
    """
    if value is None:
        return (0,)
    if isinstance(value, int | float | Decimal):
        return (0,) if value != value else (1, value)  # noqa: PLR0124 - NaN
    if isinstance(value, str):
        return (2, value)
    if isinstance(value, list | tuple):
        return (3, tuple(map(sort_key, value)))
    for rank, kind in enumerate(_OTHERS, 4):
        if isinstance(value, kind):
            zone = isinstance(value, datetime | time) and value.utcoffset() is not None
            return (rank, zone, value)
    raise TypeError(f"there is no order for {value!r}; see key= of live()")


_OTHERS = (bytes, UUID, datetime, date, time, timedelta)  # each datetime is a date too
