"""The adapter of NiceGUI: with its simulated user, and in a browser what only a browser shows."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed")

from nicegui import binding, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from tests.contracts.adapter import AdapterApp, AdapterContract, again, fill, followers
from tests.support import free_port, until
from tide import Tide
from tide.integrations.nicegui import (
    SyncedCollection,
    SyncedDocument,
    SyncedGrid,
    SyncedList,
    SyncStatus,
    connect,
)
from tide_integrations.nicegui.opening import opened

ROOT = Path(__file__).parent.parent.parent


class Page:
    """All that the adapter has, on a page."""

    def __init__(self, tide: Tide, views: int, options: dict[str, Any]):
        self.tide = tide
        self.synced = SyncedCollection(tide.collection("todos"), **options)
        self.taken = 0
        self.field = ui.input()
        self.line = SyncStatus(tide)
        self.list = self.synced.each(self.row)
        self.grid = self.synced.grid([{"field": "text"}]) if views == 2 else None
        self.synced.changed.subscribe(self.count)

    def row(self, doc: SyncedDocument) -> None:
        ui.label().bind_text_from(doc, "text").mark(doc.id)

    def count(self) -> None:
        self.taken += 1


class NiceGuiApp(AdapterApp):
    def __init__(self, user: User, page: Page, before: int):
        self.user, self.page, self.before = user, page, before

    async def call(self, verb: str, *args: Any) -> Any:
        return await getattr(self.page.synced, verb)(*args)

    async def shown(self, view: int = 0) -> list[tuple[str, str]]:
        if view == 1:
            assert self.page.grid is not None
            return [(row["id"], row["text"]) for row in self.page.grid.options["rowData"]]
        return labels(self.page.list)

    async def items(self) -> dict[str, dict[str, Any]]:
        return dict(self.page.synced.items)

    async def type(self, id_: str, text: str) -> None:
        with self.user:
            doc = self.page.synced.doc(id_, debounce=60.0)
            doc.guard(self.page.field, "text")
        focus(self.user, self.page.field)
        self.page.field.value = text

    async def typed(self) -> str:
        return str(self.page.field.value)

    async def status(self) -> str:
        return str(self.page.line.text)

    async def notices(self) -> list[str]:
        return self.user.notify.messages

    def renders(self) -> int:
        return self.page.taken

    async def unmount(self) -> None:
        assert self.user.client is not None
        self.user.client.delete()
        self.user.client = None
        self.page.synced = None  # type: ignore[assignment]
        self.page.list = self.page.grid = self.page.field = self.page.line = None  # type: ignore[assignment]

    def leftovers(self) -> int:
        gc.collect()
        names = ("tide follows", "tide status", "tide writes")
        mine = [one for one in asyncio.all_tasks() if one.get_name().startswith(names)]
        own = followers(self.page.tide) - self.before
        return own + len(mine) + sum(isinstance(one, SyncedDocument) for one in gc.get_objects())


def labels(rows: SyncedList) -> list[tuple[str, str]]:
    found = [next(row.descendants()) for row in rows.default_slot.children]
    return [(next(iter(one._markers)), one.text) for one in found if isinstance(one, ui.label)]


def focus(user: User, element: ui.element, event: str = "focus") -> None:
    with user:
        user.find(kind=type(element)).trigger(event)


class TestNiceGui(AdapterContract):
    @asynccontextmanager
    async def running(self, db, endpoint=None, *, views=1, **options):
        pages: list[Page] = []
        tide = connect(db, endpoint, durability="relaxed")

        def index() -> None:
            pages.append(Page(tide, views, options))

        async with user_simulation(index) as user:
            connect(db)  # the simulation began by forgetting all that was to be started
            await opened(tide.collection("todos"))
            before = followers(tide)
            await user.open("/")
            yield NiceGuiApp(user, pages[-1], before)


@pytest.fixture
async def tide(tmp_path):
    """Open from outside, as an app does that does not use `connect`."""
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


@asynccontextmanager
async def simulated(build):
    """A user on the page that *build* makes, and what it gave."""
    built: list[Any] = []
    async with user_simulation(lambda: built.append(build())) as user:
        await user.open("/")
        yield user, built[0]


async def text_in(todos, id_, field="text"):
    doc = await todos.get(id_)
    return None if doc is None else doc[field]


def form(todos, **options):
    """An input that is bound to the text of the document a, and the document."""
    synced = SyncedCollection(todos)
    doc = synced.doc("a", **options)
    return doc, doc.guard(ui.input(), "text"), ui.checkbox().bind_value(doc, "done")


async def test_a_bound_field_follows_and_writes_both_ways(todos):
    await todos.put("a", {"text": "tea", "done": False, "n": 1})
    async with simulated(lambda: form(todos)) as (_, (doc, field, box)):
        await until(lambda: field.value == "tea")
        field.value = "green tea"
        await until(lambda: written(todos, "green tea"))
        box.value = True
        await until(lambda: text_in(todos, "a", "done"))
        assert await todos.get("a") == {"text": "green tea", "done": True, "n": 1}
        await todos.update("a", {"text": "milk"})
        await until(lambda: field.value == "milk")
        assert binding.active_links == []  # nothing is polled
        assert doc.exists


async def written(todos, text, id_="a"):
    return await text_in(todos, id_) == text


async def test_only_what_was_typed_is_written_over_what_others_wrote_meanwhile(todos):
    await todos.put("a", {"text": "tea", "done": False})
    async with simulated(lambda: form(todos, debounce=60.0)) as (_, (doc, field, box)):
        await until(lambda: field.value == "tea")
        field.value = "mine"
        await todos.put("a", {"text": "theirs", "done": True, "n": 2})
        await until(lambda: box.value)
        assert field.value == "mine"
        await doc.flush()
        assert await todos.get("a") == {"text": "mine", "done": True, "n": 2}


async def test_a_focused_field_keeps_what_it_shows_until_it_is_left(todos):
    await todos.put("a", {"text": "tea", "done": False})
    async with simulated(lambda: form(todos)) as (user, (_, field, box)):
        await until(lambda: field.value == "tea")
        focus(user, field)
        await todos.put("a", {"text": "theirs", "done": True})
        await until(lambda: box.value)
        assert field.value == "tea"
        focus(user, field, "blur")
        await until(lambda: field.value == "theirs")


async def test_what_was_typed_is_written_when_the_field_is_left(todos):
    await todos.put("a", {"text": "tea"})
    async with simulated(lambda: form(todos, debounce=60.0)) as (user, (_, field, _)):
        await until(lambda: field.value == "tea")
        field.value = "typed"
        focus(user, field, "blur")
        await until(lambda: written(todos, "typed"))


async def test_what_was_typed_is_written_when_the_tab_closes(todos):
    await todos.put("a", {"text": "tea"})
    async with simulated(lambda: form(todos, debounce=60.0)) as (user, (_, field, _)):
        await until(lambda: field.value == "tea")
        field.value = "typed at the last moment"
        user.client.delete()
        await until(lambda: written(todos, "typed at the last moment"))


async def test_what_was_typed_is_written_when_the_app_shuts_down(tmp_path):
    tide = connect(tmp_path / "app.db")
    async with again(tmp_path / "app.db") as file:
        await fill(file, "a")
        async with simulated(lambda: form(tide.collection("todos"), debounce=60.0)) as (_, made):
            connect(tmp_path / "app.db")
            await until(lambda: made[1].value == "a")
            made[1].value = "typed"
        assert not tide._session.is_open
        assert await file.collection("todos").get("a") == {"text": "typed"}


async def test_a_document_that_was_deleted_meanwhile_stays_deleted(todos):
    await todos.put("a", {"text": "tea"})
    async with simulated(lambda: form(todos, debounce=60.0)) as (_, (doc, field, _)):
        await until(lambda: field.value == "tea")
        field.value = "mine"
        await todos.delete("a")
        await until(lambda: not doc.exists)
        await doc.flush()
        assert await todos.get("a") is None


async def test_connect_gives_one_store_for_each_file(tmp_path):
    one = connect(tmp_path / "one.db")
    assert connect(str(tmp_path / "." / "one.db")) is one
    assert connect(tmp_path / "two.db") is not one


async def test_a_row_stays_the_same_element_while_its_document_lives(todos):
    for id_ in "abc":
        await todos.put(id_, {"text": id_, "n": ord(id_)})

    def build():
        synced = SyncedCollection(todos, key=lambda doc: doc["n"])
        return synced.each(lambda doc: ui.label().bind_text_from(doc, "text").mark(doc.id))

    async with simulated(build) as (_, rows):
        await until(lambda: len(labels(rows)) == 3)
        before = list(rows.default_slot.children)
        await todos.update("a", {"n": 1000, "text": "last"})
        await todos.put("d", {"text": "d", "n": 0})
        await until(lambda: [id_ for id_, _ in labels(rows)] == ["d", "b", "c", "a"])
        assert rows.default_slot.children[1:] == [before[1], before[2], before[0]]
        assert labels(rows)[-1] == ("a", "last")


async def test_a_page_that_fails_to_draw_does_not_disturb_another(todos, caplog):
    def build():
        synced = SyncedCollection(todos)

        def fail(doc):
            raise ValueError(doc.id)

        return synced.each(fail), synced.each(lambda doc: ui.label(doc.id).mark(doc.id))

    async with simulated(build) as (_, (_, rows)):
        await todos.put("a", {})
        await todos.put("b", {})
        await until(lambda: len(labels(rows)) == 2)
    assert "ValueError: a" in caplog.text
    caplog.clear()


class Grid(SyncedGrid):
    """Remembers what it sends."""

    def __init__(self, *args):
        self.sent: list[tuple[Any, ...]] = []
        super().__init__(*args)

    def run_grid_method(self, *args, **options):
        self.sent.append(args)


async def test_a_grid_is_sent_only_what_changed(todos):
    await todos.put("a", {"text": "a"})
    await todos.put("c", {"text": "c"})
    async with simulated(lambda: Grid(SyncedCollection(todos), [{"field": "text"}], {})) as (_, it):
        await until(lambda: len(it.options["rowData"]) == 2)
        it.sent.clear()
        await todos.put("b", {"text": "b"})
        await until(lambda: it.sent)
        assert it.sent.pop() == (
            "applyTransaction",
            {"update": [], "remove": [], "add": [{"text": "b", "id": "b"}], "addIndex": 1},
        )
        await todos.delete("a")
        await until(lambda: it.sent)
        await todos.update("c", {"text": "edited"})
        await until(lambda: len(it.sent) == 2)
        assert it.sent == [
            ("applyTransaction", {"update": [], "remove": [{"id": "a"}]}),
            ("applyTransaction", {"update": [{"text": "edited", "id": "c"}], "remove": []}),
        ]
        assert it.options["rowData"] == [{"text": "b", "id": "b"}, {"text": "edited", "id": "c"}]


async def test_what_is_entered_in_a_cell_is_written(todos):
    await todos.put("a", {"text": "a", "n": 1})
    synced: list[SyncedCollection] = []

    def build():
        synced.append(SyncedCollection(todos))
        return synced[0].grid([{"field": "text", "editable": True}])

    async with simulated(build) as (user, _):
        await until(lambda: synced[0].items)
        event = {"data": {"id": "a"}, "colId": "text", "newValue": "entered"}
        user.find(kind=SyncedGrid).trigger("cellValueChanged", event)
        await until(lambda: written(todos, "entered"))
        assert await todos.get("a") == {"text": "entered", "n": 1}


APP = """
import gc, sys
from nicegui import Client, app, ui
from tide.integrations.nicegui import SyncedCollection, SyncedDocument, SyncStatus, connect

