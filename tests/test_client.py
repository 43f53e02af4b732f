"""A Tide itself: opening and closing, its arguments, and who may use it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import anyio.lowlevel
import pytest

from tests.support import served, until
from tide import (
    EndpointError,
    NotFoundError,
    NotOpenError,
    OfflineError,
    RejectedOp,
    StoreError,
    Tide,
    Transport,
    UsageError,
    WrongLoopError,
    connect,
)
from tide.server import create_app
from tide.testing import memory_server

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
ENDPOINT = "http://127.0.0.1:9/sync"  # where nobody listens

ASYNC_CALLS = {
    "put": lambda tide: tide.collection("c").put("1", {}),
    "add": lambda tide: tide.collection("c").add({}),
    "update": lambda tide: tide.collection("c").update("1", {}),
    "delete": lambda tide: tide.collection("c").delete("1"),
    "get": lambda tide: tide.collection("c").get("1"),
    "all": lambda tide: tide.collection("c").all(),
    "count": lambda tide: tide.collection("c").count(),
    "batch": lambda tide: tide.batch().__aenter__(),
    "collections": lambda tide: tide.collections(),
    "pending": lambda tide: tide.pending(),
    "rejected": lambda tide: tide.rejected(),
    "retry": lambda tide: tide.retry(RejectedOp(1, "c", "1", {}, "", "")),
    "discard": lambda tide: tide.discard(RejectedOp(1, "c", "1", {}, "", "")),
    "confirm_reset": lambda tide: tide.confirm_reset(),
    "sync_once": lambda tide: tide.sync_once(),
}
PLAIN_CALLS = {
    "watch": lambda tide: tide.collection("c").watch(),
    "sync_forever": lambda tide: tide.sync_forever(),
    "node_id": lambda tide: tide.node_id,
}
CALLS = sorted(ASYNC_CALLS | PLAIN_CALLS)


class Nowhere(Transport):
    """A network that is always away."""

    async def exchange(self, body, headers):
        raise OfflineError("nobody is there")


async def call(name, tide):
    """Call the method *name* of *tide*, async or not."""
    if name in PLAIN_CALLS:
        PLAIN_CALLS[name](tide)
    else:
        await ASYNC_CALLS[name](tide)


def database_threads():
    """The threads that SQLite runs on."""
    return {thread for thread in threading.enumerate() if "_connection_worker" in thread.name}


# Opening and closing


async def test_open_and_close_do_what_async_with_does(tmp_path):
    tide = Tide(tmp_path / "app.db")
    await tide.open()
    await tide.collection("c").put("1", {"a": 1})
    await tide.close()
    async with tide as entered:
        assert entered is tide
        assert await tide.collection("c").get("1") == {"a": 1}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("was_open", [False, True])
async def test_a_tide_that_is_not_open_says_how_to_open_it(tmp_path, name, was_open):
    tide = Tide(tmp_path / "app.db", ENDPOINT)
    if was_open:
        async with tide:
            pass
    with pytest.raises(NotOpenError, match=r"app\.db is not open; use `async with Tide\(\.\.\.\)"):
        await call(name, tide)


async def test_making_a_tide_touches_no_file(tmp_path):
    tide = Tide(tmp_path / "app.db", ENDPOINT)
    tide.collection("c")
    tide.batch()
    assert tide.recovered is None
    assert list(tmp_path.iterdir()) == []


async def test_opening_twice_is_an_error_and_the_first_goes_on(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        with pytest.raises(UsageError, match="is open already; use one `async with` per Tide"):
            await tide.open()
        await tide.collection("c").put("1", {})
        assert await tide.collection("c").count() == 1


async def test_of_two_opens_at_once_one_succeeds(tmp_path):
    tide = Tide(tmp_path / "app.db")
    results = await asyncio.gather(tide.open(), tide.open(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), UsageError]
    await tide.close()


async def test_close_can_be_called_again_and_before_open(tmp_path):
    tide = Tide(tmp_path / "app.db")
    await tide.close()
    await tide.open()
    await asyncio.gather(tide.close(), tide.close(), tide.close())
    await tide.close()


async def test_closing_leaves_one_file_and_no_thread(tmp_path):
    before = database_threads()
    async with Tide(tmp_path / "app.db") as tide:
        await tide.collection("c").put("1", {})
        assert database_threads() - before
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]
    await until(lambda: database_threads() <= before)


async def test_whoever_closes_waits_until_it_is_closed(tmp_path):
    tide = Tide(tmp_path / "app.db")
    await tide.open()
    await tide.collection("c").put("1", {})
    first = asyncio.create_task(tide.close())
    await asyncio.sleep(0)
    await tide.close()
    assert not (tmp_path / "app.db-wal").exists()
    await first


async def test_writes_that_are_on_their_way_when_it_is_closed_are_stored(tmp_path):
    tide = Tide(tmp_path / "app.db")
    await tide.open()
    writes = [asyncio.ensure_future(tide.collection("c").put(f"{n}", {})) for n in range(100)]
    await asyncio.sleep(0)
    await tide.close()
    await asyncio.gather(*writes)
    async with tide:
        assert await tide.collection("c").count() == 100


async def test_f60_cancelling_close_cancels_the_waiting_and_not_the_closing(tmp_path):
    before = database_threads()
    tide = Tide(tmp_path / "app.db", transport=Nowhere())
    with anyio.CancelScope() as scope:
        async with tide, tide.sync_forever():
            await tide.collection("c").put("1", {})
            scope.cancel()  # from here on, every await inside is cancelled
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    await tide.close()  # waits for the rest of it
    assert not (tmp_path / "app.db-wal").exists()
    await until(lambda: database_threads() <= before)
    async with tide:
        assert await tide.collection("c").count() == 1


async def test_an_exception_inside_closes_too(tmp_path):
    tide = Tide(tmp_path / "app.db")

    async def fail():
        async with tide:
            await tide.collection("c").put("1", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not (tmp_path / "app.db-wal").exists()
    with pytest.raises(NotOpenError):
        await tide.pending()


async def test_the_node_id_keeps_its_device_and_is_new_at_each_open(tmp_path):
    seen = []
    for _ in range(3):
        async with Tide(tmp_path / "app.db") as tide:
            seen.append(tide.node_id)
    assert len(set(seen)) == 3
    assert len({node_id.split(".")[0] for node_id in seen}) == 1


@pytest.mark.parametrize("durability", ["full", "relaxed"])
async def test_both_durabilities_keep_what_was_written(tmp_path, durability):
    for number in range(3):
        async with Tide(tmp_path / "app.db", durability=durability) as tide:
            assert await tide.collection("c").count() == number
            await tide.collection("c").put(f"{number}", {})


# Arguments


async def test_all_arguments_can_be_given_by_keyword(tmp_path):
    tide = Tide(db_path=str(tmp_path / "app.db"), endpoint=ENDPOINT, headers={"a": "b"})
    async with tide:
        assert await tide.collections() == []


@pytest.mark.parametrize("path", ["", ":memory:", Path(":memory:"), "file:app.db?mode=ro", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path):
    with pytest.raises(UsageError, match="is not the path of a file; in tests, use a temporary"):
        Tide(path)


@pytest.mark.parametrize("url", ["http://h:80/sync", "https://h/sync", "HTTPS://h/sync"])
@pytest.mark.parametrize("rest", [(), ("app.db",)])
@pytest.mark.parametrize("make", [Tide, connect])
def test_a_url_in_the_place_of_the_file_is_refused(tmp_path, monkeypatch, make, url, rest):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the first argument is the file and the second the URL"):
        make(url, *rest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 5, b"app.db"])
def test_a_path_of_another_type_is_a_type_error(path):
    with pytest.raises(TypeError, match="str"):
        Tide(path)


@pytest.mark.parametrize("name", ["a b.db", "ö😀.db", "app.db?mode=ro", "%41.db", "'; --.db", "~"])
async def test_a_path_is_taken_as_it_is(tmp_path, name):
    async with Tide(tmp_path / name) as tide:
        await tide.collection("c").put("1", {})
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("path", ["", "no/such/directory/app.db"])
async def test_a_file_that_cannot_be_made_says_where_to_look(tmp_path, path):
    tide = Tide(tmp_path / path)
    for _ in range(2):  # and nothing is left half-open
        with pytest.raises(StoreError, match="does its directory exist, and may you write there"):
            await tide.open()
    with pytest.raises(NotOpenError):
        await tide.pending()


@pytest.mark.parametrize("durability", ["", "FULL", "none", None, 1, True, ["full"]])
def test_an_unknown_durability_is_refused(tmp_path, durability):
    with pytest.raises(UsageError, match='durability must be "full" or "relaxed", not'):
        Tide(tmp_path / "app.db", durability=durability)


@pytest.mark.parametrize(
    "endpoint",
    ["", " ", "example.com", "/sync", "ftp://example.com/sync", "http://", "http:///sync", 5, b"x"],
)
def test_an_endpoint_that_is_no_url_is_refused(tmp_path, endpoint):
    with pytest.raises(EndpointError, match=r"is no (URL|endpoint)"):
        Tide(tmp_path / "app.db", endpoint)


def test_a_transport_that_is_none_is_refused(tmp_path):
    with pytest.raises(EndpointError, match="a URL goes into endpoint="):
        Tide(tmp_path / "app.db", transport=ENDPOINT)  # type: ignore[arg-type]


async def test_an_endpoint_beside_a_transport_is_refused(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        with pytest.raises(EndpointError, match="either endpoint= or transport=, not both"):
            Tide(tmp_path / "app.db", ENDPOINT, transport=server.transport())


@pytest.mark.parametrize(
    "headers",
    [
        "Bearer TOKEN",
        b"bytes",
        5,
        [("Authorization", "Bearer TOKEN")],
        {"Authorization": None},
        {"Authorization": b"Bearer TOKEN"},
        {b"Authorization": "Bearer TOKEN"},
        {"X-Number": 5},
    ],
)
@pytest.mark.parametrize("make", [Tide, connect])
def test_headers_that_are_none_are_refused_at_once(tmp_path, make, headers):
    words = r'^headers= is a dict, such as {"Authorization": "Bearer TOKEN"}, or a function that re'
    with pytest.raises(UsageError, match=words):
        make(tmp_path / "app.db", ENDPOINT, headers=headers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interval", [0, -1, -0.0, float("nan"), float("-inf"), "2", None, [1]])
async def test_an_interval_that_is_no_positive_number_is_refused(tmp_path, interval):
    async with Tide(tmp_path / "app.db", ENDPOINT) as tide:
        with pytest.raises(EndpointError, match="interval must be a positive number of seconds"):
            tide.sync_forever(interval)


# Without an endpoint, and with one later


async def test_without_an_endpoint_syncing_says_how_to_give_one(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        with pytest.raises(EndpointError, match=r'give it one: Tide\("app\.db", "https://'):
            await tide.sync_once()
        with pytest.raises(EndpointError, match="no endpoint"):
            tide.sync_forever()
        await tide.collection("c").put("1", {})
        assert await tide.pending() == 1


async def test_a_local_file_that_gets_an_endpoint_pushes_all_that_it_holds(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        for number in range(20):
            await tide.collection("c").put(f"{number:02}", {"n": number})
        await tide.collection("c").delete("19")
        await tide.collection("d").put("1", {"tags": ["ö", None, 1.5]})
    async with memory_server(tmp_path / "server.db") as server:
        async with Tide(tmp_path / "app.db", transport=server.transport()) as tide:
            assert await tide.pending() == 21
            assert (await tide.sync_once()).pushed == 21
            assert await tide.pending() == 0
        async with Tide(tmp_path / "other.db", transport=server.transport()) as other:
            await other.sync_once()
            assert await other.collection("c").all() == {f"{n:02}": {"n": n} for n in range(19)}
            assert await other.collection("d").get("1") == {"tags": ["ö", None, 1.5]}


async def test_what_is_not_rejected_cannot_be_retried_or_discarded(tmp_path):
    op = RejectedOp(7, "c", "1", {}, "forbidden", "no")
    async with Tide(tmp_path / "app.db") as tide:
        assert await tide.rejected() == []
        for act in (tide.retry, tide.discard):
            with pytest.raises(NotFoundError, match=r"is not rejected \(any more\); see rejected"):
                await act(op)
        assert await tide.pending() == 0


# Several Tides and event loops


async def test_two_tides_on_one_file_see_each_others_writes_and_lose_none(tmp_path):
    async with Tide(tmp_path / "app.db") as a, Tide(tmp_path / "app.db") as b:
        assert a.node_id != b.node_id
        await a.collection("c").put("1", {})
        await asyncio.gather(
            *(
                tide.collection("c").update("1", {f"{i}-{n}": n})
                for n in range(50)
                for i, tide in enumerate((a, b))
            )
        )
        doc = await a.collection("c").get("1")
        assert doc == await b.collection("c").get("1")
        assert doc == {f"{i}-{n}": n for n in range(50) for i in range(2)}
        assert await a.pending() == await b.pending() == 1


def test_f61_one_file_in_20_event_loops_one_after_the_other(tmp_path):
    kept = Tide(tmp_path / "app.db")

    async def run(number):
        async with Tide(tmp_path / "app.db") as fresh, kept:
            await fresh.collection("c").put(f"fresh {number}", {})
            await kept.collection("c").put(f"kept {number}", {})
            return await kept.collection("c").count()

    assert [asyncio.run(run(number)) for number in range(20)] == list(range(2, 42, 2))


@pytest.mark.parametrize("name", [*CALLS, "close"])
def test_f61_another_event_loop_than_the_one_that_opened_it_is_an_error(tmp_path, name):
    async def elsewhere(tide):
        message = "opened in another event loop; open a Tide of its own here"
        with pytest.raises(WrongLoopError, match=message):
            await (tide.close() if name == "close" else call(name, tide))

    async def main():
        async with Tide(tmp_path / "app.db", ENDPOINT) as tide:
            await asyncio.to_thread(asyncio.run, elsewhere(tide))
            assert await tide.pending() == 0

    asyncio.run(main())


async def test_f61_a_thread_without_an_event_loop_is_an_error(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        with pytest.raises(WrongLoopError, match="open a Tide of its own here"):
            await asyncio.to_thread(tide.collection("c").watch)


def test_f61_a_tide_whose_event_loop_ended_is_not_usable_and_can_be_closed(tmp_path):
    tide = Tide(tmp_path / "app.db", transport=Nowhere())

    async def forget_to_close():
        await tide.open()
        await tide.collection("c").put("1", {})
        return await tide.sync_forever().__aenter__()

    async def later():
        with pytest.raises(WrongLoopError):
            await tide.collection("c").get("1")
        async with Tide(tmp_path / "app.db") as other:
            assert await other.collection("c").count() == 1
        await tide.close()
        async with tide:
            assert await tide.collection("c").count() == 1

    syncing = asyncio.run(forget_to_close())
    asyncio.run(later())
    assert not syncing.online
    assert not (tmp_path / "app.db-wal").exists()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the ended loop's, not ours
def test_f61_closing_after_the_event_loop_that_synced_ended_frees_it_for_another(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        tide = Tide(tmp_path / "app.db", endpoint)

        async def forget_to_close():
            await tide.open()
            await tide.sync_once()

        async def later():
            await tide.close()
            async with tide:
                await tide.collection("c").put("1", {})
                assert (await tide.sync_once()).pushed == 1

        asyncio.run(forget_to_close())
        asyncio.run(later())
        gc.collect()  # so that the warning comes here


def test_f61_16_threads_each_with_a_tide_of_its_own_lose_nothing(tmp_path):
    def work(number):
        async def run():
            async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
                for n in range(20):
                    await tide.collection("c").put(f"{number}-{n}", {})
                    await tide.collection("c").update("counters", {f"{number}": n})

        asyncio.run(run())

    async def prepare():
        async with Tide(tmp_path / "app.db") as tide:
            await tide.collection("c").put("counters", {})

    async def check():
        async with Tide(tmp_path / "app.db") as tide:
            assert await tide.collection("c").count() == 16 * 20 + 1
            counters = await tide.collection("c").get("counters")
            assert counters == {f"{n}": 19 for n in range(16)}

    asyncio.run(prepare())
    threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(check())


async def test_a_tide_that_was_closed_is_not_kept_in_memory(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        await tide.collection("c").put("1", {})
    closed = weakref.ref(tide)
    del tide
    gc.collect()
    assert closed() is None


# Forks


def run_script(script, *arguments):
    """What the Python program *script* prints."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FORKING = """
