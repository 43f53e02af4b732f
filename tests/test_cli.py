"""The `tide` command and the demos' chooser: what they start, and what they say if they can't."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Sequence

import pytest

import demos.__main__
import tide
import tide.cli

Main = Callable[[Sequence[str]], int]

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from tide.cli import main
sys.exit(main(sys.argv[2:]))
"""


class Started(types.ModuleType):
    """Stands in for a program's module: keeps what it was started with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.argv: list[str] | None = None

    def main(self, argv: Sequence[str]) -> int:
        self.argv = list(argv)
        return 7


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Started]:
    """Put a stand-in in the place of a module."""

    def put(name: str) -> Started:
        module = Started(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def run_without(module: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the `tide` command where *module* is not installed."""
    command = [sys.executable, "-c", WITHOUT, module, *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def exit_code(main: Main, argv: Sequence[str]) -> object:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


@pytest.mark.parametrize(
    "argv", [[], ["--db", "x.db", "--port", "9"], ["--help"], ["--version"], ["-x", "a b", ""]]
)
def test_serve_hands_all_its_arguments_to_the_server(
    start: Callable[[str], Started], argv: list[str]
) -> None:
    server = start("tide.server.__main__")
    assert tide.cli.main(["serve", *argv]) == 7
    assert server.argv == argv


@pytest.mark.parametrize("argv", [[], ["textual"], ["textual", "--offline"], ["--help"]])
def test_demo_hands_all_its_arguments_to_the_chooser(
    start: Callable[[str], Started], argv: list[str]
) -> None:
    chooser = start("demos.__main__")
    assert tide.cli.main(["demo", *argv]) == 7
    assert chooser.argv == argv


def test_the_command_reads_the_programs_own_arguments(
    start: Callable[[str], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("tide.server.__main__")
    monkeypatch.setattr(sys, "argv", ["tide", "serve", "--db", "x.db"])
    assert tide.cli.main() == 7
    assert server.argv == ["--db", "x.db"]


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_serve_without_the_server_extra_says_how_to_install_it(missing: str) -> None:
    ran = run_without(missing, "serve")
    assert ran.returncode == 2
    assert f"needs {missing}" in ran.stderr
    assert "pip install -e '.[server]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_serve_does_not_hide_that_something_else_is_missing() -> None:
    ran = run_without("tide.server.service", "serve")
    assert ran.returncode == 1
    assert "ModuleNotFoundError: No module named 'tide.server.service'" in ran.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tide.cli.main, ["--version"]) == 0
    assert capsys.readouterr().out == f"tide {tide.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["sreve"], ["--db", "x.db"]])
def test_a_command_that_is_none_ends_with_the_usage(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert exit_code(tide.cli.main, argv) == 2
    assert "usage: tide" in capsys.readouterr().err


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tide.cli.main, ["--help"]) == 0
    told = capsys.readouterr().out
    for name in ("serve", "demo", "doctor", "tail", "outbox", "export", "import"):
        assert f"\n    {name} " in told


@pytest.mark.parametrize("name", ["doctor", "tail", "outbox", "export", "import"])
def test_each_command_tells_of_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert exit_code(tide.cli.main, [name, "--help"]) == 0
    assert f"usage: tide {name} " in capsys.readouterr().out


def test_python_m_tide_is_the_command() -> None:
    command = [sys.executable, "-m", "tide", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == f"tide {tide.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--offline"], ["--db", "x.db", "--endpoint", "u"], ["-h"]])
def test_the_chooser_hands_the_other_arguments_to_the_demo(
    start: Callable[[str], Started], argv: list[str]
) -> None:
    demo = start("demos.todo_textual")
    assert demos.__main__.main(["textual", *argv]) == 7
    assert demo.argv == argv


@pytest.mark.parametrize("argv", [["gtk"], [], ["--offline"]])
def test_without_a_framework_that_has_a_demo_the_chooser_ends_with_the_usage(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert exit_code(demos.__main__.main, argv) == 2
    assert "usage: python -m demos" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["gtk"], ["--help"]])
def test_the_chooser_lists_the_frameworks(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    exit_code(demos.__main__.main, argv)
    told = capsys.readouterr()
    for framework in demos.__main__.FRAMEWORKS:
        assert framework in told.out + told.err


@pytest.mark.parametrize("missing", ["textual", "starlette", "uvicorn"])
def test_a_demo_without_its_extras_says_how_to_install_them(missing: str) -> None:
    ran = run_without(missing, "demo", "textual")
    assert ran.returncode == 2
    assert f"needs {missing}" in ran.stderr
    assert "pip install -e '.[textual,server]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_demo_does_not_hide_that_something_else_is_missing() -> None:
    ran = run_without("demos.launch", "demo", "textual")
    assert ran.returncode == 1
    assert "ModuleNotFoundError: No module named 'demos.launch'" in ran.stderr
