"""`tide doctor`: what there is to know of a store's file, and what is wrong with it."""

from __future__ import annotations

import json
import platform
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tide
from tide import status
from tide.commands import location
from tide.commands.running import parser, run
from tide.commands.table import age, columns, many, moment, size, width
from tide.inspection import Examined, Facts, examine, has_wal_reset_bug, wal_of
from tide.status import SyncStatus
from tide.sync_loop import is_synced, lock_of

__all__ = ["Report", "main"]

WAL_BUG = "sqlite.org/wal.html#walresetbug"


class Report(NamedTuple):
    """All that doctor found out.

    Attributes:
        path: the file.
        size: its size in bytes.
        wal: the size of its WAL in bytes.
        system: the type of its file system, if the system tells.
        examined: what it says of itself, and what is damaged in it.
        synced: whether somebody syncs it.
        syncer: the process that does, if the system tells.
    """

    path: Path
    size: int
    wal: int
    system: str | None
    examined: Examined
    synced: bool
    syncer: int | None

    @property
    def status(self) -> SyncStatus | None:
        """How syncing goes; None if the file can't tell."""
        if self.examined.facts is None:
            return None
        counts = self.examined.facts.counts
        if not self.synced:
            return status.told(counts, "stopped", None)
        return status.told(counts, counts.state, counts.error)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what there is to know; 1 if something is wrong with the file."""
    options = parser(
        "doctor",
        "Tell what there is to know of a store, and what is wrong with it. Changes nothing.",
        "Exit code: 0 if all is well, warnings included; 1 if there is a problem.",
    )
    options.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    chosen = options.parse_args(argv)

    def work() -> int:
        report = _look(chosen.path)
        problems, warnings = _problems(report), _warnings(report)
        if chosen.json:
            facts = _as_json(report) | {"problems": problems, "warnings": warnings}
            print(json.dumps(facts, ensure_ascii=False, indent=2))
        else:
            _show(report, problems, warnings)
        return 1 if problems else 0

    return run("doctor", work)


def _look(path: Path) -> Report:
    examined = examine(path)
    return Report(
        path,
        _bytes(path),
        _bytes(wal_of(path)),
        location.file_system(path),
        examined,
        is_synced(path),
        lock_of(path).holder(),
    )


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a WAL comes and goes with the programs that use the file
        return 0


def _problems(report: Report) -> list[str]:
    """What somebody has to do something about."""
    found = []
    if report.examined.damage:
        found.append(
            "the file is damaged. Stop what uses it, and keep a copy. The next program that opens "
            "it sets it aside and saves what waits for the server; all else comes back from there"
        )
    if (now := report.status) is None:
        return found
    if now.rejected:
        refused = f"{now.rejected:,} writes were" if now.rejected > 1 else "1 write was"
        found.append(f"{refused} refused by the server; see `tide outbox {report.path}`")
    if now.state in ("unauthorized", "forbidden", "misconfigured", "confirm_reset"):
        found.append(f"syncing is {now.state}: {now.error}")
    return found


def _warnings(report: Report) -> list[str]:
    """What may become a problem."""
    found = []
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        found.append(
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug ({WAL_BUG}): processes that "
            "write to one file at the same instant can damage it, which is rare. "
            "SQLite 3.51.3, 3.50.7 and 3.44.6 are free of it"
        )
    if location.is_network(report.path, report.system):
        found.append(
            f"the file is on another machine ({report.system or 'network path'}), where SQLite "
            "can't lock it safely; keep it on a local disk, and let tide sync it"
        )
    if folder := location.synced_by(report.path):
        found.append(
            f"the folder {folder} is synced by another program, which can damage a database that "
            "is in use; keep it elsewhere, and let tide sync it"
        )
    if (now := report.status) and now.error and not _problems(report):
        found.append(f"syncing is {now.state}: {now.error}")
    return found


def _as_json(report: Report) -> dict[str, Any]:
    facts, now = report.examined.facts, report.status
    found: dict[str, Any] = {
        "path": str(report.path),
        "tide": tide.__version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlite_wal_reset_bug": has_wal_reset_bug(sqlite3.sqlite_version_info),
        "size": report.size,
        "wal_size": report.wal,
        "file_system": report.system,
        "damage": report.examined.damage,
        "synced": report.synced,
        "synced_by_process": report.syncer,
    }
    if facts is not None and now is not None:
        found |= {
            "schema": facts.schema,
            "device": facts.device,
            "documents": facts.documents,
            "cursor": facts.cursor,
            "resync": facts.resync,
            **now._asdict(),
        }
    return found


def _show(report: Report, problems: list[str], warnings: list[str]) -> None:
    lines = [
        ("tide", f"{tide.__version__}, Python {platform.python_version()}"),
        ("SQLite", f"{sqlite3.sqlite_version}, {_verdict()} the WAL-reset bug"),
        ("file", _file(report)),
        ("integrity", report.examined.damage[0] if report.examined.damage else "ok"),
        *(("", more) for more in report.examined.damage[1:]),
    ]
    if report.examined.facts is not None and (now := report.status):
        lines += _facts(report.examined.facts)
        lines += _status(report, now)
    print(report.path)
    for line in columns(lines, width()):
        print(line)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    for warning in warnings:
        print(f"warning: {warning}")


def _verdict() -> str:
    return "has" if has_wal_reset_bug(sqlite3.sqlite_version_info) else "free of"


def _file(report: Report) -> str:
    system = f", on {report.system}" if report.system else ""
    return f"{size(report.size)}, and {size(report.wal)} in its WAL{system}"


def _facts(facts: Facts) -> list[tuple[str, str]]:
    held = ", ".join(f"{count:,} in {name}" for name, count in facts.documents.items())
    total = many(sum(facts.documents.values()), "document")
    resync = " (starting over from the beginning)" if facts.resync else ""
    return [
        ("schema", str(facts.schema)),
        ("node", facts.device),
        ("holds", f"{total}: {held}" if held else total),
        ("cursor", (facts.cursor or "none, nothing was pulled yet") + resync),
    ]


def _status(report: Report, now: SyncStatus) -> list[tuple[str, str]]:
    oldest = f", the oldest for {age(now.oldest_pending_age)}" if now.pending else ""
    synced, syncing = "never", "nobody syncs this file now"
    if now.last_synced_at is not None:
        past = age(max(0.0, time.time() - now.last_synced_at))
        synced = f"{moment(now.last_synced_at)}, {past} ago"
    if report.synced:
        syncing = f"{now.state}, by " + (
            f"process {report.syncer}" if report.syncer else "a process"
        )
    return [
        ("pending", many(now.pending, "op") + oldest),
        ("rejected", many(now.rejected, "op")),
        ("last synced", synced),
        ("syncing", syncing),
    ]
