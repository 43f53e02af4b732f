"""`python -m demos <framework>`: choose the UI framework to see the todo list in."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

__all__ = ["FRAMEWORKS", "main"]

FRAMEWORKS = ("textual",)
"""Those with a demo; each is an extra of tide and a module ``demos.todo_<framework>``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a demo with *argv*, by default the program's own; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demos",
        usage=f"%(prog)s {{{','.join(FRAMEWORKS)}}} [options]",
        description="A todo list, kept in a file and synced with other todo lists.",
        epilog="'python -m demos <framework> --help' tells the options.",
    )
    parser.add_argument(
        "framework", choices=FRAMEWORKS, metavar="framework", help="to show it in: %(choices)s"
    )
    words = sys.argv[1:] if argv is None else argv
    framework = parser.parse_args(words[:1]).framework
    return _run(framework, words[1:])  # the rest is the demo's to read


def _run(framework: str, argv: Sequence[str]) -> int:
    try:
        demo = importlib.import_module(f"demos.todo_{framework}")
    except ImportError as error:
        if error.name not in (framework, "starlette", "uvicorn"):
            raise
        print(
            f"the {framework} demo needs {error.name}, which is not installed; in your checkout "
            f"of tide, run: pip install -e '.[{framework},server]'",
            file=sys.stderr,
        )
        return 2
    run: Callable[[Sequence[str]], int] = demo.main
    return run(argv)


if __name__ == "__main__":
    raise SystemExit(main())
