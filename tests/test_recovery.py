"""Damaged files: noticed, set aside, and no op that can be read is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs.files import Rows, documents, node, outbox, query, sound, sql_on
from tests.programs.nodes import open_and_add, recover_and_die, started, write_and_die
from tide import NotAStoreError, StoreCorruptError, StoreError, Tide
from tide.testing import memory_server

PAGE = 4096
IMAGES = int(os.environ.get("TIDE_IMAGES", "3"))  # of each kind


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


def doc(rng, n):
    return {"n": n, "text": "".join(rng.choices("abc déf\n", k=rng.choice([5, 50, 500, 6000])))}


def refuse_bad(write):
    return "it is bad" if write.id.startswith("bad") else None


async def make(path, folder, *, wal=False):
    """A store with documents that the server has, waiting and rejected ops, as a crash left it.

    With *wal*, what waits is not in the main file yet.
    """
    rng = random.Random(1)
    async with (
        memory_server(folder / "server.db", validate=refuse_bad) as server,
        Tide(path, transport=server.transport()) as tide,
    ):
        async with tide.batch():
            for n in range(150):
                await tide.collection("docs").put(f"old {n}", doc(rng, n))
            for n in range(25):
                await tide.collection("docs").put(f"bad {n}", doc(rng, n))
        assert (await tide.sync_once()).rejected == 25
    process, _ = started(write_and_die, path, {f"new {n}": doc(rng, n) for n in range(150)})
    process.join()
    if not wal:
        with sql_on(path) as sql:
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def pages(path, table):
    """The numbers of the pages that hold the rows of *table*, and those of its rows' rests."""
    with sql_on(path) as sql:
        try:
            rows = sql.execute("SELECT pageno FROM dbstat WHERE name = ?", [table])
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")
        return [number for (number,) in rows]


def spoil(path, numbers, content=b"\xa5" * PAGE):
    """Write *content* over the pages *numbers*, counted from 1."""
    with path.open("r+b") as file:
        for number in numbers:
            file.seek((number - 1) * PAGE)
            file.write(content)


def set_aside(path):
    """The main files that were set aside."""
    return [
        file
        for file in path.parent.glob(f"{path.name}.corrupt-*")
        if not file.name.endswith(("-wal", "-shm"))
    ]


REJECTED = "SELECT collection, id, doc, counter, node_id, code, detail FROM rejected"


# What becomes of a damaged file


async def test_f53_a_damaged_file_is_set_aside_its_ops_are_saved_and_the_rest_comes_back(
    path, tmp_path, caplog
):
    await make(path, tmp_path)
    docs, waiting, rejected = documents(path), outbox(path), query(path, REJECTED)
    device = node(path, "device")
    spoil(path, pages(path, "documents"))
    image = path.read_bytes()
    async with (
        memory_server(tmp_path / "server.db", validate=refuse_bad) as server,
        Tide(path, transport=server.transport()) as tide,
    ):
        found = tide.recovered
        assert found is not None
        assert [found.set_aside] == set_aside(path)
        assert found.set_aside.read_bytes() == image, "nothing was deleted or changed"
        assert {(op.collection, op.id): (op.doc, *op.stamp) for op in found.pending} == waiting
        assert len(found.rejected) == 25
        assert not found.unreadable
        assert "150 waiting and 25 rejected ops were saved" in caplog.text
        assert outbox(path) == documents(path) == waiting
        assert query(path, REJECTED) == rejected
        assert [op.id for op in await tide.rejected()] == [row[1] for row in rejected]
        assert node(path, "clock") >= max(counter for _, counter, _ in waiting.values())
        assert tide.node_id.startswith(f"{device}."), "so its ops are still its own"
        result = await tide.sync_once()
        assert (result.pushed, result.pulled) == (150, 150)
        assert documents(path) == docs
    async with Tide(path) as tide:
        assert tide.recovered is None
    assert sound(path)


async def test_f53_after_recovery_a_write_wins_over_all_that_was_saved(path, tmp_path):
    await make(path, tmp_path)
    spoil(path, pages(path, "documents"))
    async with Tide(path) as tide:
        saved = outbox(path)["docs", "new 149"]
        await tide.collection("docs").update("new 149", {"edited": True})
        assert outbox(path)["docs", "new 149"][1] > saved[1]
    assert sound(path)


async def test_f53_damage_that_is_met_while_open_is_an_error_and_the_next_open_recovers(
    path, tmp_path
):
    await make(path, tmp_path)
    async with Tide(path):
        pass  # now it was closed properly, so that opening it does not read all of it
    waiting = outbox(path)
    spoil(path, pages(path, "documents")[2:])
    async with Tide(path) as tide:
        assert tide.recovered is None
        for _ in range(2):
            with pytest.raises(StoreCorruptError, match="open it again"):
                await tide.collection("docs").all()
    async with Tide(path) as tide:
        assert tide.recovered is not None
        assert await tide.pending() == 150
    assert outbox(path) == waiting


