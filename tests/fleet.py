"""A server and its nodes in one process, a network that fails between them, and what must hold.

What tests/test_convergence.py and tests/test_stateful.py share. The network takes note of every op
that a server accepted, so that `Fleet.check` knows the winner of each document: the greatest stamp.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tide import Answer, NotFoundError, OfflineError, SyncError, Tide, Transport
from tide.testing import FaultyTransport, MemoryServer, memory_server

__all__ = [
    "COLLECTIONS",
    "IDS",
    "REFUSED",
    "Fleet",
    "Node",
    "Record",
    "Recorder",
    "Row",
    "copy_database",
    "live",
    "read_node",
    "read_rows",
]

COLLECTIONS = ("lists", "notes", "todos")
IDS = ("a", "b", "c", "d", "e")
REFUSED = "e"  # the id of the documents that the server may refuse: those with a "bad" field
DAY = 86400.0

Key = tuple[str, str]


class Row(NamedTuple):
    """What a file holds of a document."""

    stamp: tuple[int, str]
    doc: str | None


def read_rows(path: Path, table: str = "documents") -> dict[Key, Row]:
    """What stands in the file of a node or of a server, tombstones too."""
    with closing(sqlite3.connect(path)) as sql:
        found = sql.execute(f"SELECT collection, id, doc, counter, node_id FROM {table}")
        return {
            (collection, id_): Row((counter, node_id), doc)
            for collection, id_, doc, counter, node_id in found
        }


def read_local_changes(path: Path, after: int) -> int:
    """How many local changes were committed to a node's file after an lsn."""
    query = "SELECT count(*) FROM log WHERE what = 'local' AND lsn > ?"
    with closing(sqlite3.connect(path)) as sql:
        return int(sql.execute(query, [after]).fetchone()[0])


def read_node(path: Path) -> dict[str, Any]:
    """What a node's file holds of itself: cursor, receipt, clock, …"""
    with closing(sqlite3.connect(path)) as sql:
        found = sql.execute("SELECT * FROM node")
        return dict(zip([name for name, *_ in found.description], found.fetchone(), strict=True))


def live(rows: dict[Key, Row]) -> dict[Key, Row]:
    """Those of *rows* that hold a document."""
    return {key: row for key, row in rows.items() if row.doc is not None}


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be open, as a backup does."""
    with closing(sqlite3.connect(source)) as sql, closing(sqlite3.connect(target)) as copy:
        sql.backup(copy)


def replace_database(path: Path, backup: Path) -> None:
    """Put *backup* in the place of a database that is closed."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, path)


class Record:
    """Every op that reached a server, and for each document the greatest that was accepted."""

    def __init__(self) -> None:
        self.docs: dict[tuple[Key, tuple[int, str]], object] = {}
        self.accepted: dict[Key, tuple[int, str]] = {}

    def note(self, body: bytes, answer: Answer) -> None:
        """Take note of a request with *body*, and of its true answer."""
        if answer.status != 200:
            return
        ops = json.loads(body)["ops"]
        for op, result in zip(ops, json.loads(answer.body)["results"], strict=True):
            key, stamp = (op["collection"], op["id"]), tuple(op["stamp"])
            known = self.docs.setdefault((key, stamp), op["doc"])
            assert known == op["doc"], f"two writes under one stamp: {key} {stamp}"
            if result["status"] == "ok":
                self.accepted[key] = max(self.accepted.get(key, stamp), stamp)


class Recorder(Transport):
    """A transport that records what passes through it."""

    def __init__(self, transport: Transport, record: Record) -> None:
        self._transport = transport
        self._record = record

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = await self._transport.exchange(body, headers)
        self._record.note(body, answer)
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


