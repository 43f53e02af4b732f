"""The todo list in a browser, with NiceGUI."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from nicegui import app, background_tasks, ui

from demos.launch import Launch, launched
from demos.syncing import Syncing
from demos.todo import MAX_TEXT, Filter, Todo, TodoList
from tide import NotFoundError, Tide, TideError
from tide.integrations.nicegui import SyncedCollection, SyncedDocument, SyncStatus, connect

__all__ = ["TodoApp", "main"]

T = TypeVar("T")

_PORT = 8767

_HINTS = {
    Filter.ALL: "Nothing to do yet. Type what needs doing, and press Enter.",
    Filter.OPEN: "Nothing is open: all is done.",
    Filter.DONE: "Nothing is done yet.",
}


class TodoApp:
    """The store, which all pages share."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.tide: Tide = connect(launch.db, launch.endpoint, sync=False)
        self.todos = TodoList(self.tide)
        self.all = SyncedCollection(self.tide.collection("todos"))
        self._syncing: asyncio.Task[None] | None = None

    def go(self, *, online: bool) -> None:
        """Sync, or work offline."""
        if online and self._syncing is None:
            self._syncing = background_tasks.create(self._sync(), name="demo syncs")
        elif not online and self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None

    async def _sync(self) -> None:
        await self.all.ready()
        await Syncing(self.tide, self.launch.server).run()

    @property
    def online(self) -> bool:
        """Whether it is to sync."""
        return self._syncing is not None

    def page(self) -> None:
        """Build the page; called for each visitor."""
        _Page(self)


class _Page:
    """What one tab shows."""

    def __init__(self, todo_app: TodoApp) -> None:
        self._app = todo_app
        self._which = Filter.ALL
        ui.dark_mode(None)
        ui.query("body").classes("bg-slate-100 dark:bg-slate-900")
        with ui.column().classes("w-full max-w-xl mx-auto gap-4 p-2 sm:p-6"):
            self._header()
            with ui.card().classes("w-full gap-2 rounded-xl"):
                self._new = ui.input("What needs doing?").classes("w-full")
                self._new.props(f"maxlength={MAX_TEXT} autofocus clearable")
                self._new.on("keydown.enter", self._add)
                self._tabs = ui.toggle(
                    {which: which.value for which in Filter},
                    value=Filter.ALL,
                    on_change=lambda event: self._filter(event.value),
                ).props("no-caps unelevated dense padding='4px 12px'")
                self._list()
                self._hint = ui.label().classes("w-full text-center p-6 opacity-60")
                self._footer()
        todo_app.all.changed.subscribe(self._count)
        self._count()

    def _header(self) -> None:
        with ui.row().classes("w-full items-center"):
            ui.label("Todos").classes("text-3xl font-semibold grow")
            SyncStatus(self._app.tide).classes("text-sm px-3 py-1 rounded-full")

    def _footer(self) -> None:
        with ui.row().classes("w-full items-center"):
            if self._app.launch.endpoint is not None:
                switch = ui.switch("Work offline", value=not self._app.online)
                switch.on_value_change(lambda event: self._app.go(online=not event.value))
            ui.element().classes("grow")
            self._clear = ui.button("Clear done", on_click=self._clear_done)
            self._clear.props("flat no-caps dense")

    @ui.refreshable_method
    def _list(self) -> None:
        todos = self._app.tide.collection("todos")
        which = self._which
        shown = SyncedCollection(todos, where=lambda doc: which.keeps(Todo.from_doc("", doc)))
        shown.each(self._row)

    def _row(self, doc: SyncedDocument) -> None:
        with ui.row().classes("w-full items-center no-wrap gap-1 group"):
            ui.checkbox().bind_value(doc, "done").props("dense")
            field = ui.input().props(f"borderless dense maxlength={MAX_TEXT}").classes("grow px-2")
            doc.guard(field, "text")
            field.bind_enabled_from(doc, "done", lambda done: not done)
            ui.button(
                icon="delete", on_click=lambda: self._written(self._app.todos.delete(doc.id))
            ).props("flat round dense color=grey aria-label=Delete")

    def _filter(self, which: Filter) -> None:
        self._which = which
        self._list.refresh()
        self._count()

    def _count(self) -> None:
        todos = [Todo.from_doc(id_, doc) for id_, doc in self._app.all.items.items()]
        counts = {which: sum(map(which.keeps, todos)) for which in Filter}
        self._tabs.set_options({which: f"{which.value} {counts[which]}" for which in Filter})
        self._hint.text = _HINTS[self._which]
        self._hint.visible = not counts[self._which]
        self._clear.visible = counts[Filter.DONE] > 0

    async def _add(self) -> None:
        text, self._new.value = self._new.value, ""
        if await self._written(self._app.todos.add(text or "")) is None and not self._new.value:
            self._new.value = text  # it was not stored; what was typed is not lost

    async def _clear_done(self) -> None:
        await self._written(self._app.todos.clear_done())

    async def _written(self, write: Awaitable[T]) -> T | None:
        """Wait for a write; where it fails, say so and go on."""
        try:
            return await write
        except NotFoundError:
            ui.notify("It was deleted elsewhere meanwhile.", type="warning")
        except TideError as error:
            ui.notify(str(error), type="negative")
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the command line *argv*; the exit code."""
    with launched("nicegui", sys.argv[1:] if argv is None else argv, _PORT) as launch:
        todo_app = TodoApp(launch)
        app.on_startup(lambda: todo_app.go(online=launch.endpoint is not None))
        ui.run(
            todo_app.page,
            host=launch.host,
            port=launch.port,
            show=launch.browser,
            title="Todos",
            favicon="✅",
            reload=False,
        )
    return 0
