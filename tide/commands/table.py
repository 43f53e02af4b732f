"""Text for people: tables, sizes, ages, and nothing that a terminal would obey."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime

__all__ = ["age", "columns", "cut", "many", "moment", "printable", "size", "width"]


def columns(rows: Sequence[Sequence[str]], room: int | None, indent: str = "  ") -> list[str]:
    """*rows* as lines with aligned columns, none wider than *room*; None: as wide as they are."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        padded = [
            cell + " " * (wide - _width(cell)) for cell, wide in zip(row, widths, strict=True)
        ]
        lines.append(cut(indent + "  ".join(padded).rstrip(), room))
    return lines


def cut(text: str, room: int | None) -> str:
    """*text*, its end replaced by … if it is wider than *room*."""
    if room is None or _width(text) <= room:
        return text
    while text and _width(text) >= room:
        text = text[:-1] if len(text) <= 2 * room else text[: 2 * room]
    return f"{text}…"


def width() -> int | None:
    """How wide the terminal is; None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def printable(text: str) -> str:
    """*text* with what moves the cursor, breaks a line or turns its direction written out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def many(count: int, thing: str) -> str:
    """*count* things, such as ``1 op`` or ``1,200 ops``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def age(seconds: float) -> str:
    """A span of time, roughly, such as ``5 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(unix: float) -> str:
    """A moment in local time."""
    return datetime.fromtimestamp(unix).astimezone().isoformat(" ", "seconds")


def size(count: int) -> str:
    """A number of bytes, such as ``1.5 MiB``."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} GiB"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
