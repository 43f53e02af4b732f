"""The project keeps its own rules: what is public, what importing loads, how it is checked."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import demos.__main__
import tide
import tide.errors

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path
    for package in ("tide", "tide_integrations", "demos")
    for path in ROOT.glob(f"{package}/**/*.py")
)
UI_FRAMEWORKS = {"textual", "nicegui", "streamlit", "gradio"}

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[path.relative_to(ROOT).as_posix() for path in MODULES]
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_by(module: str) -> set[str]:
    """What a fresh interpreter has loaded after importing *module*."""
    code = f"import {module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(ran.stdout.split())


def tracked_files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout")
    paths = [ROOT / name for name in ran.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def readme_command(title: str) -> str:
    """The one line that README.md shows under the comment *title*."""
    found = re.findall(
        rf"^<!-- {title} -->\n```sh\n(.+)\n```$",
        (ROOT / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(found) == 1
    return str(found[0])


@each_module
def test_a_module_says_in_one_line_why_it_exists(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring
    first, *rest = docstring.splitlines()
    assert first[-1] in ".:?`"
    assert not any(rest[:1]), "an empty line goes after the first one"


@each_module
def test_a_module_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 300


@each_module
def test_a_module_can_be_imported_and_does_nothing_then(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module(name_of(path))
    assert capsys.readouterr() == ("", "")


@each_module
def test_a_module_lists_all_that_it_makes_public(path: Path) -> None:
    module = importlib.import_module(name_of(path))
    listed = getattr(module, "__all__", [])
    made = {
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert made <= set(listed)
    assert all(hasattr(module, name) for name in listed)
    assert len(set(listed)) == len(listed)


def test_all_that_tide_imports_is_public() -> None:
    found = {
        name
        for name, value in vars(tide).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert found == set(tide.__all__)


def test_every_error_that_an_app_can_meet_can_be_imported_from_tide() -> None:
    assert set(tide.errors.__all__) - {"RequestError"} <= set(tide.__all__)


@pytest.mark.parametrize("module", ["tide", "tide.cli", "tide.testing", "tide.integrations"])
def test_importing_the_library_loads_no_framework_no_server_and_no_http(module: str) -> None:
    loaded = loaded_by(module)
    assert not loaded & {*UI_FRAMEWORKS, "starlette", "uvicorn", "httpx", "tide.server", "demos"}


def test_importing_the_server_loads_no_ui_framework_and_no_http_client() -> None:
    assert not loaded_by("tide.server") & {*UI_FRAMEWORKS, "httpx", "demos"}


def test_the_todo_model_loads_no_ui_framework() -> None:
    assert not loaded_by("demos.todo") & UI_FRAMEWORKS


def test_every_demo_can_be_chosen_and_has_an_extra() -> None:
    found = {path.stem.removeprefix("todo_") for path in ROOT.glob("demos/todo_*.py")}
    assert found == set(demos.__main__.FRAMEWORKS)
    extras = importlib.metadata.metadata("tide-sync").get_all("Provides-Extra") or []
    assert found | {"server"} <= set(extras)


def test_only_two_packages_are_needed() -> None:
    needed = [
        line for line in importlib.metadata.requires("tide-sync") or [] if "extra ==" not in line
    ]
    assert {re.split(r"\W", line)[0] for line in needed} == {"aiosqlite", "httpx"}


def test_no_file_names_a_path_of_somebodys_machine_or_a_package_registry() -> None:
    somewhere = re.compile(
        r"(?<![\w.~-])/(?:work|root|home|Users|opt)/"
        r"|://[^/\s]*(?:pypi|pythonhosted|mirror|registry|artifact)"
    )
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found = somewhere.search(text)
        assert not found, f"{path.relative_to(ROOT)} has {found.group()!r}" if found else ""


def test_the_constraints_are_names_and_versions_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "constraints.txt").read_text("utf-8").splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.]+( ; .+)?", line)


FAKE_PYTHON = r"""#!/usr/bin/env bash
# python3 -m venv DIR: makes a DIR whose programs only tell that they were called.
echo "CALL python3 $*"
mkdir -p "$3/bin"
for program in pip python ruff mypy lint-imports coverage; do
    cat > "$3/bin/$program" <<'END'
#!/usr/bin/env bash
echo "CALL $0 $*"
[ "${0##*/}" != "$FAILS" ]
END
    chmod +x "$3/bin/$program"
done
"""


def check(folder: Path, **environ: str) -> tuple[int, list[str]]:
    """The exit code of `.ci/run` in a copy of the project, and its calls to stand-in programs."""
    (folder / ".ci").mkdir()
    (folder / "bin").mkdir()
    for name in (".ci/run", "README.md"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "bin" / "python3").write_text(FAKE_PYTHON, "utf-8")
    (folder / "bin" / "python3").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        env={**os.environ, "FAILS": "", "VENV": "", "PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = [line.removeprefix("CALL ") for line in ran.stdout.splitlines() if "CALL " in line]
    return ran.returncode, calls


def test_the_check_runs_the_test_command_of_the_readme(tmp_path: Path) -> None:
    code, calls = check(tmp_path)
    assert code == 0
    steps = [step.replace("'", "") for step in readme_command("test command").split(" && ")]
    assert steps[-1] == ".venv/bin/python -m pytest"
    assert " ".join(steps) in " ".join(calls)


def test_the_check_runs_each_program_once_the_quick_ones_first(tmp_path: Path) -> None:
    _, calls = check(tmp_path)
    programs = [call.removeprefix(".venv/bin/") for call in calls]
    *checks, coverage = [call for call in programs if not call.startswith(("pip ", "python3 "))]
    assert coverage.startswith("coverage report")
    assert checks == [
        "ruff check",
        "ruff format --check",
        "mypy ",
        "lint-imports ",
        "python -m pytest",
    ]


@pytest.mark.parametrize("program", ["pip", "ruff", "mypy", "lint-imports", "python", "coverage"])
def test_the_check_fails_where_one_of_its_programs_fails(tmp_path: Path, program: str) -> None:
    code, calls = check(tmp_path, FAILS=program)
    assert code != 0
    assert f"/{program} " in calls[-1]


def test_the_check_can_use_another_environment(tmp_path: Path) -> None:
    code, calls = check(tmp_path, VENV="elsewhere")
    assert code == 0
    assert not any(".venv" in call for call in calls)


def test_the_contributors_guide_gives_the_same_test_command() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert f"\n{readme_command('test command')}\n" in guide


def test_the_demo_command_of_the_readme_starts_a_demo_there_is() -> None:
    *_, install, start = readme_command("demo command").split(" && ")
    framework = start.removeprefix(".venv/bin/python -m demos ")
    assert framework in demos.__main__.FRAMEWORKS
    assert install.endswith(f"-e '.[{framework},server]'")
