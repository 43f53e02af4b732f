"""The `tide` command: serving, a demo, and commands for people who are debugging."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tide import __version__
from tide.commands import doctor, exporting, importing, outbox, tail

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv*, by default the program's own; the exit code."""
    command, rest = _parse(argv)
    run, _ = _COMMANDS[command]
    return run(rest)


def _parse(argv: Sequence[str] | None) -> tuple[str, list[str]]:
    """The command, and the arguments that are its own to read."""
    parser = argparse.ArgumentParser(
        prog="tide",
        description="Local-first SQLite sync for Python apps.",
        epilog="'tide COMMAND --help' tells more.",
    )
    parser.add_argument("--version", action="version", version=f"tide {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, purpose) in _COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    options, rest = parser.parse_known_args(argv)
    return options.command, rest


def _serve(argv: Sequence[str]) -> int:
    try:
        from tide.server.__main__ import main as serve  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        print(
            f"tide serve needs {error.name}, which is not installed; in your checkout of tide, "
            "run: pip install -e '.[server]'",
            file=sys.stderr,
        )
        return 2
    return serve(argv)


def _demo(argv: Sequence[str]) -> int:
    from demos.__main__ import main as demo  # noqa: PLC0415 - no part of the library

    return demo(argv)


_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "serve": (_serve, "serve a database to nodes"),
    "demo": (_demo, "a todo list in a UI framework"),
    "doctor": (doctor.main, "what there is to know of a store, and what is wrong with it"),
    "tail": (tail.main, "what changes in a store, as it happens"),
    "outbox": (outbox.main, "what waits for the server, and what it refused"),
    "export": (exporting.main, "documents as JSON lines"),
    "import": (importing.main, "JSON lines into a store"),
}
