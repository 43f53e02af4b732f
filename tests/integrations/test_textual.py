"""The adapter of Textual, in real apps without a terminal."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("textual", reason="Textual is not installed")

from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, Static

from tests.contracts.adapter import AdapterApp, AdapterContract, followers
from tide import Tide
from tide.integrations.textual import (
    SyncedCollection,
    SyncedDataTable,
    SyncedOptionList,
    SyncStatus,
)


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
