"""Status: each state is reached, told in words, the same to all processes, and never too green."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import anyio
import pytest

import tide.status
from tests.lines import Line, Scripted, op
from tests.raw_http import always, html, raw_server, wire
from tests.support import free_port, served, until
from tide import Answer, EndpointError, NotFlushedError, NotOpenError, SyncStatus, Tide
from tide.server import Access, create_app
from tide.testing import memory_server

WAIT = 30.0
NEVER = 3600.0


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


class Clock:
    """The time of day, as told."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("tide.status.time.time", clock)
    return clock


@contextlib.asynccontextmanager
async def watching(node):
    """All that `watch_status` of *node* gives inside."""
    watcher = node.watch_status()
    told = [await anext(watcher)]

    async def watch():
        async for status in watcher:
            told.append(status)  # noqa: PERF401 - read meanwhile

    task = asyncio.create_task(watch())
    yield told
    watcher.close()
    await asyncio.wait_for(task, WAIT)


# Each state


async def test_a_tide_that_nobody_syncs_is_stopped(path, server):
    async with Tide(path) as node:
        assert node.status == SyncStatus("stopped", 0, 0.0, 0, None, None)
        await node.collection("todos").put("a", {})
        assert (node.status.state, node.status.pending) == ("stopped", 1)
    async with Tide(path, transport=server.transport()) as node:
        assert (node.status.state, node.status.pending) == ("stopped", 1)
        await node.sync_once()
        assert (node.status.state, node.status.pending) == ("stopped", 0)
        assert node.status.last_synced_at is not None


async def test_a_sync_goes_from_connecting_to_online_and_stops(path, server):
    line = Line(server.transport())
    go_on = asyncio.Event()
    line.meanwhile = go_on.wait
    async with Tide(path, transport=line) as node, watching(node) as told:
        async with node.sync_forever():
            await until(lambda: line.answers)
            assert node.status.state == "connecting"
            await until(lambda: told[-1].state == "connecting")
            go_on.set()
            await until(lambda: told[-1].state == "online")
            assert node.status.error is None
        await until(lambda: told[-1].state == "stopped")
    states = [status.state for status in told]
    assert [one for one, before in zip(states, [None, *states], strict=False) if one != before] == [
        "stopped",
        "connecting",
        "online",
        "stopped",
    ]


@pytest.mark.parametrize(
    ("authenticate", "state", "words"),
    [
        (lambda request, space: None, "unauthorized", "credentials"),
        (lambda request, space: Access("me", read=False, write=False), "forbidden", "space"),
    ],
)
async def test_a_server_that_refuses_is_told_of_in_words(
    tmp_path, path, authenticate, state, words
):
    with served(create_app(tmp_path / "server.db", authenticate=authenticate)) as endpoint:
        async with Tide(path, endpoint) as node, watching(node) as told, node.sync_forever():
            await until(lambda: node.status.state == state)
            assert words in str(node.status.error)
            await until(lambda: told[-1] == node.status)


async def test_a_server_that_is_not_there_is_offline_and_found_again(tmp_path, path, monkeypatch):
    monkeypatch.setattr("tide.sync_loop.jitter", lambda low, high: low)
    port = free_port()
    async with (
        Tide(path, f"http://127.0.0.1:{port}/sync") as node,
        watching(node) as told,
        node.sync_forever(0.1),
    ):
        await until(lambda: told and told[-1].state == "offline")
        assert node.status.error
        assert node.status.last_synced_at is None
        with served(create_app(tmp_path / "server.db"), port=port):
            await until(lambda: told[-1].state == "online")
            assert node.status.error is None


async def test_what_is_no_tide_server_is_misconfigured(path):
    async with (
        raw_server(always(wire(html(404)))) as raw,
        Tide(path, raw.endpoint) as node,
        watching(node) as told,
        node.sync_forever(),
    ):
        await until(lambda: told and told[-1].state == "misconfigured")
        assert "check its URL" in str(node.status.error)


