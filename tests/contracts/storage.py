"""What any `tide.server.storage.base.Storage` must do; subclass `StorageContract` and run it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tide.limits import MAX_BODY, MAX_DOC
from tide.protocol import Op
from tide.server.storage.base import Horizon, Page, Space, Storage, cut
from tide.stamp import MAX_COUNTER, Stamp

__all__ = ["StorageContract", "keep", "put"]

NODE = "alice.phone.0001"
IDS = ("1", "2", "é", "e\u0301", "'; DROP TABLE documents; --")
SPACES = ("default", "other")

Make = Callable[[], Storage]


def put(id_: str, counter: int = 1, doc: str | None = "{}", node_id: str = NODE) -> Op:
    return Op("todos", id_, doc, Stamp(counter, node_id))


def pull(space: Space, after: int = 0, limit: int = 5000) -> Page:
    return space.page(after, space.head, limit, MAX_BODY)


def keep(*ops: Op) -> Callable[[Space], int]:
    """The work that accepts *ops* and tells the head."""

    def work(space: Space) -> int:
        space.accept(ops)
        return space.head

    return work


class ModelSpace(Space):
    """The same, in memory, for one space only: what a storage is compared with."""

    def __init__(self) -> None:
        self.head = self.clock = 0
        self.horizon = Horizon()
        self.epoch = ""
        self.starts: list[tuple[str, int]] = []
        self.held: dict[tuple[str, str], tuple[int, Op, float]] = {}
        self.now = 0.0

    def begin(self, epoch: str) -> None:
        """A server starts, and speaks of *epoch*."""
        self.epoch = epoch
        self.starts.append((epoch, self.head))

    def covers(self, epoch: str, seq: int) -> bool:
        ends = [start for _, start in self.starts[1:]] + [self.head]
        return any(
            known == epoch and seq <= end for (known, _), end in zip(self.starts, ends, strict=True)
        )

    def find(self, key: tuple[str, str]) -> Op | None:
        return self.held[key][1] if key in self.held else None

    def accept(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self.head += 1
            self.clock = max(self.clock, op.stamp.counter)
            self.held[op.key] = (self.head, op, self.now)

    def page(self, after: int, upto: int, limit: int, max_bytes: int) -> Page:
        rows = sorted((seq, op) for seq, op, _ in self.held.values() if after < seq <= upto)
        return cut(rows, after, limit, max_bytes)

    def forget_tombstones(self, before: float) -> int:
        old = [(seq, op) for seq, op, at in self.held.values() if op.doc is None and at < before]
        for seq, op in old:
            del self.held[op.key]
            self.horizon = Horizon(
                max(self.horizon.seq, seq), max(self.horizon.counter, op.stamp.counter)
            )
        return len(old)


class StorageContract(ABC):
    """The suite. A subclass, named ``Test…``, says how to make a storage."""

    @abstractmethod
    def make(self, folder: Path, now: Callable[[], float]) -> Storage:
        """A storage, not open yet, on the database in *folder*; it measures time with *now*."""

    @pytest.fixture
    async def make_storage(self, tmp_path):
        """Makes storages on one database, each of which is closed in the end."""
        made = []

        def make() -> Storage:
            made.append(self.make(tmp_path, lambda: self.time))
            return made[-1]

        self.time = 1_000_000.0
        yield make
        for storage in made:
            await storage.aclose()

    @pytest.fixture
    async def storage(self, make_storage: Make):
        storage = make_storage()
        await storage.open()
        return storage

    # Sequence

    async def test_a_new_space_has_nothing(self, storage: Storage):
        def look(space: Space) -> Any:
            return space.head, space.clock, space.horizon, pull(space), space.find(("todos", "1"))

        assert await storage.run("new", look) == (0, 0, Horizon(0, 0), Page((), 0, False), None)

    async def test_each_op_gets_the_next_seq_and_the_clock_its_highest_counter(self, storage):
        await storage.run("default", keep(put("1", 7), put("2", 3)))
        await storage.run("default", keep(put("3", 5)))
        head, clock, page = await storage.run("default", lambda s: (s.head, s.clock, pull(s)))
        assert (head, clock) == (3, 7)
        assert [op.id for op in page.ops] == ["1", "2", "3"]

    async def test_accepting_nothing_changes_nothing(self, storage):
        await storage.run("default", keep(put("1", 7)))
        await storage.run("default", lambda space: space.accept([]))
        assert await storage.run("default", lambda s: (s.head, s.clock)) == (1, 7)

    async def test_head_and_clock_move_within_the_same_transaction(self, storage):
        def work(space: Space) -> Any:
            space.accept([put("1", 4)])
            first = space.head, space.clock
            space.accept([put("1", 5), put("2", 2)])
            return first, (space.head, space.clock), [op.id for op in pull(space).ops]

        assert await storage.run("default", work) == ((1, 4), (3, 5), ["1", "2"])

    async def test_f17_a_document_has_one_seq_that_of_its_newest_op(self, storage):
        await storage.run("default", keep(put("1", 1), put("2", 2)))
        await storage.run("default", keep(put("1", 3, '{"new":1}')))
        page = await storage.run("default", pull)
        assert page == Page((put("2", 2), put("1", 3, '{"new":1}')), 3, False)

    async def test_f15_a_seq_is_never_given_again_after_its_tombstone_was_forgotten(
        self, storage, make_storage
    ):
        await storage.run("default", keep(put("1"), put("2", 2, None)))
        assert await storage.run("default", lambda s: s.forget_tombstones(self.time + 1)) == 1
        await storage.run("default", keep(put("3", 3)))
        await storage.run("default", keep(put("3", 4, None)))
        await storage.run("default", lambda s: s.forget_tombstones(self.time + 1))
        await storage.aclose()
        again = make_storage()
        await again.run("default", keep(put("4", 5)))
        assert await again.run("default", lambda s: (s.head, pull(s, 1).ops)) == (5, (put("4", 5),))

    @pytest.mark.parametrize("text", ['{"a" :  1.0,"b":"\\u00e9"}', '{"☕":"e\u0301"}', None])
    async def test_f64_a_document_is_kept_as_the_text_that_came(self, storage, text):
        op = put("1", MAX_COUNTER, text)
        await storage.run("default", keep(op))
        assert await storage.run("default", lambda s: (s.find(op.key), pull(s).ops)) == (op, (op,))

    @pytest.mark.parametrize("counter", [0, -1, 2**53, 2**63 - 1])
    async def test_f19_no_counter_is_kept_that_is_none(self, storage, counter):
        with pytest.raises(Exception, match="counter"):
            await storage.run("default", keep(put("1", counter)))
        assert await storage.run("default", lambda s: (s.head, pull(s).ops)) == (0, ())

    async def test_f23_stamps_of_equal_counters_come_back_as_they_were(self, storage):
        ops = [put(str(n), 7, node_id=node) for n, node in enumerate(("node.9aa", "node.aaa.1"))]
        await storage.run("default", lambda space: space.accept(ops))
        assert (await storage.run("default", pull)).ops == tuple(ops)

    async def test_f66_ids_are_compared_as_bytes(self, storage):
        ids = ["é", "e\u0301", "a", "A", "a ", " a", ".", "..", "%", "_", "'", '"', "ß", "ss", "ı"]
        await storage.run("default", lambda space: space.accept([put(id_) for id_ in ids]))
        assert [op.id for op in (await storage.run("default", pull)).ops] == ids

    # Pages

    @pytest.mark.parametrize(
        ("stretch", "ids", "last", "has_more"),
        [
            ((0, 5, 5), "12345", 5, False),
            ((0, 5, 4), "1234", 4, True),
            ((0, 5, 1), "1", 1, True),
            ((4, 5, 1), "5", 5, False),
            ((5, 5, 1), "", 5, False),
            ((0, 3, 3), "123", 3, False),
            ((0, 3, 2), "12", 2, True),
            ((9, 5, 9), "", 9, False),
            ((0, 0, 9), "", 0, False),
        ],
    )
    async def test_f17_a_page_ends_at_its_limit(self, storage, stretch, ids, last, has_more):
        await storage.run("default", lambda space: space.accept([put(id_) for id_ in "12345"]))
        page = await storage.run("default", lambda s: s.page(*stretch, MAX_BODY))
        assert page == Page(tuple(put(id_) for id_ in ids), last, has_more)

    async def test_f17_a_page_ends_where_it_would_grow_too_large(self, storage):
        doc = json.dumps({"text": "x" * 9000})
        await storage.run("default", keep(*(put(str(n), 1, doc) for n in range(7))))
        after, sizes = 0, []
        while True:
            page = await storage.run("default", lambda s, a=after: s.page(a, s.head, 99, 30_000))
            after = page.last
            sizes.append(len(page.ops))
            if not page.has_more:
                break
        assert (sizes, after) == ([3, 3, 1], 7)

    async def test_f17_a_page_has_one_change_at_least_however_large(self, storage):
        doc = json.dumps({"text": "x" * (MAX_DOC - 100)})
        await storage.run("default", keep(put("1", 1, doc), put("2")))
        page = await storage.run("default", lambda space: space.page(0, space.head, 99, 1))
        assert (len(page.ops), page.last, page.has_more) == (1, 1, True)

    async def test_f14_no_reader_ever_misses_what_writers_bring(self, storage):
        async def write(node: int) -> None:
            for count in range(10):
                op = put(f"{node}.{count}", count + 1)
                await storage.run("default", keep(op))

        async def read() -> list[str]:
            seen: list[str] = []
            after = 0
            while len(seen) < 80:
                page = await storage.run("default", lambda s, a=after: s.page(a, s.head, 3, 9999))
                seen += [op.id for op in page.ops]
                after = page.last
            return seen

        reading = asyncio.ensure_future(read())
        await asyncio.gather(*(write(node) for node in range(8)))
        seen = await reading
        assert len(set(seen)) == len(seen) == 80

    # Epochs

    async def test_f26_positions_of_all_starts_are_covered_up_to_where_they_ended(
        self, storage, make_storage
    ):
        await storage.run("default", keep(put("1"), put("2")))
        first = await storage.run("default", lambda space: space.epoch)
        await storage.aclose()
        again = make_storage()
        await again.run("default", keep(put("3")))

        def covered(space: Space) -> Any:
            return [
                [space.covers(epoch, seq) for seq in range(5)]
                for epoch in (first, space.epoch, "ffffffffffffffff")
            ]

        assert first != await again.run("default", lambda space: space.epoch)
        assert await again.run("default", covered) == [
            [True, True, True, False, False],
            [True, True, True, True, False],
            [False] * 5,
        ]

    async def test_f70_an_epoch_of_one_space_says_nothing_in_another(self, storage, make_storage):
        one = await storage.run("one", lambda space: space.epoch)
        for _ in range(2):
            assert await storage.run("one", lambda space: space.covers(one, 0))
            assert not await storage.run("two", lambda space: space.covers(one, 0))
            await storage.aclose()
            storage = make_storage()

    # Tombstones

    async def test_f29_only_tombstones_of_before_are_forgotten(self, storage):
        await storage.run("default", keep(put("1", 9, None), put("2", 2)))
        self.time += 10
        await storage.run("default", keep(put("3", 4, None)))
        assert await storage.run("default", lambda s: s.forget_tombstones(self.time - 10)) == 0
        assert await storage.run("default", lambda s: s.horizon) == Horizon(0, 0)
        assert await storage.run("default", lambda s: s.forget_tombstones(self.time)) == 1
        state = await storage.run("default", lambda s: (s.horizon, pull(s).ops, s.head, s.clock))
        assert state == (Horizon(1, 9), (put("2", 2), put("3", 4, None)), 3, 9)

    async def test_f16_a_clock_that_jumps_back_moves_no_horizon_back(self, storage):
        await storage.run("default", keep(put("1", 9, None), put("2", 8, None)))
        await storage.run("default", lambda s: s.forget_tombstones(self.time + 1))
        self.time -= 3600
        await storage.run("default", keep(put("3", 3), put("4", 4, None)))
        await storage.run("default", lambda s: s.forget_tombstones(self.time + 1))
        assert await storage.run("default", lambda s: (s.horizon, s.head)) == (Horizon(4, 9), 4)

    # Works

    async def test_works_that_wait_together_are_done_in_their_order(self, storage):
        heads = await asyncio.gather(
            *(storage.run("default", keep(put(str(n)))) for n in range(150))
        )
        assert heads == list(range(1, 151))

    async def test_a_work_that_fails_fails_alone_and_leaves_nothing(self, storage):
        def work(space: Space, number: int) -> int:
            space.accept([put(str(number))])
            if number % 3 == 0:
                raise ZeroDivisionError(number)
            return number

        done = await asyncio.gather(
            *(storage.run("default", lambda s, n=n: work(s, n)) for n in range(9)),
            return_exceptions=True,
        )
        kept = [op.id for op in (await storage.run("default", pull)).ops]
        assert kept == ["1", "2", "4", "5", "7", "8"]
        assert [str(one) for one in done] == [str(n) for n in range(9)]
        failed = [n for n, one in enumerate(done) if isinstance(one, ZeroDivisionError)]
        assert failed == [0, 3, 6]
        assert await storage.run("default", lambda s: s.head) == 6

    async def test_f60_a_caller_that_goes_away_leaves_no_half_work(self, storage):
        task = asyncio.ensure_future(
            storage.run("default", lambda s: (s.accept([put("1")]), s.accept([put("2")])))
        )
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await storage.run("default", keep(put("3")))
        kept = {op.id for op in (await storage.run("default", pull)).ops}
        assert kept in ({"3"}, {"1", "2", "3"})

    # Open and close

    async def test_the_first_work_opens_and_what_was_kept_is_there(self, storage, make_storage):
        await storage.run("default", keep(put("1", 5)))
        await storage.aclose()
        again = make_storage()
        state = await again.run("default", lambda s: (s.head, s.clock, pull(s).ops))
        assert state == (1, 5, (put("1", 5),))

    async def test_opening_and_closing_twice_is_as_once(self, storage):
        await asyncio.gather(*(storage.open() for _ in range(5)))
        await storage.run("default", keep(put("1")))
        await asyncio.gather(*(storage.aclose() for _ in range(5)))
        await storage.aclose()

    async def test_closing_waits_for_the_works_on_their_way(self, storage, make_storage):
        works = [
            asyncio.ensure_future(storage.run("default", keep(put(str(n))))) for n in range(20)
        ]
        await asyncio.sleep(0)
        await storage.aclose()
        await asyncio.gather(*works)
        assert await make_storage().run("default", lambda space: space.head) == 20

    async def test_f14_two_that_are_open_on_one_database_share_the_sequence(self, make_storage):
        storages = [make_storage(), make_storage()]
        heads = await asyncio.gather(
            *(storages[n % 2].run("default", keep(put(str(n)))) for n in range(40))
        )
        assert sorted(heads) == list(range(1, 41))
        one, two = [await storage.run("default", pull) for storage in storages]
        assert one == two
        assert len({await storage.run("default", lambda s: s.epoch) for storage in storages}) == 1

    # Spaces

    async def test_f70_spaces_with_identical_documents_know_nothing_of_each_other(self):
        """Each space equals, at every moment, a model that knows no other space."""
        suite = self

        class Spaces(StorageMachine):
            def make(self, folder: Path, now: Callable[[], float]) -> Storage:
                return suite.make(folder, now)

        await asyncio.to_thread(
            run_state_machine_as_test,
            Spaces,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


KEYS = [("todos", id_) for id_ in IDS] + [("Todos", "1")]
OPS = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(st.sampled_from([None, "{}", '{"a":1}']), st.integers(1, 30)),
    max_size=4,
)


class StorageMachine(RuleBasedStateMachine):
    """Does at random what a server does to two spaces, and the same to their models."""

    def make(self, folder: Path, now: Callable[[], float]) -> Storage:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.models = {name: ModelSpace() for name in SPACES}
        self.epochs = {"ffffffffffffffff"}
        self.storage = self.open()

    def open(self) -> Storage:
        storage = self.make(Path(self.folder.name), lambda: self.now)
        for name, model in self.models.items():
            model.begin(self.wait(storage.run(name, lambda space: space.epoch)))
            self.epochs.add(model.epoch)
        return storage

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(awaitable)

    def both(self, name: str, work: Callable[[Space], Any]) -> None:
        """Do *work* in the space and in its model, which answer the same."""
        model = self.models[name]
        model.now = self.now
        assert self.wait(self.storage.run(name, work)) == work(model)

    @rule(name=st.sampled_from(SPACES), ops=OPS)
    def accept(self, name, ops) -> None:
        batch = [
            Op(collection, id_, doc, Stamp(counter, NODE))
            for (collection, id_), (doc, counter) in sorted(ops.items())
        ]
        self.both(name, lambda space: space.accept(batch))

    @rule(
        name=st.sampled_from(SPACES),
        after=st.integers(0, 30),
        upto=st.integers(0, 30),
        limit=st.integers(1, 5),
        max_bytes=st.integers(1, 1000),
    )
    def page(self, name, after, upto, limit, max_bytes) -> None:
        self.both(name, lambda space: space.page(after, upto, limit, max_bytes))

    @rule(name=st.sampled_from(SPACES), age=st.integers(-1, 5))
    def forget(self, name, age) -> None:
        before = self.now - age
        self.both(name, lambda space: space.forget_tombstones(before))

    @rule(seconds=st.integers(-3, 5))
    def time_passes(self, seconds) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.wait(self.storage.aclose())
        self.storage = self.open()

    @invariant()
    def each_space_is_as_if_it_were_alone(self) -> None:
        def state(space: Space) -> Any:
            return (
                space.head,
                space.clock,
                space.horizon,
                space.epoch,
                pull(space),
                [space.find(key) for key in KEYS],
                [space.covers(epoch, seq) for epoch in sorted(self.epochs) for seq in range(9)],
            )

        for name in SPACES:
            self.both(name, state)

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.wait(self.storage.aclose())
            self.wait(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()
