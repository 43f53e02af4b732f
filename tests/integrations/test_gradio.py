"""The adapter of Gradio, in real pages of a real browser."""

from __future__ import annotations

import gc
import html
import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

gr = pytest.importorskip("gradio", reason="Gradio is not installed")
fastapi = pytest.importorskip("fastapi", reason="Gradio is not installed")
playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)

import tide  # noqa: E402 - not without a browser
from tests.contracts.adapter import AdapterApp, AdapterContract  # noqa: E402
from tests.support import served, until  # noqa: E402
from tide.integrations.gradio import SyncedCollection, SyncStatus  # noqa: E402
from tide_integrations.gradio import _hub  # noqa: E402

# In a thread that has no event loop Gradio makes one, and never closes it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),  # Gradio, of pandas
]

in_thread = anyio.to_thread.run_sync

RECORD = """
window.notices = [];
new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach((node) => {
  if (node.querySelectorAll)
    for (const toast of node.querySelectorAll(".toast-message"))
      window.notices.push(toast.innerText);
}))).observe(document, {childList: true, subtree: true});
"""


@pytest.fixture(autouse=True)
def swept():
    """What Gradio left is swept up here, where warnings of that are ignored."""
    yield
    gc.collect()


@contextmanager
def shown(blocks):
    """The page's address while it is served, mounted in an app as one's own often is."""
    app = gr.mount_gradio_app(fastapi.FastAPI(), blocks, path="/ui")
    with served(app) as endpoint:
        yield endpoint.replace("/sync", "/ui/")


@asynccontextmanager
async def serving(blocks):
    page = shown(blocks)
    url = await in_thread(page.__enter__)
    try:
        yield url
    finally:
        await in_thread(page.__exit__, None, None, None)