class Line(Transport):
    """A node's way to whatever server runs now.

    Attributes:
        exchanges: how many requests arrived.
        resets: how many of them were answered with a reset.
        meanwhile: called once, when the next request has been answered and its answer travels.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.exchanges = 0
        self.resets = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        server = self._fleet.server
        if server is None:
            raise OfflineError("the server is down")
        self.exchanges += 1
        answer = await Recorder(server.transport(), self._fleet.record).exchange(body, headers)
        self.resets += answer.status == 409
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return answer


class Node:
    """A file, the Tide that has it open, and somebody who watches all of it.

    Attributes:
        view: the documents as the watchers were told of them since it was opened.
        told: how many changes they were told of, by source.
        writes: how many writes took effect here since it was opened.
    """

    def __init__(self, fleet: Fleet, path: Path, random: Random) -> None:
        self.path = path
        self.line = Line(fleet)
        self.network = FaultyTransport(self.line, random, rate=0.0)
        self.tide = self.new_tide()
        self.view: dict[Key, dict[str, Any]] = {}
        self.told: Counter[str] = Counter()
        self.writes = 0
        self.doubtful = 0  # deletes in batches: another write may come between staging and commit
        self._began = 0  # the lsn from which on its watchers are told
        self._followers: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Node {self.path.name}>"

    def new_tide(self) -> Tide:
        return Tide(self.path, transport=self.network, durability="relaxed")

    async def open(self) -> None:
        self.tide = self.new_tide()
        await self.tide.open()
        watchers = [self.tide.collection(name).watch() for name in COLLECTIONS]
        self.view, self.told, self.writes = await self.documents(), Counter(), 0
        self.doubtful, self._began = 0, read_node(self.path)["lsn"]
        self._followers = [asyncio.create_task(self._follow(watcher)) for watcher in watchers]

    async def _follow(self, watcher: Any) -> None:
        async for change in watcher:
            self.told[change.source] += 1
            if change.doc is None:
                self.view.pop((change.collection, change.id), None)
            else:
                self.view[change.collection, change.id] = change.doc

    async def close(self) -> None:
        """Close the file, after which the watchers have been told everything."""
        await self.tide.close()
        followers, self._followers = self._followers, []
        await asyncio.gather(*followers)

    async def check_watchers(self) -> None:
        """Close, and open again: what was told last is what is there; local writes once each."""
        await self.close()
        view, told, writes, doubtful = self.view, self.told, self.writes, self.doubtful
        committed = read_local_changes(self.path, self._began)
        await self.open()
        assert view == await self.documents(), self
        assert told["local"] == committed, self
        assert abs(committed - writes) <= doubtful, self

    async def documents(self) -> dict[Key, dict[str, Any]]:
        return {
            (name, id_): doc
            for name in COLLECTIONS
            for id_, doc in (await self.tide.collection(name).all()).items()
        }

    async def put(self, key: Key, doc: dict[str, Any]) -> None:
        await self.tide.collection(key[0]).put(key[1], doc)
        self.writes += 1

    async def update(self, key: Key, fields: dict[str, Any]) -> bool:
        """Update a document, if there is one; whether there was."""
        try:
            await self.tide.collection(key[0]).update(key[1], fields)
        except NotFoundError:
            return False
        self.writes += 1
        return True

    async def delete(self, key: Key) -> bool:
        existed = await self.tide.collection(key[0]).delete(key[1])
        self.writes += existed
        return existed

    async def batch(self, docs: Mapping[Key, dict[str, Any] | None]) -> None:
        """Put, or delete where there is no document, all at once."""
        written = 0
        async with self.tide.batch():
            for (name, id_), doc in docs.items():
                if doc is not None:
                    await self.tide.collection(name).put(id_, doc)
                    written += 1
                else:
                    written += await self.tide.collection(name).delete(id_)
        self.writes += written
        self.doubtful += sum(doc is None for doc in docs.values())

    async def try_sync(self) -> bool:
        """Sync once; whether that worked."""
        try:
            await self.tide.sync_once()
        except SyncError:
            return False
        return True


class Fleet:
    """See the module.

    Attributes:
        days: the server's time, in days.
        forgetful: whether the server may have forgotten tombstones.
        restored: whether the server's file was ever replaced by an older one.
    """

    def __init__(self, folder: Path, random: Random) -> None:
        self.folder = folder
        self.random = random
        self.record = Record()
        self.nodes: list[Node] = []
        self.server: MemoryServer | None = None
        self.server_path = folder / "server.db"
        self.days = 1000.0
        self.forgetful = False
        self.restored = False
        self._serving = contextlib.AsyncExitStack()

    async def start(self) -> None:
        self.server = await self._serving.enter_async_context(
            memory_server(
                self.server_path,
                now=lambda: self.days * DAY,
                validate=lambda write: "bad" if write.doc and "bad" in write.doc else None,
            )
        )
        await self.server.service.open()  # there is a file to back up, even before the first sync

    async def stop(self) -> None:
        self.server = None
        await self._serving.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def backup(self, name: str) -> Path:
        """A copy of the server's file as it is now."""
        path = self.folder / name
        copy_database(self.server_path, path)
        return path

    async def restore(self, backup: Path) -> None:
        """Put *backup* in place of the server's file. What nobody holds any more is lost."""
        await self.stop()
        replace_database(self.server_path, backup)
        self.restored = True
        self.take_stock()
        await self.start()

    async def rewind(self, node: Node, backup: Path) -> None:
        """Put *backup* in place of the node's file: what it had not pushed is gone."""
        await node.close()
        replace_database(node.path, backup)
        if self.restored:  # it may have been the only one that still had something
            self.take_stock()
        await node.open()

    def take_stock(self) -> None:
        """After a loss: of what was accepted, that is left which some file still holds."""
        left: dict[Key, tuple[int, str]] = {}
        for path in (self.server_path, *[node.path for node in self.nodes]):
            for key, row in read_rows(path).items():
                if (key, row.stamp) in self.record.docs and '"bad"' not in (row.doc or ""):
                    left[key] = max(left.get(key, row.stamp), row.stamp)
        self.record.accepted = left

    async def add(self, copied: Node | None = None) -> Node:
        """A new node, or one whose file is a copy of another's."""
        path = self.folder / f"node{len(self.nodes)}.db"
        if copied is not None:
            copy_database(copied.path, path)
        node = Node(self, path, self.random)
        self.nodes.append(node)
        await node.open()
        return node

    async def settle(self) -> None:
        """Heal the network: one sync of each brings all to the server, a second one back."""
        if self.server is None:
            await self.start()
        for node in self.nodes:
            node.network.rate = 0.0
            node.line.exchanges = 0
        for _ in range(2):
            for node in self.nodes:
                await node.tide.sync_once()
                assert await node.tide.pending() == 0, node
        for node in self.nodes:
            assert node.line.exchanges <= 40, node  # it got there without spinning

    async def check(self) -> None:
        """All are equal, and equal to the winners; watchers know it, and nothing bad got in."""
        await self.settle()
        for node in self.nodes:
            await node.check_watchers()
        await self.aclose()
        self._check_winners()
        select = live if self.forgetful else dict
        stored = select(read_rows(self.server_path))
        for node in self.nodes:
            assert select(read_rows(node.path)) == stored, node
            assert read_rows(node.path, "outbox") == {}, node

    def _check_winners(self) -> None:
        stored = read_rows(self.server_path)
        for key, stamp in self.record.accepted.items():
            if self.restored and key[1] == REFUSED:
                continue  # the one node that had it may have written a refused one over it
            doc = self.record.docs[key, stamp]
            if doc is None and self.forgetful:
                assert key not in live(stored), key
            else:
                row = stored[key]
                assert row.stamp == stamp, key
                assert (None if row.doc is None else json.loads(row.doc)) == doc, key
        assert self.restored or stored.keys() <= self.record.accepted.keys()
        assert not any('"bad"' in (row.doc or "") for row in stored.values())

    async def aclose(self) -> None:
        """Close all that is open. Idempotent."""
        for node in self.nodes:
            await node.close()
        await self.stop()
