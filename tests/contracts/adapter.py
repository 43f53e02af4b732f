"""What every adapter of a UI framework must do, yours too.

To run it on an adapter, make a small app with it, and say how to use that, in a test file::

    class MyApp(AdapterApp):
        def shown(self, view=0): ...

    class TestMyFramework(AdapterContract):
        @asynccontextmanager
        async def running(self, db, endpoint=None, **options):
            async with Tide(db, endpoint, durability="relaxed") as tide:
                ...
                yield MyApp(...)

The app shows the field ``text`` of each document of the collection ``todos``, in order; a field to
edit that text of one document in; and the sync indicator.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.support import free_port, served, until
from tide import Connection, Tide
from tide.server import Write, create_app

__all__ = ["AdapterApp", "AdapterContract", "Server", "fill", "followers"]

BURST = 10_000
COMMITS = 10  # that the burst is made of
FEW = 40  # renders; a step or two for each commit, and what comes with starting


class AdapterApp(ABC):
    """A running app that was made with the adapter. All methods but `renders` may be used at once.

    What the framework does only after a moment (or, without a browser, only if somebody asks) may
    be waited for in any of them: the contract asks again and again until things are as expected.
    """

    @abstractmethod
    async def call(self, verb: str, *args: Any) -> Any:
        """Call the adapter's ``put``, ``add``, ``update`` or ``delete``; what that returns."""

    @abstractmethod
    async def shown(self, view: int = 0) -> list[tuple[str, str]]:
        """``(id, text)`` of what is on screen, from top to bottom, in one of the views."""

    @abstractmethod
    async def items(self) -> dict[str, dict[str, Any]]:
        """What the adapter's ``items`` is."""

    @abstractmethod
    async def type(self, id_: str, text: str) -> None:
        """Begin to edit the document *id_*: replace what its field holds, and save nothing yet."""

    @abstractmethod
    async def typed(self) -> str:
        """What that field holds now."""

    @abstractmethod
    async def status(self) -> str:
        """The words of the sync indicator."""

    @abstractmethod
    async def notices(self) -> list[str]:
        """Every toast, notification or message there was, in order; also those that have gone."""

    @abstractmethod
    def renders(self) -> int:
        """How often what is on screen was drawn anew (or the browser was told to) until now."""

    @abstractmethod
    async def unmount(self) -> None:
        """Take all of it off the screen, as the user does, while the store stays open."""

    @abstractmethod
    def leftovers(self) -> int:
        """How many subscriptions, tasks and threads of the adapter there are; see `followers`."""


