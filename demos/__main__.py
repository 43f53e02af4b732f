"""`python -m demos <framework>`: the same todo app in each UI framework."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]

FRAMEWORKS = {"textual": "demos.todo_textual"}
"""The demos there are: for each framework its module, which has a main(argv)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Start the demo that *argv* names, with the rest of it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demos",
        description="A todo list that works offline and syncs, in a UI framework of your choice.",
        epilog="Each has options of its own: python -m demos textual --help",
        add_help=False,
    )
    parser.add_argument("framework", nargs="?", choices=sorted(FRAMEWORKS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.framework is None:
        parser.print_help()
        return 2
    try:
        demo = importlib.import_module(FRAMEWORKS[options.framework])
    except ModuleNotFoundError as error:
        if error.name != options.framework:
            raise
        print(
            f"This demo needs {error.name}, which is not installed. In your checkout of tide, run: "
            f"pip install -e '.[{error.name},server]'",
            file=sys.stderr,
        )
        return 2
    code: int = demo.main(options.rest)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
