"""100,000 real documents, pushed by one node and pulled by another over HTTP: equal to the byte.

The documents are the lines of the standard library. Or the environment variable TIDE_PACKAGES names
a file of tab-separated lines, a name first and a summary last: then those, up to 100,000.
"""

from __future__ import annotations

import itertools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.fleet import read_rows
from tests.support import served
from tide import Tide
from tide.server import create_app

COUNT = 100_000
BATCH = 1000


def library() -> Iterator[tuple[str, dict[str, object]]]:
    """Each line of the standard library that is not blank: id and document."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).with_suffix("").as_posix()
        if "site-packages" in module:
            continue
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")
        for number, text in enumerate(lines, start=1):
            if text.strip():
                yield f"{module}:{number}", {"module": module, "line": number, "text": text}


def packages(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Each name and summary in the file at *path*, below its first line: id and document."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in itertools.islice(lines, 1, None):
            name, *_, summary = line.rstrip("\n").split("\t")
            yield name, {"name": name, "summary": summary}


async def test_100_000_real_documents_arrive_equal_to_the_last_byte(tmp_path):
    source = os.environ.get("TIDE_PACKAGES")
    found = packages(Path(source)) if source else library()
    docs = dict(itertools.islice(found, COUNT))
    assert len(docs) == COUNT
    paths = tmp_path / "pushes.db", tmp_path / "pulls.db", tmp_path / "server.db"
    with served(create_app(paths[2])) as endpoint:
        async with Tide(paths[0], endpoint, durability="relaxed") as pushing:
            writes = iter(docs.items())
            while some := list(itertools.islice(writes, BATCH)):
                async with pushing.batch():
                    for id_, doc in some:
                        await pushing.collection("lines").put(id_, doc)
            assert await pushing.pending() == COUNT
            assert (await pushing.sync_once()).pushed == COUNT
            assert await pushing.pending() == 0
        async with Tide(paths[1], endpoint, durability="relaxed") as pulling:
            assert (await pulling.sync_once()).pulled == COUNT
            equal = await pulling.collection("lines").all() == docs
            assert equal  # pytest would try to show how so many differ
    pushed, pulled, stored = [sorted(read_rows(path).items()) for path in paths]
    assert len(pushed) == COUNT
    assert [pushed == others for others in (pulled, stored)] == [True, True]
