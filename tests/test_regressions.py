"""Bugs that only came to light when somebody tried to break things; none may come back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import pytest

from tests.lines import Line
from tests.programs.files import documents, node, outbox, query, sql_on
from tests.support import until
from tide import OfflineError, StoreBusyError, StoreCorruptError, Tide, Transport, UnavailableError
from tide.merge import apply_answer
from tide.store import Store
from tide.testing import memory_server

PAGE = 4096
NEVER = 3600.0
FORGOTTEN = 91 * 86_400.0  # seconds after which no deletion is remembered
FAR = 3_000_000  # a counter that no server accepts as long as its own is low
PATIENCE = 5.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.db"


@pytest.fixture
async def server(tmp_path):
    async with memory_server(tmp_path / "server.db") as server:
        yield server


class Live(Transport):
    """Carries exchanges and the live stream to *transport*.

    Attributes:
        heard: how many events of the stream the node has taken.
    """

    def __init__(self, transport):
        self.heard = 0
        self._transport = transport

    async def exchange(self, body, headers):
        return await self._transport.exchange(body, headers)

    async def listen(self, cursor, headers):
        async with contextlib.aclosing(self._transport.listen(cursor, headers)) as events:
            async for event in events:
                yield event
                self.heard += 1


class Silent(Transport):
    """Never answers."""

    async def exchange(self, body, headers):
        await asyncio.Event().wait()


async def test_f50_what_another_commits_while_the_file_is_busy_is_told_later(path, monkeypatch):
    monkeypatch.setattr("tide.database.BUSY_TIMEOUT", 0.0)
    monkeypatch.setattr("tide.feed.LOOK", NEVER)  # it looks when this test says so
    monkeypatch.setattr("tide.feed.IDLE", NEVER)
    store = await Store.open(path, "relaxed")
    try:
        watcher = store.feed.watch("c")
        await store.catch_up()
        async with Tide(path) as other:
            await other.collection("c").put("x", {"n": 1})
            with sql_on(path) as third:
                third.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreBusyError):
                    await store.catch_up()
                third.execute("ROLLBACK")
            await store.catch_up()
            change = await asyncio.wait_for(anext(watcher), PATIENCE)
        assert (change.id, change.doc) == ("x", {"n": 1})
    finally:
        await store.close()


async def test_f18_f20_a_clock_that_was_put_back_stays_back_while_another_has_the_file_open(
    path, server
):
    async with Tide(path, transport=server.transport()) as node_, Tide(path) as other:
        made: dict[tuple[int, str], str] = {}  # the id of the document by stamp

        def note():
            for (_, id_), (_, counter, half) in outbox(path).items():
                assert made.setdefault((counter, half), id_) == id_
            return node(path, "clock")

        for number in range(30):  # whose counters come again once the clock is put back
            await other.collection("c").put("early", {"n": number})
            note()
        with sql_on(path) as sql:
            sql.execute("UPDATE node SET clock = ?", [FAR])
        await other.collection("c").put("early", {"far": True})
        assert note() > FAR
        await node_.sync_once()
        for number in range(5):
            await other.collection("c").put(f"late {number}", {})
            await node_.collection("c").put(f"own {number}", {})
            assert note() < FAR
            await node_.sync_once()
            assert note() < FAR
        assert await node_.pending() == 0
    stamps = [(counter, half) for _, counter, half in documents(path).values()]
    assert len(set(stamps)) == len(stamps)
    assert max(stamps)[0] < FAR


async def test_f29_a_live_page_does_not_take_a_node_past_deletions_that_are_forgotten(
    tmp_path, path, monkeypatch
):
    monkeypatch.setattr("tide.server.hub.LOOK", NEVER)
    monkeypatch.setattr("tide.server.hub.MAX_LOOK", NEVER)
    now = [1e9]
    db = tmp_path / "server.db"
    async with (
        memory_server(db, now=lambda: now[0]) as stopped,  # does not look until it is poked
        memory_server(db, now=lambda: now[0]) as running,
        Tide(path, transport=(line := Live(stopped.transport()))) as listening,
        Tide(tmp_path / "b.db", transport=running.transport()) as writing,
    ):
        await writing.collection("c").put("x", {"n": 1})
        await writing.sync_once()
        async with listening.sync_forever(NEVER):
            await until(lambda: line.heard)
            await writing.collection("c").delete("x")
            await writing.sync_once()
            await writing.collection("c").put("y", {"n": 1})
            now[0] += FORGOTTEN
            await writing.sync_once()
            stopped.service.hub.poke("default")
            await until(lambda: listening.collection("c").get("y"))
            assert await listening.collection("c").all() == {"y": {"n": 1}}


async def test_f29_who_may_only_write_keeps_all_documents_however_long_it_was_away(tmp_path, path):
    now = [1e9]
    async with (
        memory_server(tmp_path / "server.db", now=lambda: now[0]) as server,
        Tide(path, transport=server.transport(read=False)) as blind,
        Tide(tmp_path / "b.db", transport=server.transport()) as other,
    ):
        await blind.collection("c").put("mine", {"n": 1})
        await blind.sync_once()
        await other.collection("c").put("z", {})
        await other.sync_once()
        await other.collection("c").delete("z")
        await other.sync_once()
        now[0] += FORGOTTEN
        await other.sync_once()
        await blind.sync_once()
        assert await blind.collection("c").all() == {"mine": {"n": 1}}


async def filled(path, *, mine):
    """A store that was closed, with many documents and the document *mine*."""
    async with Tide(path, durability="relaxed") as tide:
        async with tide.batch():
            for number in range(100):
                await tide.collection("c").put(f"x{number}", {"text": "t" * 300})
        await tide.collection("c").put("mine", mine)


def spoil(path):
    """Damage the first page of the documents, which the main file holds."""
    ((root,),) = query(path, "SELECT rootpage FROM sqlite_master WHERE name = 'documents'")
    with path.open("r+b") as file:
        file.seek(PAGE * (root - 1))
        file.write(b"\xff" * PAGE)


async def test_f53_no_write_is_acknowledged_into_a_file_that_was_set_aside(path):
    await filled(path, mine={})
    async with Tide(path) as writer:
        await writer.collection("c").put("before", {})
        spoil(path)
        async with Tide(path) as recovering:
            assert recovering.recovered is not None
            with pytest.raises(StoreCorruptError, match="moved or replaced"):
                await writer.collection("c").put("after", {})
            saved = await recovering.collection("c").all()
            assert {"mine", "before"} <= set(saved)
            assert "after" not in saved


async def test_f53_an_op_that_was_saved_and_then_rejected_is_shown_as_rejected(tmp_path, path):
    def validate(write):
        return "it is bad" if write.doc and write.doc.get("bad") else None

    await filled(path, mine={"bad": True})
    with sql_on(path) as sql:
        sql.execute("UPDATE node SET clean = 0")
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    spoil(path)
    async with (
        memory_server(tmp_path / "server.db", validate=validate) as server,
        Tide(path, transport=server.transport()) as tide,
    ):
        assert tide.recovered is not None
        assert (await tide.sync_once()).rejected == 1
        assert [(op.id, op.doc) for op in await tide.rejected()] == [("mine", {"bad": True})]
        assert await tide.pending() == 0


class Looks:
    """Stands for the asyncio of `tide.sync_loop`: its watchdog looks only when it is told to.

    Attributes:
        waits: how often it has begun to wait for its next look.
    """

    wedged = 1234.5

    def __init__(self):
        self.waits = 0
        self._look = asyncio.Event()

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def wait(self, tasks, timeout=None):
        if timeout != self.wedged:
            return await asyncio.wait(tasks, timeout=timeout)
        self.waits += 1
        look = asyncio.ensure_future(self._look.wait())
        try:
            return await asyncio.wait([*tasks, look], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._look.clear()
            look.cancel()

    async def once(self):
        before = self.waits
        self._look.set()
        await until(lambda: self.waits > before)


class Held:
    """Stands for *apply_answer*: while *holds* is set, live pages wait in it until *go* is."""

    def __init__(self, apply_answer):
        self.holds = False
        self.holding = threading.Event()
        self.go = threading.Event()
        self.pages = 0
        self._apply_answer = apply_answer

    def __call__(self, tx, answers, sent, response):
        if response.since is not None:
            self.pages += 1
            if self.holds:
                self.holding.set()
                self.go.wait(PATIENCE)
        return self._apply_answer(tx, answers, sent, response)


async def test_f47_a_node_that_applies_live_pages_does_not_hang(
    tmp_path, path, server, monkeypatch, caplog
):
    held, looks = Held(apply_answer), Looks()
    monkeypatch.setattr("tide.sync.apply_answer", held)
    monkeypatch.setattr("tide.sync_loop.asyncio", looks)
    monkeypatch.setattr("tide.sync_loop.WEDGED", looks.wedged)
    async with (
        Tide(path, transport=(line := Live(server.transport()))) as listening,
        Tide(tmp_path / "b.db", transport=server.transport()) as writing,
    ):
        async with listening.sync_forever(NEVER):
            await writing.collection("c").put("x", {"n": 1})
            await writing.sync_once()
            await until(lambda: line.heard)
            await until(lambda: listening.collection("c").get("x"))
            await looks.once()  # the last exchange was before this
            held.holds = True
            await writing.collection("c").put("y", {"n": 1})
            await writing.sync_once()
            try:
                await until(held.holding.is_set)
                await looks.once()
            finally:
                held.go.set()
            await until(lambda: listening.collection("c").get("y"))
        assert "starts anew" not in caplog.text


def close_in_another_loop(tide):
    """In a thread, so that a close that never returns fails a test and does not keep it."""
    closing = threading.Thread(target=lambda: asyncio.run(tide.close()), daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()


def leave_in_a_closed_loop(tide, doing):
    """Open *tide* in a loop that is closed while *doing* is under way."""

    async def begin():
        await tide.open()
        if doing == "looking":
            await until(lambda: kept)
        if doing == "syncing":
            await tide.sync_forever().__aenter__()
        if doing == "writing":
            kept.append(asyncio.ensure_future(tide.collection("c").put("x", {})))
            await asyncio.sleep(0)

    async def never(self):
        kept.append(self)
        await asyncio.Event().wait()

    kept = []
    loop = asyncio.new_event_loop()
    with pytest.MonkeyPatch.context() as patch:
        if doing == "looking":
            patch.setattr("tide.feed.IDLE", 0.0)
            patch.setattr(Store, "catch_up", never)
        loop.run_until_complete(begin())
    loop.close()


# Tasks that were left in a closed loop say so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("doing", ["looking", "syncing", "writing"])
def test_f61_a_tide_whose_loop_was_closed_can_be_closed_in_another(path, doing):
    tide = Tide(path, transport=Silent())
    leave_in_a_closed_loop(tide, doing)
    close_in_another_loop(tide)
    assert node(path, "clean") == 1
    del tide
    gc.collect()


def test_f61_a_program_that_ends_while_a_write_is_on_its_way_can_close_later(path):
    async def write_and_end():
        await tide.open()
        writes.append(asyncio.ensure_future(tide.collection("c").put("x", {})))
        await asyncio.sleep(0)  # it is on its way

    writes = []
    tide = Tide(path)
    asyncio.run(write_and_end())
    close_in_another_loop(tide)
    assert ("c", "x") in documents(path)
    assert node(path, "clean") == 1


async def test_f05_who_is_overtaken_by_others_again_and_again_says_so(path, server):
    line = Line(server.transport())

    async def overtake():
        if len(line.requests) < 100:
            line.meanwhile = overtake
        await quick.sync_once()

    async with (
        Tide(path, transport=server.transport()) as quick,
        Tide(path, transport=line) as slow,
    ):
        line.meanwhile = overtake
        with pytest.raises(UnavailableError, match="quicker"):
            await slow.sync_once()
        line.meanwhile = None
        await slow.collection("c").put("x", {"n": 1})
        assert (await slow.sync_once()).pushed == 1


class Failing(Transport):
    """Fails when it is told to."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def exchange(self, body, headers):
        self.asked.set()
        await self.go.wait()
        raise OfflineError("away")


async def test_a_sync_that_is_cancelled_just_as_it_fails_leaves_no_error_behind(path, caplog):
    line = Failing()
    async with Tide(path, transport=line) as tide:
        task = asyncio.ensure_future(tide.sync_once())
        await line.asked.wait()
        line.go.set()
        await asyncio.sleep(0)  # the exchange has failed, and sync_once has not seen it yet
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OfflineError):
            await task
        del task
    gc.collect()
    assert "never retrieved" not in caplog.text
