"""What the README and the docs say is so: snippets run, links and paths lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import served
from tide import Tide
from tide.server import create_app
from tide.testing import memory_server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FRAMEWORKS = {"textual"}  # whose tests run their pages' snippets
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

SNIPPETS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.stem not in FRAMEWORKS
    for number, block in enumerate(BLOCK.findall(page.read_text("utf-8")))
]


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )


def readme_example():
    example = BLOCK.search((ROOT / "README.md").read_text("utf-8"))
    assert example is not None
    return example[1]


def test_the_example_of_the_readme_runs_as_written(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(readme_example(), "utf-8")
    done = run([sys.executable, script], tmp_path)
    assert "{'bread': {'text': 'buy bread', 'done': True}} not on the server yet:" in done.stdout
    assert (tmp_path / "app.db").exists()


def test_the_example_of_the_readme_leaves_nothing_to_send_where_a_server_answers(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        example = readme_example().replace("http://127.0.0.1:8000/sync", endpoint)
        assert endpoint in example
        printed = (run([sys.executable, "-c", example], tmp_path).stdout for _ in range(20))
        assert any("not on the server yet: 0" in line for line in printed)  # the first, if not busy


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "asyncio.run(" in snippet or "__main__" in snippet:
        script = tmp_path / "app.py"
        script.write_text(snippet, "utf-8")
        run([sys.executable, script], tmp_path)
    elif "flushed(timeout=5)" in snippet:  # takes it that a server answers
        with served(create_app("server.db")) as endpoint:
            await run_here(snippet.replace("http://127.0.0.1:8000/sync", endpoint))
    else:
        await run_here(snippet)


async def run_here(snippet):
    code = compile(snippet, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with (
        memory_server("server.db") as server,
        Tide("snippet.db", transport=server.transport()) as tide,
    ):
        names = {"Tide": Tide, "tide": tide, "todos": tide.collection("todos")}
        running = eval(code, names)
        if inspect.iscoroutine(running):
            await running


def text_of(page):
    return (ROOT / page).read_text("utf-8")


ALL_PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
]
each_page = pytest.mark.parametrize("page", sorted(ALL_PAGES))


def anchors(markdown):
    """What a link to a heading may end in."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_within_the_project_leads_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), f"{page} links to {link}"


@each_page
def test_every_path_in_the_project_that_a_page_names_exists(page):
    named = re.findall(
        r"`((?:tide|tide_integrations|demos|tests|docs|benchmarks|\.ci)/[\w./-]*)`", text_of(page)
    )
    assert not [path for path in named if not (ROOT / path).exists()]


def modules_of_the_house():
    """The paths in the first column of the table in architecture.md; a folder ends in a slash."""
    for row in re.findall(r"^\| (`[^|]+`) \|", text_of("docs/architecture.md"), re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        yield first
        for other in others:  # "`tide/stamp.py`, `ids.py`" are in one folder
            yield other if "/" in other else f"{first.rpartition('/')[0]}/{other}"


def test_the_architecture_tells_of_every_module_once_and_of_no_other():
    named = list(modules_of_the_house())
    assert len(named) == len(set(named))
    assert not [path for path in named if not (ROOT / path).exists()]
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("tide", "tide_integrations", "demos")
        for path in ROOT.glob(f"{package}/**/*.py")
        if path.name != "__init__.py"
    }
    folders = tuple(path for path in named if path.endswith("/"))
    assert not {path for path in modules - set(named) if not path.startswith(folders)}


def test_the_picture_in_the_readme_loads_nothing_from_elsewhere():
    picture = text_of("docs/images/demo-textual.svg")
    assert not re.search(r"url\((?!#)|@import|href=|<script|<image", picture)