tide = connect(sys.argv[1], durability="relaxed")
todos = SyncedCollection(tide.collection("todos"))

@app.get("/count")
def count():
    gc.collect()
    docs = sum(isinstance(one, SyncedDocument) for one in gc.get_objects())
    callbacks, followers = todos.changed.callbacks, tide._session._store.feed._all()
    return [len(Client.instances), docs, len(todos._views), len(callbacks), len(followers)]

@ui.page("/", reconnect_timeout=0.2)
def page():
    SyncStatus(tide)
    todos.changed.subscribe(lambda diff: None)
    todos.each(lambda doc: doc.guard(ui.input().props("data-testid=" + doc.id), "text"))
    todos.grid([{"field": "text", "editable": True}]).classes("h-64")

ui.run(port=int(sys.argv[2]), host="127.0.0.1", show=False, reload=False)
"""

CHROMIUM = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture
async def browser():
    api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def served_app(tmp_path):
    """The URL of an app in a process of its own, and the file of its store."""
    script, db, port = tmp_path / "app.py", tmp_path / "app.db", free_port()
    script.write_text(APP, "utf-8")
    with started([str(script), str(db), str(port)], tmp_path):
        await until(lambda: answers(port))
        async with again(db) as file:
            yield f"http://127.0.0.1:{port}", file


@contextmanager
def started(command, folder):
    """A Python program that runs; NiceGUI must not see that this is a test."""
    env = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    env["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=env)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def answers(port):
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/count")).status_code == 200
        except httpx.HTTPError:
            return False


async def count(url):
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{url}/count")).json()


def field(page, id_):
    return page.locator(f"input[data-testid={id_}]")


async def grid_rows(page):
    """The texts from top to bottom: AG Grid places its rows, whatever their order in the page."""
    rows = await page.locator(".ag-center-cols-container .ag-row").all()
    placed = [(await row.get_attribute("row-index"), await row.inner_text()) for row in rows]
    return [text for _, text in sorted(placed)]


async def holds(page, id_, text):
    box = field(page, id_)
    return await box.count() == 1 and await box.input_value() == text


@in_a_browser
async def test_in_a_browser_changes_show_by_themselves_and_typing_survives(served_app, browser):
    url, file = served_app
    await fill(file, "a", "c")
    one, two = [await browser.new_page() for _ in range(2)]
    asked: list[str] = []
    said: list[str] = []
    for page in (one, two):
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        await page.goto(url)
        await until(partial(holds, page, "c", "c"))
    await field(one, "c").focus()
    await one.evaluate("document.activeElement.same = true")
    await one.keyboard.press("End")
    await one.keyboard.type("lear", delay=20)
    await fill(file, "b")  # above it, from another process, while the text is not written yet
    await file.collection("todos").put("c", {"text": "theirs"})
    await one.keyboard.type(" mind", delay=20)
    for page in (one, two):
        await until(partial(holds, page, "b", "b"))
        await until(partial(holds, page, "c", "clear mind"))
        await page.locator(".ag-cell", has_text="clear mind").wait_for()
        assert await grid_rows(page) == ["a", "b", "clear mind"]
    await until(lambda: written(file.collection("todos"), "clear mind", "c"))
    assert await one.evaluate("document.activeElement.same")  # the same element, focus and all
    outside = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    assert not outside
    assert len(asked) > 10
    assert not [line for line in said if re.search("error|warn", line, re.IGNORECASE)]


@in_a_browser
async def test_closed_tabs_leave_nothing(served_app, browser):
    url, file = served_app
    await fill(file, *"abcde")
    before = await count(url)
    pages = [await browser.new_page() for _ in range(3)]
    for page in pages:
        await page.goto(url)
        await until(partial(holds, page, "e", "e"))
    busy = await count(url)
    assert busy == [before[0] + 3, 15, 6, 3, before[4] + 3]
    await field(pages[0], "a").fill("typed, and the tab closed")
    for page in pages:
        await page.close()
    await until(lambda: counts(url, before))
    await until(lambda: written(file.collection("todos"), "typed, and the tab closed"))


async def counts(url, expected):
    return await count(url) == expected


SNIPPETS = re.findall(
    r"^```python\n(.*?)^```",
    (ROOT / "docs/nicegui.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_a_snippet_of_the_page_in_the_docs_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.py").write_text(snippet, "utf-8")
    async with user_simulation(main_file=tmp_path / "main.py") as user:
        await user.open("/")
        await until(lambda: list(tmp_path.glob("*.db")))
        db = next(tmp_path.glob("*.db"))
        async with again(db) as file:
            await file.collection(db.stem).put("a", {"text": "tea", "name": "Ada", "phone": "1"})
            if "each(" in snippet:
                await until(
                    lambda: "tea" in {one.value for one in user.find(kind=ui.input).elements}
                )
            elif "grid(" in snippet:
                grid = next(iter(user.find(kind=ui.aggrid).elements))
                await until(lambda: grid.options["rowData"])
            else:
                await user.should_see("1 people")
