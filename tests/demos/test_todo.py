"""The todo model, on real files."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from demos.todo import MAX_TEXT, Filter, Todo, TodoList
from tide import NotFoundError, Tide


@pytest.fixture
async def tide(tmp_path: Path) -> AsyncIterator[Tide]:
    async with Tide(tmp_path / "todos.db", durability="relaxed") as tide:
        yield tide


class Picture:
    """A todo list that is followed, and a way to wait for what it shows."""

    def __init__(self, tide: Tide) -> None:
        self.todos = TodoList(tide)
        self.steps = 0
        self._changed = anyio.Event()

    def changed(self) -> None:
        self.steps += 1
        self._changed.set()

    def texts(self, which: Filter = Filter.ALL) -> list[str]:
        return [todo.text for todo in self.todos.shown(which)]

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not holds():
                await self._changed.wait()
                self._changed = anyio.Event()


@pytest.fixture
async def picture(tide: Tide) -> AsyncIterator[Picture]:
    picture = Picture(tide)
    async with anyio.create_task_group() as group:
        group.start_soon(picture.todos.follow, picture.changed)
        await picture.until(lambda: picture.steps > 0)
        yield picture
        group.cancel_scope.cancel()


async def _id(made: Awaitable[str | None]) -> str:
    id_ = await made
    assert id_ is not None
    return id_


async def test_shows_what_was_added_oldest_first(picture: Picture) -> None:
    for text in ("one", "two", "three"):
        await picture.todos.add(text)
    await picture.until(lambda: picture.texts() == ["one", "two", "three"])


async def test_shows_what_was_there_before(tide: Tide) -> None:
    await TodoList(tide).add("before")
    picture = Picture(tide)
    async with anyio.create_task_group() as group:
        group.start_soon(picture.todos.follow, picture.changed)
        await picture.until(lambda: picture.texts() == ["before"])
        group.cancel_scope.cancel()


async def test_toggling_renaming_and_deleting_show(picture: Picture) -> None:
    bread = await _id(picture.todos.add("bread"))
    milk = await _id(picture.todos.add("milk"))
    await picture.todos.set_done(bread, done=True)
    await picture.todos.rename(bread, "rye bread")
    await picture.todos.delete(milk)
    await picture.until(lambda: picture.todos.shown() == [Todo(bread, "rye bread", done=True)])


async def test_filters_by_state_and_counts(picture: Picture) -> None:
    done = await _id(picture.todos.add("done"))
    await picture.todos.add("open")
    await picture.todos.set_done(done, done=True)
    await picture.until(lambda: picture.todos.count(Filter.DONE) == 1)
    assert picture.texts(Filter.DONE) == ["done"]
    assert picture.texts(Filter.OPEN) == ["open"]
    assert [picture.todos.count(which) for which in Filter] == [2, 1, 1]


async def test_clearing_deletes_only_what_is_done(picture: Picture) -> None:
    for text in ("one", "two", "three"):
        id_ = await _id(picture.todos.add(text))
        await picture.todos.set_done(id_, done=text != "two")
    await picture.until(lambda: picture.todos.count(Filter.DONE) == 2)
    assert await picture.todos.clear_done() == 2
    await picture.until(lambda: picture.texts() == ["two"])


async def test_blank_text_adds_and_renames_nothing(picture: Picture) -> None:
    id_ = await _id(picture.todos.add("bread"))
    assert await picture.todos.add(" \n ") is None
    await picture.todos.rename(id_, "  ")
    await picture.until(lambda: picture.texts() == ["bread"])


async def test_renaming_what_was_deleted_says_so(picture: Picture) -> None:
    id_ = await _id(picture.todos.add("bread"))
    await picture.todos.delete(id_)
    with pytest.raises(NotFoundError):
        await picture.todos.rename(id_, "rye bread")
    await picture.todos.delete(id_)  # while deleting it again is fine


async def test_a_burst_is_in_the_picture_before_others_get_a_turn(tide: Tide) -> None:
    todos = TodoList(tide)
    counts: list[int] = []
    whole = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look() -> None:
        counts.append(todos.count())
        if counts[-1] == 500:
            whole.set()

    async with anyio.create_task_group() as group:
        group.start_soon(todos.follow, lambda: loop.call_soon(look))
        with anyio.fail_after(10):
            async with tide.batch():
                for number in range(500):
                    await tide.collection("todos").add({"text": str(number)})
            await whole.wait()
        group.cancel_scope.cancel()
    assert set(counts) <= {0, 500}


@pytest.mark.parametrize(
    ("doc", "text", "done"),
    [
        ({}, "", False),
        ({"text": None, "done": "yes"}, "None", False),
        ({"text": "two\nlines\tand a tab"}, "two lines and a tab", False),
        ({"text": "\x1b[31mred\x07", "done": True}, "\ufffd[31mred\ufffd", True),
        ({"text": "👨‍👩‍👧 straße"}, "👨‍👩‍👧 straße", False),
        ({"text": "x" * (MAX_TEXT + 1)}, "x" * MAX_TEXT, False),
    ],
)
def test_any_document_can_be_shown(doc: dict[str, object], text: str, done: bool) -> None:
    assert Todo.from_doc("t1", doc) == Todo("t1", text, done)
