"""What a store shows at any moment, and what all end up with, against a model (Hypothesis).

Hypothesis chooses what happens to a server and up to four nodes: writes, exchanges with each fault,
files copied, closed and put back, the server restarted and restored, tombstones forgotten. In the
end the network heals, and `Fleet.check` has to hold.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fleet import (
    COLLECTIONS,
    REFUSED,
    Fleet,
    Node,
    Row,
    copy_database,
    live,
    read_node,
    read_rows,
)
from tide.testing import FAULTS

T = TypeVar("T")
Key = tuple[str, str]

# So few documents that nodes often write to the same ones.
keys = st.tuples(st.sampled_from(COLLECTIONS[:2]), st.sampled_from(["a", "b", REFUSED]))
docs = st.dictionaries(
    st.sampled_from(["n", "text", "done"]), st.integers(0, 9) | st.text(max_size=3) | st.booleans()
)
who = st.integers(0, 3)  # which node, modulo how many there are


class Scripted(Random):
    """The chance of a `FaultyTransport` that fails once, in the way and at the exchange told."""

    def __init__(self) -> None:
        super().__init__(1)
        self.chance = Random(1)
        self.fault = ""
        self.skip = 0

    def expect(self, fault: str, skip: int) -> None:
        self.fault, self.skip = fault, skip

    def random(self) -> float:
        self.skip -= 1
        return 0.0 if self.fault and self.skip == -1 else 1.0

    def randrange(self, *args: Any) -> int:
        return self.chance.randrange(*args)

    def choice(self, seq: Any) -> Any:
        return self.fault if self.fault in seq else self.chance.choice(seq)


class Nodes(RuleBasedStateMachine):
    """See the module. Each node's model is what its file has to hold, as far as it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("tide.sync.PAGE", 3)
        self.patch.setattr("tide.sync.MAX_OPS", 3)
        chance = Random(1)  # the same node ids each time, so that a failure can be had again
        self.patch.setattr("tide.ids.token", lambda size: chance.randbytes(size).hex())
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.script = Scripted()
        self.fleet = Fleet(Path(self.folder.name), self.script)
        self.models: dict[Node, dict[Key, dict[str, Any]]] = {}
        self.waiting: dict[Node, set[Key]] = {}
        self.cursors: dict[Node, str | None] = {}
        self.resyncing: dict[Node, int] = {}  # a resync after a reset is under way
        self.backups: list[Path] = []
        self.saved: dict[Node, Path] = {}
        self.touched: list[Node] = []
        self.names = iter(range(10**6))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def node(self, number: int) -> Node:
        node = self.fleet.nodes[number % len(self.fleet.nodes)]
        self.touched = [node]
        return node

    @initialize(count=st.integers(2, 3))
    def begin(self, count: int) -> None:
        self.run(self.fleet.start())
        for _ in range(count):
            self.adopt(self.run(self.fleet.add()))

    def adopt(self, node: Node) -> None:
        """Take what the file of *node* holds for its model."""
        self.models[node] = {
            key: json.loads(row.doc or "") for key, row in live(read_rows(node.path)).items()
        }
        self.waiting[node] = set(read_rows(node.path, "outbox"))
        node_row = read_node(node.path)
        self.cursors[node], self.resyncing[node] = node_row["cursor"], node_row["resync"]

    # Writes

    def wrote(self, node: Node, key: Key, doc: dict[str, Any] | None) -> None:
        if doc is not None:
            self.models[node][key] = doc
        else:
            del self.models[node][key]
        self.waiting[node].add(key)

    @rule(number=who, key=keys, doc=docs, bad=st.booleans())
    def put(self, number: int, key: Key, doc: dict[str, Any], *, bad: bool) -> None:
        node = self.node(number)
        if bad and key[1] == REFUSED:
            doc = {**doc, "bad": True}
        self.run(node.put(key, doc))
        self.wrote(node, key, doc)

    @rule(number=who, key=keys, fields=docs)
    def update(self, number: int, key: Key, fields: dict[str, Any]) -> None:
        node = self.node(number)
        there = key in self.models[node]
        assert self.run(node.update(key, fields)) == there
        if there:
            self.wrote(node, key, {**self.models[node][key], **fields})

    @rule(number=who, key=keys)
    def delete(self, number: int, key: Key) -> None:
        node = self.node(number)
        there = key in self.models[node]
        assert self.run(node.delete(key)) == there
        if there:
            self.wrote(node, key, None)

    @rule(number=who, writes=st.dictionaries(keys, st.none() | docs, max_size=4))
    def batch(self, number: int, writes: dict[Key, dict[str, Any] | None]) -> None:
        node = self.node(number)
        self.run(node.batch(writes))
        for key, doc in writes.items():
            if doc is not None or key in self.models[node]:
                self.wrote(node, key, doc)

    # Exchanges

    @rule(
        number=who,
        fault=st.sampled_from(["", *FAULTS]),
        skip=st.integers(0, 3),
        key=st.none() | keys,
    )
    def sync(self, number: int, fault: str, skip: int, key: Key | None) -> None:
        """Sync, with a fault at some exchange, and a write of *key* while the answer travels."""
        node = self.node(number)
        before = read_rows(node.path)
        self.script.expect(fault, skip)
        node.network.rate, node.line.resets = 0.5, 0
        wrote: list[tuple[Key, Row]] = []
        if key is not None:

            async def write() -> None:
                await node.put(key, {"meanwhile": True})
                wrote.append((key, read_rows(node.path)[key]))

            node.line.meanwhile = write
        worked = self.run(node.try_sync())
        node.network.rate, node.line.meanwhile = 0.0, None
        self.script.expect("", 0)
        self.synced(node, before, worked=worked)
        for written, row in wrote:  # it is there, or was beaten by what the answer told
            assert read_rows(node.path)[written].stamp >= row.stamp

    def synced(self, node: Node, before: dict[Key, Row], *, worked: bool) -> None:
        """What may have changed: a document only to a greater stamp, or as was announced."""
        after = read_rows(node.path)
        for key, row in before.items():
            refused = '"bad"' in (row.doc or "")
            announced = node.line.resets or self.resyncing[node]
            assert announced or refused or after[key].stamp >= row.stamp, key
        cursor, since = read_node(node.path)["cursor"], self.cursors[node]
        if since is not None and not node.line.resets:
            assert cursor is not None
            assert position(cursor) >= position(since)
        self.adopt(node)
        if worked and not self.waiting[node]:
            assert live(after) == live(read_rows(self.fleet.server_path))

    @rule()
    def everybody_syncs(self) -> None:
        for node in self.fleet.nodes:
            before = read_rows(node.path)
            node.line.resets = 0
            assert self.run(node.try_sync())
            self.synced(node, before, worked=True)
        self.touched = list(self.fleet.nodes)

    @rule(number=who)
    def sync_in_two_processes(self, number: int) -> None:
        """Two Tides on one file sync at once (a Tide shares nothing with another but the file)."""
        node = self.node(number)
        before = read_rows(node.path)
        node.line.resets = 0
        self.run(self._sync_twice(node))
        self.synced(node, before, worked=True)

    async def _sync_twice(self, node: Node) -> None:
        async with node.new_tide() as other:
            await asyncio.gather(node.tide.sync_once(), other.sync_once())
        await node.close()  # its watchers did not hear what the other one let in
        await node.open()

    # Files and servers

    @rule(number=who)
    def reopen(self, number: int) -> None:
        self.run(self.node(number).check_watchers())

    @precondition(lambda self: len(self.fleet.nodes) < 4)
    @rule(number=who)
    def copy(self, number: int) -> None:
        node = self.run(self.fleet.add(copied=self.node(number)))
        self.adopt(node)

    @rule(number=who)
    def save(self, number: int) -> None:
        node = self.node(number)
        self.saved[node] = node.path.with_suffix(f".saved{next(self.names)}")
        copy_database(node.path, self.saved[node])

    @rule(number=who)
    def put_back(self, number: int) -> None:
        node = self.node(number)
        if node in self.saved:
            self.run(self.fleet.rewind(node, self.saved[node]))
            self.adopt(node)

    @rule()
    def restart_server(self) -> None:
        self.run(self.fleet.restart())

    @rule()
    def back_up_server(self) -> None:
        self.backups.append(self.fleet.backup(f"backup{next(self.names)}"))

    @precondition(lambda self: self.backups)
    @rule(number=st.integers(0, 9))
    def restore_server(self, number: int) -> None:
        self.run(self.fleet.restore(self.backups[number % len(self.backups)]))

    @rule(number=who, key=keys, deletes=st.booleans())
    def months_go_by(self, number: int, key: Key, *, deletes: bool) -> None:
        """Perhaps after a delete, so that there is something to forget that others did not see."""
        if deletes and key in self.models[self.node(number)]:
            self.delete(number, key)
            self.sync(number, "", 0, None)
        self.fleet.days += 91
        self.fleet.forgetful = True

    # What always holds

    @invariant()
    def reading_gives_the_model(self) -> None:
        for node in self.touched:
            assert self.run(node.documents()) == self.models[node], node
            assert self.run(node.tide.pending()) == len(self.waiting[node]), node

    @invariant()
    def what_waits_is_what_is_stored(self) -> None:
        for node in self.touched:
            stored = read_rows(node.path)
            for key, row in read_rows(node.path, "outbox").items():
                assert stored[key] == row, key
        self.touched = []

    def teardown(self) -> None:
        try:
            if self.fleet.nodes:
                self.run(self.fleet.check())
        finally:
            self.run(self.fleet.aclose())
            self.loop.close()
            self.patch.undo()
            self.folder.cleanup()


def position(cursor: str) -> int:
    """The seq in a cursor of our own server."""
    return int(cursor.split(":")[1])


TestNodes = Nodes.TestCase
TestNodes.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