async def test_f29_a_reset_that_removes_most_waits_for_a_yes(path):
    ids = [f"t{number}" for number in range(30)]

    def answer(request):
        if request["cursor"] == "c1" and ids:
            ids.clear()
            return Answer(409, b'{"code":"reset","reset":"horizon"}')
        return {"changes": [op(id_, {}, 1) for id_ in ids], "cursor": "c1" if ids else "c2"}

    async with (
        Tide(path, transport=Scripted(answer)) as node,
        Tide(path) as reader,
        watching(reader) as told,
        node.sync_forever(0.05),
    ):
        await until(lambda: told[-1].state == "confirm_reset")
        assert "confirm_reset()" in str(node.status.error)
        assert told[-1] == node.status
        await node.confirm_reset()
        await until(lambda: told[-1].state == "online")
        assert node.status.error is None


# Figures


async def test_f47_what_waits_is_counted_with_its_age(path, clock):
    async with Tide(path) as node:
        todos = node.collection("todos")
        await todos.put("a", {})
        clock.now += 4.5
        await todos.put("b", {})
        assert node.status[1:3] == (2, 4.5)
        await todos.put("a", {"n": 2})  # the older op is no more
        clock.now += 1.0
        assert node.status[1:3] == (2, 1.0)
    async with Tide(path) as node:
        assert node.status[1:3] == (2, 1.0)


async def test_a_clock_that_is_set_back_makes_no_negative_age(path, clock):
    async with Tide(path) as node:
        await node.collection("todos").put("a", {})
        clock.now -= 100.0
        assert node.status.oldest_pending_age == 0.0


async def test_rejected_ops_are_counted_until_they_are_settled(tmp_path, path):
    def validate(write):
        return "no" if write.doc == {"bad": True} else None

    async with (
        memory_server(tmp_path / "server.db", validate=validate) as server,
        Tide(path, transport=server.transport()) as node,
        watching(node) as told,
    ):
        todos = node.collection("todos")
        for id_ in "abc":
            await todos.put(id_, {"bad": True})
        await node.sync_once()
        assert (node.status.pending, node.status.rejected) == (0, 3)
        await until(lambda: told[-1].rejected == 3)
        one, two, _ = await node.rejected()
        await node.discard(one)
        assert node.status.rejected == 2
        await node.retry(two)
        assert (node.status.pending, node.status.rejected) == (1, 1)
        await until(lambda: told[-1][1:4:2] == (1, 1))


async def test_the_time_of_the_last_success_is_told(path, server, clock):
    line = Line(server.transport())
    async with Tide(path, transport=line) as node:
        await node.sync_once()
        assert node.status.last_synced_at == clock.now
        clock.now += 50
        line.cut = True
        with pytest.raises(tide.OfflineError):
            await node.sync_once()
        assert node.status.last_synced_at == clock.now - 50
    async with Tide(path) as node:
        assert node.status.last_synced_at == clock.now - 50


# Never green while the outbox ages


async def test_f47_it_is_not_online_while_an_op_ages(path, clock):
    line = Scripted(lambda request: {"results": [deferred(op) for op in request["ops"]]})
    async with Tide(path, transport=line) as node, node.sync_forever(NEVER):
        await until(lambda: node.status.state == "online")
        await node.collection("todos").put("a", {})
        await until(lambda: len(line.requests) > 1)
        await until(lambda: node.status.state == "online")
        clock.now += tide.status.PATIENCE
        assert str(node.status.state) == "online"
        clock.now += 1.0
        assert node.status.state == "offline", "nothing came through for as long"
        assert node.status.error == "writes that wait for the server: 1, the oldest for 11 s"
        await node.sync_once()
        assert str(node.status.state) == "connecting", "the server answers, and yet it waits"
        assert "writes that wait" in node.status.error


def deferred(sent):
    return {
        "collection": sent["collection"],
        "id": sent["id"],
        "status": "deferred",
        "retry_after": NEVER,
    }


async def test_f47_a_watcher_is_told_that_what_waits_gets_older(path, clock, monkeypatch):
    monkeypatch.setattr("tide.status_watcher.TICK", 0.02)
    line = Scripted(lambda request: {"results": [deferred(op) for op in request["ops"]]})
    async with Tide(path, transport=line) as node, watching(node) as told:
        await node.collection("todos").put("a", {})
        async with node.sync_forever(NEVER):
            await until(lambda: told[-1].state == "online")
            for _ in range(3):
                clock.now += 5.0
                await until(lambda: told[-1].oldest_pending_age == node.status.oldest_pending_age)
            assert told[-1].state == "offline"


# Watching it


