"""A connection as a whole: how it is opened, shared, dropped and closed, and how programs end."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import tide
from tests.support import free_port, served
from tide import (
    Change,
    EndpointError,
    ForkedError,
    NotAStoreError,
    NotFlushedError,
    NotOpenError,
    Transport,
    UsageError,
)
from tide.server import create_app

WAIT = 30.0  # seconds until a test gives up


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def endpoint(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        yield endpoint


def threads_of(path):
    """The threads of the connections to *path*."""
    return [thread for thread in threading.enumerate() if thread.name == f"tide {path}"]


@contextmanager
def no_thread_left():
    """All threads that begin inside end by themselves."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT)
        assert not thread.is_alive(), thread


def until_now(holds):
    """Wait until *holds*; for tests that are not async."""
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def stored(path):
    """The documents in the file at *path*, by id."""
    with closing(sqlite3.connect(path)) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(sql.execute("SELECT id, doc FROM documents").fetchall())


# Opening and closing


def test_a_connection_is_open_until_its_with_ends(path):
    with no_thread_left(), tide.connect(path) as db:
        assert db.node_id
        assert db.recovered is None
        db.collection("todos").put("a", {})
        with pytest.raises(EndpointError):
            db.sync_once()
    with pytest.raises(NotOpenError, match=r"app\.db was closed"):
        db.collection("todos").get("a")
    with pytest.raises(NotOpenError):
        _ = db.status
    db.close()
    with tide.connect(path) as db:
        assert db.collection("todos").all() == {"a": {}}


def test_what_can_not_be_opened_says_so_and_leaves_nothing_behind(path):
    path.write_text("not a database, but somebody's shopping list, and rather a long one at that")
    with no_thread_left():
        with pytest.raises(NotAStoreError):
            tide.connect(path)
        with pytest.raises(EndpointError, match="interval"):
            tide.connect(path.with_name("b.db"), "http://127.0.0.1:9/sync", interval=0)
        with pytest.raises(UsageError):
            tide.connect(":memory:")


def test_closing_from_several_threads_closes_once_and_for_all(path):
    with no_thread_left():
        db = tide.connect(path)
        together = threading.Barrier(8)

        def close(_):
            together.wait(WAIT)
            db.close()
            with pytest.raises(NotOpenError):
                db.pending()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(close, range(8)))


class Silent(Transport):
    """A server that never answers.

    Attributes:
        asked: set once it was asked something.
    """

    def __init__(self):
        self.asked = threading.Event()

    async def exchange(self, body, headers):
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    "call",
    [
        lambda db: db.sync_once(),
        lambda db: db.flushed(WAIT),
        lambda db: [db.collection("todos").put("a", {}) for _ in iter(int, 1)],
        lambda db: [db.collection("todos").all() for _ in iter(int, 1)],
    ],
    ids=["sync_once", "flushed", "put", "all"],
)
def test_calls_under_way_end_when_the_connection_closes(path, call):
    silent = Silent()
    db = tide.connect(path, transport=silent, durability="relaxed")
    db.collection("todos").put("a", {})
    assert silent.asked.wait(WAIT)
    ends: queue.Queue[BaseException] = queue.Queue()
    began = threading.Barrier(9)

    def run():
        began.wait(WAIT)
        try:
            call(db)
        except BaseException as error:  # noqa: BLE001 - all is told
            ends.put(error)

    callers = [threading.Thread(target=run) for _ in range(8)]
    for caller in callers:
        caller.start()
    began.wait(WAIT)
    db.collection("todos").count()
    db.close()
    assert {type(ends.get(timeout=WAIT)) for _ in callers} == {NotOpenError}
    for caller in callers:
        caller.join(WAIT)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_f61_twenty_connections_one_after_the_other_leave_nothing_behind(path, endpoint, how):
    def once(number):
        db = tide.connect(path, endpoint)
        db.collection("todos").put(f"t{number}", {})
        db.flushed()
        with db.collection("todos").live() as query:
            assert len(query) == number + 1
        if how == "closed":
            db.close()

    once(0)
    gc.collect()
    until_now(lambda: not threads_of(path))
    before = threading.active_count(), descriptors()
    for number in range(1, 21):
        once(number)
    gc.collect()
    until_now(lambda: (threading.active_count(), descriptors()) <= before)


# Dropped without a close


