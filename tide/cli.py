"""The `tide` command: `tide serve` and `tide demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tide import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv*, by default the program's own; the exit code."""
    command, rest = _parse(argv)
    return _serve(rest) if command == "serve" else _demo(rest)


def _parse(argv: Sequence[str] | None) -> tuple[str, list[str]]:
    """The command, and the arguments that are its own to read."""
    parser = argparse.ArgumentParser(
        prog="tide",
        description="Local-first SQLite sync for Python apps.",
        epilog="'tide serve --help' and 'tide demo --help' tell more.",
    )
    parser.add_argument("--version", action="version", version=f"tide {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("serve", help="serve a database to nodes", add_help=False)
    commands.add_parser("demo", help="a todo list in a UI framework", add_help=False)
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
