"""The todo list in a terminal, with Textual."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import ClassVar, TypeVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Header, Input, Static, Tab, Tabs
from textual.worker import Worker

from demos.launch import Launch, launched
from demos.syncing import Syncing
from demos.textual_widgets import EditScreen, Keys, NewTodo, TodoView
from demos.todo import Filter, TodoList
from tide import NotFoundError, OfflineError, Tide, TideError

__all__ = ["TodoApp", "main"]

T = TypeVar("T")

TICK = 0.25  # seconds between two looks at the state of syncing

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
    #status { height: 1; padding: 0 2; background: $panel; }
    #sync { width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    #pending { width: auto; margin-left: 2; }
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
        Binding("o", "go_offline", "Offline"),
        Binding("o", "go_online", "Online"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q,ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    which: reactive[Filter] = reactive(Filter.ALL, init=False)
    syncing: reactive[bool] = reactive(False, bindings=True)

    def __init__(self, tide: Tide, launch: Launch) -> None:
        super().__init__()
        self._tide = tide
        self._launch = launch
        self._todos = TodoList(tide)
        self._syncing = Syncing(tide, launch.server)
        self._sync_worker: Worker[None] | None = None
        self._draw_is_due = False
        self._told_rejections = 0
        # Kept, not queried: what is on its way when the app quits finds them still.
        self._view = TodoView()
        self._tabs = Tabs(*(Tab(which.value, id=which.name) for which in Filter))
        self._sync_line = Static(id="sync", markup=False)
        self._pending_line = Static(id="pending", markup=False)

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Header(icon="")
        yield NewTodo()
        self._tabs.can_focus = False  # the keys 1, 2 and 3 reach them from everywhere
        yield self._tabs
        yield self._view
        yield Horizontal(self._sync_line, self._pending_line, id="status")
        yield Keys()

    def on_mount(self) -> None:
        """Show what the file holds at once, and sync beside that."""
        self.sub_title = str(self._launch.db)
        self._follow()
        if self._launch.endpoint is not None:
            self._sync_worker = self._sync()
        self.set_interval(TICK, self._show_status)

    @work
    async def _follow(self) -> None:
        await self._todos.follow(self._draw_soon)

    @work
    async def _sync(self) -> None:
        await self._syncing.run()

    def _draw_soon(self) -> None:
        """Draw once for all changes that are waiting; the first one does not wait for more."""
        if not self._draw_is_due:
            self._draw_is_due = True
            self.call_later(self._draw)

    async def _draw(self) -> None:
        self._draw_is_due = False
        self._view.show(self._todos.shown(self.which), self._hint())
        for tab in self._tabs.query(Tab):
            which = Filter[str(tab.id)]
            tab.label = Content(f"{which.value} {self._todos.count(which)}")
        await self._show_status()

    def _hint(self) -> str:
        alone = self._launch.endpoint is None or self.which is not Filter.ALL
        return HINTS[self.which] + ("" if alone else SECOND)

    async def _show_status(self) -> None:
        self.syncing = self._syncing.active
        self._sync_line.update(self._sync_text())
        try:
            pending = await self._tide.pending()
            rejected = await self._tide.rejected()
        except TideError as error:
            self._pending_line.update(str(error))
            return
        self._pending_line.update(self._pending_text(pending))
        for op in rejected:
            if op.number > self._told_rejections:
                self._told_rejections = op.number
                self._warn(f"The server refused a change: {op.detail}")

    def _sync_text(self) -> Content:
        if self._launch.endpoint is None:
            return Content("○ offline  kept in this file only")
        if self._syncing.online:
            return Content.assemble(("● online", "$text-success"), f"  {self._where()}")
        return Content.assemble(("○ offline", "$text-warning"), f"  {self._why_offline()}")

    def _where(self) -> str:
        serves = self._launch.server is not None and self._launch.server.running
        return f"{'serving' if serves else 'with'} {self._launch.endpoint}"

    def _why_offline(self) -> str:
        error = self._syncing.error
        if not self._syncing.active:
            return "press o to go online again"
        if error is None:
            return "connecting"
        if isinstance(error, OfflineError):
            return f"no answer from {self._launch.endpoint}"
        return str(error)

    def _pending_text(self, pending: int) -> str:
        if self._launch.endpoint is None:
            return ""
        changes = "1 change" if pending == 1 else f"{pending} changes"
        return f"{changes} to send" if pending else "all sent"

    @on(Input.Submitted, "#new")
    async def _add(self, event: Input.Submitted) -> None:
        id_ = await self._written(self._todos.add(event.value))
        if id_ is not None:
            if self.which is Filter.DONE:
                self.which = Filter.OPEN  # where it can be seen
            await self._draw()
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

    def watch_which(self) -> None:
        """Another filter: show it."""
        self._tabs.active = self.which.name
        self._draw_soon()

    def action_go_offline(self) -> None:
        """Stop syncing."""
        if self._sync_worker is not None:
            self._sync_worker.cancel()

    def action_go_online(self) -> None:
        """Sync again."""
        if self._sync_worker is None or self._sync_worker.is_finished:
            self._sync_worker = self._sync()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """One key goes offline and online; without a server there is neither."""
        if action in ("go_offline", "go_online"):
            return self._launch.endpoint is not None and self.syncing is (action == "go_offline")
        return True

    async def _written(self, write: Awaitable[T]) -> T | None:
        """Wait for a write; where it fails, say so and go on."""
        try:
            return await write
        except NotFoundError:
            self._warn("It was deleted elsewhere meanwhile.")
        except TideError as error:
            self.notify(str(error), severity="error", markup=False)
        return None

    def _warn(self, message: str) -> None:
        self.notify(message, severity="warning", markup=False)


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
