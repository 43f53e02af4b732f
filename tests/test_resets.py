"""Starting over: servers that lost history, and nodes that were away for too long."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from tests.lines import Line, Scripted, op
from tide import Answer, OfflineError, ProtocolError, ResetNeedsConfirmationError, Tide
from tide.testing import memory_server

DAY = 86400.0


class World:
    """A server that can be stopped, wiped and restored, and whose days pass as told."""

    def __init__(self, tmp_path):
        self.days = 1000.0
        self._tmp_path = tmp_path
        self._db = tmp_path / "server.db"

    def server(self):
        return memory_server(self._db, now=lambda: self.days * DAY)

    @asynccontextmanager
    async def node(self, name, server):
        line = Line(server.transport())
        async with Tide(self._tmp_path / f"{name}.db", transport=line) as tide:
            yield tide, tide.collection("todos"), line

    def back_up(self):
        """(the server is stopped) Keep a copy of its database."""
        shutil.copy(self._db, self._tmp_path / "backup.db")

    def restore(self):
        """(the server is stopped) Put the copy back."""
        self.wipe()
        shutil.copy(self._tmp_path / "backup.db", self._db)

    def wipe(self):
        """(the server is stopped) Remove its database."""
        for path in self._tmp_path.glob("server.db*"):
            path.unlink()

    def seq(self):
        with closing(sqlite3.connect(self._db)) as sql:
            return sql.execute("SELECT head FROM spaces").fetchone()[0]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def write_and_sync(world, name, server, *ids):
    """A node that puts documents *ids*, pushes and pulls; what it holds then."""
    async with world.node(name, server) as (tide, todos, _):
        for id_ in ids:
            await todos.put(id_, {"by": name})
        await tide.sync_once()
        return await todos.all()


async def test_f26_a_wiped_server_gets_everything_back_from_any_node(world):
    async with world.server() as server:
        async with world.node("a", server) as (tide, todos, _):
            await todos.put("gone", {})
            await todos.put("changed", {"n": 1})
            await tide.sync_once()
            await todos.delete("gone")
            await todos.put("changed", {"n": 2})
            await tide.sync_once()
        await write_and_sync(world, "b", server, "b1", "b2")
        held = await write_and_sync(world, "a", server)
        before = await stamps(world, server)
    world.wipe()
    async with world.server() as server:
        assert await write_and_sync(world, "a", server) == held
        assert await write_and_sync(world, "fresh", server) == held
        assert await stamps(world, server) == before, "tombstones too, each with its own stamp"
        assert await write_and_sync(world, "b", server) == held


async def stamps(world, server):
    """What the server holds: the stamp and document of each id."""
    line = Line(server.transport())
    body = b'{"node_id":"reader.0001","cursor":null,"ops":[],"limit":5000}'
    await line.exchange(body, {})
    changes = json.loads(line.answers[0].body)["changes"]
    return {change["id"]: (change["stamp"], change["doc"]) for change in changes}


async def test_f26_a_server_restored_from_a_backup_is_healed_by_its_nodes(world):
    async with world.server() as server:
        await write_and_sync(world, "a", server, "old")
    world.back_up()
    async with world.server() as server:
        await write_and_sync(world, "b", server, "b")
        await write_and_sync(world, "a", server, "a")
        held = await write_and_sync(world, "b", server)
        assert sorted(held) == ["a", "b", "old"]
    world.restore()
    async with world.server() as server:
        assert await write_and_sync(world, "fresh", server) == {"old": {"by": "a"}}
        async with world.node("b", server) as (tide, todos, _):
            result = await tide.sync_once()
            assert (result.pushed, result.pulled, result.rejected) == (3, 0, 0)
            assert await todos.all() == held
        assert await write_and_sync(world, "fresh", server) == held
        assert await write_and_sync(world, "a", server) == held


async def test_f26_what_waited_before_a_restore_is_pushed_after_it(world):
    async with world.server() as server:
        await write_and_sync(world, "a", server, "old")
    world.back_up()
    async with world.server() as server, world.node("a", server) as (tide, todos, line):
        await todos.put("lost", {})
        await tide.sync_once()
        line.cut = True
        await todos.put("waits", {})
        await todos.delete("old")
        with pytest.raises(OfflineError):
            await tide.sync_once()
    world.restore()
    async with world.server() as server:
        async with world.node("a", server) as (tide, _, _):
            await tide.sync_once()
            assert await tide.pending() == 0
        assert sorted(await write_and_sync(world, "fresh", server)) == ["lost", "waits"]


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
async def test_f27_a_restore_is_noticed_even_when_new_writes_passed_the_cursor(world, offset):
    lost = 4
    async with world.server() as server:
        await write_and_sync(world, "a", server, "old")
    world.back_up()
    async with world.server() as server:
        await write_and_sync(world, "a", server, *(f"lost{n}" for n in range(lost)))
        cursor = world.seq()
    world.restore()
    async with world.server() as server:
        await write_and_sync(world, "b", server, *(f"new{n}" for n in range(lost + offset)))
        assert world.seq() == cursor + offset
        held = await write_and_sync(world, "a", server)
        assert len(held) == 1 + lost + lost + offset
        assert await write_and_sync(world, "b", server) == held
        assert await write_and_sync(world, "fresh", server) == held


@pytest.mark.parametrize("seed", [27, 28, 29])
async def test_f27_restores_drawn_at_random_are_all_healed(world, seed):
    draw = random.Random(seed)
    expected = set()
    async with world.server() as server:
        await write_and_sync(world, "a", server, "first")
        await write_and_sync(world, "b", server)
    expected.add("first")
    world.back_up()
    for turn in range(8):
        async with world.server() as server:
            for number in range(draw.randrange(1, 4)):
                ids = [f"t{turn}.{number}.{n}" for n in range(draw.randrange(3))]
                await write_and_sync(world, draw.choice("ab"), server, *ids)
                expected.update(ids)
        draw.choice([world.restore, world.back_up, lambda: None])()
    async with world.server() as server:
        for _ in range(2):
            for name in "ab":
                held = await write_and_sync(world, name, server)
        assert set(held) == expected
        assert await write_and_sync(world, "a", server) == held
        assert await write_and_sync(world, "fresh", server) == held


async def test_f08_an_acknowledgement_ahead_of_the_cursor_is_taken_back_by_a_restore(
    world, monkeypatch
):
    """The node reads in pages; its push is confirmed at the head, beyond where it has read."""
    async with world.server() as server:
        await write_and_sync(world, "b", server, "b1", "b2", "b3", "b4")
    world.back_up()
    async with world.server() as server, world.node("a", server) as (tide, todos, line):
        monkeypatch.setattr("tide.sync.PAGE", 2)
        await todos.put("mine", {})

        async def cut():
            line.cut = True

        line.meanwhile = cut
        with pytest.raises(OfflineError):
            await tide.sync_once()
        assert await tide.pending() == 0, "it is confirmed"
        assert await todos.count() == 3, "and only one page was read"
    world.restore()
    async with world.server() as server:
        async with world.node("a", server) as (tide, todos, line):
            await tide.sync_once()
            offered = {op["id"] for op in line.requests[1]["ops"]}
            assert offered == {"b1", "b2", "mine"}
            assert await todos.count() == 5
        assert len(await write_and_sync(world, "b", server)) == 5


async def test_f08_a_page_read_from_a_future_that_was_lost_is_read_again(world, monkeypatch):
    """While a node pages, a document moves behind it; a restore moves it back before it."""
    async with world.server() as server:
        await write_and_sync(world, "b", server, "b1", "b2", "b3", "b4")
    world.back_up()
    async with world.server() as server:
        await write_and_sync(world, "b", server, "b1")  # moves behind all others
        monkeypatch.setattr("tide.sync.PAGE", 3)
        async with world.node("a", server) as (tide, todos, line):

            async def cut():
                line.cut = True

            line.meanwhile = cut
            with pytest.raises(OfflineError):
                await tide.sync_once()
            assert sorted(await todos.all()) == ["b2", "b3", "b4"]
    world.restore()
    async with world.server() as server:
        assert "b1" in await write_and_sync(world, "a", server)


async def test_a_restart_of_the_server_alone_resets_nobody(world):
    async with world.server() as server:
        await write_and_sync(world, "a", server, "k")
    for _ in range(3):
        async with world.server() as server, world.node("a", server) as (tide, todos, line):
            await todos.put("k", {"n": 1})
            await tide.sync_once()
            assert [answer.status for answer in line.answers] == [200]


async def away(world, *, keep=3):
    """Nodes a and b know the same; then, while a is away, b deletes, and the server forgets it."""
    async with world.server() as server:
        await write_and_sync(world, "a", server, *(f"k{n}" for n in range(keep)), "gone")
        await write_and_sync(world, "b", server)
        async with world.node("b", server) as (tide, todos, _):
            await todos.delete("gone")
            await tide.sync_once()
        world.days += 200
        async with world.node("b", server) as (tide, todos, _):
            await todos.put("later", {"by": "b"})
            await tide.sync_once()


async def test_f29_a_node_beyond_the_horizon_removes_what_was_deleted_and_keeps_its_writes(world):
    await away(world)
    async with world.server() as server, world.node("a", server) as (tide, todos, line):
        await todos.put("mine", {"by": "a"})
        watcher = todos.watch("gone")
        result = await tide.sync_once()
        assert line.answers[0].status == 409
        assert (result.pushed, result.rejected) == (1, 0)
        assert sorted(await todos.all()) == ["k0", "k1", "k2", "later", "mine"]
        change = await anext(watcher)
        assert (change.source, change.kind, change.id) == ("remote", "delete", "gone")
        await tide.sync_once()
        assert [answer.status for answer in line.answers[1:]] == [200] * (len(line.answers) - 1)
        held = await todos.all()
        assert await write_and_sync(world, "b", server) == held


async def test_f29_a_node_that_was_not_away_needs_no_reset(world):
    await away(world)
    async with world.server() as server, world.node("b", server) as (tide, _, line):
        await tide.sync_once()
        assert [answer.status for answer in line.answers] == [200]


@pytest.mark.parametrize("edited", ["before", "in the reset", "between the pages"])
async def test_f30_a_write_to_what_was_deleted_and_forgotten_comes_to_all(
    world, edited, monkeypatch
):
    """It was edited without knowing of the delete, so it is a new write, and nobody misses it."""
    await away(world)
    monkeypatch.setattr("tide.sync.PAGE", 2)
    async with world.server() as server:
        async with world.node("a", server) as (tide, todos, line):

            async def edit():
                await todos.put("gone", {"by": "a"})

            async def edit_later():
                line.meanwhile = edit

            if edited == "before":
                await edit()
            else:
                line.meanwhile = edit if edited == "in the reset" else edit_later
            for _ in range(2):
                await tide.sync_once()
            assert await tide.pending() == 0
            held = await todos.all()
            assert held["gone"] == {"by": "a"}
        assert await write_and_sync(world, "b", server) == held
        assert await write_and_sync(world, "fresh", server) == held


async def test_f30_a_stale_op_of_a_forgotten_tombstone_wins_over_old_tombstones_everywhere(world):
    async with world.server() as server:
        await write_and_sync(world, "b", server)
        async with world.node("a", server) as (tide, todos, _):
            await todos.put("k", {"by": "a"})  # with the counter 1, and not pushed
        async with world.node("b", server) as (tide, todos, _):
            for _ in range(5):
                await todos.put("k", {"by": "b"})
            await todos.delete("k")
            await tide.sync_once()
        world.days += 200
        await write_and_sync(world, "b", server, "other")
        async with world.node("a", server) as (tide, todos, line):
            await tide.sync_once()
            assert b"forgotten" in line.answers[0].body
            assert await tide.pending() == 0
            held = await todos.all()
        # b still holds its tombstone, which is greater than what a wrote first.
        assert await write_and_sync(world, "b", server) == held
        assert held == {"k": {"by": "a"}, "other": {"by": "b"}}


async def test_f30_a_stale_delete_of_what_nobody_remembers_is_just_done(world):
    async with world.server() as server:
        async with world.node("a", server) as (tide, todos, line):
            await todos.put("k", {})
            await tide.sync_once()
            await todos.delete("k")
            line.meanwhile = line.lost
            with pytest.raises(OfflineError):
                await tide.sync_once()
        world.days += 200
        before = world.seq()
        async with world.node("a", server) as (tide, _, _):
            await tide.sync_once()
            assert await tide.pending() == 0
        assert world.seq() == before


@pytest.mark.parametrize("page", [1, 2, 5])
async def test_f32_a_resync_in_small_pages_ends_also_across_reopening(world, monkeypatch, page):
    await away(world, keep=7)
    monkeypatch.setattr("tide.sync.PAGE", page)
    statuses = []
    async with world.server() as server:
        for _ in range(30):
            async with world.node("a", server) as (tide, _, line):

                async def cut(line=line):
                    line.cut = True

                line.meanwhile = cut  # only one answer comes through, then all is closed
                try:
                    await tide.sync_once()
                    break
                except OfflineError:
                    statuses += [answer.status for answer in line.answers]
        assert statuses.count(409) == 1
        held = await write_and_sync(world, "a", server)
        assert "gone" not in held
        assert held == await write_and_sync(world, "b", server)
        assert len(held) == 8


async def test_f32_a_node_that_starts_from_nothing_in_small_pages_is_never_reset(
    world, monkeypatch
):
    await away(world, keep=7)
    monkeypatch.setattr("tide.sync.PAGE", 1)
    async with world.server() as server, world.node("fresh", server) as (tide, todos, line):
        await tide.sync_once()
        assert {answer.status for answer in line.answers} == {200}
        assert await todos.count() == 8


async def test_f32_a_resync_starts_over_when_the_horizon_moves_on(world, monkeypatch):
    await away(world, keep=5)
    monkeypatch.setattr("tide.sync.PAGE", 2)
    async with world.server() as server, world.node("a", server) as (tide, todos, line):

        async def cut():
            line.cut = True

        async def then_cut():
            line.meanwhile = cut

        line.meanwhile = then_cut
        with pytest.raises(OfflineError):
            await tide.sync_once()
        async with world.node("b", server) as (other, theirs, _):
            await theirs.delete("k0")  # which a has seen, as the first of its resync
            await other.sync_once()
            world.days += 200
            await theirs.put("even later", {})
            await other.sync_once()
            line.cut = False
            await tide.sync_once()
            assert await todos.all() == await theirs.all()


@pytest.mark.parametrize("kind", ["restored", "horizon"])
async def test_f46_a_server_that_always_resets_is_not_asked_forever(tmp_path, kind):
    reset = Answer(409, f'{{"code":"reset","reset":"{kind}"}}'.encode())
    line = Scripted(lambda request: reset)
    async with Tide(tmp_path / "a.db", transport=line) as tide:
        await tide.collection("todos").put("k", {"n": 1})
        for turn in (1, 2):
            with pytest.raises(ProtocolError, match="again and again"):
                await tide.sync_once()
            assert len(line.requests) == 4 * turn
        assert await tide.pending() == 1
        assert await tide.collection("todos").get("k") == {"n": 1}


class Emptied:
    """A server whose documents somebody removed all, without a trace, but *kept*."""

    def __init__(self, kept):
        self.kept = kept
        self.reset = True

    def __call__(self, request):
        if self.reset and request["cursor"] is not None:
            self.reset = False
            return Answer(409, b'{"code":"reset","reset":"horizon"}')
        changes = [op(id_, {"by": "server"}, 1) for id_ in self.kept]
        return {"changes": changes, "cursor": "c2", "clock": 100}


async def emptied(path, *, had, kept):
    """A node that had *had* documents, of a server that has only *kept* of them left."""
    ids = [f"k{n:03}" for n in range(had)]
    server = Emptied(ids)
    async with Tide(path, transport=Scripted(server)) as tide:
        await tide.sync_once()
        assert await tide.collection("todos").count() == had
    server.kept = ids[:kept]
    return server


@pytest.mark.parametrize(
    ("had", "kept", "asks"),
    [
        (41, 20, True),
        (40, 20, False),
        (42, 21, False),
        (20, 0, False),
        (21, 0, True),
        (100, 49, True),
    ],
)
async def test_f29_a_resync_that_would_remove_most_documents_asks_first(tmp_path, had, kept, asks):
    path = tmp_path / "a.db"
    server = await emptied(path, had=had, kept=kept)
    async with Tide(path, transport=Scripted(server)) as tide:
        if asks:
            with pytest.raises(ResetNeedsConfirmationError, match=f"no longer has {had - kept} "):
                await tide.sync_once()
            assert await tide.collection("todos").count() == had
        else:
            await tide.sync_once()
            assert await tide.collection("todos").count() == kept


async def test_f29_the_question_stays_across_reopening_until_it_is_answered(tmp_path):
    path = tmp_path / "a.db"
    server = await emptied(path, had=30, kept=1)
    async with Tide(path, transport=Scripted(server)) as tide:
        assert await tide.confirm_reset() == 0, "nothing is asked yet"
        for _ in range(2):
            with pytest.raises(ResetNeedsConfirmationError):
                await tide.sync_once()
    async with Tide(path, transport=Scripted(server)) as tide:
        todos = tide.collection("todos")
        with pytest.raises(ResetNeedsConfirmationError):
            await tide.sync_once()
        await todos.put("k029", {"by": "me"})  # what is written is wanted
        await todos.put("new", {"by": "me"})
        watcher = todos.watch()
        assert await tide.confirm_reset() == 28
        assert sorted(await todos.all()) == ["k000", "k029", "new"]
        told = [await anext(watcher) for _ in range(28)]
        assert {(change.source, change.kind) for change in told} == {("remote", "delete")}
        assert sorted(change.id for change in told) == [f"k{n:03}" for n in range(1, 29)]
        assert await tide.confirm_reset() == 0
        await tide.sync_once()
        assert await tide.pending() == 0
        assert await todos.count() == 3
    async with Tide(path, transport=Scripted(server)) as tide:
        await tide.sync_once()
        assert await tide.collection("todos").count() == 3


async def test_f29_pushing_and_pulling_go_on_while_the_question_waits(tmp_path):
    path = tmp_path / "a.db"
    server = await emptied(path, had=30, kept=1)
    line = Scripted(server)
    async with Tide(path, transport=line) as tide:
        todos = tide.collection("todos")
        await todos.put("mine", {})
        with pytest.raises(ResetNeedsConfirmationError):
            await tide.sync_once()
        assert await tide.pending() == 0
        server.kept = [*server.kept, "theirs"]
        with pytest.raises(ResetNeedsConfirmationError):
            await tide.sync_once()
        assert await todos.count() == 32


async def test_f29_the_question_goes_away_when_the_server_has_its_documents_again(tmp_path):
    path = tmp_path / "a.db"
    server = await emptied(path, had=30, kept=1)
    async with Tide(path, transport=Scripted(server)) as tide:
        with pytest.raises(ResetNeedsConfirmationError):
            await tide.sync_once()
        server.kept = [f"k{n:03}" for n in range(29)]
        await tide.sync_once()
        assert await tide.collection("todos").count() == 29
        assert await tide.confirm_reset() == 0


async def test_f29_a_restored_server_gets_what_the_question_was_about(tmp_path):
    path = tmp_path / "a.db"
    server = await emptied(path, had=30, kept=1)
    async with Tide(path, transport=Scripted(server)) as tide:
        with pytest.raises(ResetNeedsConfirmationError):
            await tide.sync_once()
    async with (
        memory_server(tmp_path / "server.db") as real,
        Tide(path, transport=real.transport()) as tide,
    ):
        assert (await tide.sync_once()).pushed == 30
        assert await tide.confirm_reset() == 0
        assert await tide.collection("todos").count() == 30
