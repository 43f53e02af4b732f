"""The `tide` command: `tide serve` and `tide demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tide import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; *argv* without the program's name. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tide", description="Local-first SQLite sync for Python apps."
    )
    parser.add_argument("--version", action="version", version=f"tide {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("serve", help="serve a database to nodes", add_help=False)
    commands.add_parser("demo", help="the todo demo in a UI framework", add_help=False)
    known, rest = parser.parse_known_args(argv)
    return _serve(rest) if known.command == "serve" else _demo(rest)


def _serve(argv: Sequence[str]) -> int:
    try:
        from tide.server.__main__ import main as serve  # noqa: PLC0415 - needs the server extra
    except ImportError as error:
        print(f"tide serve: {error}", file=sys.stderr)
        return 2
    return serve(argv)


def _demo(argv: Sequence[str]) -> int:
    from demos.__main__ import main as demo  # noqa: PLC0415 - a UI framework takes long to import

    return demo(argv)
