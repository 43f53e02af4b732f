"""Syncing in the background: when it exchanges, when it waits, and that it never dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.lines import Line, Scripted, op
from tests.support import until
from tide import (
    Answer,
    EndpointError,
    ForbiddenError,
    MisconfiguredError,
    OfflineError,
    ProtocolError,
    ResetNeedsConfirmationError,
    SyncLoop,
    Tide,
    UnauthorizedError,
    UnavailableError,
)
from tide.testing import memory_server

ROOT = Path(__file__).parent.parent
NEVER = 3600.0  # seconds; no test waits for an interval that long


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that loops would pause, in place of pausing."""
    delays: list[float] = []

    async def pause(self, delay):
        delays.append(delay)
        await asyncio.sleep(0)

    monkeypatch.setattr(SyncLoop, "_pause", pause)
    return delays


@pytest.fixture
def longest(monkeypatch):
    """Each jitter is the longest that it can be."""
    monkeypatch.setattr("tide.sync_loop.jitter", lambda low, high: high)


@pytest.fixture
def shortest(monkeypatch):
    """Each jitter is the shortest that it can be, so that back-off takes no time."""
    monkeypatch.setattr("tide.sync_loop.jitter", lambda low, high: low)


class Hung(Scripted):
    """A server that takes requests and never answers."""

    def __init__(self):
        super().__init__(lambda request: {})
        self.asked = asyncio.Event()

    async def exchange(self, body, headers):
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


AWAY = OfflineError("nobody there")


def offline(request):
    return AWAY


async def test_a_local_write_is_pushed_without_waiting_for_the_interval(tmp_path):
    line = Scripted(lambda request: {})
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever(NEVER) as loop:
        await until(lambda: loop.online)
        for number in range(3):
            await tide.collection("todos").put("k", {"n": number})
            await until(lambda: _is_zero(tide))
        assert [op["doc"] for request in line.requests for op in request["ops"]] == [
            {"n": 0},
            {"n": 1},
            {"n": 2},
        ]


async def _is_zero(tide):
    return await tide.pending() == 0


async def test_a_write_during_an_exchange_is_pushed_by_the_next_one_at_once(tmp_path):
    line = Line(Scripted(lambda request: {}))
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        todos = tide.collection("todos")
        line.meanwhile = lambda: todos.put("k", {"n": 1})
        async with tide.sync_forever(NEVER):
            await until(lambda: line.sent() == [[], ["k"]])


async def test_a_batch_and_a_retry_are_pushed_at_once_too(tmp_path):
    refusal = {"status": "rejected", "code": "x", "detail": "", "current": None}
    refusals = [refusal]

    def answer(request):
        return {
            "results": [refusals.pop() if refusals else {"status": "ok"} for _ in request["ops"]]
        }

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever(NEVER):
        async with tide.batch():
            await tide.collection("todos").put("k", {"n": 1})
        await until(tide.rejected)
        await tide.retry((await tide.rejected())[0])
        await until(lambda: _is_zero(tide))
        assert [op["doc"] for op in line.requests[-1]["ops"]] == [{"n": 1}]


async def test_the_server_is_asked_for_news_each_interval(tmp_path):
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "a.db", transport=server.transport()) as tide,
        Tide(tmp_path / "b.db", transport=server.transport()) as other,
    ):
        watcher = tide.collection("todos").watch()
        async with tide.sync_forever(0.01), other.sync_forever(NEVER):
            for number in range(3):
                await other.collection("todos").put("k", {"n": number})
                assert (await anext(watcher)).doc == {"n": number}


async def test_f42_every_interval_is_spread_by_a_quarter(tmp_path, pauses):
    random.seed(42)
    line = Scripted(lambda request: {})
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever(8.0):
        await until(lambda: len(pauses) >= 100)
    assert all(6.0 <= delay <= 10.0 for delay in pauses)
    assert min(pauses) < 7.0
    assert max(pauses) > 9.0


