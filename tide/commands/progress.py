"""A progress bar, for people: only on a terminal, and only where the work is long."""

from __future__ import annotations

import sys
import time
from types import TracebackType

__all__ = ["Progress"]

PATIENCE = 0.5  # seconds before there is a bar at all
REST = 0.1  # seconds between two bars
CELLS = 30


class Progress:
    """Shows on stderr how far the work is, while it is entered.

    Args:
        doing: what is done, such as ``importing``.
        total: what `at` reaches in the end.
    """

    def __init__(self, doing: str, total: int) -> None:
        self._doing = doing
        self._total = max(total, 1)
        self._due = time.monotonic() + PATIENCE if sys.stderr.isatty() else float("inf")
        self._drawn = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw("")
        self._due = float("inf")

    def at(self, done: int) -> None:
        """So much is done."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + REST
        part = min(done / self._total, 1.0)
        cells = int(part * CELLS)
        self._draw(f"{self._doing} [{'#' * cells}{'.' * (CELLS - cells)}] {part:4.0%}")

    def _draw(self, text: str) -> None:
        if text or self._drawn:
            print(f"\r{text:{self._drawn}}\r{text}", end="", file=sys.stderr, flush=True)
        self._drawn = len(text)
