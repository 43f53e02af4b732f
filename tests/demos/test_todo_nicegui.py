"""The NiceGUI demo, with a simulated user, and two of them in a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed")

from nicegui import ui
from nicegui.testing.user_simulation import user_simulation

from demos.launch import Launch, launched
from demos.todo_nicegui import TodoApp
from tests.support import free_port, served, until
from tide import Tide
from tide.server import create_app

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium")


@asynccontextmanager
async def running(db, endpoint=None):
    """A user of the demo, by default without a server, and the todos in its file."""
    apps: list[TodoApp] = []

    def page():
        apps[0].page()

    async with user_simulation(page) as user:
        apps.append(TodoApp(Launch(db, endpoint, None)))
        await apps[0].all.ready()
        apps[0].go(online=endpoint is not None)
        await user.open("/")
        async with Tide(db) as tide:
            yield user, tide.collection("todos")


async def texts(todos):
    return [doc["text"] for doc in (await todos.all()).values()]


async def add(user, todos, text):
    user.find("What needs doing?").type(text).trigger("keydown.enter")
    await until(lambda: has(todos, text))


async def has(todos, text):
    return text in await texts(todos)


async def test_a_todo_is_added_edited_done_and_cleared(tmp_path):
    async with running(tmp_path / "app.db") as (user, todos):
        await user.should_see("Nothing to do yet")
        await add(user, todos, "buy bread")
        field = next(one for one in user.find(kind=ui.input).elements if one.value == "buy bread")
        field.value = "buy milk"
        await until(lambda: has(todos, "buy milk"))
        user.find(kind=ui.checkbox).click()
        await until(lambda: done(todos))
        await until(lambda: sees(user, "Clear done"))
        user.find("Clear done").click()
        await until(lambda: nothing(todos))
        await user.should_see("Nothing to do yet")


async def done(todos):
    return all(doc["done"] for doc in (await todos.all()).values())


async def nothing(todos):
    return not await todos.all()


def sees(user, text):
    try:
        return user.find(text)
    except AssertionError:
        return False


async def test_a_blank_todo_is_not_added(tmp_path):
    async with running(tmp_path / "app.db") as (user, todos):
        user.find("What needs doing?").type("   ").trigger("keydown.enter")
        await add(user, todos, "tea")
        assert await texts(todos) == ["tea"]


async def test_the_filter_shows_what_is_open_or_done(tmp_path):
    async with running(tmp_path / "app.db") as (user, todos):
        await todos.put("a", {"text": "open one", "done": False})
        await todos.put("b", {"text": "done one", "done": True})
        await until(lambda: shown(user) == {"open one", "done one"})
        toggle = next(iter(user.find(kind=ui.toggle).elements))
        for which, expected in [("Open", {"open one"}), ("Done", {"done one"})]:
            toggle.value = next(one for one in toggle.options if one.value == which)
            await until(partial(shows, user, expected))


def shows(user, expected):
    return shown(user) == expected


def shown(user):
    return {one.value for one in user.find(kind=ui.input).elements if one.value}


async def test_working_offline_keeps_writes_until_going_online(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with running(tmp_path / "app.db", endpoint) as (user, todos):
            await until(lambda: sees(user, "online"))
            user.find("Work offline").click()
            await until(lambda: sees(user, "offline"))
            await add(user, todos, "tea")
            await until(lambda: sees(user, "offline · 1 change to send"))
            user.find("Work offline").click()
            async with Tide(tmp_path / "other.db", endpoint) as other:
                await until(lambda: arrived(other))


async def arrived(other):
    await other.sync_once()
    return await texts(other.collection("todos")) == ["tea"]


async def test_the_options_of_a_page_have_defaults_that_stay_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with launched("nicegui", ["--offline"], 8767) as launch:
        assert (launch.host, launch.port, launch.browser) == ("127.0.0.1", 8767, True)
    argv = ["--offline", "--host", "127.0.0.2", "--port", "1234", "--no-browser"]
    with launched("nicegui", argv, 8767) as launch:
        assert (launch.host, launch.port, launch.browser) == ("127.0.0.2", 1234, False)
    with pytest.raises(SystemExit), launched("textual", ["--port", "1234"]):
        pass


@contextmanager
def demo(folder, port):
    command = [sys.executable, "-m", "demos", "nicegui", "--db", f"{folder}/{port}.db"]
    command += ["--offline", "--port", str(port), "--no-browser"]
    env = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    env["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


async def answers(url):
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
async def test_two_tabs_show_each_others_todos_and_nothing_comes_from_elsewhere(tmp_path):
    api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    with demo(tmp_path, free_port()) as url:
        await until(lambda: answers(url))
        async with api.async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"]
            )
            pages = [await browser.new_page() for _ in range(2)]
            asked: list[str] = []
            for page in pages:
                page.on("request", lambda request: asked.append(request.url))
                await page.goto(url)
            await pages[0].get_by_label("What needs doing?").fill("buy bread")
            await pages[0].keyboard.press("Enter")
            await pages[1].get_by_text("All 1").wait_for()
            assert await pages[1].locator(".q-field input").nth(1).input_value() == "buy bread"
            await pages[1].get_by_role("checkbox").first.click()
            await pages[0].get_by_text("Done 1").wait_for()
            await browser.close()
    assert asked
    assert not [one for one in asked if not one.startswith((url, "data:"))]
