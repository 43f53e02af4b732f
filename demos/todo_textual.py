"""The todo list in a terminal, with Textual."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Header, Input, Tab, Tabs

from demos.launch import Launch, launched
from demos.textual_widgets import EditScreen, Keys, NewTodo, StatusLine, TodoView
from demos.todo import Filter, Todo, TodoList
from tide import NotFoundError, Tide, TideError
from tide.integrations.textual import SyncedCollection, SyncStatus

__all__ = ["TodoApp", "main"]

T = TypeVar("T")
Docs = Mapping[str, dict[str, Any]]

HINTS = {
    Filter.ALL: "Nothing to do yet.\n\nPress a, type what needs doing, and press Enter.",
    Filter.OPEN: "Nothing is open: all is done.",
    Filter.DONE: "Nothing is done yet.",
}
SECOND = "\nThen start the demo in a second terminal: what you do in one shows in both."


class TodoApp(App[None]):
    """Shows the todos of *tide*, which is open for as long as the app runs."""

    TITLE = "Todos"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "TodoView"  # so that the footer tells all keys from the start
    CSS = """
    NewTodo, NewTodo:focus {
        margin: 0 1; border: round $foreground 30%; background: $background; background-tint: 0%;
    }
    NewTodo:focus { border: round $accent; }
    Tabs { margin: 0 1; }
    TodoView { height: 1fr; border: none; margin: 0 1; background: $background; }
    TodoView:focus { border: none; background-tint: 0%; }
    .-short Header { display: none; }
    .-short NewTodo, .-short NewTodo:focus { border: none; padding: 0 1; height: 1; }
    .-narrow Keys { layout: grid; grid-columns: auto; grid-gutter: 0 1; height: 2; }
    .-narrow FooterKey .footer-key--key { padding: 0; }
    .-narrow FooterKey .footer-key--description { padding: 0 0 0 1; }
    """
    # The classes above, by the smallest size that has them.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-wide")]  # noqa: RUF012 - as Textual types it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "filter('ALL')", "Filter", key_display="123"),
        Binding("2", "filter('OPEN')", show=False),
        Binding("3", "filter('DONE')", show=False),
        Binding("c", "clear_done", "Clear"),
        Binding("o", "sync(False)", "Offline"),
        Binding("o", "sync(True)", "Online"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q,ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    docs: reactive[Docs] = reactive[Docs](dict, init=False)
    syncing: reactive[bool] = reactive(False, bindings=True)
    which: reactive[Filter] = reactive(Filter.ALL, init=False)

    def __init__(self, tide: Tide, launch: Launch) -> None:
        super().__init__()
        self._tide = tide
        self._launch = launch
        self._todos = TodoList(tide)
        self._view = TodoView(tide.collection("todos"), self._hint())
        self._tabs = Tabs(*(Tab(which.value, id=which.name) for which in Filter))
        self._line = StatusLine(tide, launch)

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield SyncedCollection(self._tide.collection("todos")).feeds(TodoApp.docs)
        yield Header(icon="")
        yield NewTodo()
        self._tabs.can_focus = False  # the keys 1, 2 and 3 reach them from everywhere
        yield self._tabs
        yield self._view
        yield self._line
        yield Keys()

    def on_mount(self) -> None:
        """Say which file this is."""
        self.sub_title = str(self._launch.db)

    def watch_docs(self) -> None:
        """Something changed, here or elsewhere: count anew."""
        todos = [Todo.from_doc(id_, doc) for id_, doc in self.docs.items()]
        for tab in self._tabs.query(Tab):
            which = Filter[str(tab.id)]
            tab.label = Content(f"{which.value} {sum(map(which.keeps, todos))}")

    def watch_which(self) -> None:
        """Another filter: show it."""
        self._tabs.active = self.which.name
        self._view.filter(self.which, self._hint())

    def _hint(self) -> str:
        alone = self._launch.endpoint is None or self.which is not Filter.ALL
        return HINTS[self.which] + ("" if alone else SECOND)

    @on(Input.Submitted, "#new")
    async def _add(self, event: Input.Submitted) -> None:
        id_ = await self._written(self._todos.add(event.value))
        if id_ is not None:
            if self.which is Filter.DONE:
                self.which = Filter.OPEN  # where it can be seen
            self._view.select(id_)
        elif not event.input.value:
            event.input.value = event.value  # it was not stored; what was typed is not lost

    @work
    async def action_edit(self) -> None:
        """Ask for a new text of the todo under the cursor."""
        if todo := self._view.current:
            text = await self.push_screen_wait(EditScreen(todo.text))
            if text is not None and text != todo.text:
                await self._written(self._todos.rename(todo.id, text))

    async def action_toggle_done(self) -> None:
        """Mark the todo under the cursor as done, or as open."""
        if todo := self._view.current:
            await self._written(self._todos.set_done(todo.id, done=not todo.done))

    async def action_delete(self) -> None:
        """Delete the todo under the cursor."""
        if todo := self._view.current:
            await self._written(self._todos.delete(todo.id))

    async def action_clear_done(self) -> None:
        """Delete all that are done."""
        await self._written(self._todos.clear_done())

    def action_filter(self, name: str) -> None:
        """Show all, or the open, or the done."""
        self.which = Filter[name]

    @on(Tabs.TabActivated)
    def _tab_clicked(self, event: Tabs.TabActivated) -> None:
        self.which = Filter[str(event.tab.id)]

    def action_sync(self, active: bool) -> None:  # noqa: FBT001 - Textual passes it so
        """Go online, or offline."""
        self._line.active = active

    @on(SyncStatus.Changed)
    def _synced(self) -> None:
        self.syncing = self._line.active

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """One key goes offline and online; without a server it does neither."""
        if action == "sync":
            return self._launch.endpoint is not None and (not self.syncing,) == parameters
        return True

    async def _written(self, write: Awaitable[T]) -> T | None:
        """Wait for a write; where it fails, say so and go on."""
        try:
            return await write
        except NotFoundError:
            self.notify("It was deleted elsewhere meanwhile.", severity="warning")
        except TideError as error:
            self.notify(str(error), severity="error", markup=False)
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the command line *argv*; the exit code."""
    with launched("textual", sys.argv[1:] if argv is None else argv) as launch:
        if not sys.stdin.isatty():
            print("this demo needs a terminal to read keys from", file=sys.stderr)
            return 1
        try:
            return asyncio.run(_run(launch))
        except TideError as error:
            print(error, file=sys.stderr)
            return 1


async def _run(launch: Launch) -> int:
    async with Tide(launch.db, launch.endpoint) as tide:
        app = TodoApp(tide, launch)
        await app.run_async()
        return app.return_code or 0
