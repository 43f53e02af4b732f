"""The fan-out of live streams: each page once for all, one frame for each, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import json

import anyio
import pytest

from tests.support import PATIENCE, until
from tide.errors import RequestError, StoreBusyError
from tide.protocol import EventReader, Op, Request, Response, encode_event, parse_page
from tide.server import hub as hubs
from tide.server.access import Access
from tide.server.hub import Hub, Listener
from tide.server.service import Service
from tide.server.storage.sqlite import SqliteStorage
from tide.stamp import Stamp

NODE = "alice.phone.0001"
ANYBODY = Access("anybody")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(hubs, "LOOK", 0.01)


@pytest.fixture
async def service(tmp_path):
    service = Service(SqliteStorage(tmp_path / "server.db"))
    yield service
    await service.aclose()


async def push(service, *ids, counter=1, space="default"):
    ops = tuple(Op("todos", id_, '{"n":1}', Stamp(counter, NODE)) for id_ in ids)
    answer = await service.answer(space, Request(NODE, None, ops, v=1, limit=1), ANYBODY)
    assert {result.status for result in answer.results} == {"ok"}


def read(frame):
    """The page in *frame*, or the name of what else it is."""
    (event,) = EventReader().feed(frame)
    return parse_page(event.data) if event.name == "changes" else event.name


async def heard(listener):
    return read(await listener.next(PATIENCE))


def tasks():
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("tide live")]


def ids(page):
    return [op.id for op in page.changes]


async def test_the_first_frame_tells_where_the_space_stands(service):
    await push(service, "1", "2")
    first = await heard(await service.listen("default", ANYBODY))
    assert first.changes == ()
    assert first.since == first.cursor
    assert first.cursor.endswith(":2")


async def test_f14_each_page_holds_all_between_where_it_starts_and_where_it_ends(service):
    listener = await service.listen("default", ANYBODY)
    pages = [await heard(listener)]

    async def read_all():
        while not pages[-1].cursor.endswith(":40"):
            pages.append(await heard(listener))

    reading = asyncio.create_task(read_all())
    for number in range(40):
        await push(service, str(number))
    await reading
    for page in pages:
        start, end = (int(cursor.split(":")[1]) for cursor in (page.since, page.cursor))
        assert ids(page) == [str(number) for number in range(start, end)]
    assert len(pages) > 2


async def test_a_page_is_encoded_once_for_all_who_listen(service, monkeypatch):
    listeners = [await service.listen("default", ANYBODY) for _ in range(100)]
    for listener in listeners:
        await heard(listener)
    encoded = []

    def encode(name, data):
        encoded.append(data)
        return encode_event(name, data)

    monkeypatch.setattr(hubs, "encode_event", encode)
    await push(service, "1")
    frames = [await listener.next(PATIENCE) for listener in listeners]
    assert len(encoded) == 1
    assert {id(frame) for frame in frames} == {id(frames[0])}
    assert ids(read(frames[0])) == ["1"]


async def test_f45_a_slow_listener_keeps_one_frame_the_newest_and_it_makes_the_node_pull(service):
    slow, quick = [await service.listen("default", ANYBODY) for _ in range(2)]
    first = await heard(quick)
    for number in range(5):
        await push(service, str(number))
        newest = await heard(quick)
    kept = await heard(slow)
    assert kept == newest
    assert kept.since != first.cursor
    assert await slow.next(0) is None


async def test_more_than_a_page_holds_is_told_as_a_hint_to_pull(service):
    listener = await service.listen("default", ANYBODY)
    first = await heard(listener)
    real = service._storage.run
    gate = asyncio.Event()

    async def run(space, work):
        if work.__qualname__.startswith("Service._page_after"):
            await gate.wait()
        return await real(space, work)

    service._storage.run = run
    for start in (0, 500):
        await push(service, *map(str, range(start, start + 500)))
    gate.set()
    hint = await heard(listener)
    assert hint.changes == ()
    assert hint.since == hint.cursor != first.cursor


async def test_what_changes_nothing_is_not_told(service):
    await push(service, "1")
    listener = await service.listen("default", ANYBODY)
    await heard(listener)
    await push(service, "1")  # a replay
    assert await listener.next(0.1) is None
    await push(service, "2")
    assert ids(await heard(listener)) == ["2"]


async def test_spaces_do_not_hear_of_each_other(service):
    home, work = [await service.listen(space, ANYBODY) for space in ("home", "work")]
    assert (await heard(home)).cursor != (await heard(work)).cursor
    await push(service, "1", space="home")
    assert ids(await heard(home)) == ["1"]
    assert await work.next(0.1) is None


async def test_who_may_not_read_may_not_listen(service):
    with pytest.raises(RequestError) as caught:
        await service.listen("default", Access("blind", read=False))
    assert caught.value.problem.status == 403
    assert tasks() == []


async def test_what_another_process_accepts_is_told_too(service, tmp_path):
    listener = await service.listen("default", ANYBODY)
    await heard(listener)
    other = Service(SqliteStorage(tmp_path / "server.db"))
    await push(other, "1")
    await other.aclose()
    assert ids(await heard(listener)) == ["1"]


async def test_looks_get_rarer_when_there_are_many_spaces_but_never_too_rare(service):
    hub = service.hub
    rests = []
    for number in range(300):
        await service.listen(f"s{number}", ANYBODY)
        rests.append(hub.rest())
    assert rests[0] == rests[99] == hubs.LOOK
    assert rests[299] == pytest.approx(3 * hubs.LOOK)
    hub._channels.update({f"more{number}": hub._channels["s0"] for number in range(1_000_000)})
    assert hub.rest() == hubs.MAX_LOOK
    for name in [name for name in hub._channels if name.startswith("more")]:
        del hub._channels[name]


async def test_when_the_last_listener_leaves_nothing_is_left(service):
    gc.collect()
    before = sum(isinstance(found, Listener) for found in gc.get_objects())
    listeners = [await service.listen("default", ANYBODY) for _ in range(20)]
    assert len(tasks()) == 1
    for listener in listeners[:19]:
        service.hub.leave("default", listener)
    assert len(tasks()) == 1
    service.hub.leave("default", listeners[19])
    service.hub.leave("default", listeners[19])  # once more does no harm
    await until(lambda: tasks() == [])
    assert service.hub._channels == {}
    listeners.clear()
    del listener
    gc.collect()
    assert sum(isinstance(found, Listener) for found in gc.get_objects()) == before


class Reading:
    """Where a hub reads its pages from, as the test wants it."""

    def __init__(self):
        self.seq = 0
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = 0

    async def __call__(self, space, cursor):
        self.reads += 1
        await self.gate.wait()
        if self.fails:
            raise StoreBusyError("locked")
        return Response(f"e:{self.seq}", (), since=cursor)


async def test_a_join_that_fails_leaves_nothing_behind():
    reading = Reading()
    hub = Hub(reading)
    reading.fails = True
    with pytest.raises(StoreBusyError):
        await hub.join("default")
    assert hub._channels == {}
    reading.fails = False
    assert read(await (await hub.join("default")).next(0)).cursor == "e:0"
    await hub.aclose()


async def test_a_join_that_is_cancelled_leaves_nothing_behind():
    reading = Reading()
    reading.gate.clear()
    hub = Hub(reading)
    joins = [asyncio.create_task(hub.join("default")) for _ in range(3)]
    await until(lambda: reading.reads)
    for join in joins:
        join.cancel()
    await asyncio.wait(joins)
    assert hub._channels == {}


async def test_many_who_join_at_once_share_one_read():
    reading = Reading()
    hub = Hub(reading)
    await asyncio.gather(*[hub.join("default") for _ in range(50)])
    assert reading.reads == 1
    await hub.aclose()


async def test_f48_a_database_that_fails_for_a_while_ends_no_stream(caplog):
    reading = Reading()
    hub = Hub(reading)
    listener = await hub.join("default")
    await listener.next(0)
    reading.fails = True
    hub.poke("default")
    await until(lambda: "can't read" in caplog.text)
    reading.seq = 1
    reading.fails = False
    page = await heard(listener)
    assert (page.since, page.cursor) == ("e:0", "e:1")
    await hub.aclose()


async def test_closing_ends_all_streams_with_a_last_word_and_opens_nothing_again(service):
    listeners = [await service.listen(space, ANYBODY) for space in ("a", "a", "b")]
    with anyio.fail_after(PATIENCE):
        await service.aclose()
    assert [read(await listener.next(0)) for listener in listeners] == ["bye"] * 3
    assert all(listener.ended for listener in listeners)
    assert tasks() == []
    for listener in listeners:
        service.hub.leave("a", listener)
    await asyncio.sleep(0.05)  # several looks, if there were any
    assert service._storage._jobs is None
    await service.aclose()


async def test_a_stream_that_is_just_joining_when_the_server_closes_ends_too():
    reading = Reading()
    reading.gate.clear()
    hub = Hub(reading)
    join = asyncio.create_task(hub.join("default"))
    await until(lambda: reading.reads)
    await hub.aclose()
    reading.gate.set()
    listener = await join
    assert read(await listener.next(0)) == "bye"
    assert tasks() == []


async def test_after_the_last_word_comes_nothing():
    listener = Listener(b"first")
    listener.end()
    listener.end()
    listener.offer(b"late")
    assert read(await listener.next(0)) == "bye"
    assert await listener.next(0) is None


async def test_a_server_that_was_asked_to_stop_ends_its_streams():
    hub = Hub(Reading())
    listener = await hub.join("default")
    await listener.next(0)
    assert await listener.next(0.05) is None
    hub.ending = lambda: True
    assert await heard(listener) == "bye"
    late = await hub.join("default")  # over a connection that was open
    await late.next(0)
    assert await heard(late) == "bye"
    await hub.aclose()


async def test_frames_are_text_that_any_reader_of_event_streams_understands(service):
    await push(service, "1")
    listener = await service.listen("default", ANYBODY)
    frame = await listener.next(0)
    lines = frame.decode().split("\n")
    assert lines[0] == "event: changes"
    assert lines[1].startswith("data: {")
    assert json.loads(lines[1].removeprefix("data: "))["changes"] == []
    assert lines[2:] == ["", ""]