def test_f63_a_dropped_connection_ends_its_thread_and_closes_the_file(path):
    with no_thread_left():
        db = tide.connect(path)
        db.collection("todos").put("a", {})
        db.collection("todos").watch(print)
        db.watch_status(lambda status: None)
        del db
        gc.collect()
    assert not Path(f"{path}-wal").exists(), "the last connection to a file removes its log"
    assert stored(path) == {"a": "{}"}


def held(what, db):
    todos = db.collection("todos")
    return {
        "collection": lambda: todos,
        "batch": db.batch,
        "query": todos.live,
        "steps": lambda: iter(todos.live()),
        "stop": lambda: todos.watch(print),
    }[what]()


@pytest.mark.parametrize("what", ["collection", "batch", "query", "steps", "stop"])
def test_what_was_made_by_a_connection_keeps_it_open(path, what):
    with no_thread_left():
        db = tide.connect(path)
        kept = held(what, db)
        gone = weakref.ref(db)
        (thread,) = threads_of(path)
        del db
        gc.collect()
        assert gone() is None
        assert thread.is_alive(), "dropping would have waited for its end"
        del kept
        gc.collect()


# How programs end

OPEN = """
import os, signal, sys, threading, tide
db = tide.connect(sys.argv[1], sys.argv[2])
todos = db.collection("todos")
todos.watch(lambda change: None)
query = todos.live()
for number in range(20):
    todos.put(f"t{number}", {})
print("written", flush=True)
"""
ENDS = {
    "at the end": ("", 0),
    "with sys.exit": ("sys.exit(3)", 3),
    "with an exception": ("raise ValueError", 1),
    "in a thread": ("threading.Thread(target=lambda: todos.put('last', {})).start()", 0),
    "with Ctrl-C while it waits": (
        "threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start(); db.flushed(60)",
        -signal.SIGINT,
    ),
    "with Ctrl-C while it reads": (
        "threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start(); [0 for _ in query]",
        -signal.SIGINT,
    ),
    "with SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); db.flushed(60)", -signal.SIGTERM),
    "while it is held by a cycle": ("me = [db]; me.append(me); del db, todos, query", 0),
    "with sys.exit in a callback": (
        "todos.watch(lambda change: sys.exit()); todos.put('x', {}); query.close()",
        0,
    ),
}


