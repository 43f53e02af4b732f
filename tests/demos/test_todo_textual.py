"""The Textual demo, driven by its keys and the mouse, with a real file and a real server."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static, Tab, Tabs
from textual.widgets._footer import FooterKey

from demos.launch import Launch
from demos.server import EmbeddedServer
from demos.textual_widgets import EditScreen, NewTodo, TodoView
from demos.todo_textual import TodoApp, main
from tests.support import free_port
from tide import Collection, Tide
from tide.server import Write, create_app


class Recorded(TodoApp):
    """Remembers its notices, also those that have gone from the screen."""

    def __init__(self, tide: Tide, launch: Launch) -> None:
        super().__init__(tide, launch)
        self.notices: list[str] = []

    def notify(self, message: str, **options: Any) -> None:
        self.notices.append(message)
        super().notify(message, **options)


class Demo:
    """A running demo, and what it shows."""

    def __init__(self, app: Recorded, pilot: Pilot[None], tide: Tide) -> None:
        self.app = app
        self.pilot = pilot
        self.press = pilot.press
        self.todos: Collection = tide.collection("todos")
        self.view = app.query_one(TodoView)

    @property
    def lines(self) -> list[str]:
        return [str(option.prompt) for option in self.view.options]

    def status(self, part: str) -> str:
        return str(self.app.query_one(f"SyncStatus .{part}", Static).content)

    @property
    def keys(self) -> dict[str, str]:
        """The footer."""
        return {key.key_display: key.description for key in self.app.query(FooterKey)}

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not holds():
                await self.pilot.pause(0.01)

    async def shows(self, *lines: str) -> None:
        await self.until(lambda: self.lines == list(lines))

    async def add(self, *texts: str) -> None:
        """Write from beside the app, with the text as the id; wait until the app shows it."""
        for text in texts:
            await self.todos.put(text, {"text": text, "done": False})
        await self.until(lambda: f"[ ] {texts[-1]}" in self.lines)


Start = Callable[..., AbstractAsyncContextManager[Demo]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "server.db", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def start(
        endpoint: str | None = None, size: tuple[int, int] = (80, 24)
    ) -> AsyncIterator[Demo]:
        db = tmp_path / "todos.db"
        async with Tide(db, endpoint, durability="relaxed") as tide:
            app = Recorded(tide, Launch(db, endpoint, None))
            async with app.run_test(size=size) as pilot:
                demo = Demo(app, pilot, tide)
                await demo.until(lambda: bool(demo.lines))
                yield demo

    return start


@pytest.fixture
async def demo(start: Start) -> AsyncIterator[Demo]:
    async with start() as demo:
        yield demo


async def test_an_empty_list_says_how_to_begin(demo: Demo) -> None:
    assert "Press a" in demo.lines[0]
    await demo.press("e", "space", "d", "enter", "c")  # with nothing there, they do nothing
    assert "Press a" in demo.lines[0]


async def test_an_empty_list_tells_of_a_second_terminal_only_where_that_would_show_something(
    start: Start, server: EmbeddedServer
) -> None:
    async with start() as alone:
        assert "second terminal" not in alone.lines[0]
    async with start(server.endpoint) as demo:
        assert "second terminal" in demo.lines[0]


async def test_adds_and_keeps_typing(demo: Demo) -> None:
    await demo.press("a", *"bread", "enter", *"milk", "enter", *"te")
    await demo.shows("[ ] bread", "[ ] milk")
    assert demo.app.query_one(NewTodo).value == "te"
    await demo.until(lambda: demo.view.highlighted == 1)


async def test_text_is_never_read_as_markup(demo: Demo) -> None:
    await demo.press("a", *"[bold]x[/] [@click=app.quit]y", "enter")
    await demo.shows("[ ] [bold]x[/] [@click=app.quit]y")


async def test_toggles_edits_deletes(demo: Demo) -> None:
    await demo.add("bread", "milk")
    await demo.press("home", "space")
    await demo.shows("[✓] bread", "[ ] milk")
    await demo.press("e")
    await demo.until(lambda: isinstance(demo.app.screen, EditScreen))
    field = demo.app.screen.query_one(Input)
    await demo.until(lambda: field.has_focus)
    assert field.value == "bread"
    await demo.press("home", *"rye ", "enter")
    await demo.shows("[✓] rye bread", "[ ] milk")
    await demo.press("d")
    await demo.shows("[ ] milk")


async def test_escape_leaves_a_todo_as_it_was(demo: Demo) -> None:
    await demo.add("bread")
    await demo.press("e")
    await demo.until(lambda: isinstance(demo.app.screen, EditScreen))
    await demo.press("x", "escape")
    await demo.until(lambda: not isinstance(demo.app.screen, EditScreen))
    assert demo.lines == ["[ ] bread"]


async def test_saving_a_todo_that_was_deleted_meanwhile_says_so(demo: Demo) -> None:
    await demo.add("bread")
    await demo.press("e")
    await demo.until(lambda: isinstance(demo.app.screen, EditScreen))
    await demo.todos.delete("bread")
    await demo.press("x", "enter")
    await demo.until(lambda: demo.app.notices == ["It was deleted elsewhere meanwhile."])


async def test_filters_and_clears(demo: Demo) -> None:
    await demo.add("bread", "milk")
    await demo.press("home", "space")
    await demo.shows("[✓] bread", "[ ] milk")
    await demo.press("2")
    await demo.shows("[ ] milk")
    await demo.press("3")
    await demo.shows("[✓] bread")
    assert [str(tab.label) for tab in demo.app.query(Tab)] == [
        "All 2",
        "Open 1",
        "Done 1",
    ]
    await demo.press("c", "1")
    await demo.shows("[ ] milk")


async def test_what_is_added_can_be_seen_whatever_the_filter(demo: Demo) -> None:
    await demo.press("3", "a", *"bread", "enter")
    await demo.shows("[ ] bread")
    assert demo.app.query_one(Tabs).active == "OPEN"


async def test_the_mouse_selects_toggles_edits_and_filters(demo: Demo) -> None:
    await demo.add("bread", "milk")
    await demo.pilot.click(TodoView, offset=(10, 1))
    await demo.until(lambda: demo.view.highlighted == 1)
    assert demo.lines == ["[ ] bread", "[ ] milk"]
    await demo.pilot.click(TodoView, offset=(2, 0))
    await demo.shows("[✓] bread", "[ ] milk")
    await demo.pilot.click("#DONE")
    await demo.shows("[✓] bread")
    await demo.pilot.double_click(TodoView, offset=(10, 0))
    await demo.until(lambda: isinstance(demo.app.screen, EditScreen))


async def test_changes_around_the_cursor_leave_it_and_the_view_where_they_are(demo: Demo) -> None:
    await demo.add(*(f"{number:03}" for number in range(100)))
    await demo.press(*["down"] * 50)
    await demo.until(lambda: demo.view.highlighted == 50)
    on_screen = 50 - demo.view.scroll_offset.y

    await demo.todos.delete("010")
    await demo.todos.delete("020")
    await demo.todos.put("0005", {"text": "before", "done": False})
    await demo.todos.update("051", {"text": "edited"})
    await demo.add("100")
    assert demo.view.current is not None
    assert demo.view.current.id == "050"
    assert demo.view.highlighted == 49
    assert demo.view.highlighted - demo.view.scroll_offset.y == on_screen

    await demo.todos.delete("050")
    await demo.until(lambda: demo.view.current is not None and demo.view.current.id == "051")


async def test_changes_leave_what_is_being_typed(demo: Demo) -> None:
    await demo.press("a", *"bre")
    await demo.add("milk")
    await demo.press(*"ad", "enter")
    await demo.until(lambda: len(demo.lines) == 2)
    assert set(demo.lines) == {"[ ] milk", "[ ] bread"}


async def test_nodes_converge_through_a_server_that_comes_and_goes(
    start: Start, server: EmbeddedServer, tmp_path: Path
) -> None:
    async with (
        start(server.endpoint) as demo,
        Tide(tmp_path / "other.db", server.endpoint) as other,
    ):
        theirs = other.collection("todos")
        await demo.until(lambda: "online" in demo.status("state"))
        await demo.press("a", *"bread", "enter")
        await demo.until(lambda: demo.status("pending") == "all sent")
        await other.sync_once()
        ((bread, _),) = (await theirs.all()).items()

        server.stop()
        await demo.until(lambda: "no answer" in demo.status("state"))
        await demo.press(*"milk", "enter")
        await demo.shows("[ ] bread", "[ ] milk")
        await demo.until(lambda: demo.status("pending") == "1 change to send")
        await theirs.update(bread, {"done": True})

        server.start()
        await other.sync_once()
        await demo.shows("[✓] bread", "[ ] milk")
        await demo.until(lambda: demo.status("pending") == "all sent")
        await other.sync_once()
        assert await theirs.all() == await demo.todos.all()


async def test_goes_offline_and_online_by_a_key_that_says_which(
    start: Start, server: EmbeddedServer
) -> None:
    async with start(server.endpoint) as demo:
        await demo.until(lambda: demo.status("state") == f"● online  with {server.endpoint}")
        await demo.until(lambda: demo.keys.get("o") == "Offline")
        await demo.press("o")
        await demo.until(lambda: "press o" in demo.status("state"))
        await demo.until(lambda: demo.keys.get("o") == "Online")
        await demo.add("bread")
        await demo.until(lambda: demo.status("pending") == "1 change to send")
        await demo.press("o")
        await demo.until(lambda: demo.status("pending") == "all sent")
        assert demo.status("state").startswith("● online")


async def test_a_key_that_is_pressed_twice_acts_once(start: Start, server: EmbeddedServer) -> None:
    async with start(server.endpoint) as demo:
        await demo.until(lambda: "online" in demo.status("state"))
        demo.app.action_sync(False)
        demo.app.action_sync(False)
        await demo.until(lambda: "press o" in demo.status("state"))
        demo.app.action_sync(True)
        demo.app.action_sync(True)
        workers = [one for one in demo.app.workers if one.name == "sync" and not one.is_cancelled]
        assert len(workers) == 1
        await demo.until(lambda: "online" in demo.status("state"))


async def test_without_a_server_it_says_so_and_has_no_key_for_it(demo: Demo) -> None:
    assert demo.status("state") == "○ offline  kept in this file only"
    assert demo.status("pending") == ""
    assert "o" not in demo.keys


async def test_says_when_it_is_the_one_that_serves(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "server.db", free_port())
    db = tmp_path / "todos.db"
    async with Tide(db, server.endpoint, durability="relaxed") as tide:
        app = Recorded(tide, Launch(db, server.endpoint, server))
        async with app.run_test() as pilot:
            demo = Demo(app, pilot, tide)
            await demo.until(lambda: demo.status("state") == f"● online  serving {server.endpoint}")
    server.stop()


async def test_what_the_server_refuses_is_told_once(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_milk(write: Write) -> str | None:
        return "[no] milk here" if write.id == "milk" else None

    monkeypatch.setattr("demos.server.create_app", partial(create_app, validate=no_milk))
    server = EmbeddedServer(tmp_path / "server.db", port=0)
    server.start()
    async with start(server.endpoint) as demo:
        await demo.add("bread")
        await demo.todos.put("milk", {"text": "milk"})
        await demo.until(lambda: bool(demo.app.notices))
        await demo.shows("[ ] bread")  # and milk, put back to what the server has, is gone
        await demo.until(
            lambda: demo.app.notices == ["The server refused a change: [no] milk here"]
        )
        await demo.add("tea")
        await demo.until(lambda: demo.status("pending") == "all sent")
        assert len(demo.app.notices) == 1
    server.stop()


async def test_what_another_program_wrote_is_shown_in_one_harmless_line(demo: Demo) -> None:
    await demo.todos.put("t1", {"text": "two\nlines \x1b[2J", "done": 1})
    await demo.shows("[ ] two lines \ufffd[2J")


@pytest.mark.parametrize("size", [(30, 10), (80, 24), (200, 60)])
async def test_fits_any_terminal(start: Start, size: tuple[int, int]) -> None:
    async with start(size=size) as demo:
        await demo.add("far too long for one line " * 9 + "end")
        assert demo.view.virtual_size.height == 1
        assert demo.app.query_one("SyncStatus").region.bottom < size[1]


@pytest.mark.parametrize("size", [(40, 12), (79, 24), (80, 24), (200, 50)])
async def test_all_keys_can_be_seen(
    start: Start, server: EmbeddedServer, size: tuple[int, int]
) -> None:
    async with start(server.endpoint, size=size) as demo:
        await demo.until(lambda: list(demo.keys) == ["a", "e", "space", "d", "123", "c", "o", "q"])
        await demo.until(lambda: all(key.region for key in demo.app.query(FooterKey)))
        for key in demo.app.query(FooterKey):
            assert demo.app.screen.region.contains_region(key.region)


async def test_a_small_terminal_leaves_half_of_it_to_the_todos(start: Start) -> None:
    async with start(size=(40, 12)) as demo:
        assert demo.view.region.height == 6


async def test_quits_by_q_and_at_any_time_by_control_c(start: Start) -> None:
    async with start() as demo:
        await demo.press("q")
        assert demo.app.return_code == 0
    async with start() as demo:
        await demo.add("bread")
        await demo.press("e")
        await demo.until(lambda: isinstance(demo.app.screen, EditScreen))
        await demo.press("ctrl+c")
        assert demo.app.return_code == 0


def test_a_file_that_is_no_store_is_an_error_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert main(["--offline", "--db", str(file)]) == 1
    assert "is not a tide store" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_without_a_terminal_it_says_that_it_needs_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert main(["--offline", "--db", str(tmp_path / "todos.db")]) == 1
    assert "needs a terminal" in capsys.readouterr().err