import asyncio, os, signal, sys
from tide import ForkedError, Tide

path, name = sys.argv[1:]
loop = asyncio.new_event_loop()
run = loop.run_until_complete

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # ends a child that hangs
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


@needs_fork
def test_f59_in_a_forked_child_every_call_is_an_error_at_once(tmp_path):
    script = """
        from tests.test_client import CALLS, call

        tide = Tide(path, "http://127.0.0.1:9/sync")
        run(tide.open())
        run(tide.collection("c").put("1", {}))

        async def attempt(name):
            try:
                if name in ("open", "close"):
                    await getattr(tide, name)()
                else:
                    await call(name, tide)
            except ForkedError as error:
                print(name, error)

        def child():
            for name in [*CALLS, "open", "close"]:
                asyncio.run(attempt(name))

        in_child(child)
        run(tide.collection("c").put("2", {}))
        assert run(tide.collection("c").count()) == 2
        run(tide.close())
    """
    lines = run_script(FORKING + textwrap.dedent(script), tmp_path / "app.db", "")
    assert [line.split()[0] for line in lines] == [*CALLS, "open", "close"]
    advice = "close it before forking, or start processes by spawn"
    assert all(advice in line for line in lines)


@needs_fork
@pytest.mark.parametrize("way", ["path", "link", "grandchild"])
def test_f59_a_file_that_was_open_at_the_fork_cannot_be_opened_in_the_child(tmp_path, way):
    """Else the child would write into a log that the parent removes when it closes."""
    script = """
        tide = Tide(path)
        run(tide.open())
        os.symlink(path, path + ".link")

        def child():
            try:
                asyncio.run(Tide(path + (".link" if name == "link" else "")).open())
            except ForkedError as error:
                print(error)

        in_child((lambda: in_child(child)) if name == "grandchild" else child)
        run(tide.close())
    """
    lines = run_script(FORKING + textwrap.dedent(script), tmp_path / "app.db", way)
    assert len(lines) == 1
    assert "was open when this process was forked" in lines[0]


@needs_fork
def test_f59_other_files_and_those_closed_before_the_fork_can_be_opened_in_the_child(tmp_path):
    script = """
        async def put(path, id_):
            async with Tide(path) as tide:
                await tide.collection("c").put(id_, {})
                print(sorted(await tide.collection("c").all()))

        tide, other = Tide(path), Tide(path + ".other")
        run(tide.open())
        run(tide.close())
        run(other.open())

        def child():
            asyncio.run(put(path, "child"))
            asyncio.run(put(path + ".third", "child"))

        in_child(child)
        run(put(path, "parent"))
        run(other.close())
    """
    lines = run_script(FORKING + textwrap.dedent(script), tmp_path / "app.db", "")
    assert lines == ["['child']", "['child']", "['child', 'parent']"]