class AdapterContract:
    """Subclass it, as the module says, to run its tests on an adapter."""

    def running(
        self, db: Path, endpoint: str | None = None, *, views: int = 1, **options: Any
    ) -> AbstractAsyncContextManager[AdapterApp]:
        """An app that is on screen, on the file *db*, syncing with *endpoint* if there is one.

        Args:
            db: the store's file.
            endpoint: the server.
            views: how many lists or tables show the collection side by side.
            options: ``where``, ``key``, ``reverse`` and ``limit`` of the adapter.
        """
        raise NotImplementedError

    @pytest.fixture
    def db(self, tmp_path: Path) -> Path:
        return tmp_path / "app.db"

    @pytest.fixture
    async def server(self, tmp_path: Path) -> AsyncIterator[Server]:
        server = Server(tmp_path / "server.db")
        await server.start()
        yield server
        await server.stop()

    @pytest.fixture
    async def other(self, tmp_path: Path, server: Server) -> AsyncIterator[Tide]:
        """Another node."""
        async with Tide(tmp_path / "other.db", server.endpoint, durability="relaxed") as other:
            yield other

    async def test_what_the_file_holds_is_shown_at_once(self, db):
        async with again(db) as file:
            await fill(file, "b", "a")
        async with self.running(db) as app:
            await shows(app, "a", "b")
            assert await app.items() == {"a": {"text": "a"}, "b": {"text": "b"}}

    async def test_the_verbs_write_and_what_they_wrote_is_shown(self, db):
        async with self.running(db) as app:
            await app.call("put", "a", {"text": "tea", "n": 1})
            await shows(app, ("a", "tea"))
            await app.call("update", "a", {"text": "green tea"})
            await shows(app, ("a", "green tea"))
            assert await app.items() == {"a": {"text": "green tea", "n": 1}}
            id_ = await app.call("add", {"text": "bread"})
            await shows(app, (id_, "bread"), ("a", "green tea"))
            assert await app.call("delete", "a")
            await shows(app, (id_, "bread"))
        async with again(db) as file:
            assert await file.collection("todos").all() == {id_: {"text": "bread"}}

    async def test_where_key_reverse_and_limit_decide_what_is_shown(self, db):
        async with again(db) as file, file.batch():
            for number in range(6):
                await file.collection("todos").put(f"t{number}", {"text": "x", "n": number})
        async with self.running(db, where=odd, key=number_of, reverse=True, limit=2) as app:
            await shows(app, ("t5", "x"), ("t3", "x"))
            await app.call("update", "t5", {"n": 2})  # does not match any more: the next moves up
            await shows(app, ("t3", "x"), ("t1", "x"))
            await app.call("update", "t4", {"text": "first", "n": 7})
            await shows(app, ("t4", "first"), ("t3", "x"))

    async def test_a_change_from_another_node_is_shown_by_itself(self, db, server, other):
        async with self.running(db, server.endpoint) as app:
            theirs = other.collection("todos")
            await fill(other, "a", "b")
            await other.sync_once()
            await shows(app, "a", "b")
            await theirs.update("b", {"text": "edited"})
            await theirs.delete("a")
            await other.sync_once()
            await shows(app, ("b", "edited"))

    async def test_what_is_written_here_reaches_another_node(self, db, server, other):
        async with self.running(db, server.endpoint) as app:
            await app.call("put", "a", {"text": "tea"})
            await until(lambda: has(other, "a"))

    async def test_what_another_program_writes_to_the_file_is_shown_by_itself(self, db):
        async with self.running(db) as app, again(db) as file:
            await fill(file, "a", "b")
            await shows(app, "a", "b")
            await file.collection("todos").delete("a")
            await shows(app, "b")

    async def test_a_burst_of_changes_is_a_few_renders(self, db):
        async with self.running(db, reverse=True, limit=20) as app, again(db) as file:
            await fill(file, "a")
            await shows(app, "a")
            before = app.renders()
            ids = [f"b{number:05}" for number in range(BURST)]
            for start in range(0, BURST, BURST // COMMITS):
                await fill(file, *ids[start : start + BURST // COMMITS])
            await shows(app, *reversed(ids[-20:]))
            assert 1 <= app.renders() - before <= FEW

    async def test_text_being_typed_survives_what_others_change(self, db):
        async with again(db) as file:
            await fill(file, "b", "c")
            async with self.running(db) as app:
                await shows(app, "b", "c")
                await app.type("b", "half a wor")
                await fill(file, "a", "d")  # above it, and below
                await shows(app, "a", "b", "c", "d")
                assert await app.typed() == "half a wor"
                await file.collection("todos").put("c", {"text": "edited"})
                await file.collection("todos").delete("a")
                await shows(app, ("b", "b"), ("c", "edited"), ("d", "d"))
                assert await app.typed() == "half a wor"

    async def test_a_field_being_edited_is_not_overwritten_by_a_change_of_its_document(self, db):
        async with again(db) as file:
            await fill(file, "a", "b")
            async with self.running(db) as app:
                await shows(app, "a", "b")
                await app.type("a", "mine")
                await file.collection("todos").update("a", {"text": "theirs", "n": 1})
                await file.collection("todos").put("c", {"text": "c"})
                await until(lambda: knows(app, "c"))
                assert await app.typed() == "mine"

    async def test_it_tells_of_going_offline_and_comes_back(self, db, server, other):
        async with self.running(db, server.endpoint) as app:
            await until(lambda: says(app, "online"))
            await server.stop()
            await until(lambda: says(app, "offline"))
            await app.call("put", "a", {"text": "tea"})
            await shows(app, ("a", "tea"))
            await until(lambda: says(app, "offline", "1"))
            await server.start()
            await until(lambda: says(app, "online"))
            await until(lambda: has(other, "a"))

    async def test_a_refused_write_is_told_once_and_taken_back(self, db, server):
        async with self.running(db, server.endpoint) as app:
            await until(lambda: says(app, "online"))
            await app.call("put", "good", {"text": "good"})
            await app.call("put", "bad", {"text": "bad"})
            await until(lambda: tells(app, server.REFUSAL))
            await shows(app, "good")
            await app.call("put", "more", {"text": "more"})
            await shows(app, "good", "more")
            notices = await app.notices()
            assert len([one for one in notices if server.REFUSAL in one]) == 1

    async def test_two_views_of_one_collection_show_the_same(self, db):
        async with self.running(db, views=2) as app:
            await app.call("put", "a", {"text": "tea"})
            await app.call("put", "b", {"text": "bread"})
            for view in range(2):
                await shows(app, ("a", "tea"), ("b", "bread"), view=view)
            await app.call("delete", "a")
            for view in range(2):
                await shows(app, ("b", "bread"), view=view)

    async def test_without_a_server_it_works_and_claims_no_connection(self, db):
        async with self.running(db) as app:
            await app.call("put", "a", {"text": "tea"})
            await shows(app, ("a", "tea"))
            assert "online" not in (await app.status()).lower()
            assert await app.notices() == []

    @pytest.mark.parametrize("views", [1, 2])
    async def test_taking_it_off_the_screen_leaves_nothing(self, db, server, views):
        async with self.running(db, server.endpoint, views=views) as app:
            await app.call("put", "a", {"text": "tea"})
            await shows(app, ("a", "tea"))
            assert app.leftovers() > 0  # so that it is known to count
            await app.unmount()
            await until(lambda: app.leftovers() == 0)


class Server:
    """A real one on loopback, which can go and come back. It refuses the id ``bad``."""

    REFUSAL = "nothing bad, please"

    def __init__(self, db: Path) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}/sync"
        self._db, self._port = db, port
        self._running = contextlib.ExitStack()

    async def start(self) -> None:
        app = create_app(self._db, validate=self._validate)
        self._running.enter_context(served(app, port=self._port))

    async def stop(self) -> None:
        await anyio.to_thread.run_sync(self._running.close)

    def _validate(self, write: Write) -> str | None:
        return self.REFUSAL if write.id == "bad" else None


def followers(store: Tide | Connection) -> int:
    """How many live queries, watchers and the like follow an open *store*."""
    tide = store._tide if isinstance(store, Connection) else store
    feed = tide._session._store.feed  # type: ignore[union-attr]
    return len(feed._all())


@asynccontextmanager
async def again(db: Path) -> AsyncIterator[Tide]:
    """The file opened once more, as another program does."""
    async with Tide(db, durability="relaxed") as tide:
        yield tide


async def fill(tide: Tide, *ids: str) -> None:
    """Put a document with each id, whose text is the id, in one commit."""
    async with tide.batch():
        for id_ in ids:
            await tide.collection("todos").put(id_, {"text": id_})


async def shows(app: AdapterApp, *what: str | tuple[str, str], view: int = 0) -> None:
    """Wait until that, and only that, is on screen, in this order; an id alone is its text, too."""
    expected = [(one, one) if isinstance(one, str) else one for one in what]
    seen: list[tuple[str, str]] = []

    async def as_expected() -> bool:
        seen[:] = await app.shown(view)
        return seen == expected

    await patiently(as_expected, lambda: f"on screen: {seen[:30]}, expected: {expected[:30]}")


async def patiently(holds: Callable[[], Any], why: Callable[[], str]) -> None:
    """`until`, and if it gives up, say what was there instead."""
    try:
        await until(holds)
    except TimeoutError:
        pytest.fail(why())


async def says(app: AdapterApp, *words: str) -> bool:
    status = (await app.status()).lower()
    return all(word in status for word in words)


async def tells(app: AdapterApp, words: str) -> bool:
    return any(words in notice for notice in await app.notices())


async def knows(app: AdapterApp, id_: str) -> bool:
    return id_ in [one for one, _ in await app.shown()]


async def has(tide: Tide, id_: str) -> bool:
    await tide.sync_once()
    return await tide.collection("todos").get(id_) is not None


def odd(doc: dict[str, Any]) -> bool:
    return bool(doc["n"] % 2)


def number_of(doc: dict[str, Any]) -> int:
    number: int = doc["n"]
    return number