@pytest.mark.parametrize(
    ("answer", "delays"),
    [
        (AWAY, [1, 2, 4, 8, 10, 10, 10]),
        (Answer(503, b""), [1, 2, 4, 8, 16, 32, 60, 60]),
        (Answer(200, b"<html>"), [1, 2, 4, 8, 16, 32, 60, 60]),
        (ValueError("odd"), [1, 2, 4, 8, 16, 32, 60, 60]),
        (Answer(401, b""), [60, 60]),
        (Answer(403, b""), [60, 60]),
        (Answer(404, b""), [60, 60]),
    ],
)
async def test_f37_tries_back_off_while_they_fail(tmp_path, pauses, longest, answer, delays):
    async with (
        Tide(tmp_path / "a.db", transport=Scripted(lambda request: answer)) as tide,
        tide.sync_forever(),
    ):
        await until(lambda: len(pauses) >= len(delays))
    assert pauses[: len(delays)] == delays


async def test_f42_the_back_off_is_drawn_from_zero_up(tmp_path, pauses):
    random.seed(42)
    line = Scripted(offline)
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever():
        await until(lambda: len(pauses) >= 100)
    assert all(0.0 <= delay <= 10.0 for delay in pauses)
    assert min(pauses[5:]) < 2.0
    assert max(pauses) > 8.0


async def test_f37_what_only_a_person_can_help_is_tried_rarely(tmp_path, pauses, shortest):
    line = Scripted(lambda request: Answer(401, b""))
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever():
        await until(lambda: len(pauses) >= 3)
    assert pauses[:3] == [45, 45, 45]


@pytest.mark.parametrize("status", [429, 503, 401])
async def test_f37_retry_after_is_the_least_that_is_waited(tmp_path, pauses, status):
    line = Scripted(lambda request: Answer(status, b"", {"retry-after": "100"}))
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever(0.01):
        await until(lambda: len(pauses) >= 20)
    assert all(100.0 <= delay <= 125.0 for delay in pauses)
    assert len(set(pauses)) > 10, "not all nodes come back in the same moment"


