"""F47: whatever hangs, syncing starts anew, says so, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading

import anyio
import pytest

import tide
from tests.lines import Line, Scripted
from tests.support import until
from tide import Tide
from tide.testing import memory_server

NEVER = 3600.0
SOON = 0.05  # seconds without an exchange that mean that syncing hangs


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("tide.sync_loop.WEDGED", SOON)


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


class Hanging(Line):
    """Hangs in the exchanges that begin while *hangs* is set.

    Attributes:
        hung: how often it did.
    """

    def __init__(self, transport, how="waits"):
        super().__init__(transport)
        self.hangs = True
        self.hung = 0
        self._how = how

    async def exchange(self, body, headers):
        if self.hangs:
            self.hung += 1
            await self._hang()
        return await super().exchange(body, headers)

    async def _hang(self):
        for _ in range(1000):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if self._how == "waits" or not self.hangs:
                raise asyncio.CancelledError


@pytest.mark.parametrize("how", ["waits", "waits on when it is cancelled"])
async def test_f47_a_transport_that_never_returns_is_given_up(
    tmp_path, server, impatient, caplog, how
):
    line = Hanging(server.transport(), how)
    async with Tide(tmp_path / "a.db", transport=line) as node:
        await node.collection("todos").put("a", {})
        async with node.sync_forever(NEVER):
            await until(lambda: "starts anew" in caplog.text)
            assert node.status.state == "offline"
            assert node.status.error == "syncing hung; it started anew"
            line.hangs = False
            await node.flushed(30.0)
            await until(lambda: node.status.state == "online")
    hung = caplog.records[0]
    assert hung.levelno == logging.ERROR
    stack = re.findall(r"(\w+)\.py\", line \d+, in (\w+)", hung.getMessage())
    assert [frame for frame in stack if frame[1] in ("_run", "sync_once", "exchange")] == [
        ("sync_loop", "_run"),
        ("sync", "sync_once"),
        ("sending", "exchange"),
    ]
    assert line.hung


async def test_f47_a_headers_function_that_never_returns_is_given_up(
    tmp_path, server, impatient, caplog
):
    hangs = [True]

    async def headers():
        if hangs:
            await asyncio.Event().wait()
        return {}

    node = Tide(tmp_path / "a.db", transport=server.transport(), headers=headers)
    async with node, node.sync_forever(NEVER):
        await until(lambda: "starts anew" in caplog.text)
        hangs.clear()
        await node.collection("todos").put("a", {})
        await node.flushed(30.0)


async def test_f47_a_store_that_never_answers_is_given_up(
    tmp_path, server, impatient, caplog, monkeypatch
):
    async with Tide(tmp_path / "a.db", transport=server.transport()) as node:
        await node.collection("todos").put("a", {})
        store = node._session.use()
        with monkeypatch.context() as patch:
            patch.setattr(store, "read", lambda work: asyncio.Event().wait())
            syncing = await node.sync_forever(NEVER).__aenter__()
            await until(lambda: "starts anew" in caplog.text)
        await node.flushed(30.0)
        await syncing.stop()


async def test_f47_a_loop_that_ends_by_itself_begins_anew(tmp_path, server, caplog, monkeypatch):
    monkeypatch.setattr("tide.sync_loop.jitter", lambda low, high: 0.0)
    odd = [asyncio.CancelledError(), GeneratorExit()]

    class Odd(tide.SyncLoop):
        async def _turn(self):
            if odd:
                raise odd.pop()
            return await super()._turn()

    monkeypatch.setattr("tide.client.SyncLoop", Odd)
    node = Tide(tmp_path / "a.db", transport=server.transport())
    async with node, node.sync_forever(NEVER):
        await node.collection("todos").put("a", {})
        await node.flushed(30.0)
    assert caplog.text.count("it starts anew") == 2


async def test_f47_slow_syncing_is_not_given_up(tmp_path, caplog, monkeypatch):
    """Each exchange takes a while, and all together longer than one may."""
    monkeypatch.setattr("tide.sync_loop.WEDGED", 1.0)
    pages = 15

    class Slow(Scripted):
        async def exchange(self, body, headers):
            await asyncio.sleep(0.1)
            return await super().exchange(body, headers)

    def page(request):
        number = len(line.requests)
        return {"cursor": f"c{number}", "has_more": number < pages}

    line = Slow(page)
    async with Tide(tmp_path / "a.db", transport=line) as node, node.sync_forever(NEVER) as loop:
        await until(lambda: loop.online)
        assert len(line.requests) == pages
    assert "starts anew" not in caplog.text


async def test_f47_waiting_for_the_next_time_is_no_hanging(tmp_path, server, impatient, caplog):
    line = Line(server.transport())
    async with Tide(tmp_path / "a.db", transport=line) as node, node.sync_forever(NEVER) as loop:
        await until(lambda: loop.online)
        await asyncio.sleep(5 * SOON)  # the watchdog looks several times
        assert len(line.requests) == 1
    assert not caplog.records


@pytest.mark.parametrize("how", ["waits", "waits on when it is cancelled"])
async def test_f47_closing_does_not_wait_for_what_hangs(tmp_path, server, how):
    line = Hanging(server.transport(), how)
    with anyio.fail_after(20):
        async with Tide(tmp_path / "a.db", transport=line) as node, node.sync_forever(NEVER):
            await until(lambda: line.hung)
    line.hangs = False


def test_f47_a_connection_outlives_what_hangs_too(tmp_path, impatient):
    class Silent(tide.Transport):
        asked = threading.Semaphore(0)

        async def exchange(self, body, headers):
            self.asked.release()
            await asyncio.Event().wait()
            raise AssertionError

    silent = Silent()
    with tide.connect(tmp_path / "a.db", transport=silent) as db:
        for _ in range(3):
            assert silent.asked.acquire(timeout=30.0)
        db.collection("todos").put("a", {})
        assert db.pending() == 1
