"""The adapter of Textual, in real apps without a terminal."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="Textual is not installed")

from textual import on
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static

from tests.contracts.adapter import AdapterApp, AdapterContract, fill, followers
from tests.support import until
from tide import SyncStatus as Status
from tide import Tide
from tide.integrations.textual import (
    SyncCommands,
    SyncedCollection,
    SyncedDataTable,
    SyncedOptionList,
    SyncStatus,
)
from tide.testing import memory_server
from tide_integrations.textual.status import _duration


class Counting:
    """Counts how often a view takes in what changed."""

    taken = 0

    async def _take(self, *args):
        self.taken += 1
        await super()._take(*args)  # type: ignore[misc]


class Table(Counting, SyncedDataTable):
    pass


class List(Counting, SyncedOptionList):
    pass


def text_of(id_, doc):
    return doc["text"]


class Page(Screen[None]):
    """All that the adapter has, on a screen that can be popped."""

    def __init__(self, tide, views, options):
        super().__init__()
        todos = tide.collection("todos")
        self.synced = SyncedCollection(todos, **options)
        self.views: list[Any] = [
            Table(todos, {"Text": "text"}, id="view0", **options),
            List(todos, text_of, id="view1", **options),
        ][:views]
        self.field = Input()
        self.line = SyncStatus(tide, sync=tide._transport is not None)

    def compose(self) -> ComposeResult:
        yield self.synced
        yield from self.views
        yield self.field
        yield self.line


class Noting(App[None]):
    """Remembers its notifications."""

    def __init__(self):
        super().__init__()
        self.notes: list[str] = []

    def notify(self, message, **options):
        self.notes.append(message)
        super().notify(message, **options)


class TextualApp(AdapterApp):
    def __init__(self, app: Noting, page: Page, pilot: Pilot[None], tide: Tide):
        self.app, self.page, self.pilot, self.tide = app, page, pilot, tide
        self.before = set(asyncio.all_tasks()), followers(tide)

    async def call(self, verb: str, *args: Any) -> Any:
        return await getattr(self.page.synced, verb)(*args)

    async def shown(self, view: int = 0) -> list[tuple[str, str]]:
        await self.pilot.pause()
        if view == 0:
            return rows(self.page.views[0])
        return [(one.id, str(one.prompt)) for one in self.page.views[1].options]

    async def items(self) -> dict[str, dict[str, Any]]:
        return dict(self.page.synced.items)

    async def type(self, id_: str, text: str) -> None:
        field = self.page.field
        field.value = self.page.synced.items[id_]["text"]
        field.focus()
        await self.pilot.press(
            "end", "shift+home", *["space" if one == " " else one for one in text]
        )

    async def typed(self) -> str:
        assert self.app.focused is self.page.field
        return self.page.field.value

    async def status(self) -> str:
        return " ".join(str(part.content) for part in self.page.line.query(Static))

    async def notices(self) -> list[str]:
        return self.app.notes

    def renders(self) -> int:
        return sum(view.taken for view in self.page.views)

    async def unmount(self) -> None:
        await self.app.pop_screen()

    def leftovers(self) -> int:
        tasks = [task for task in asyncio.all_tasks() if "tide_integrations" in repr(task)]
        workers = [one for one in self.app.workers if one.group in ("tide", "sync")]
        return followers(self.tide) + len(tasks) + len(workers)


def rows(table: Any) -> list[tuple[str, str]]:
    return [(row.key.value, str(table.get_row(row.key)[0])) for row in table.ordered_rows]


class TestTextual(AdapterContract):
    @asynccontextmanager
    async def running(self, db, endpoint=None, *, views=1, **options):
        async with Tide(db, endpoint, durability="relaxed") as tide:
            app, page = Noting(), Page(tide, views, options)
            async with app.run_test() as pilot:
                await app.push_screen(page)
                yield TextualApp(app, page, pilot, tide)


class Rows(Noting):
    """One table or list, as high as twelve documents or so."""

    def __init__(self, make, tide, **options):
        super().__init__()
        self.tide = tide
        self.make = lambda: make(tide.collection("todos"), **options)
        self.highlighted: list[Any] = []

    def compose(self) -> ComposeResult:
        yield self.make()

    @property
    def view(self) -> Any:
        return self.query_one("#view")

    def on_data_table_row_highlighted(self, event):
        self.highlighted.append(event.row_key.value)

    def on_option_list_option_highlighted(self, event):
        self.highlighted.append(event.option.id)


def table(todos, **options):
    columns: dict[str, Any] = {"Text": "text", "Id": lambda id_, doc: id_}
    return SyncedDataTable(todos, columns, id="view", **options)


def a_list(todos, **options):
    return SyncedOptionList(todos, text_of, id="view", **options)


def ids_of(view) -> list[str]:
    if isinstance(view, SyncedOptionList):
        return [str(one.id) for one in view.options]
    return [id_ for id_, _ in rows(view)]


def texts_of(view) -> list[str]:
    if isinstance(view, SyncedOptionList):
        return [str(one.prompt) for one in view.options]
    return [text for _, text in rows(view)]


EITHER = pytest.mark.parametrize("make", [table, a_list])


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@asynccontextmanager
async def shown(make, tide, count=100, **options):
    """The app, with documents t000, t010, t020, … and the cursor on t500 in the middle of it."""
    await fill(tide, *(f"t{number:03}0" for number in range(count)))
    app = Rows(make, tide, **options)
    async with app.run_test(size=(60, 12)) as pilot:
        await until(lambda: len(ids_of(app.view)) == count)
        app.view.select("t0500")
        await until(lambda: 0 <= line_of_cursor(app.view) < 12)
        await pilot.pause()
        yield app, pilot


def line_of_cursor(view):
    cursor = view.cursor_row if isinstance(view, SyncedDataTable) else view.highlighted
    return cursor - view.scroll_offset.y


async def settled(app, pilot, tide):
    await until(lambda: held(app, tide))
    await pilot.pause()


async def held(app, tide):
    return ids_of(app.view) == list(await tide.collection("todos").all())


CHANGES = {
    "10 above": [f"t00{number:02}x" for number in range(10)],
    "1 below": ["t0505"],
    "300 above": [f"t0{number:03}x" for number in range(300)],
}


@EITHER
@pytest.mark.parametrize("ids", CHANGES.values(), ids=CHANGES)
async def test_what_is_inserted_leaves_the_cursor_and_the_view(tide, make, ids):
    async with shown(make, tide) as (app, pilot):
        line, told = line_of_cursor(app.view), len(app.highlighted)
        await fill(tide, *ids)
        await settled(app, pilot, tide)
        assert app.view.current_id == "t0500"
        assert line_of_cursor(app.view) == line
        assert app.highlighted[told:] == []  # the cursor did not move to another document


@EITHER
@pytest.mark.parametrize("count", [20, 49])
async def test_what_is_deleted_leaves_the_cursor_and_the_view(tide, make, count):
    async with shown(make, tide, count=120) as (app, pilot):
        line = line_of_cursor(app.view)
        async with tide.batch():
            for number in [*range(count), *range(60, 120 - count // 2)]:  # more than MANY
                await tide.collection("todos").delete(f"t{number:03}0")
        await settled(app, pilot, tide)
        assert app.view.current_id == "t0500"
        assert line_of_cursor(app.view) == min(line, 50 - count)


@EITHER
async def test_the_cursor_of_a_deleted_document_goes_to_the_next_and_tells(tide, make):
    async with shown(make, tide) as (app, pilot):
        line = line_of_cursor(app.view)
        await tide.collection("todos").delete("t0500")
        await settled(app, pilot, tide)
        assert app.view.current_id == "t0510"
        assert line_of_cursor(app.view) == line
        assert app.highlighted[-1] == "t0510"
        async with tide.batch():
            for number in range(51, 100):
                await tide.collection("todos").delete(f"t{number:03}0")
        await settled(app, pilot, tide)
        assert app.view.current_id == "t0490"  # none is left below
        async with tide.batch():
            for id_ in ids_of(app.view):
                await tide.collection("todos").delete(id_)
        await settled(app, pilot, tide)
        assert app.view.current_id is None
        await tide.collection("todos").put("t1", {"text": "first"})
        await settled(app, pilot, tide)
        assert app.view.current_id == "t1"


@EITHER
async def test_a_view_that_was_scrolled_away_from_the_cursor_stays(tide, make):
    async with shown(make, tide) as (app, pilot):
        app.view.scroll_to(y=5, animate=False, immediate=True)
        await pilot.pause()
        await fill(tide, "t0001", "t0002", "t0071")
        await settled(app, pilot, tide)
        await pilot.pause(0.05)
        assert app.view.scroll_offset.y == 7
        assert app.view.current_id == "t0500"


@EITHER
async def test_a_document_that_moves_in_the_order_takes_the_cursor_along(tide, make):
    async with shown(make, tide, key=lambda doc: doc["text"]) as (app, pilot):
        await tide.collection("todos").update("t0500", {"text": "a"})
        await until(lambda: ids_of(app.view)[0] == "t0500")
        await pilot.pause()
        assert app.view.current_id == "t0500"
        assert list(app.view.items)[:2] == ["t0500", "t0000"]


@EITHER
async def test_selecting_what_is_yet_to_come_selects_it_then(tide, make):
    async with shown(make, tide) as (app, _):
        app.view.select("t0345")
        assert app.view.current_id == "t0500"
        await fill(tide, "t0345")
        await until(lambda: app.view.current_id == "t0345")


@EITHER
async def test_another_query_can_be_shown(tide, make):
    async with shown(make, tide) as (app, _):
        app.view.show(where=lambda doc: doc["text"] >= "t0500", limit=3)
        await until(lambda: ids_of(app.view) == ["t0500", "t0510", "t0520"])
        assert app.view.current_id == "t0500"
        assert followers(tide) == 1


@EITHER
async def test_text_is_never_read_as_markup(tide, make):
    text = "[bold]x[/] [@click=app.quit]y"
    await tide.collection("todos").put("t1", {"text": text})
    app = Rows(make, tide)
    async with app.run_test(size=(60, 12)):
        await until(lambda: ids_of(app.view) == ["t1"])
        await until(lambda: text in lines_of(app))


def lines_of(app) -> str:
    """All that is on screen."""
    if any(one._require_update_dimensions for one in app.screen.query(SyncedDataTable)):
        return ""  # drawing a table before it is idle would keep its cells as narrow as they are
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@EITHER
async def test_what_others_wrote_is_one_harmless_line(tide, make):
    await tide.collection("todos").put("t1", {"text": "two\nlines \x1b[2J \x9b2J"})
    app = Rows(make, tide)
    async with app.run_test(size=(60, 12)):
        await until(lambda: "two lines \ufffd[2J \ufffd2J" in lines_of(app))


async def test_a_table_grows_its_columns_and_knows_empty_fields(tide):
    app = Rows(table, tide)
    async with app.run_test(size=(60, 12)) as pilot:
        await tide.collection("todos").put("t1", {})
        await until(lambda: ids_of(app.view) == ["t1"])
        assert rows(app.view) == [("t1", "")]
        await tide.collection("todos").put("t1", {"text": "a long text"})
        await settled(app, pilot, tide)
        await pilot.pause()
        assert "a long text" in lines_of(app)


async def test_an_empty_list_gives_its_hint(tide):
    app = Rows(a_list, tide, hint="Nothing here")
    async with app.run_test(size=(60, 12)) as pilot:
        await until(lambda: "Nothing here" in lines_of(app))
        assert app.view.current_id is None
        await fill(tide, "a")
        await until(lambda: "Nothing here" not in lines_of(app))
        await pilot.pause()
        assert app.view.current_id == "a"


@EITHER
async def test_a_mark_that_something_waits_goes_when_it_was_sent(tmp_path, make):
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "app.db", transport=server.transport(), durability="relaxed") as tide,
    ):
        app = Marked(make, tide)
        async with app.run_test(size=(60, 12)):
            await fill(tide, "a")
            await until(lambda: texts_of(app.view) == ["a waits"])
            await tide.sync_once()
            await until(lambda: texts_of(app.view) == ["a"])


class Marked(Rows):
    def compose(self) -> ComposeResult:
        todos = self.tide.collection("todos")

        def mark(id_, doc):
            return f"{id_} waits" if self.view.is_pending(id_) else id_

        if self.make().__class__ is SyncedDataTable:
            yield SyncedDataTable(todos, {"Text": mark}, id="view")
        else:
            yield SyncedOptionList(todos, mark, id="view")


class Summary(Static):
    todos: reactive[dict[str, Any]] = reactive(dict)

    def watch_todos(self, todos):
        self.update(f"{len(todos)} todos")


class Feeding(Noting):
    todos: reactive[dict[str, Any]] = reactive(dict)

    def __init__(self, tide):
        super().__init__()
        self.tide = tide
        self.changes: list[Any] = []
        self.selected: list[Any] = []

    def compose(self) -> ComposeResult:
        yield SyncedCollection(self.tide.collection("todos")).feeds(Feeding.todos)
        yield SyncedCollection(self.tide.collection("others"))
        yield Summary().data_bind(Feeding.todos)

    def on_synced_collection_changed(self, event):
        self.changes.append((event.collection.id, dict(event.collection.items), event.diff.whole))

    @on(SyncedCollection.Changed, "#others")
    def only_others(self, event):
        self.selected.append(event.control.id)


async def test_a_collection_feeds_a_reactive_and_tells_by_messages(tide):
    await fill(tide, "a")
    app = Feeding(tide)
    async with app.run_test():
        await until(lambda: len(app.changes) == 2)
        assert sorted(app.changes) == [("others", {}, True), ("todos", {"a": {"text": "a"}}, True)]
        await fill(tide, "b")
        await until(lambda: len(app.changes) == 3)
        assert app.changes[2][1:] == ({"a": {"text": "a"}, "b": {"text": "b"}}, False)
        assert str(app.query_one(Summary).content) == "2 todos"
        assert app.selected == ["others"]
        assert app.query_one("#todos").region.area == 0


class Palette(Noting):
    COMMANDS = Noting.COMMANDS | {SyncCommands}

    def __init__(self, tide, *, sync):
        super().__init__()
        self.line = SyncStatus(tide, sync=sync)

    def compose(self) -> ComposeResult:
        yield self.line


async def choose(app, pilot, words):
    await pilot.press("ctrl+p", *words.replace(" ", ""))
    await until(lambda: len(app.screen.query("CommandList")) == 1)
    options = app.screen.query_one("CommandList", OptionList)
    await until(lambda: options.option_count and words in str(options.options[0].prompt))
    await pilot.press("enter", "enter")
    await until(lambda: len(app.screen_stack) == 1)


async def test_the_palette_syncs_goes_offline_and_answers_refusals(tmp_path):
    def no_bad(write):
        return "[nothing] bad" if write.id == "bad" and write.doc.get("n") != 2 else None

    async with (
        memory_server(tmp_path / "server.db", validate=no_bad) as server,
        Tide(tmp_path / "app.db", transport=server.transport(), durability="relaxed") as tide,
    ):
        app = Palette(tide, sync=True)
        async with app.run_test(size=(80, 30)) as pilot:
            await until(lambda: app.line.status is not None and app.line.status.state == "online")
            await choose(app, pilot, "Work offline")
            await until(lambda: tide.status.state == "stopped")
            await fill(tide, "bad")
            await choose(app, pilot, "Sync now")
            await until(lambda: app.notes == ["The server refused a change: [nothing] bad"])
            await choose(app, pilot, "Retry")
            await until(tide.pending)
            await choose(app, pilot, "Go online")
            await until(lambda: len(app.notes) == 2)
            await choose(app, pilot, "Discard")
            await until(lambda: tide.status.rejected == 0)


async def test_many_refusals_are_told_together(tmp_path):
    async with (
        memory_server(tmp_path / "server.db", validate=lambda write: "no") as server,
        Tide(tmp_path / "app.db", transport=server.transport(), durability="relaxed") as tide,
    ):
        await fill(tide, *(f"t{number}" for number in range(1200)))
        await tide.sync_once()
        first, second = Palette(tide, sync=True), Palette(tide, sync=True)
        async with first.run_test():
            await until(lambda: first.notes)
        async with second.run_test():
            await until(lambda: second.line.status and second.line.status.state == "online")
        assert first.notes == ["The server refused 1,200 changes, the first one: no"]
        assert second.notes == []  # told already


async def test_what_fails_in_the_palette_is_told(tide):
    app = Palette(tide, sync=False)
    async with app.run_test(size=(80, 30)) as pilot:
        await choose(app, pilot, "Sync now")
        await until(lambda: "no endpoint" in "".join(app.notes))


@pytest.mark.parametrize(
    ("status", "state", "pending"),
    [
        (Status("online", 0, 0.0, 0, 1.0, None), "● online", "all sent"),
        (Status("connecting", 1, 0.0, 0, 1.0, None), "○ connecting", "1 change to send"),
        (
            Status("offline", 1200, 130.0, 0, 1.0, "no route"),
            "○ offline  no route",
            "1,200 changes to send, the oldest for 2 min",
        ),
        (
            Status("unauthorized", 0, 0.0, 0, None, "bad token"),
            "○ unauthorized  bad token",
            "all sent",
        ),
        (Status("stopped", 3, 0.0, 0, None, None), "○ offline  not syncing", "3 changes to send"),
    ],
)
async def test_the_line_says_the_state_what_waits_and_why(tide, status, state, pending):
    line = SyncStatus(tide, sync=True)
    assert str(line.state_line(status)).strip() == state
    assert str(line.pending_line(status)) == pending


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.9, "12 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 days")]
)
def test_an_age_is_told_in_one_unit(seconds, words):
    assert _duration(seconds) == words


async def test_screens_that_come_and_go_leave_nothing(tide):
    app = Noting()
    async with app.run_test():
        for _ in range(20):
            page = Page(tide, 2, {})
            await app.push_screen(page)
            await app.pop_screen()
        await until(lambda: followers(tide) == 0)
        assert not list(app.workers)


DOCS = Path(__file__).parents[2] / "docs/textual.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_an_app_of_the_docs_runs(snippet, tmp_path):
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "snippet", "exec"), names)
    (app_class,) = (
        one for one in names.values() if isinstance(one, type) and App in one.__mro__[1:]
    )
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "app.db", transport=server.transport(), durability="relaxed") as tide,
    ):
        for name in ("todos", "notes", "parts"):
            doc = {"text": "tea", "name": "tea", "done": False}
            await tide.collection(name).put("t1", doc)
        app = app_class(tide)
        async with app.run_test(notifications=True) as pilot:
            await use(app, pilot, tide)


async def use(app, pilot, tide):
    """What the page says of each app."""
    if type(app).__name__ == "TodoApp":
        await pilot.press(*"bread", "enter", "tab", "end", "enter")
        await until(lambda: "· bread" in lines_of(app) and "✓ tea" in lines_of(app))
        await until(lambda: "● online" in lines_of(app))
    elif type(app).__name__ == "Stock":
        await until(lambda: "    0" in lines_of(app) and "tea" in lines_of(app))
        await pilot.press("d")
        await until(lambda: "tea" not in lines_of(app))
    elif type(app).__name__ == "Counting":
        await until(lambda: "1 of 1 left" in lines_of(app))
        await tide.collection("todos").delete("t1")
        await until(lambda: "tea is gone" in lines_of(app) and "0 of 0 left" in lines_of(app))
    elif type(app).__name__ == "Notes":
        await until(lambda: "tea" in lines_of(app))
        await pilot.press("enter", "end", "x", "enter")
        notes = app.query_one(SyncedOptionList)
        await until(lambda: notes.items["t1"]["text"] != "tea")
    else:
        await until(lambda: "at home" in lines_of(app))
        await pilot.press("o")
        await until(lambda: "not syncing" in lines_of(app))
        await until(lambda: "to send" in app.sub_title)
