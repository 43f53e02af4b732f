"""When a node listens, what it hears, and when it gives up and tries again."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from tests.support import until
from tide import listening
from tide.errors import OfflineError, UnavailableError
from tide.listening import Listening
from tide.protocol import Event, Response

real_sleep = asyncio.sleep


def page(since, cursor):
    return Event("changes", Response(cursor, (), since=since).encode())


class Script:
    """A server's streams: each list of events is one; what is an error is raised, None hangs."""

    def __init__(self, *streams):
        self.streams = list(streams)
        self.opened = 0
        self.open = 0

    async def listen(self):
        self.opened += 1
        stream = self.streams.pop(0) if self.streams else [None]
        self.open += 1
        try:
            for event in stream:
                if event is None:
                    await asyncio.Event().wait()
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            self.open -= 1


class Chance:
    """Stands for `jitter` and `asyncio.sleep`: notes what is asked for, and never waits."""

    def __init__(self, monkeypatch):
        self.bounds = []
        self.slept = []
        monkeypatch.setattr(listening, "jitter", self.jitter)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def jitter(self, low, high):
        self.bounds.append((low, high))
        return high

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await real_sleep(0)


@pytest.fixture
def chance(monkeypatch):
    return Chance(monkeypatch)


class Node:
    """A `Listening`, and what it says to its owner."""

    def __init__(self, script):
        self.script = script
        self.news = 0
        self.listening = Listening(script.listen, self.hear)

    def hear(self):
        self.news += 1

    async def __aenter__(self):
        self.listening.start()
        return self

    async def __aexit__(self, *error):
        await self.listening.stop()
        assert self.script.open == 0
        assert not self.listening.live


def cursors(pages):
    return [page.cursor for page in pages]


# What it hears


async def test_pages_are_collected_in_order_and_taken_once(chance):
    script = Script([page("a", "a"), Event(""), page("a", "b"), None])
    async with Node(script) as node:
        await until(lambda: node.news == 2)
        assert node.listening.live
        assert cursors(node.listening.take()) == ["a", "b"]
        assert node.listening.take() == []


async def test_signs_of_life_and_unknown_events_are_no_news(chance):
    script = Script([Event(""), Event("later-version", b"?"), Event("message", b"hello"), None])
    async with Node(script) as node:
        await until(lambda: node.listening.live)
        await real_sleep(0.01)
        assert (node.news, node.listening.take()) == (0, [])


async def test_f45_only_the_newest_pages_wait_for_who_is_slow_to_take_them(chance):
    pages = [page(str(n), str(n + 1)) for n in range(100)]
    async with Node(Script([*pages, None])) as node:
        await until(lambda: node.news == 100)
        assert cursors(node.listening.take()) == [str(n) for n in range(85, 101)]


@pytest.mark.parametrize(
    "bad",
    [
        Event("changes", b""),
        Event("changes", b"[1]"),
        Event("changes", b'{"cursor":"a","changes":[]}'),  # no since
        Event("changes", b'{"cursor":null,"since":"a","changes":[]}'),
        Event("changes", b'{"cursor":"a","since":"a","changes":[{"collection":"_"}]}'),
        Event("changes", b'{"cursor":"a","since":7,"changes":[]}'),
        Event("changes", b'{"cursor":"a","since":"a","changes":[],"clock":1e999}'),
        OfflineError("cut"),
        RuntimeError("a bug in a transport"),
        asyncio.CancelledError(),
        BaseException("odd"),
    ],
    ids=repr,
)
async def test_a_stream_that_breaks_is_opened_again_whatever_broke_it(bad, chance):
    async with Node(Script([page("a", "b"), bad], [page("b", "c"), None])) as node:
        await until(lambda: node.script.opened == 2 and node.listening.live)
        assert cursors(node.listening.take()) == ["b", "c"]


# When it tries again


async def test_f46_tries_double_up_to_a_bound_while_none_is_any_good(chance):
    async with Node(Script(*[[]] * 12)) as node:
        await until(lambda: node.script.opened == 13)
    assert chance.bounds == [(0.0, min(300.0, 2.0 * 2**n)) for n in range(len(chance.bounds))]
    assert chance.slept[:13] == [high for _, high in chance.bounds][:13]


async def test_f46_a_stream_that_is_cut_again_and_again_is_opened_ever_more_rarely(chance):
    async with Node(Script(*[[page("a", "a")]] * 5)) as node:
        await until(lambda: node.script.opened == 6)
    assert [high for _, high in chance.bounds[:6]] == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]


