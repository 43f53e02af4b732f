"""The thread behind a connection: whoever waits for it gets an answer, and it always ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar

import pytest

from tide import NotOpenError, UsageError
from tide.runner import Runner

WAIT = 30.0  # seconds until a test gives up


async def nothing():
    """Last work that does nothing."""


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("tide ")}


@pytest.fixture
def runner():
    runner = Runner("app.db", nothing)
    yield runner
    runner.close()


def test_a_call_gives_what_comes_of_the_work(runner):
    async def work():
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert runner.call(work) == "tide app.db"
    assert runner.ask(threading.get_ident) != threading.get_ident()


def test_a_call_raises_what_the_work_raises(runner):
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        runner.call(fail)
    with pytest.raises(ZeroDivisionError):  # the work itself, before there is anything to await
        runner.call(lambda: 1 / 0)


def test_a_call_runs_in_the_context_of_its_caller(runner):
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")
    assert runner.ask(variable.get) == "mine"
    token = variable.set("changed")
    assert runner.ask(variable.get) == "changed"
    variable.reset(token)


def test_a_call_from_its_own_thread_is_refused_at_once(runner):
    with pytest.raises(UsageError, match="own thread"):
        runner.ask(lambda: runner.ask(int))
    with pytest.raises(UsageError, match="own thread"):
        runner.ask(runner.close)
    assert runner.ask(int) == 0


def test_work_under_way_is_held_until_it_is_done(runner):
    """The event loop holds tasks weakly, and what such a task waits for nobody else may hold."""
    waits: list[weakref.ref[asyncio.Future[str]]] = []

    async def work():
        future = asyncio.get_running_loop().create_future()
        waits.append(weakref.ref(future))
        return await future

    waiting = runner.submit(work)
    runner.ask(int)
    runner.ask(gc.collect)
    future = waits[0]()
    assert future is not None
    runner.ask(lambda: future.set_result("done"))
    assert waiting.result(WAIT) == "done"


def test_closing_ends_the_thread_after_the_last_work():
    done = []

    async def last():
        done.append(threading.current_thread().name)

    before = threads()
    runner = Runner("app.db", last)
    assert len(threads() - before) == 1
    runner.close()
    runner.close()
    assert done == ["tide app.db"]
    assert not threads() - before
    with pytest.raises(NotOpenError, match="closed"):
        runner.ask(int)


def test_closing_raises_what_the_last_work_raises_to_the_first_who_closes():
    async def last():
        raise ValueError("the disk is on fire")

    runner = Runner("app.db", last)
    with pytest.raises(ValueError, match="fire"):
        runner.close()
    runner.close()
    with pytest.raises(NotOpenError):
        runner.ask(int)


def test_who_closes_second_waits_until_it_is_closed():
    began, go_on = threading.Event(), threading.Event()

    async def last():
        began.set()
        await asyncio.to_thread(go_on.wait, WAIT)

    runner = Runner("app.db", last)
    closers = [threading.Thread(target=runner.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    assert began.wait(WAIT)
    assert all(closer.is_alive() for closer in closers)
    go_on.set()
    for closer in closers:
        closer.join(WAIT)
        assert not closer.is_alive()


@pytest.mark.parametrize("kind", ["waits", "waits on after a cancellation", "comes too late"])
def test_closing_answers_all_who_wait(kind):
    runner = Runner("app.db", nothing)

    async def work():
        if kind == "comes too late":
            return
        try:
            await asyncio.Event().wait()
        finally:
            if kind == "waits on after a cancellation":
                await asyncio.sleep(0.01)

    waiting = [runner.submit(work) for _ in range(10)]
    if kind != "comes too late":
        runner.ask(int)
    runner.close()
    for future in waiting:
        if kind == "comes too late":  # it may have come in time, too
            assert future.done()
        else:
            assert isinstance(future.exception(WAIT), NotOpenError)


def test_closing_answers_calls_that_race_with_it():
    for _ in range(30):
        runner = Runner("app.db", nothing)
        ends: list[str] = []

        def call(runner=runner, ends=ends):
            try:
                while True:
                    runner.ask(int)
            except NotOpenError:
                ends.append("closed")

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        runner.ask(int)
        runner.close()
        for caller in callers:
            caller.join(WAIT)
        assert ends == ["closed"] * 4


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_wants_to_end_the_program_ends_the_thread_and_leaves_nobody_waiting(
    error, caplog
):
    done = []

    async def last():
        done.append("last")

    def end():
        raise error

    async def work():
        asyncio.get_running_loop().call_soon(end)
        await asyncio.Event().wait()

    runner = Runner("app.db", last)
    with pytest.raises(NotOpenError):
        runner.call(work)
    assert "a callback ended tide's thread" in caplog.text
    runner.close()
    assert done == ["last"]


def test_one_that_nobody_holds_ends():
    done = threading.Event()

    async def last():
        done.set()

    before = threads()
    runner = Runner("app.db", last)
    (thread,) = threads() - before
    del runner
    assert done.wait(WAIT)
    thread.join(WAIT)
    assert not thread.is_alive()


def test_one_that_is_let_go_of_on_its_own_thread_ends_too():
    before = threads()
    held = [Runner("app.db", nothing)]
    (thread,) = threads() - before
    work = held[0].submit

    async def let_go():
        held.clear()

    work(let_go)
    del work
    thread.join(WAIT)
    assert not thread.is_alive()
