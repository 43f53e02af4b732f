"""Every Python snippet of the README and the docs runs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tide import Tide
from tide.testing import memory_server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

SNIPPETS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text("utf-8")))
]


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )


def test_the_example_of_the_readme_runs_as_written(tmp_path):
    example = BLOCK.search((ROOT / "README.md").read_text("utf-8"))
    assert example is not None
    script = tmp_path / "example.py"
    script.write_text(example[1], "utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "{'bread': {'text': 'buy bread', 'done': True}} not on the server yet:" in done.stdout
    assert (tmp_path / "app.db").exists()


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "asyncio.run(" in snippet:
        run([sys.executable, "-c", snippet], tmp_path)
        return
    code = compile(snippet, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with (
        memory_server("server.db") as server,
        Tide("snippet.db", transport=server.transport()) as tide,
    ):
        names = {"Tide": Tide, "tide": tide, "todos": tide.collection("todos")}
        running = eval(code, names)
        if inspect.iscoroutine(running):
            await running
