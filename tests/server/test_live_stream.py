"""Live streams over real HTTP: what comes, when they end, and that they keep nobody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from tests.support import PATIENCE, free_port, served, until
from tide.protocol import EventReader, encode_event, parse_page
from tide.server import Access, create_app, hub, live
from tide.server.hub import Listener

NODE = "alice.phone.0001"
STREAM = {"accept": "text/event-stream"}
LIMITS = httpx.Limits(max_connections=1000)


class Stream:
    """A live stream as somebody hears it who is no tide."""

    def __init__(self, response):
        self.response = response
        self._chunks = response.aiter_raw()
        self._reader = EventReader()
        self._events = []

    async def next(self):
        """The next event; None at the end."""
        with anyio.fail_after(PATIENCE):
            while not self._events:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    return None
                self._events = self._reader.feed(chunk)
            return self._events.pop(0)

    async def page(self):
        """The page of the next event that is no sign of life."""
        while (event := await self.next()) is not None:
            if event.name:
                assert event.name == "changes"
                return parse_page(event.data)
        raise AssertionError("the stream ended")

    async def rest(self):
        """The names of all events until the end."""
        names = []
        while (event := await self.next()) is not None:
            names.append(event.name)
        return names


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=PATIENCE, limits=LIMITS) as http:
        yield http


@asynccontextmanager
async def listening(http, endpoint, headers=STREAM):
    async with http.stream("GET", endpoint, headers=headers) as response:
        assert response.status_code == 200
        yield Stream(response)


async def push(http, endpoint, id_, headers=None):
    op = {"collection": "todos", "id": id_, "doc": {"n": 1}, "stamp": [1, NODE]}
    body = {"node_id": NODE, "cursor": None, "ops": [op], "v": 1}
    answer = await http.post(endpoint, json=body, headers=headers)
    assert answer.json()["results"] == [{"status": "ok"}]
    return answer.json()["cursor"]


def ids(page):
    return [op.id for op in page.changes]


@pytest.fixture
def endpoint(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        yield endpoint


# What comes


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json;q=0, text/event-stream"])
async def test_the_first_event_comes_at_once_and_is_never_held_back(http, endpoint, accept):
    cursor = await push(http, endpoint, "1")
    async with listening(http, endpoint, {"accept": accept}) as stream:
        first = await stream.page()
        headers = stream.response.headers
    assert (first.cursor, first.since, first.changes) == (cursor, cursor, ())
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


async def test_what_somebody_pushes_comes_to_all_who_listen(http, endpoint):
    async with listening(http, endpoint) as one, listening(http, endpoint) as other:
        first = await one.page()
        assert await other.page() == first
        cursor = await push(http, endpoint, "1")
        page = await one.page()
        assert (page.since, page.cursor, ids(page)) == (first.cursor, cursor, ["1"])
        assert await other.page() == page


async def test_a_stream_begins_where_the_space_stands_now(http, endpoint):
    async with listening(http, endpoint) as early:
        await early.page()
        cursor = await push(http, endpoint, "1")
        await early.page()
        async with listening(http, endpoint, STREAM) as late:
            assert (await late.page()).since == cursor


async def test_spaces_do_not_hear_of_each_other(http, endpoint):
    async with (
        listening(http, f"{endpoint}/home") as home,
        listening(http, f"{endpoint}/work") as work,
    ):
        assert (await home.page()).cursor != (await work.page()).cursor
        await push(http, f"{endpoint}/home", "1")
        assert ids(await home.page()) == ["1"]
        await push(http, f"{endpoint}/work", "2")
        assert ids(await work.page()) == ["2"]  # and nothing before it


async def test_a_sign_of_life_comes_when_nothing_else_does(http, endpoint, monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT", 0.01)
    async with listening(http, endpoint) as stream:
        await stream.page()
        for _ in range(3):
            event = await stream.next()
            assert event is not None
            assert event.name == ""


@pytest.mark.parametrize("headers", [{}, {"accept": "application/json"}, {"accept": "*/*"}])
async def test_who_does_not_ask_for_a_stream_gets_none(http, endpoint, headers):
    answer = await http.get(endpoint, headers=headers)
    assert "live" in answer.json()["features"]


async def test_a_head_request_does_not_wait_for_an_end_that_never_comes(http, endpoint):
    answer = await http.head(endpoint, headers=STREAM)
    assert answer.headers["content-type"] == "application/json"


async def test_what_another_server_process_accepts_on_the_same_file_is_told(
    http, endpoint, tmp_path
):
    with running("tide", "serve", "--db", "server.db", folder=tmp_path) as (other, _):
        async with listening(http, endpoint) as stream:
            await stream.page()
            await push(http, other, "1")
            assert ids(await stream.page()) == ["1"]


# Who may listen


def deciding(answer):
    async def authenticate(request, space):
        return answer() if request.headers.get("authorization") else None

    return authenticate


@pytest.mark.parametrize(
    ("access", "status"),
    [
        (None, 401),
        (Access("nobody", read=False, write=False), 403),
        (Access("blind", read=False), 403),
    ],
)
async def test_who_may_not_read_gets_no_stream(http, tmp_path, access, status):
    app = create_app(tmp_path / "server.db", authenticate=deciding(lambda: access))
    with served(app) as endpoint:
        answer = await http.get(endpoint, headers={**STREAM, "authorization": "x"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert app.state.service.hub._channels == {}


@pytest.mark.parametrize("seconds", [-5.0, 0.1])
async def test_a_stream_ends_when_the_credentials_do(http, tmp_path, seconds):
    until_then = deciding(lambda: Access("alice", expires_at=time.time() + seconds))
    app = create_app(tmp_path / "server.db", authenticate=until_then)
    with served(app) as endpoint:
        async with listening(http, endpoint, {**STREAM, "authorization": "x"}) as stream:
            names = await stream.rest()
            assert names[-1] == "bye"
        await until(lambda: app.state.service.hub._channels == {})


async def test_a_stream_without_an_end_of_credentials_goes_on(http, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT", 0.01)
    later = deciding(lambda: Access("alice", expires_at=time.time() + 1000))
    with served(create_app(tmp_path / "server.db", authenticate=later)) as endpoint:
        async with listening(http, endpoint, {**STREAM, "authorization": "x"}) as stream:
            await stream.page()
            events = [await stream.next() for _ in range(20)]
            assert {event.name for event in events} == {""}


async def test_f48_a_database_that_cannot_be_read_is_503(tmp_path):
    (tmp_path / "server.db").write_bytes(b"no database" * 99)
    app = create_app(tmp_path / "server.db")
    server = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=server, base_url="http://tide") as http:
        answer = await http.get("/sync", headers=STREAM)
    assert answer.status_code == 503
    assert app.state.service.hub._channels == {}


# The end


def listeners():
    gc.collect()
    return sum(isinstance(found, Listener) for found in gc.get_objects())


async def test_nothing_is_left_of_listeners_who_left(http, tmp_path):
    before = listeners()
    app = create_app(tmp_path / "server.db")
    with served(app) as endpoint:
        async with contextlib.AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(listening(http, endpoint)) for _ in range(50)
            ]
            for stream in streams:
                await stream.page()
            assert listeners() == before + 50
        await until(lambda: app.state.service.hub._channels == {})
        await until(lambda: listeners() == before)


@contextlib.contextmanager
def running(*command, folder):
    """A server as a process of its own: endpoint and process."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            give_up = time.monotonic() + PATIENCE
            while time.monotonic() < give_up:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
            yield f"http://127.0.0.1:{port}/sync", process
        finally:
            process.kill()