@asynccontextmanager
async def browsing():
    """A browser, and all that its pages asked for."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context()
        await context.add_init_script(RECORD)
        requests: list[str] = []
        context.on("request", lambda request: requests.append(request.url))
        yield context, requests
        await browser.close()


def outside(requests):
    urls = map(urlsplit, requests)
    return [
        url for url in urls if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1"
    ]


class App(AdapterApp):
    context: Any
    requests: list[str]
    url: str

    def __init__(self, db, views, options):
        self.drawn = 0
        with gr.Blocks() as self.blocks:
            self.synced = SyncedCollection(db.collection("todos"), columns=["text"], **options)
            self.field = gr.Textbox(elem_id="field", show_label=False)
            for view in range(views):
                part = gr.HTML(elem_id=f"view{view}")
                self.synced.changed(self.draw, outputs=part, queue=False)
            with gr.Column(elem_id="status"):
                self.status_line = SyncStatus(db)

    def draw(self):
        self.drawn += 1
        lines = (
            f"<li data-id='{html.escape(id_)}'>{html.escape(doc['text'])}</li>"
            for id_, doc in self.synced.items.items()
        )
        return f"<ul>{''.join(lines)}</ul>"

    async def open(self, context, url):
        self.page = await context.new_page()
        await self.page.goto(url)
        await self.page.locator("#view0 ul").wait_for(state="attached")

    async def call(self, verb, *args):
        return await in_thread(getattr(self.synced, verb), *args)

    async def shown(self, view=0):
        script = "all => all.map(one => [one.dataset.id, one.innerText])"
        found = await self.page.locator(f"#view{view} li").evaluate_all(script)
        return [tuple(one) for one in found]

    async def items(self):
        return await in_thread(lambda: self.synced.items)

    async def type(self, id_, text):
        await self.page.locator("#field textarea, #field input").first.fill(text)

    async def typed(self):
        return await self.page.locator("#field textarea, #field input").first.input_value()

    async def status(self):
        return await self.page.locator("#status").inner_text()

    async def notices(self):
        return await self.page.evaluate("window.notices")

    def renders(self):
        return self.drawn

    async def unmount(self):
        await self.page.close()

    def leftovers(self):
        return len(_hub.waiting)


@asynccontextmanager
async def running(db, endpoint=None, *, views=1, **options):
    async with AsyncExitStack() as stack:
        store = await in_thread(lambda: tide.connect(db, endpoint, durability="relaxed"))
        stack.push_async_callback(in_thread, store.close)
        app = await in_thread(App, store, views, options)
        url = await stack.enter_async_context(serving(app.blocks))
        context, app.requests = await stack.enter_async_context(browsing())
        app.context, app.url = context, url
        await app.open(context, url)
        yield app
        assert outside(app.requests) == []


class TestGradio(AdapterContract):
    def running(self, db, endpoint=None, *, views=1, **options):
        return running(db, endpoint, views=views, **options)

    @pytest.mark.xfail(reason="no notice of a refused write is seen in the browser yet")
    async def test_a_refused_write_is_told_once_and_taken_back(self, db, server):
        await super().test_a_refused_write_is_told_once_and_taken_back(db, server)


@pytest.fixture
def store(tmp_path):
    with tide.connect(tmp_path / "app.db", durability="relaxed") as store:
        yield store


async def test_eight_tabs_of_a_browser_all_show_a_change_and_only_one_waits(tmp_path):
    async with running(tmp_path / "app.db") as app:
        pages = [app.page]
        for _ in range(7):
            await app.open(app.context, app.url)
            pages.append(app.page)
        await app.call("put", "a", {"text": "tea"})
        for page in pages:
            await page.locator("#view0 li").wait_for()
        assert len(_hub.waiting) <= 1  # none, while it asks anew
        await until(lambda: _hub.waiting)
        await pages.pop(0).close()  # the one that waited; another one does now
        await app.call("put", "b", {"text": "bread"})
        for page in pages:
            await page.locator("#view0 li").nth(1).wait_for()
        for page in pages:
            await page.close()
        await until(lambda: not _hub.waiting)


async def test_without_web_locks_a_page_asks_again_and_again(tmp_path):
    async with running(tmp_path / "app.db") as app:
        await app.page.close()
        script = "Object.defineProperty(Navigator.prototype, 'locks', {get: () => undefined})"
        await app.context.add_init_script(script)
        await app.open(app.context, app.url)
        await app.call("put", "a", {"text": "tea"})
        await app.page.locator("#view0 li").wait_for()
        assert len(_hub.waiting) == 0


async def test_render_and_on_take_the_event_and_typing_survives(store):
    with gr.Blocks() as blocks:
        todos = SyncedCollection(store.collection("todos"), columns=["text"])
        field = gr.Textbox(label="New")
        table = gr.Dataframe(todos.rows)
        triggers = [todos.changed, field.submit]
        gr.on(triggers, todos.rows, outputs=table, show_progress="hidden", queue=False)

        @gr.render(triggers=[todos.changed])
        def boxes():
            for doc in todos.items.values():
                gr.Checkbox(label=doc["text"])

    async with serving(blocks) as url, browsing() as (context, requests):
        page, other = await context.new_page(), await context.new_page()
        await page.goto(url)
        await other.goto(url)
        await page.get_by_label("New").fill("half a wor")
        await in_thread(todos.add, {"text": "tea"})
        for one in (page, other):
            await one.get_by_role("checkbox", name="tea").wait_for()
            await one.get_by_role("gridcell", name="tea").first.wait_for()
        assert await page.get_by_label("New").input_value() == "half a wor"
        assert outside(requests) == []


def test_rows_are_the_id_and_the_columns_or_all_fields(store):
    with gr.Blocks():
        some = SyncedCollection(store.collection("todos"), columns=["n", "text"])
        every = SyncedCollection(store.collection("todos"))
    some.put("b", {"text": "bread"})
    some.put("a", {"text": "tea", "n": 1})
    assert some.rows() == {
        "headers": ["id", "n", "text"],
        "data": [["a", 1, "tea"], ["b", None, "bread"]],
    }
    assert every.rows() == {
        "headers": ["id", "text", "n"],
        "data": [["a", "tea", 1], ["b", "bread", None]],
    }


def test_a_client_of_the_app_calls_its_functions(store):
    client = pytest.importorskip("gradio_client")
    with gr.Blocks() as blocks:
        todos = SyncedCollection(store.collection("todos"))
        text = gr.Textbox()
        gr.Button().click(lambda text: todos.add({"text": text}), text, text, api_name="add")
    with shown(blocks) as url:
        app = client.Client(url, verbose=False)
        id_ = app.predict("tea", api_name="/add")
        app.close()
    assert todos.items == {id_: {"text": "tea"}}


def test_what_is_not_used_any_more_is_followed_no_more(store):
    with gr.Blocks():
        todos = SyncedCollection(store.collection("todos"))
        key = todos._key
    assert key in _hub.revisions
    assert todos.is_pending("a") is False
    before = _hub.revisions[key]
    todos.put("a", {"text": "tea"})
    assert todos.is_pending("a")
    assert _hub.revisions[key] != before


def test_gradio_writes_no_stub_beside_the_adapter():
    from tide_integrations import gradio

    assert not Path(gradio.__file__).with_suffix(".pyi").exists()