async def test_f46_deferred_ops_are_not_sent_by_every_turn(tmp_path, pauses):
    result = {"status": "deferred", "retry_after": 3600}
    line = Scripted(lambda request: {"results": [result] * len(request["ops"])})
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.collection("todos").put("k", {})
        async with tide.sync_forever():
            await until(lambda: len(pauses) >= 20)
    assert sum(len(request["ops"]) for request in line.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"has_more": True},
        Answer(409, b'{"code":"reset","reset":"restored"}'),
        {"results": [{"status": "restamp", "min_counter": 1, "reason": "x"}]},
        Answer(422, b""),
        Answer(413, b""),
        {"results": [{"status": "superseded"}]},
        {"results": [{"status": "deferred"}]},
        {"results": []},
        AWAY,
    ],
)
async def test_f46_nothing_that_a_server_says_makes_a_fast_loop(tmp_path, pauses, answer):
    line = Scripted(lambda request: answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.collection("todos").put("k", {"n": 1})
        async with tide.sync_forever():
            await until(lambda: len(pauses) >= 10)
            await tide.close()
        assert len(line.requests) <= 4 * (len(pauses) + 1)


async def test_f46_writes_do_not_wake_a_loop_that_waits_for_a_server_that_is_away(
    tmp_path, longest
):
    line = Scripted(lambda request: Answer(503, b"", {"retry-after": "3600"}))
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever() as loop:
        await until(lambda: loop.error)
        for number in range(20):
            await tide.collection("todos").put("k", {"n": number})
        assert len(line.requests) == 1


async def test_the_loop_goes_on_when_the_server_is_back(tmp_path, shortest):
    async with memory_server(tmp_path / "server.db") as server:
        line = Line(server.transport())
        line.cut = True
        async with Tide(tmp_path / "a.db", transport=line) as tide:
            assert not tide.sync_forever().online
            async with tide.sync_forever(NEVER) as loop:
                for turn in (1, 2):
                    await tide.collection("todos").put("k", {"n": turn})
                    line.cut = True
                    await tide.collection("todos").put("k2", {"n": turn})
                    await until(lambda: isinstance(loop.error, OfflineError))
                    assert not loop.online
                    line.cut = False
                    await until(lambda: loop.online)
                    assert loop.error is None
                    await until(lambda: _is_zero(tide))


async def test_after_a_success_back_off_begins_anew(tmp_path, pauses, longest):
    answers = [offline, offline, lambda request: {}, offline, offline]

    def answer(request):
        return (answers.pop(0) if answers else offline)(request)

    line = Scripted(answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever(100.0):
        await until(lambda: len(pauses) >= 5)
    assert pauses[:5] == pytest.approx([1, 2, 125, 1, 2], abs=0.1)


class Odd(BaseException):
    """Not even an Exception."""


class UnspeakableError(Exception):
    """An error that can't be shown."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


ODD = [
    ValueError("odd"),
    KeyError(),
    StopAsyncIteration(),
    AssertionError(),
    TimeoutError(),
    asyncio.CancelledError(),
    asyncio.InvalidStateError(),
    GeneratorExit(),
    Odd(),
    UnspeakableError(),
    RecursionError(),
    MemoryError(),
]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["transport", "headers", "async headers"])
async def test_f47_the_loop_outlives_whatever_is_raised(tmp_path, shortest, where, error, caplog):
    caplog.set_level(logging.CRITICAL)
    failing = [error, OfflineError("and then a usual one")]

    def raise_next():
        if failing:
            raise failing.pop(0)
        return {}

    async def raise_next_later():
        return raise_next()

    def answer(request):
        return failing.pop(0) if failing and where == "transport" else {}

    headers = {"transport": None, "headers": raise_next, "async headers": raise_next_later}[where]
    tide = Tide(tmp_path / "a.db", transport=Scripted(answer), headers=headers)
    async with tide, tide.sync_forever() as loop:
        await tide.collection("todos").put("k", {})
        await until(lambda: _is_zero(tide))
        await until(lambda: loop.online)
        assert loop.error is None
    assert failing == []


@pytest.mark.parametrize("answer", [None, "text", 200, (200, b"", {})])
async def test_f47_the_loop_outlives_a_transport_that_returns_no_answer(
    tmp_path, pauses, answer, caplog
):
    caplog.set_level(logging.CRITICAL)

    class Broken(Scripted):
        async def exchange(self, body, headers):
            return answer

    transport = Broken(lambda request: {})
    async with Tide(tmp_path / "a.db", transport=transport) as tide, tide.sync_forever() as loop:
        await until(lambda: len(pauses) >= 3)
        assert loop.error is not None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (AWAY, OfflineError),
        (Answer(503, b""), UnavailableError),
        (Answer(401, b""), UnauthorizedError),
        (Answer(403, b""), ForbiddenError),
        (Answer(404, b""), MisconfiguredError),
        (Answer(200, b""), ProtocolError),
    ],
)
async def test_the_loop_tells_why_it_failed_and_logs_it_once(
    tmp_path, pauses, answer, kind, caplog
):
    caplog.set_level(logging.INFO, "tide")
    line = Scripted(lambda request: answer)
    async with Tide(tmp_path / "a.db", transport=line) as tide, tide.sync_forever() as loop:
        await until(lambda: len(pauses) >= 5)
        assert type(loop.error) is kind
        assert not loop.online
    (record,) = [r for r in caplog.records if "syncing failed" in r.message]
    assert record.levelname == ("INFO" if issubclass(kind, OfflineError) else "WARNING")


async def test_f29_a_question_is_no_failure(tmp_path, pauses, longest):
    ids = [f"k{n}" for n in range(30)]

    def answer(request):
        if request["cursor"] == "c1" and ids:
            ids.clear()
            return Answer(409, b'{"code":"reset","reset":"horizon"}')
        return {"changes": [op(id_, {}, 1) for id_ in ids], "cursor": "c1" if ids else "c2"}

    tide = Tide(tmp_path / "a.db", transport=Scripted(answer))
    async with tide, tide.sync_forever(100.0) as loop:
        await until(lambda: isinstance(loop.error, ResetNeedsConfirmationError))
        assert loop.online
        assert await tide.collection("todos").count() == 30
        assert await tide.confirm_reset() == 30
        await until(lambda: loop.error is None)
    assert {round(pause) for pause in pauses} == {125}


async def test_it_stops_in_the_middle_of_a_hung_exchange_and_can_start_again(tmp_path):
    transport = Hung()
    async with Tide(tmp_path / "a.db", transport=transport) as tide:
        loop = tide.sync_forever()
        with anyio.fail_after(30):  # the exchange itself would take longer
            for _ in range(3):
                async with loop:
                    await transport.asked.wait()
                    transport.asked.clear()
                await loop.stop()


async def test_it_stops_in_the_middle_of_a_pause(tmp_path):
    line = Scripted(lambda request: {})
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        async with tide.sync_forever(NEVER) as loop:
            await until(lambda: loop.online)
        asked = len(line.requests)
        await tide.collection("todos").put("k", {})
        await tide.sync_once()
        assert len(line.requests) == asked + 1


async def test_closing_the_tide_stops_its_loops(tmp_path):
    tide = Tide(tmp_path / "a.db", transport=Hung())
    await tide.open()
    loop = await tide.sync_forever().__aenter__()
    await tide.close()
    task = loop._task
    assert task is not None
    assert task.done()
    await loop.stop()


async def test_stopping_what_never_started_is_fine(tmp_path):
    async with Tide(tmp_path / "a.db", transport=Scripted(offline)) as tide:
        await tide.sync_forever().stop()


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
async def test_an_interval_must_be_a_positive_number(tmp_path, interval):
    async with Tide(tmp_path / "a.db", transport=Scripted(offline)) as tide:
        with pytest.raises(EndpointError, match="interval"):
            tide.sync_forever(interval)


async def test_without_an_endpoint_there_is_nothing_to_sync_with(tmp_path):
    async with Tide(tmp_path / "a.db") as tide:
        with pytest.raises(EndpointError, match="no endpoint"):
            tide.sync_forever()


async def test_f51_one_of_two_syncs_a_file_and_the_other_takes_over(tmp_path):
    first, second = Scripted(lambda request: {}), Scripted(lambda request: {})
    async with (
        Tide(tmp_path / "a.db", transport=first) as one,
        Tide(tmp_path / "a.db", transport=second) as two,
        one.sync_forever(0.01) as leader,
    ):
        await until(lambda: leader.online)
        async with two.sync_forever(0.01) as follower:
            await two.collection("todos").put("k", {"from": "the other"})
            await until(lambda: _is_zero(one))
            assert second.requests == []
            assert not follower.online
            assert follower.error is None
            await leader.stop()
            await until(lambda: second.requests)


async def test_f51_stopping_lets_go_of_the_file_even_if_it_is_cancelled(tmp_path):
    transport = Hung()
    async with Tide(tmp_path / "a.db", transport=transport) as one:
        loop = await one.sync_forever().__aenter__()
        await transport.asked.wait()
        stopping = asyncio.create_task(loop.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        line = Scripted(lambda request: {})
        async with Tide(tmp_path / "a.db", transport=line) as two, two.sync_forever() as other:
            await until(lambda: other.online)


LEADER = """
import asyncio, sys
from tests.lines import Scripted
from tide import Tide

async def main():
    async with Tide(sys.argv[1], transport=Scripted(lambda request: {})) as tide:
        async with tide.sync_forever(0.01) as loop:
            while not loop.online:
                await asyncio.sleep(0.01)
            print("leading", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_f51_when_the_syncing_process_is_killed_another_takes_over(tmp_path):
    path = tmp_path / "a.db"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEADER, path), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"leading\n"
        mine = Scripted(lambda request: {})
        async with Tide(path, transport=mine) as tide, tide.sync_forever(0.01) as loop:
            await tide.collection("todos").put("k", {})
            await until(lambda: _is_zero(tide))
            assert mine.requests == []
            process.kill()
            await until(lambda: loop.online)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