async def test_a_stream_that_lasted_is_opened_again_at_once(chance, monkeypatch):
    monkeypatch.setattr(listening, "LASTED", 0.0)
    async with Node(Script([], [], *[[page("a", "a")]] * 3)) as node:
        await until(lambda: node.script.opened == 6)
    assert [high for _, high in chance.bounds[:6]] == [2.0, 4.0, 8.0, 2.0, 2.0, 2.0]


async def test_bye_ends_a_stream_and_what_follows_it_is_not_heard(chance):
    script = Script([page("a", "b"), Event("bye", b"{}"), page("b", "c"), None], [None])
    async with Node(script) as node:
        await until(lambda: script.opened == 2)
        assert cursors(node.listening.take()) == ["b"]
        assert script.open == 1


async def test_a_server_that_says_when_to_come_back_is_obeyed(chance):
    script = Script([UnavailableError("busy", retry_after=100.0)], [])
    async with Node(script) as node:
        await until(lambda: node.script.opened == 3)
    assert chance.slept[1] == 125.0  # of 1.0 to 1.25 times that, since all were told the same
    assert chance.slept[2] == 8.0  # once


async def test_the_owner_hears_when_a_stream_is_gone_and_does_not_come_back(chance):
    script = Script([Event("")], [], [], [])
    async with Node(script) as node:
        await until(lambda: script.opened == 5)
        assert node.news == 1


@pytest.mark.parametrize("name", ["FIRST", "SILENCE"])
async def test_f43_a_stream_that_is_silent_for_too_long_is_given_up(name, chance, monkeypatch):
    monkeypatch.setattr(listening, name, 0.02)
    first = [] if name == "FIRST" else [Event("")]
    script = Script([*first, None], [None])
    async with Node(script):
        await until(lambda: script.opened == 2)
        assert script.open == 1


async def test_starting_again_tries_at_once(chance):
    async with Node(Script(*[[]] * 5)) as node:
        await until(lambda: node.script.opened == 6)
        await node.listening.stop()
        del chance.bounds[:]
        node.listening.start()
        node.listening.start()  # once more does nothing
        await until(lambda: node.script.opened == 7)
    assert chance.bounds[0] == (0.0, 2.0)


async def test_stopping_closes_the_stream_and_forgets_its_pages(chance):
    async with Node(Script([page("a", "b"), None])) as node:
        await until(lambda: node.news)
        await node.listening.stop()
        await node.listening.stop()
        assert node.listening.take() == []
    assert [task for task in asyncio.all_tasks() if task.get_name() == "tide listening"] == []


async def test_f47_a_transport_that_does_not_let_go_is_left_behind(chance):
    release = asyncio.Event()

    async def deaf():
        yield Event("")
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    listener = Listening(deaf, lambda: None)
    listener.start()
    await until(lambda: listener.live)
    await listener.stop()
    assert not listener.live
    release.set()
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "tide listening"])


# Many


async def test_f42_a_thousand_nodes_come_back_spread_not_all_at_once(monkeypatch):
    """The stream of all ends at one moment; nobody waits really, delays are written down."""
    seed = Random().randrange(1 << 30)
    print("seed", seed)  # noqa: T201
    random = Random(seed)
    delays = []

    async def sleep(seconds):
        delays.append(seconds)
        if len(delays) > 1000:
            await asyncio.Event().wait()  # that is the one we look at

    monkeypatch.setattr(listening, "jitter", random.uniform)
    monkeypatch.setattr(listening, "LASTED", 0.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    nodes = [Node(Script([page("a", "a"), Event("bye", b"{}")])) for _ in range(1000)]
    for node in nodes:
        node.listening.start()
    for _ in range(200):
        await real_sleep(0)
    news = sum(node.news for node in nodes)
    for node in nodes:
        await node.listening.stop()
    assert news == 1000  # each page; the end of a stream by itself makes nobody ask
    for moments in (delays[:1000], delays[1000:]):  # at the start, and after the cut
        assert len(moments) == 1000
        assert min(moments) < 0.1
        assert 1.9 < max(moments) <= 2.0
        tenths = Counter(int(moment * 10) for moment in moments)
        assert len(tenths) >= 20
        assert max(tenths.values()) < 5 * statistics.mean(tenths.values())
