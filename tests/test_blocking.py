"""The blocking twins: they do what the async ones do, from any thread, and can't drift apart."""

from __future__ import annotations

import gc
import inspect
import queue
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tide
from tests.support import served
from tide import (
    Change,
    Collection,
    Connection,
    DocumentError,
    LiveQuery,
    NotFoundError,
    NotOpenError,
    Tide,
    UsageError,
)
from tide.blocking import BlockingBatch, BlockingCollection, BlockingLiveQuery
from tide.server import create_app

WAIT = 30.0  # seconds until a test gives up


@pytest.fixture
def db(tmp_path):
    with tide.connect(tmp_path / "app.db", durability="relaxed") as db:
        yield db


@pytest.fixture
def todos(db):
    return db.collection("todos")


class Told:
    """A callback that keeps what it is called with."""

    def __init__(self):
        self._queue: queue.Queue[object] = queue.Queue()

    def __call__(self, one):
        self._queue.put(one)

    def next(self):
        return self._queue.get(timeout=WAIT)

    def rest(self):
        """All that came and was not asked for."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]


def in_threads(count, work):
    """What *work* returns for each number, from that many threads at the same time."""
    together = threading.Barrier(count)

    def run(number):
        together.wait(WAIT)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# Documents


def test_documents_are_written_and_read_as_by_the_async_twin(todos, db):
    todos.put("t1", {"text": "bread", "done": False})
    assert todos.update("t1", {"done": True}) == {"text": "bread", "done": True}
    added = todos.add({"text": "milk"})
    assert todos.get("t1") == {"text": "bread", "done": True}
    assert todos.get("nothing") is None
    assert todos.all() == {added: {"text": "milk"}, "t1": {"text": "bread", "done": True}}
    assert todos.count() == 2
    assert todos.delete("t1") is True
    assert todos.delete("t1") is False
    assert db.collections() == ["todos"]
    assert db.pending() == 2
    assert todos.name == "todos"
    assert repr(todos) == "<BlockingCollection todos>"


def test_errors_are_those_of_the_async_twin(todos):
    with pytest.raises(DocumentError) as caught:
        todos.put("t1", {"tags": ("a",)})
    assert caught.value.path == "tags"
    with pytest.raises(NotFoundError):
        todos.update("t1", {})


def test_every_method_works_from_several_threads_at_once(todos, db):
    def work(number):
        mine = db.collection(f"of{number}")
        mine.put("x", {"n": number})
        assert mine.update("x", {"m": 1}) == {"n": number, "m": 1}
        assert mine.get("x") == {"n": number, "m": 1}
        id_ = mine.add({"n": number})
        assert mine.all().keys() == {"x", id_}
        assert mine.count() == 2
        told = Told()
        stop = mine.watch(told)
        with mine.live() as query:
            assert query.items.keys() == {"x", id_}
            with db.batch():
                assert mine.delete("x")
                todos.put(f"t{number}", {})
            assert query.items.keys() == {id_}
        assert told.next() == Change("local", "delete", f"of{number}", "x", None)
        stop()
        assert db.rejected() == []
        assert db.status.state == "stopped"
        return db.node_id

    assert len(set(in_threads(8, work))) == 1
    assert todos.count() == 8


def test_f61_sixteen_threads_put_two_hundred_times_each(todos, db):
    def work(number):
        for one in range(200):
            todos.put(f"t{number:02}-{one:03}", {"by": number, "n": one})

    in_threads(16, work)
    expected = {
        f"t{number:02}-{one:03}": {"by": number, "n": one}
        for number in range(16)
        for one in range(200)
    }
    assert todos.all() == expected
    assert db.pending() == 3200


# Batches


def test_a_batch_is_written_as_a_whole_or_not_at_all(todos, db):
    told = Told()
    todos.watch(told)
    with db.batch():
        todos.put("a", {"n": 1})
        db.collection("log").put("l", {})
        assert todos.get("a") == {"n": 1}
        assert told.rest() == []
    with pytest.raises(DocumentError), db.batch():  # noqa: PT012 - one write before the failure
        todos.put("b", {})
        todos.put("c", {"n": float("nan")})
    todos.put("c", {})
    assert [told.next().id, told.next().id] == ["a", "c"]
    assert todos.all().keys() == {"a", "c"}
    assert db.collection("log").count() == 1


def test_a_batch_holds_the_writes_of_its_thread_alone(todos, db):
    with db.batch():
        todos.put("mine", {})
        with ThreadPoolExecutor(1) as pool:
            pool.submit(todos.put, "theirs", {}).result(WAIT)
            assert pool.submit(todos.all).result(WAIT) == {"theirs": {}}
        assert todos.all() == {"mine": {}, "theirs": {}}
        raised = pytest.raises(UsageError, match="already open")
        with raised, db.batch():
            pass
        assert todos.count() == 2
    assert todos.all() == {"mine": {}, "theirs": {}}


def test_each_thread_may_have_a_batch_open_at_the_same_time(todos, db):
    inside = threading.Barrier(4)

    def work(number):
        with db.batch():
            todos.put(f"t{number}", {})
            inside.wait(WAIT)
            seen = todos.count()
            inside.wait(WAIT)
            return seen

    assert in_threads(4, work) == [1] * 4
    assert todos.count() == 4


def test_a_batch_that_can_not_be_written_is_left(todos, db):
    with pytest.raises(NotOpenError), db.batch():  # noqa: PT012 - what is inside succeeds
        todos.put("a", {})
        db.close()
    with pytest.raises(NotOpenError), db.batch():
        pytest.fail("nothing can be written")
    with pytest.raises(NotOpenError):
        todos.put("b", {})


def test_a_batch_of_one_connection_holds_no_writes_of_another(tmp_path, todos, db):
    with tide.connect(tmp_path / "other.db") as other:
        with db.batch():
            todos.put("a", {})
            other.collection("todos").put("b", {})
            with ThreadPoolExecutor(1) as pool:
                there = pool.submit(other.collection("todos").all).result(WAIT)
            assert there == {"b": {}}
        assert todos.all() == {"a": {}}


# Watching


def test_a_callback_is_told_of_each_change_in_order(todos, db):
    told, one = Told(), Told()
    todos.watch(told)
    todos.watch(one, "t7")
    for number in range(50):
        todos.put(f"t{number}", {"n": number})
    todos.delete("t7")
    changes = [told.next() for _ in range(51)]
    assert [change.id for change in changes] == [*(f"t{n}" for n in range(50)), "t7"]
    assert changes[-1] == Change("local", "delete", "todos", "t7", None)
    assert [one.next().kind, one.next().kind] == ["put", "delete"]
    assert (told.rest(), one.rest()) == ([], [])


def test_a_watch_that_nobody_holds_goes_on(todos):
    told = Told()
    todos.watch(told)
    gc.collect()
    todos.put("a", {})
    assert told.next().id == "a"


def test_a_stopped_watch_tells_nothing_more(todos):
    told, after = Told(), Told()
    stop = todos.watch(told)
    todos.put("a", {})
    assert told.next().id == "a"
    stop()
    stop()
    todos.watch(after)
    todos.put("b", {})
    assert after.next().id == "b"
    assert told.rest() == []


def test_a_callback_can_stop_its_own_watch_in_the_middle_of_a_burst(todos, db):
    told, after = Told(), Told()

    def first(change):
        told(change)
        stop()

    stop = todos.watch(first)
    todos.watch(after)
    with db.batch():
        for number in range(10):
            todos.put(f"t{number}", {})
    assert [after.next().id for _ in range(10)] == [f"t{number}" for number in range(10)]
    todos.put("last", {})
    assert after.next().id == "last"
    assert [change.id for change in told.rest()] == ["t0"]


def test_what_a_callback_raises_is_logged_and_its_watch_goes_on(todos, caplog):
    told = Told()

    def fail(change):
        told(change)
        raise ValueError(f"no {change.id} for me")

    todos.watch(fail)
    todos.put("a", {})
    todos.put("b", {})
    assert [told.next().id, told.next().id] == ["a", "b"]
    todos.count()
    assert "no a for me" in caplog.text


def test_an_async_callback_is_refused(todos, db):
    async def callback(change):
        pytest.fail("nobody awaits it")

    for watch in (todos.watch, db.watch_status, todos.live().subscribe):
        with pytest.raises(UsageError, match="async"):
            watch(callback)


@pytest.mark.parametrize("callback", [None, "t1", 5])
def test_a_callback_is_a_function(todos, db, callback):
    for watch in (todos.watch, db.watch_status, todos.live().subscribe):
        with pytest.raises(UsageError, match=f"calls a plain function, as in .*, not {callback!r}"):
            watch(callback)


def test_where_and_key_of_a_live_query_are_functions(todos):
    with pytest.raises(UsageError, match=r"^key= is a function, as in `key=lambda doc: doc"):
        todos.live(key="text")


CALLS = {
    "put": lambda db: db.collection("todos").put("b", {}),
    "all": lambda db: db.collection("todos").all(),
    "status": lambda db: db.status,
    "batch": lambda db: db.batch().__enter__(),
    "flushed": lambda db: db.flushed(),
    "live": lambda db: db.collection("todos").live(),
    "watch": lambda db: db.collection("todos").watch(print),
    "close": lambda db: db.close(),
}


@pytest.mark.parametrize("how", ["watch", "watch_status", "subscribe", "where"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_from_inside_a_callback_is_refused_and_never_a_deadlock(db, todos, how, call):
    told = Told()

    def callback(one):
        try:
            call(db)
        except UsageError as error:
            told(error)
        else:
            told("no error")

    if how == "watch":
        todos.watch(callback)
    elif how == "watch_status":
        db.watch_status(callback)
    elif how == "subscribe":
        query = todos.live()
        query.subscribe(callback)
    else:
        query = todos.live(where=callback)
    todos.put("a", {})
    error = told.next()
    assert "own thread" in str(error)
    assert todos.get("b") is None  # all goes on


def test_a_watch_ends_with_its_connection(tmp_path):
    told = Told()
    db = tide.connect(tmp_path / "app.db")
    stop = db.collection("todos").watch(told)
    db.close()
    stop()
    assert told.rest() == []


# Live queries


def test_a_live_query_follows_what_changes(todos):
    todos.put("a", {"n": 2})
    todos.put("b", {"n": 1})
    with todos.live(where=lambda doc: doc["n"] > 0, key=lambda doc: doc["n"], limit=2) as query:
        assert list(query.items) == ["b", "a"]
        assert (query.state, query.revision, len(query)) == ("ready", 1, 2)
        todos.put("a", {"n": 0})
        todos.put("bad", {})
        assert query.items == {"b": {"n": 1}}
        assert query.get("b") == {"n": 1}
        assert query.get("a") is None
        assert query.errors.keys() == {"bad"}
        assert query.is_pending("b")
    todos.delete("b")
    assert query.items == {"b": {"n": 1}}, "the last picture stays"
    query.close()


def test_iterating_gives_each_step_until_the_query_is_closed(todos):
    todos.put("a", {})
    query = todos.live()
    told = Told()

    def read():
        for diff in query:
            told(diff)
        told("end")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    whole = [told.next() for _ in readers]
    assert all(diff.whole and [one.id for one in diff.added] == ["a"] for diff in whole)
    todos.put("b", {})
    assert [one.id for diff in (told.next(), told.next()) for one in diff.added] == ["b", "b"]
    query.close()
    assert [told.next() for _ in readers] == ["end", "end"]
    for reader in readers:
        reader.join(WAIT)


def test_closing_the_connection_ends_iterating_and_the_query(todos, db):
    with todos.live() as query:
        told = Told()

        def read():
            for _ in query:
                told("step")
            told("end")

        reader = threading.Thread(target=read)
        reader.start()
        assert told.next() == "step"
        db.close()
        assert told.next() == "end"
        reader.join(WAIT)
        steps = iter(query)
        with pytest.raises(NotOpenError):
            next(steps)


def test_subscriptions_are_called_with_each_step_until_closed(todos):
    told, other = Told(), Told()
    query = todos.live()
    subscription = query.subscribe(told)
    query.subscribe(other)
    todos.put("a", {})
    assert [one.id for one in told.next().added] == ["a"]
    subscription.close()
    todos.put("b", {})
    other.next()
    assert [one.id for one in other.next().added] == ["b"]
    assert told.rest() == []


class Screen:
    """Something that follows a query as long as it is there."""

    def __init__(self, told):
        self._told = told

    def show(self, diff):
        self._told(diff)


def test_a_subscription_ends_with_the_object_whose_method_it_calls(todos):
    gone, stays = Told(), Told()
    screen = Screen(gone)
    query = todos.live()
    query.subscribe(screen.show)
    query.subscribe(stays)
    todos.put("a", {})
    assert (gone.next().revision, stays.next().revision) == (2, 2)
    del screen
    gc.collect()
    todos.put("b", {})
    assert stays.next().revision == 3
    assert gone.rest() == []


def test_other_connections_are_told_too(tmp_path):
    with (
        served(create_app(tmp_path / "server.db")) as endpoint,
        tide.connect(tmp_path / "one.db", endpoint, interval=0.1) as one,
        tide.connect(tmp_path / "two.db", endpoint, interval=0.1) as two,
    ):
        told = Told()
        two.collection("todos").watch(told)
        one.collection("todos").put("a", {"text": "bread"})
        assert told.next() == Change("remote", "put", "todos", "a", {"text": "bread"})


# The two surfaces


TWINS = [
    (Tide, Connection),
    (Collection, BlockingCollection),
    (LiveQuery, BlockingLiveQuery),
    (tide.batch.Batch, BlockingBatch),
]
each_pair = pytest.mark.parametrize(
    ("twin", "mirror"), TWINS, ids=[twin.__name__ for twin, _ in TWINS]
)

ASYNC_ONLY = {
    "Tide.open": "connect() opens",
    "Tide.sync_forever": "connect() syncs for as long as it is open",
    "LiveQuery.tell": "called by the feed",
    "LiveQuery.end": "called by the feed",
    "Batch.enter": "called by both twins",
    "Batch.leave": "called by both twins",
    "Batch.commit": "called by both twins",
    "Batch.stage": "called by collections",
    "Batch.staged": "called by collections",
    "Batch.view": "called by collections",
    "Batch.is_open": "for collections",
    "Batch.outer": "for collections",
    "Batch.session": "for collections",
}
WATCHES = {"Collection.watch", "Tide.watch_status"}  # they take a callback
OWN_WORDS = {*WATCHES, "LiveQuery.subscribe"}  # which is called on another thread
BLOCKING = {  # what stands for what
    "Collection": "BlockingCollection",
    "Batch": "BlockingBatch",
    "LiveQuery": "BlockingLiveQuery",
}


def members(kind):
    return {name: one for name, one in vars(kind).items() if not name.startswith("_")}


def signature(member):
    plain = member.fget if isinstance(member, property) else member
    assert callable(plain)
    return inspect.signature(plain)


def documentation(member):
    doc = inspect.getdoc(member)
    assert doc
    return doc


@each_pair
def test_the_blocking_surface_has_the_names_of_the_async_one(twin, mirror):
    shared = {name for name in members(twin) if f"{twin.__name__}.{name}" not in ASYNC_ONLY}
    assert members(mirror).keys() == shared


@each_pair
def test_the_blocking_surface_has_the_parameters_of_the_async_one(twin, mirror):
    for name in members(mirror):
        ours, theirs = members(twin)[name], members(mirror)[name]
        assert type(ours) is type(theirs)
        one, other = signature(ours), signature(theirs)
        if f"{twin.__name__}.{name}" not in WATCHES:
            assert list(other.parameters.values()) == list(one.parameters.values()), name
            result = BLOCKING.get(one.return_annotation, one.return_annotation)
            assert other.return_annotation == result, name
        assert not inspect.iscoroutinefunction(theirs)


def test_watches_have_the_parameters_of_the_async_ones_after_their_callback():
    for ours, theirs in (
        (Collection.watch, BlockingCollection.watch),
        (Tide.watch_status, Connection.watch_status),
    ):
        one = list(inspect.signature(ours).parameters.values())
        me, callback, *others = inspect.signature(theirs).parameters.values()
        assert [me.replace(kind=one[0].kind), *others] == one
        assert callback.name == "callback"
        assert inspect.signature(theirs).return_annotation == "Stop"


@each_pair
def test_the_blocking_surface_has_the_words_of_the_async_one_without_async(twin, mirror):
    for name, theirs in members(mirror).items():
        words = documentation(theirs)
        assert not re.search(r"\basync (with|for)\b|\bawait\b", words), name
        if f"{twin.__name__}.{name}" not in OWN_WORDS:
            ours = documentation(members(twin)[name])
            assert words == ours.replace("await ", "").replace("async ", ""), name


def test_connecting_has_the_parameters_of_the_async_way():
    ours = inspect.signature(Tide.__init__).parameters
    theirs = dict(inspect.signature(tide.connect).parameters)
    interval = theirs.pop("interval")
    assert interval.default == inspect.signature(Tide.sync_forever).parameters["interval"].default
    assert list(theirs.values()) == [one for name, one in ours.items() if name != "self"]