async def test_watching_gives_the_status_at_once_and_then_only_what_differs(path, server):
    async with Tide(path, transport=server.transport()) as node:
        watcher = node.watch_status()
        first = await asyncio.wait_for(anext(watcher), WAIT)
        assert first == node.status
        following = asyncio.ensure_future(anext(watcher))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not following.done()
        await node.collection("todos").put("a", {})
        assert (await asyncio.wait_for(following, WAIT)).pending == 1
        following = asyncio.ensure_future(anext(watcher))
        await node.collection("todos").put("a", {"n": 2})  # one op still waits
        await node.collection("todos").get("a")
        assert not following.done()
        watcher.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(following, WAIT)
        watcher.close()


async def test_closing_ends_who_watches(path):
    node = Tide(path)
    await node.open()
    watcher = node.watch_status()
    await anext(watcher)
    following = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(following, WAIT)
    with pytest.raises(NotOpenError):
        _ = node.status
    with pytest.raises(NotOpenError):
        node.watch_status()


async def test_a_later_success_is_a_difference_too(path, server, clock):
    async with Tide(path, transport=server.transport()) as node, watching(node) as told:
        await node.sync_once()
        await until(lambda: told[-1].last_synced_at == clock.now)
        clock.now += 60.0
        await node.sync_once()
        await until(lambda: told[-1].last_synced_at == clock.now)


# Several that share a file