async def test_f53_a_document_made_unreadable_is_a_typed_error_until_it_is_put_again(
    path,
):
    async with Tide(path) as tide:
        docs = tide.collection("docs")
        await docs.put("a", {"n": 1})
        with sql_on(path) as sql:
            sql.execute("UPDATE documents SET doc = '{\"n\":'")
        for read in (docs.get("a"), docs.all(), docs.update("a", {})):
            with pytest.raises(StoreCorruptError, match="put it again, or delete it"):
                await read
        async with tide.batch():
            with pytest.raises(StoreCorruptError):
                await docs.get("a")
            await docs.put("a", {"n": 2})
        assert await docs.get("a") == {"n": 2}


async def test_f53_ops_on_both_sides_of_damaged_pages_are_saved(path, tmp_path):
    await make(path, tmp_path)
    waiting = outbox(path)
    leaves = pages(path, "outbox")
    spoil(path, leaves[len(leaves) // 4 :: len(leaves) // 4])
    readable = ops(path, "outbox")
    assert 30 < len(readable) < 150
    async with Tide(path) as tide:
        assert tide.recovered is not None
        assert tide.recovered.unreadable
        assert outbox(path) == {key: waiting[key] for key in readable}
    assert sound(path)


async def test_f53_what_stands_only_in_the_write_ahead_log_is_saved_too(path, tmp_path):
    await make(path, tmp_path, wal=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    with sql_on(tmp_path / "copied.db"):
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{tmp_path / 'copied.db'}{suffix}")
    waiting = outbox(tmp_path / "copied.db")
    assert len(waiting) == 150
    spoil(path, range(5, path.stat().st_size // PAGE))
    async with Tide(path) as tide:
        assert tide.recovered is not None
    assert outbox(path) == waiting


@pytest.mark.parametrize(
    "header", [b"\0" * 16, b"SQLite format 4\0", bytes(100)], ids=["zeros", "magic", "all of it"]
)
async def test_f53_a_store_with_a_garbage_header_is_known_as_ours(path, tmp_path, header):
    await make(path, tmp_path)
    image = header + path.read_bytes()[len(header) :]
    path.write_bytes(image)
    async with Tide(path) as tide:
        assert tide.recovered is not None
        assert tide.recovered.set_aside.read_bytes() == image
        await tide.collection("docs").put("works", {})


async def test_f53_several_damaged_files_are_set_aside_under_names_of_their_own(path, tmp_path):
    images = set()
    for life in range(3):
        async with Tide(path) as tide:
            await tide.collection("docs").put("a", {"life": life})
        path.write_bytes(b"\0" * 16 + path.read_bytes()[16:])
        images.add(path.read_bytes())
    async with Tide(path):
        pass
    assert {file.read_bytes() for file in set_aside(path)} == images
    assert len(images) == 3


async def test_f53_a_store_cut_off_is_recovered(path, tmp_path):
    await make(path, tmp_path)
    path.write_bytes(path.read_bytes()[: -10 * PAGE - 17])
    readable = ops(path, "outbox")
    async with Tide(path) as tide:
        assert tide.recovered is not None
        assert readable.items() <= outbox(path).items()


async def test_f53_a_store_whose_first_page_is_gone_is_refused_untouched(path, tmp_path):
    await make(path, tmp_path)
    spoil(path, [1], b"\0" * PAGE)
    image = path.read_bytes()
    with pytest.raises(NotAStoreError, match="not a tide store"):
        await Tide(path).open()
    assert path.read_bytes() == image
    assert set_aside(path) == []


# Interrupted, and several at once


async def test_f53_a_recovery_killed_at_any_step_loses_no_op(images, tmp_path):
    whole = await images("wal")
    numbers = pages(whole.copy(tmp_path / "whole"), "documents")
    first = random.randrange(5)
    print(f"first step {first}")  # noqa: T201 - shown when it fails
    for step in itertools.count(first, 5):
        path = whole.copy(tmp_path / f"{step}")
        size = path.stat().st_size // PAGE
        spoil(path, [number for number in numbers if number <= size])
        process, pipe = started(recover_and_die, path, step)
        try:
            outcome = pipe.recv()
        except EOFError:
            outcome = "killed"
        process.join()
        async with Tide(path):
            pass
        assert len(set_aside(path)) == 1
        assert ops(path, "outbox") == whole.waiting
        assert ops(path, "rejected") == whole.rejected
        assert not list(path.parent.glob("*.recovering*"))
        assert sound(path)
        if outcome == "opened" and step > 10:
            return


async def test_f53_two_that_find_the_damage_at_once_recover_once(path, tmp_path):
    await make(path, tmp_path)
    waiting = outbox(path)
    spoil(path, pages(path, "documents"))
    async with Tide(path) as one, AsyncExitStack() as stack:
        assert one.recovered is not None
        path_of_both = tmp_path / "again.db"
        shutil.copy(one.recovered.set_aside, path_of_both)
        both = [Tide(path_of_both), Tide(path_of_both)]
        await asyncio.gather(*(stack.enter_async_context(tide) for tide in both))
        assert [tide.recovered is None for tide in both].count(False) == 1
        for n, tide in enumerate(both):
            await tide.collection("docs").put(f"after {n}", {})
        assert await both[0].collection("docs").count() == 152
    assert len(set_aside(path_of_both)) == 1
    assert outbox(path_of_both).items() > waiting.items()


async def test_f53_processes_that_find_the_damage_at_once_recover_once(path, tmp_path):
    await make(path, tmp_path)
    waiting = outbox(path)
    spoil(path, pages(path, "documents"))
    processes = [started(open_and_add, path) for _ in range(4)]
    for _, pipe in processes:
        pipe.send("now")
    told = [pipe.recv() for _, pipe in processes]
    for process, _ in processes:
        process.join()
    assert [how for how, _ in told] == ["done"] * 4, told
    assert len(set_aside(path)) == 1
    assert len(outbox(path)) == 154
    assert outbox(path).items() > waiting.items()
    assert sound(path)


# Damage of all kinds


def ops(path, table):
    """The ops of *table* that can be read one by one, whatever else is broken."""
    found: Rows = {}
    more = ", code, detail" if table == "rejected" else ""
    with sql_on(path) as sql:
        for rowid in range(1, 200):
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):  # of its message
                for row in sql.execute(
                    f"SELECT collection, id, doc, counter, node_id{more} FROM {table}"
                    " WHERE rowid = ?",
                    [rowid],
                ):
                    found[row[:2]] = row[2:5]
    return found


def flip_bytes(rng, image):
    for _ in range(rng.choice([1, 10, 100])):
        image[rng.randrange(len(image))] = rng.randrange(256)


def lose_pages(rng, image):
    for _ in range(rng.choice([1, 3, 10])):
        at = rng.randrange(len(image) // PAGE) * PAGE
        image[at : at + PAGE] = rng.choice([b"\0" * PAGE, rng.randbytes(PAGE)])


def mix_pages(rng, image):
    for _ in range(rng.choice([1, 3, 10])):
        one, other = (rng.randrange(len(image) // PAGE) * PAGE for _ in range(2))
        image[one : one + PAGE] = image[other : other + PAGE]


def cut_off(rng, image):
    del image[rng.randrange(PAGE, len(image)) :]


def spoil_heads_of_pages(rng, image):
    for _ in range(rng.choice([1, 5])):
        at = rng.randrange(1, len(image) // PAGE) * PAGE
        image[at + rng.randrange(12)] = rng.randrange(256)


DAMAGES = [flip_bytes, lose_pages, mix_pages, cut_off, spoil_heads_of_pages]


class Image(NamedTuple):
    """A whole store, to make damaged ones of, and the ops in it."""

    folder: Path
    waiting: Rows
    rejected: Rows

    def copy(self, folder):
        """Copy the store's files to *folder*, and give the main one."""
        folder.mkdir()
        for suffix in ("", "-wal"):
            if (self.folder / f"app.db{suffix}").exists():
                shutil.copy(self.folder / f"app.db{suffix}", folder / f"app.db{suffix}")
        return folder / "app.db"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A function that gives an `Image` by name: clean, crashed, or wal, see `make`."""
    made = {}

    async def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            await make(folder / "app.db", folder, wal=name == "wal")
            if name == "clean":
                async with Tide(folder / "app.db"):
                    pass
            image = Image(folder, {}, {})
            copied = image.copy(folder / "copied")
            made[name] = Image(folder, ops(copied, "outbox"), ops(copied, "rejected"))
            assert len(made[name].waiting) == 150
            assert len(made[name].rejected) == 25
        return made[name]

    return get


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["clean", "crashed", "wal", "wal itself"])
async def test_f53_any_damage_ends_in_a_store_that_works_or_a_typed_error(
    images, tmp_path, damage, kind
):
    whole = await images(kind.partition(" ")[0])
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    rng = random.Random(seed)
    for n in range(IMAGES):
        path = whole.copy(tmp_path / f"{n}")
        target = path.with_name("app.db-wal") if kind == "wal itself" else path
        image = bytearray(target.read_bytes())
        damage(rng, image)
        target.write_bytes(image)
        await check_damaged(path, whole, tmp_path / f"copied {n}")


async def check_damaged(path, whole, copied):
    """Open the damaged store at *path*, and see what becomes of what was readable in it."""
    shutil.copytree(path.parent, copied)
    waiting = ops(copied / path.name, "outbox").items() & whole.waiting.items()
    rejected = ops(copied / path.name, "rejected").items() & whole.rejected.items()
    image = path.read_bytes()
    try:
        for _ in range(3):
            with contextlib.suppress(StoreCorruptError):  # "open it again"
                async with Tide(path) as tide:
                    await use(tide)
                break
    except NotAStoreError:
        assert path.read_bytes() == image
    except StoreError:
        assert path.exists()
    else:
        assert waiting <= ops(path, "outbox").items()
        assert rejected <= ops(path, "rejected").items()


async def use(tide):
    """Read all that there is, and write."""
    for name in await tide.collections():
        await tide.collection(name).all()
    await tide.rejected()
    await tide.pending()
    await tide.collection("other").put("after", {})
