"""LiveQuery against a model: at any time it is the filtered and sorted store, and so is every list
that was kept up to date by diffs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tide import Collection, Diff, LiveQuery, Tide, outbox
from tide.testing import MemoryServer, memory_server

WHERE: list[Callable[[dict[str, Any]], Any] | None] = [
    None,
    lambda doc: doc.get("shown"),
    lambda doc: doc["n"] > 1,  # raises for some
]
KEY: list[Callable[[dict[str, Any]], Any] | None] = [
    None,
    lambda doc: doc.get("n"),
    lambda doc: -doc["n"],  # raises for some
    lambda doc: (doc.get("shown"), [doc.get("n")]),
    lambda doc: {"no": "order"} if doc.get("shown") else math.nan,
]

IDS = st.sampled_from("abcdefgh")
DOCS = st.fixed_dictionaries(
    {},
    optional={
        "shown": st.booleans(),
        "n": st.none() | st.integers(0, 4) | st.sampled_from([0.5, "", "x", [], [2], True]),
    },
)
WRITES = st.lists(st.tuples(IDS, st.none() | DOCS), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["local", "local batch", "second", "remote"]), WRITES),
        st.tuples(st.just("sync"), st.none()),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("new reader"), st.booleans()),
    ),
    max_size=12,
)
OPTIONS = st.fixed_dictionaries(
    {
        "where": st.sampled_from(WHERE),
        "key": st.sampled_from(KEY),
        "reverse": st.booleans(),
        "limit": st.sampled_from([None, None, 1, 3]),
    }
)


def rank(value):
    """A model of the order of keys."""
    if value is None or value != value:  # noqa: PLR0124
        return [0]
    kinds: list[Any] = [int | float, str, list | tuple]
    number = next(number for number, kind in enumerate(kinds, 1) if isinstance(value, kind))
    return [number, [rank(part) for part in value] if number == 3 else value]


def model(docs, where, key, *, reverse, limit):
    """What a query has to show of *docs*, and which are wrong."""
    ranked, wrong = [], set()
    for id_, doc in docs.items():
        try:
            if where is None or where(doc):
                ranked.append((rank(key(doc)) if key else [], id_))
        except Exception:  # noqa: BLE001, PERF203 - as the query does
            wrong.add(id_)
    ranked.sort(reverse=reverse)
    return {id_: docs[id_] for _, id_ in ranked[:limit]}, wrong


class Follower:
    """A list of its own, kept as the docstring of `Diff` says."""

    def __init__(self, query: LiveQuery) -> None:
        self.reader = aiter(query)
        self.shown: list[tuple[str, Any]] = []
        self.revision: int | None = None

    async def read(self, upto: int) -> None:
        while self.revision is None or self.revision < upto:
            self.apply(await asyncio.wait_for(anext(self.reader), 30))
        assert self.revision == upto

    def apply(self, diff: Diff) -> None:
        assert diff.whole is (self.revision is None)
        assert self.revision in (None, diff.revision - 1)
        self.revision = diff.revision
        for placed in diff.removed:
            assert self.shown[placed.place] == (placed.id, placed.doc)
        gone = {placed.id for placed in (*diff.removed, *diff.updated)}
        known = {id_ for id_, _ in self.shown}
        assert gone <= known
        assert not known & {placed.id for placed in diff.added}
        self.shown = [(id_, doc) for id_, doc in self.shown if id_ not in gone]
        for placed in sorted((*diff.updated, *diff.added)):
            assert placed.place <= len(self.shown)
            self.shown.insert(placed.place, (placed.id, placed.doc))


class World:
    """A store that is opened twice and another node, in one space."""

    def __init__(self, folder: Path, server: MemoryServer) -> None:
        self.tide, self.second, self.remote = (
            Tide(folder / name, transport=server.transport(), durability="relaxed")
            for name in ("app.db", "app.db", "remote.db")
        )

    @property
    def todos(self) -> Collection:
        return self.tide.collection("todos")

    async def write(self, tide: Tide, writes, *, batch: bool = False):
        async with tide.batch() if batch else contextlib.AsyncExitStack():
            for id_, doc in writes:
                if doc is None:
                    await tide.collection("todos").delete(id_)
                else:
                    await tide.collection("todos").put(id_, doc)

    async def do(self, step: str, writes) -> None:
        if step in ("local", "local batch"):
            await self.write(self.tide, writes, batch=step == "local batch")
        elif step == "second":
            await self.write(self.second, writes)
        elif step == "remote":
            await self.write(self.remote, writes)
            await self.remote.sync_once()
        elif step == "sync":
            await self.tide.sync_once()

    async def told(self) -> None:
        """Let the feed tell what the second Tide committed."""
        await self.tide._session.use().catch_up()

    async def waiting(self) -> set[str]:
        return await self.tide._session.use().read(lambda sql: outbox.waiting_ids(sql, "todos"))


async def run(options, before, steps, frame):
    with tempfile.TemporaryDirectory() as name, mock.patch("tide.live.FRAME", frame):
        folder = Path(name)
        async with memory_server(folder / "server.db") as server:
            world = World(folder, server)
            async with world.tide, world.second, world.remote:
                await world.write(world.tide, before, batch=True)
                async with world.todos.live(**options) as query:
                    await check(world, query, options, steps)


async def check(world, query, options, steps):
    followers = [Follower(query)]
    seen = query.items, query.revision
    await followers[0].read(query.revision)
    touched: set[str] = set()
    for step, what in steps:
        if step == "new reader":
            followers.append(Follower(query))
            if what:
                await followers[-1].read(query.revision)
            continue
        if step == "read":
            seen = await look(world, query, options, seen, touched)
            touched = set()
            for follower in followers[what:]:
                await follower.read(seen[1])
                assert follower.shown == list(seen[0].items())
            continue
        await world.do(step, what)
        touched |= {id_ for id_, _ in what} if what else set("abcdefgh")
    seen = await look(world, query, options, seen, touched)
    for follower in followers:
        await follower.read(seen[1])
        assert [id_ for id_, _ in follower.shown] == list(seen[0])
        assert all(doc is seen[0][id_] for id_, doc in follower.shown)


async def look(world, query, options, before, touched):
    """The query is what the model says, and what did not change is the same as in *before*."""
    before, revision = before
    await world.told()
    items, wrong = model(await world.todos.all(), **options)
    assert list(query.items.items()) == list(items.items())
    assert query.errors.keys() == wrong
    assert len(query) == len(items)
    assert query.state == ("ready" if items else "empty")
    assert all(query.get(id_) == items.get(id_) for id_ in "abcdefgh")
    assert {id_ for id_ in "abcdefgh" if query.is_pending(id_)} == await world.waiting()
    assert all(query.items[id_] is before[id_] for id_ in (items.keys() & before.keys()) - touched)
    assert (query.items is before) is (query.revision == revision)
    return query.items, query.revision


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=OPTIONS, before=WRITES, steps=STEPS, frame=st.sampled_from([0.0, 3600.0]))
def test_it_is_what_the_model_says(options, before, steps, frame):
    asyncio.run(run(options, before, steps, frame))