SYNC = """
import asyncio, sys
from tide import Tide

async def main(path, endpoint):
    async with Tide(path, endpoint) as tide, tide.sync_forever(interval=0.1):
        async for status in tide.watch_status():
            print(status.state, status.error or "", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def syncing_process(path, endpoint):
    process = await anyio.open_process([sys.executable, "-c", SYNC, str(path), endpoint])
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.aclose()


async def test_f51_what_the_process_that_syncs_sees_is_told_by_the_others(tmp_path, path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with Tide(path) as reader, Tide(path, endpoint) as follower:
            async with syncing_process(path, endpoint), watching(reader) as told:
                await until(lambda: reader.status.state == "online")
                assert reader.status.last_synced_at is not None
                async with follower.sync_forever(NEVER) as loop:
                    await until(lambda: loop.state is None)
                    assert follower.status.state in ("connecting", "online")
                    await until(lambda: follower.status.state == "online")
                await until(lambda: told[-1].state == "online")
            await until(lambda: reader.status.state == "stopped")


async def test_f51_the_words_of_the_process_that_syncs_are_told_by_the_others(path):
    async with (
        Tide(path) as reader,
        syncing_process(path, f"http://127.0.0.1:{free_port()}/sync"),
    ):
        await until(lambda: reader.status.state == "offline")
        assert reader.status.error


async def test_f51_a_follower_connects_when_the_process_that_synced_is_killed(tmp_path, path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with (
            Tide(path, endpoint) as follower,
            Tide(path) as reader,
            syncing_process(path, endpoint) as process,
        ):
            await until(lambda: reader.status.state == "online")
            async with follower.sync_forever(0.2) as loop:
                await until(lambda: loop.state is None)
                process.send_signal(signal.SIGKILL)
                await process.wait()
                assert follower.status.state in ("connecting", "online")
                await until(lambda: loop.online)
                await until(lambda: reader.status.state == "online")
            await until(lambda: reader.status.state == "stopped")


async def test_f51_what_a_killed_process_saw_last_is_not_told_for_the_next_one(path, server):
    """Its online stands in the file while the next one is still connecting."""
    async with Tide(path, transport=server.transport()) as one, one.sync_forever():
        await until(lambda: one.status.state == "online")
    line = Line(server.transport())
    go_on = asyncio.Event()
    line.meanwhile = go_on.wait
    async with Tide(path) as reader:
        store = reader._session.use()
        await store.write(lambda tx: tide.status.record(tx.sql, "online", None))
        async with Tide(path, transport=line) as two, two.sync_forever():
            await until(lambda: line.answers)
            await until(lambda: reader.status.state == "connecting")
            go_on.set()
            await until(lambda: reader.status.state == "online")


async def test_f51_a_loop_that_never_had_its_turn_does_not_say_that_syncing_stopped(path, server):
    async with (
        Tide(path, transport=server.transport()) as leader,
        Tide(path, transport=server.transport()) as other,
        Tide(path) as reader,
        leader.sync_forever(),
    ):
        await until(lambda: leader.status.state == "online")
        async with other.sync_forever():
            pass
        await reader.collection("todos").put("a", {})  # whatever was written is seen by then
        assert reader.status.state == "online"


# Until all is on the server


async def test_flushed_waits_until_all_that_was_written_is_on_the_server(path, server):
    async with Tide(path, transport=server.transport()) as node, node.sync_forever():
        await node.flushed()  # nothing waits
        for number in range(50):
            await node.collection("todos").put(f"t{number}", {})
        await asyncio.gather(*(node.flushed(WAIT) for _ in range(20)))
        assert await node.pending() == 0
        async with Tide(f"{path}2", transport=server.transport()) as other:
            await other.sync_once()
            assert await other.collection("todos").count() == 50


async def test_flushed_does_not_wait_for_what_is_written_later(path, server):
    line = Line(server.transport())
    async with Tide(path, transport=line) as node:
        todos = node.collection("todos")
        await todos.put("a", {})
        flushed = asyncio.ensure_future(node.flushed(WAIT))
        line.meanwhile = lambda: todos.put("b", {})
        await node.sync_once()
        await asyncio.wait_for(flushed, WAIT)
        assert await node.pending() == 1


async def test_flushed_waits_for_an_op_that_needs_a_new_stamp(path, server):
    """An op older than a deletion that the server has forgotten is sent again."""
    stamps: list[list[int]] = []

    def answer(request):
        stamps.extend(sent["stamp"] for sent in request["ops"])
        results = [result(sent, "restamp" if len(stamps) == 1 else "ok") for sent in request["ops"]]
        return {"results": results}

    async with Tide(path, transport=Scripted(answer)) as node:
        await node.collection("todos").put("a", {})
        flushed = asyncio.ensure_future(node.flushed(WAIT))
        await node.sync_once()
        await asyncio.wait_for(flushed, WAIT)
        assert len(stamps) == 2
        assert stamps[1][0] > 70


def result(sent, status):
    names = {"collection": sent["collection"], "id": sent["id"]}
    return {**names, "status": status, "min_counter": 70, "reason": "forgotten"}


async def test_flushed_returns_when_an_op_was_refused(tmp_path, path):
    async with (
        memory_server(tmp_path / "server.db", validate=lambda write: "no") as server,
        Tide(path, transport=server.transport()) as node,
        node.sync_forever(),
    ):
        await node.collection("todos").put("a", {})
        await node.flushed(WAIT)
        assert node.status.rejected == 1


async def test_flushed_returns_while_another_process_syncs(tmp_path, path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with Tide(path) as writer, syncing_process(path, endpoint):
            await writer.collection("todos").put("a", {})
            await until(lambda: writer.status.state != "stopped")  # the other has begun
            await writer.flushed(WAIT)
            assert writer.status.pending == 0


@pytest.mark.parametrize(
    ("cut", "syncs", "words"),
    [
        (
            False,
            False,
            "syncing is stopped: enter `async with tide.sync_forever():` or call sync_once()",
        ),
        (True, True, "syncing is offline, the line is cut"),
    ],
)
async def test_flushed_says_why_it_gave_up(path, server, cut, syncs, words):
    line = Line(server.transport())
    line.cut = cut
    async with Tide(path, transport=line) as node:
        await node.collection("todos").put("a", {})
        async with node.sync_forever() if syncs else contextlib.nullcontext():
            await until(lambda: not syncs or node.status.state == "offline")
            with pytest.raises(NotFlushedError) as caught:
                await node.flushed(0.01)
        assert str(caught.value) == f"writes not on the server after 0.01 s: 1; {words}"
        assert isinstance(caught.value, TimeoutError)
        assert await node.pending() == 1


async def test_flushed_without_an_endpoint_is_an_error_at_once(path):
    async with Tide(path) as node:
        await node.collection("todos").put("a", {})
        with pytest.raises(EndpointError, match="no endpoint to sync with; give it one"):
            await node.flushed(NEVER)


async def test_flushed_ends_when_its_tide_closes(path, server):
    node = Tide(path, transport=server.transport())
    await node.open()
    await node.collection("todos").put("a", {})
    flushed = asyncio.ensure_future(node.flushed(WAIT))
    await node.collection("todos").count()
    await node.close()
    with pytest.raises(NotOpenError):
        await asyncio.wait_for(flushed, WAIT)