@pytest.mark.parametrize("server", ["no server", "a server that is silent", "a server"])
@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_f62_f63_a_program_that_forgets_to_close_ends_by_itself_and_loses_nothing(
    path, endpoint, server, code, status
):
    with silence() as silent:
        to = {
            "no server": f"http://127.0.0.1:{free_port()}/sync",
            "a server that is silent": silent,
            "a server": endpoint,
        }[server]
        if server == "a server":
            code = code.replace("db.flushed(60)", "threading.Event().wait()")
        done = subprocess.run(
            [sys.executable, "-c", OPEN + code, path, to],
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
    assert done.stdout == "written\n"
    assert done.returncode == status, done.stderr
    assert "never awaited" not in done.stderr
    assert "destroyed" not in done.stderr
    assert stored(path).keys() >= {f"t{number}" for number in range(20)}


@contextmanager
def silence():
    """The endpoint of a server that takes connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/sync"


FORK = """
import os, sys, tide
db = tide.connect(sys.argv[1])
todos = db.collection("todos")
todos.put("a", {})
stop = todos.watch(lambda change: None)
batch, query = db.batch(), todos.live()
child = os.fork()
if child == 0:
    calls = {
        "put": lambda: todos.put("b", {}),
        "status": lambda: db.status,
        "batch": lambda: batch.__enter__(),
        "items": lambda: query.items,
        "steps": lambda: next(iter(query)),
        "stop": stop,
        "close": db.close,
        "connect": lambda: tide.connect(sys.argv[1]),
    }
    for name, call in calls.items():
        try:
            call()
        except tide.ForkedError as error:
            print(name, "refused", flush=True)
    other = tide.connect(sys.argv[1] + ".other")
    other.collection("todos").put("b", {})
    print("other", other.collection("todos").all(), flush=True)
    del db, todos, stop, batch, query, calls, call
    sys.exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
todos.put("c", {})
print("parent", todos.all())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_f59_a_forked_process_is_refused_at_once_and_harms_nothing(path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, path],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = ["put", "status", "batch", "items", "steps", "stop", "close", "connect"]
    assert done.stdout.splitlines() == [
        *(f"{call} refused" for call in calls),
        "other {'b': {}}",
        "parent {'a': {}, 'c': {}}",
    ]
    assert ForkedError is tide.ForkedError


# Where it is used


async def test_f61_it_works_where_an_event_loop_runs(path, endpoint):
    """As in a notebook, whose cells run inside of one."""
    with tide.connect(path, endpoint) as db:
        todos = db.collection("todos")
        with db.batch():
            todos.put("a", {"text": "bread"})
        assert todos.all() == {"a": {"text": "bread"}}
        db.flushed()
        assert db.status.pending == 0
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        todos.watch(lambda change: loop.call_soon_threadsafe(heard.set))
        todos.put("b", {})
        await asyncio.wait_for(heard.wait(), WAIT)


def test_f61_one_that_is_cached_serves_threads_that_come_and_go(path, endpoint):
    """As behind st.cache_resource: made once, used by each run of a script, in its own thread."""
    connect = functools.cache(lambda: tide.connect(path, endpoint, durability="relaxed"))

    def script(number):
        todos = connect().collection("todos")
        todos.put(f"t{number}", {"n": number})
        with todos.live(key=lambda doc: doc["n"]) as query:
            return f"t{number}" in query.items

    connect()
    with no_thread_left():
        for start in range(0, 40, 8):
            threads = [
                threading.Thread(target=script, args=[start + number]) for number in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT)
    assert connect().collection("todos").count() == 40
    connect().close()


def test_f50_two_connections_on_one_file_hear_of_each_other(path, endpoint):
    with tide.connect(path, endpoint) as one, tide.connect(path, endpoint) as two:
        told: queue.Queue[Change] = queue.Queue()
        one.collection("todos").watch(told.put)
        with one.collection("todos").live() as query:
            two.collection("todos").put("a", {"n": 1})
            assert told.get(timeout=WAIT) == Change("local", "put", "todos", "a", {"n": 1})
            assert query.items == {"a": {"n": 1}}
        one.flushed()
        assert two.pending() == 0


# Status and what waits


def test_f47_the_status_is_told_to_a_callback_as_it_changes(path, endpoint):
    told: queue.Queue[tide.SyncStatus] = queue.Queue()
    with tide.connect(path, endpoint) as db:
        stop = db.watch_status(told.put)
        while told.get(timeout=WAIT).state != "online":
            pass
        db.collection("todos").put("a", {})
        while told.get(timeout=WAIT).pending != 1:
            pass
        while told.get(timeout=WAIT).pending != 0:
            pass
        assert db.status.state == "online"
        stop()


def test_flushed_returns_when_all_is_on_the_server_or_says_why_not(path, endpoint):
    with tide.connect(path, f"http://127.0.0.1:{free_port()}/sync") as db:
        db.collection("todos").put("a", {})
        with pytest.raises(NotFlushedError, match=r"not on the server after 0.0 s: 1;") as caught:
            db.flushed(0.0)
        assert isinstance(caught.value, TimeoutError)
    with tide.connect(path, endpoint) as db, tide.connect(f"{path}2", endpoint) as other:
        db.flushed()
        other.sync_once()
        assert other.collection("todos").all() == {"a": {}}


def test_rejected_ops_can_be_retried_and_discarded(tmp_path, path):
    def validate(write):
        return None if write.doc != {"bad": 1} else "no"

    app = create_app(tmp_path / "server.db", validate=validate)
    with served(app) as endpoint, tide.connect(path, endpoint) as db:
        todos = db.collection("todos")
        todos.put("a", {"bad": 1})
        db.flushed()
        (op,) = db.rejected()
        assert (op.id, op.doc, db.status.rejected) == ("a", {"bad": 1}, 1)
        assert todos.get("a") is None
        db.retry(op)
        db.flushed()
        (op,) = db.rejected()
        db.retry(op._replace(doc={"good": 1}))
        db.flushed()
        assert (db.rejected(), todos.get("a")) == ([], {"good": 1})
        with pytest.raises(tide.NotFoundError):
            db.discard(op)
        with pytest.raises(tide.NotFoundError):
            db.retry(op)


def test_a_reset_that_waits_for_a_yes_can_be_confirmed(path, endpoint):
    with tide.connect(path, endpoint) as db:
        assert db.confirm_reset() == 0
