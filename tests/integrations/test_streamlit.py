"""The adapter of Streamlit: in a real server and a real browser, and for logic without them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio.to_thread
import pytest

pytest.importorskip("streamlit", reason="Streamlit is not installed")

import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

import tide
from tests.contracts.adapter import AdapterApp, AdapterContract
from tests.support import free_port, until
from tide.integrations.streamlit import (
    SyncedCollection,
    TideConnection,
    live,
    sync_status,
    watch,
)
from tide_integrations.streamlit import push
from tide_integrations.streamlit.status import _statuses, words

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

PAGES = ModuleType("streamlit_test_pages")
"""What the script that Streamlit runs imports: the page to draw, by a number in the URL."""

OBSERVER = """
window.notices = [];
new MutationObserver(() => {
    for (const toast of document.querySelectorAll('[data-testid="stToast"]'))
        if (!toast.seen && toast.innerText.trim()) {
            toast.seen = true;
            window.notices.push(toast.innerText);
        }
}).observe(document, {subtree: true, childList: true, characterData: true});
"""


@pytest.fixture(scope="module")
def streamlit(tmp_path_factory):
    """The URL of a server in this process, so that tests see what the pages see."""
    pytest.importorskip("playwright", reason="Playwright is not installed")
    from streamlit.web.server import Server

    sys.modules[PAGES.__name__] = PAGES
    script = tmp_path_factory.mktemp("app") / "app.py"
    script.write_text(
        "import streamlit as st, streamlit_test_pages as pages\n"
        "getattr(pages, st.query_params['page'])()\n"
    )
    port = free_port()
    for name, value in {
        "browser.gatherUsageStats": False,
        "runner.postScriptGC": False,
        "server.address": "127.0.0.1",
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.port": port,
        "global.developmentMode": False,
    }.items():
        config.set_option(name, value)
    started = threading.Event()
    server = Server(str(script), is_hello=False)
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server, started)))
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    thread.join(30)
    assert not thread.is_alive()
    del sys.modules[PAGES.__name__]


async def _serve(server, started):
    await server.start()
    started.set()
    await server.stopped


@pytest.fixture(scope="module")
async def browser(streamlit):
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


@contextmanager
def served_page(function):
    """Let the server know a page; its name."""
    name = f"page{len(vars(PAGES))}"
    setattr(PAGES, name, function)
    yield name


async def opened(browser, url, name):
    """A page in a browser of its own, drawn."""
    context = await browser.new_context()
    await context.add_init_script(OBSERVER)
    page = await context.new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    await page.goto(f"{url}/?page={name}")
    await page.get_by_test_id("stText").first.wait_for()
    return page


class Counted:
    """A page that shows a collection, counts how often, and has fields to edit it in."""

    def __init__(self, db, views, options):
        self.db = db
        self.synced = SyncedCollection(db.collection("todos"), **options)
        self.views = views
        self.draws = 0

    def draw(self):
        for view in range(self.views):
            self.show(view)
        sync_status(self.db)

    def show(self, view):
        @live(self.synced)
        def show():
            self.draws += 1
            items = self.synced.items
            st.text(json.dumps([[id_, doc["text"]] for id_, doc in items.items()]))
            if len(items) < 10:
                for id_, doc in items.items():
                    st.text_input(id_, doc["text"], key=f"{view}-{id_}")

        show()


class BrowserApp(AdapterApp):
    def __init__(self, counted, page):
        self.counted, self.page = counted, page
        self.field: Any = None

    async def call(self, verb: str, *args: Any) -> Any:
        return await anyio.to_thread.run_sync(getattr(self.counted.synced, verb), *args)

    async def shown(self, view: int = 0) -> list[tuple[str, str]]:
        text = await self.page.get_by_test_id("stText").nth(view).inner_text()
        return [(id_, text) for id_, text in json.loads(text)]

    async def items(self) -> dict[str, dict[str, Any]]:
        return dict(self.counted.synced.items)

    async def type(self, id_: str, text: str) -> None:
        self.field = self.page.get_by_label(id_, exact=True)
        await self.field.fill("")
        await self.field.press_sequentially(text)

    async def typed(self) -> str:
        value: str = await self.field.input_value()
        return value

    async def status(self) -> str:
        text: str = await self.page.get_by_test_id("stCaptionContainer").inner_text()
        return text

    async def notices(self) -> list[str]:
        found: list[str] = await self.page.evaluate("window.notices")
        return found

    def renders(self) -> int:
        return int(self.counted.draws)

    async def unmount(self) -> None:
        await self.page.context.close()

    def leftovers(self) -> int:
        return len(self.counted.synced.viewers) + len(_statuses[self.counted.db].viewers)


@needs_browser
class TestStreamlit(AdapterContract):
    @pytest.fixture(autouse=True)
    def _browser(self, streamlit, browser):
        self.url, self.browser = streamlit, browser

    @asynccontextmanager
    async def running(self, db, endpoint=None, *, views=1, **options):
        with tide.connect(db, endpoint, durability="relaxed", interval=0.05) as connection:
            counted = Counted(connection, views, options)
            with served_page(counted.draw) as name:
                page = await opened(self.browser, self.url, name)
                yield BrowserApp(counted, page)
                await page.context.close()


@pytest.fixture
def db(tmp_path):
    with tide.connect(tmp_path / "app.db", durability="relaxed") as connection:
        yield connection


@needs_browser
class TestPush:
    async def test_two_browsers_see_each_others_writes_without_a_click(
        self, streamlit, browser, db
    ):
        db.collection("todos").put("a", {"text": "0"})

        def draw():
            todos = db.collection("todos")

            @live(todos)
            def show():
                st.text(todos.all()["a"]["text"])
                if st.button("More"):
                    text = str(int(todos.all()["a"]["text"]) + 1)
                    todos.update("a", {"text": text})

            show()

        with served_page(draw) as name:
            one = await opened(browser, streamlit, name)
            other = await opened(browser, streamlit, name)
            await one.get_by_text("More").click()
            for page in (one, other):
                await page.get_by_test_id("stText").get_by_text("1", exact=True).wait_for()
            await other.get_by_text("More").click()
            for page in (one, other):
                await page.get_by_test_id("stText").get_by_text("2", exact=True).wait_for()
            outside = [
                url for page in (one, other) for url in page.requests if streamlit[7:] not in url
            ]
            assert not [url for url in outside if url.startswith("http")]
            await one.context.close()
            await other.context.close()

    async def test_a_whole_script_that_watches_is_run_and_keeps_its_widgets_and_its_url(
        self, streamlit, browser, db
    ):
        todos = SyncedCollection(db.collection("todos"))

        def draw():
            watch(todos)
            st.text(f"{len(todos.items)} in {st.query_params.get('view')}")
            st.checkbox("Tick", key="tick")
            st.text_input("Draft", key="draft")

        with served_page(draw) as name:
            page = await opened(browser, streamlit, f"{name}&view=list")
            await page.get_by_text("0 in list").wait_for()
            await page.get_by_text("Tick").click()
            await page.get_by_label("Draft").press_sequentially("half a wor")
            todos.put("a", {})
            await page.get_by_text("1 in list").wait_for()
            assert await page.get_by_label("Draft").input_value() == "half a wor"
            assert await page.get_by_label("Tick").is_checked()
            await page.context.close()

    async def test_what_a_run_has_shown_already_causes_no_other_run(self, streamlit, browser, db):
        todos = SyncedCollection(db.collection("todos"))
        draws: list[int] = []

        def draw():
            @live(todos)
            def show():
                if st.button("Add"):
                    todos.add({})
                draws.append(len(todos.items))
                st.text(str(len(todos.items)))

            show()

        with served_page(draw) as name:
            page = await opened(browser, streamlit, name)
            await page.get_by_text("Add").click()
            await page.get_by_test_id("stText").get_by_text("1", exact=True).wait_for()
            todos.add({})  # comes after all that the click might have caused
            await page.get_by_test_id("stText").get_by_text("2", exact=True).wait_for()
            assert draws == [0, 1, 2]
            await page.context.close()

    async def test_a_push_does_not_interrupt_a_script_that_is_running(self, streamlit, browser, db):
        todos = SyncedCollection(db.collection("todos"))
        going, go_on, steps = threading.Event(), threading.Event(), []

        def draw():
            watch(todos)
            st.text(f"{len(todos.items)} documents")
            if st.button("Work"):
                todos.add({})
                going.set()
                go_on.wait(30)
                st.caption("where an interruption would be noticed")
                todos.add({})
                steps.append("last line")

        with served_page(draw) as name:
            page = await opened(browser, streamlit, name)
            await page.get_by_text("Work").click()
            await until(going.is_set)
            await anyio.to_thread.run_sync(todos.put, "from elsewhere", {})
            go_on.set()
            await page.get_by_text("3 documents").wait_for()
            assert steps == ["last line"]
            await page.context.close()

    async def test_a_fragment_that_has_gone_from_the_page_is_forgotten(
        self, streamlit, browser, db
    ):
        todos = SyncedCollection(db.collection("todos"))
        draws: list[int] = []

        def draw():
            @live(todos)
            def show():
                draws.append(len(todos.items))
                st.text(str(len(todos.items)))

            @live(todos)
            def other():
                st.caption(f"other: {len(todos.items)}")

            if not st.checkbox("Hide"):
                show()
            else:
                st.text("hidden")
            other()

        with served_page(draw) as name:
            page = await opened(browser, streamlit, name)
            await page.get_by_text("Hide").click()
            await page.get_by_text("hidden").wait_for()
            todos.add({})
            await page.get_by_text("other: 1").wait_for()
            assert draws == [0]
            await page.context.close()

    async def test_the_probe_finds_what_push_needs_in_this_streamlit(self, streamlit, browser):
        """Where this fails, Streamlit has moved names that `Streamlit` uses."""
        probed: list[bool] = []

        def draw():
            probed.append(push.Streamlit.probe())
            place = push.Streamlit.here()
            st.text(f"here: {place is not None and place[1] is None}")

        with served_page(draw) as name:
            page = await opened(browser, streamlit, name)
            await page.get_by_text("here: True").wait_for()
            assert probed == [True]
            await page.context.close()

    async def test_without_push_it_is_drawn_anew_by_the_clock(
        self, streamlit, browser, db, monkeypatch
    ):
        monkeypatch.setattr(push.Streamlit, "session", None)  # a Streamlit that has moved it
        todos = SyncedCollection(db.collection("todos"))

        def draw():
            @live(todos)
            def show():
                st.text(f"{len(todos.items)} live")

            show()
            watch(todos)
            st.caption(f"{len(todos.items)} watched")

        with served_page(draw) as name:
            page = await opened(browser, streamlit, name)
            todos.add({})
            await page.get_by_text("1 live").wait_for()
            await page.get_by_text("1 watched").wait_for()
            assert not todos.viewers
            await page.context.close()


def script(function, *args, **options):
    return AppTest.from_function(function, args=args, kwargs=options, default_timeout=30)


def editor(synced):
    from tide.integrations import streamlit

    streamlit.synced_editor(synced, key="table")


class TestEditor:
    def saved(self, db, edits):
        from tide_integrations.streamlit.collection import _save

        synced = SyncedCollection(db.collection("todos"))
        ids = tuple(synced.items)
        none: dict[str, Any] = {"edited_rows": {}, "added_rows": [], "deleted_rows": []}
        _save(synced, ids, {**none, **edits})
        return dict(synced.items)

    @pytest.fixture(autouse=True)
    def _filled(self, db):
        for id_ in "abc":
            db.collection("todos").put(id_, {"text": id_, "n": 1})

    def test_an_edited_cell_is_one_field_of_the_document_of_its_row(self, db):
        found = self.saved(db, {"edited_rows": {1: {"text": "edited"}}})
        assert found["b"] == {"text": "edited", "n": 1}
        assert found["a"] == {"text": "a", "n": 1}

    def test_a_deleted_row_is_a_deleted_document_also_if_it_was_edited(self, db):
        found = self.saved(db, {"deleted_rows": [0, 2], "edited_rows": {0: {"text": "x"}}})
        assert list(found) == ["b"]

    def test_an_added_row_is_a_new_document_and_a_blank_one_is_none(self, db):
        found = self.saved(db, {"added_rows": [{"text": "new"}, {}, {"text": None}]})
        assert [doc for id_, doc in found.items() if id_ not in "abc"] == [{"text": "new"}]

    def test_a_row_whose_document_is_gone_meanwhile_is_not_written(self, db):
        synced = SyncedCollection(db.collection("todos"))
        ids = tuple(synced.items)
        db.collection("todos").delete("b")
        from tide_integrations.streamlit.collection import _save

        _save(
            synced,
            ids,
            {"edited_rows": {1: {"n": 2}, 2: {"n": 3}}, "added_rows": [], "deleted_rows": []},
        )
        assert {id_: doc["n"] for id_, doc in synced.items.items()} == {"a": 1, "c": 3}

    def test_it_draws_the_documents_and_another_table_when_rows_come_or_go(self, db):
        synced = SyncedCollection(db.collection("todos"))
        app = script(editor, synced).run()
        assert not app.exception
        assert app.session_state["table-rows"]["number"] == 0
        synced.update("a", {"n": 2})
        assert app.run().session_state["table-rows"]["number"] == 0
        synced.delete("a")
        assert app.run().session_state["table-rows"]["number"] == 1


def status_page(db):
    from tide.integrations import streamlit

    streamlit.sync_status(db)


def cached(path):
    import streamlit as st

    import tide
    from tide.integrations.streamlit import live

    db = st.cache_resource(tide.connect)(path)
    todos = db.collection("todos")

    @live(todos)
    def show():
        if text := st.text_input("New"):
            todos.add({"text": text})
        for doc in todos.all().values():
            st.text(doc["text"])

    show()


class TestWithoutABrowser:
    def test_a_cached_connection_serves_all_runs_and_sessions(self, tmp_path):
        path = str(tmp_path / "app.db")
        app = script(cached, path).run()
        app.text_input[0].set_value("tea").run()
        assert [text.value for text in app.text] == ["tea"]
        assert [text.value for text in script(cached, path).run().text] == ["tea"]
        st.cache_resource(tide.connect)(path).close()
        st.cache_resource.clear()

    def test_the_status_is_in_words(self, db):
        app = script(status_page, db).run()
        assert app.caption[0].value == "○ offline · kept in this file only"

    def test_words_tell_what_waits_and_why(self):
        status = tide.SyncStatus("offline", 1, 0.0, 0, None, "no answer")
        assert words(status) == "○ offline · 1 change to send · no answer"
        online = tide.SyncStatus("online", 0, 0.0, 0, None, None)
        assert words(online) == "● online · all sent"


class TestConnection:
    def test_it_opens_what_the_secrets_say(self, tmp_path, monkeypatch):
        path = tmp_path / "app.db"
        monkeypatch.setattr(
            TideConnection,
            "_secrets",
            property(lambda self: st.runtime.secrets.AttrDict({"db_path": str(path)})),
        )
        connection = TideConnection("tide")
        connection.collection("todos").put("a", {"text": "tea"})
        assert path.exists()
        assert connection.status.state == "stopped"
        connection.reset()
        assert connection.collection("todos").all() == {"a": {"text": "tea"}}
        connection.close()

    def test_arguments_win_and_the_token_is_sent(self, tmp_path, monkeypatch):
        secrets = {"db_path": "no/such/folder/x.db", "endpoint": "http://h/sync", "token": "t"}
        monkeypatch.setattr(
            TideConnection,
            "_secrets",
            property(lambda self: st.runtime.secrets.AttrDict(secrets)),
        )
        asked: dict[str, Any] = {}

        def connect(path, endpoint, **options):
            asked.update(path=path, endpoint=endpoint, **options)
            return tide.connect(path)

        monkeypatch.setattr("tide_integrations.streamlit.status.connect", connect)
        connection = TideConnection("tide", db_path=tmp_path / "x.db")
        assert asked == {
            "path": tmp_path / "x.db",
            "endpoint": "http://h/sync",
            "headers": {"Authorization": "Bearer t"},
        }
        connection.close()


def test_the_app_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    docs = Path(__file__).parents[2] / "docs/streamlit.md"
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```", docs.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    app = AppTest.from_string(snippet, default_timeout=30).run()
    app.chat_input[0].set_value("tea").run()
    assert [text.value for text in app.run().text] == ["tea"]
    assert not app.exception
    st.cache_resource(tide.connect)("app.db").close()
    st.cache_resource.clear()
