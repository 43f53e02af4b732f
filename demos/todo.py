"""The todo list that every demo shows: what it holds and what can be done to it, without any UI."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tide import Change, Tide

__all__ = ["MAX_TEXT", "Filter", "Todo", "TodoList"]

MAX_TEXT = 500
"""The longest text, in characters; of what another program wrote, the rest is not shown."""


class Todo(NamedTuple):
    """One thing to do."""

    id: str
    text: str
    done: bool

    @classmethod
    def from_doc(cls, id_: str, doc: Mapping[str, Any]) -> Todo:
        """Read a document that any program may have written: no shape of it is an error."""
        return cls(id_, _one_line(str(doc.get("text", ""))), doc.get("done") is True)


class Filter(enum.Enum):
    """Which todos to show; its value is what a person reads."""

    ALL = "All"
    OPEN = "Open"
    DONE = "Done"

    def keeps(self, todo: Todo) -> bool:
        """Whether *todo* is shown."""
        return self is Filter.ALL or todo.done is (self is Filter.DONE)


class TodoList:
    """The todos of a store, as they are now: follow it, read it, change it.

    A change is written to the store, and comes back through `follow` like one from elsewhere: the
    store is the only truth, and this is a picture of it.

    Args:
        tide: the open store.
    """

    def __init__(self, tide: Tide) -> None:
        self._tide = tide
        self._collection = tide.collection("todos")
        self._todos: dict[str, Todo] = {}

    async def follow(self, changed: Callable[[], object]) -> None:
        """Keep the picture current, and call *changed* after each step; runs until cancelled.

        It does not let others run while changes wait: of a burst, all are in the picture before
        what *changed* schedules on the event loop gets its turn.
        """
        watcher = self._collection.watch()  # before reading, so that no change falls between
        try:
            docs = await self._collection.all()
            self._todos = {id_: Todo.from_doc(id_, doc) for id_, doc in docs.items()}
            changed()
            async for change in watcher:
                self._apply(change)
                changed()
        finally:
            watcher.close()

    def _apply(self, change: Change) -> None:
        if change.doc is None:
            self._todos.pop(change.id, None)
        else:
            self._todos[change.id] = Todo.from_doc(change.id, change.doc)

    def shown(self, which: Filter = Filter.ALL) -> list[Todo]:
        """The todos that *which* keeps, oldest first: ids that `add` makes sort by time."""
        return sorted(filter(which.keeps, self._todos.values()))

    def count(self, which: Filter = Filter.ALL) -> int:
        """How many todos *which* keeps."""
        return sum(map(which.keeps, self._todos.values()))

    async def add(self, text: str) -> str | None:
        """Add a todo, last in the list, and return its id; None for a blank *text*."""
        text = _one_line(text)
        return await self._collection.add({"text": text, "done": False}) if text else None

    async def rename(self, id_: str, text: str) -> None:
        """Change a todo's text; a blank *text* changes nothing.

        Raises:
            NotFoundError: it was deleted meanwhile.
        """
        if text := _one_line(text):
            await self._collection.update(id_, {"text": text})

    async def set_done(self, id_: str, *, done: bool) -> None:
        """Mark a todo as done, or as open.

        It takes the new state, not "the other one": what the user saw is what the user meant,
        also when a change from elsewhere arrives at the same moment.

        Raises:
            NotFoundError: it was deleted meanwhile.
        """
        await self._collection.update(id_, {"done": done})

    async def delete(self, id_: str) -> None:
        """Delete a todo; one that is gone already is fine."""
        await self._collection.delete(id_)

    async def clear_done(self) -> int:
        """Delete all that are done, together or not at all; how many they were."""
        docs = await self._collection.all()
        done = [id_ for id_, doc in docs.items() if Filter.DONE.keeps(Todo.from_doc(id_, doc))]
        async with self._tide.batch():
            for id_ in done:
                await self._collection.delete(id_)
        return len(done)


_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\ufffd")


def _one_line(text: str) -> str:
    """*text* on one line, without control characters: a terminal would obey them."""
    return " ".join(text[:MAX_TEXT].split()).translate(_CONTROLS)