APP = """
from tide.server import create_app
app = create_app("server.db")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [("tide", "serve"), ("uvicorn", "yourmodule:app")])
async def test_f62_a_server_that_is_told_to_stop_ends_its_streams_and_itself(
    http, tmp_path, command, how
):
    (tmp_path / "yourmodule.py").write_text(APP, "utf-8")
    with running(*command, folder=tmp_path) as (endpoint, process):
        async with listening(http, endpoint) as one, listening(http, f"{endpoint}/home") as other:
            await one.page()
            await other.page()
            process.send_signal(how)
            assert await one.rest() == ["bye"]
            assert await other.rest() == ["bye"]
        code = await asyncio.to_thread(process.wait, PATIENCE)
        assert code == 0 if command[0] == "tide" else code in (0, -how)
        assert "Cancel" not in process.stderr.read()  # what uvicorn says of what it has to cut off


# Many


async def test_f42_five_hundred_listeners_get_one_change(http, tmp_path, monkeypatch):
    with running("tide", "serve", "--db", "server.db", folder=tmp_path) as (endpoint, _):
        async with contextlib.AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(listening(http, endpoint)) for _ in range(500)
            ]
            for stream in streams:
                await stream.page()
            await push(http, endpoint, "1")
            pages = [await stream.page() for stream in streams]
    assert {tuple(ids(page)) for page in pages} == {("1",)}


async def test_a_page_is_encoded_once_however_many_listen(http, endpoint, monkeypatch):
    encoded = []

    def encode(name, data):
        encoded.append(data)
        return encode_event(name, data)

    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(http, endpoint)) for _ in range(30)]
        for stream in streams:
            await stream.page()
        monkeypatch.setattr(hub, "encode_event", encode)
        await push(http, endpoint, "1")
        for stream in streams:
            assert ids(await stream.page()) == ["1"]
    assert len(encoded) == 1
