"""How syncing goes: what `Tide.status` tells, and what of it is kept in the file.

The functions run on the database thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Literal, NamedTuple

__all__ = ["Counts", "State", "SyncStatus", "read", "record", "synced", "told"]

State = Literal[
    "offline",
    "connecting",
    "online",
    "unauthorized",
    "forbidden",
    "misconfigured",
    "confirm_reset",
    "stopped",
]

PATIENCE = 10.0
"""Seconds after which an op that still waits shows that something is wrong, whatever else says."""


class Counts(NamedTuple):
    """What a status is made of, as it stands in the file.

    Attributes:
        pending: ops that wait.
        rejected: ops that the server refused for good.
        waiting_since: when the oldest of those that wait was written, Unix seconds.
        state: how whoever syncs this file sees it.
        error: why it is not online, in words.
        synced_at: when an exchange last succeeded, Unix seconds.
    """

    pending: int = 0
    rejected: int = 0
    waiting_since: float | None = None
    state: State = "stopped"
    error: str | None = None
    synced_at: float | None = None


class SyncStatus(NamedTuple):
    """How syncing goes; made by `Tide.status`.

    Attributes:
        state: ``"online"``: the server answered the last time, and nothing waits for long;
            ``"connecting"``: not tried yet, or still much to push; ``"offline"``: it can't be
            reached; ``"unauthorized"``, ``"forbidden"``: the credentials are not accepted, or
            don't reach this space; ``"misconfigured"``: no tide server at that URL;
            ``"confirm_reset"``: a resync waits for `Tide.confirm_reset`; ``"stopped"``: nobody
            syncs this file.
        pending: how many ops wait for the server.
        oldest_pending_age: for how many seconds the oldest of them has; 0.0 if none does.
        rejected: how many ops the server refused for good, see `Tide.rejected`.
        last_synced_at: when an exchange last succeeded, Unix seconds; None: never yet.
        error: what is wrong, in words; None if nothing is.
    """

    state: State
    pending: int
    oldest_pending_age: float
    rejected: int
    last_synced_at: float | None
    error: str | None


def told(counts: Counts, state: State, error: str | None) -> SyncStatus:
    """The status to tell; it is never online while an op has waited for too long."""
    age = 0.0 if counts.waiting_since is None else max(0.0, time.time() - counts.waiting_since)
    if state == "online" and age > PATIENCE:
        silence = time.time() - (counts.synced_at or 0.0)
        state = "offline" if silence > PATIENCE else "connecting"
        error = f"writes that wait for the server: {counts.pending}, the oldest for {age:.0f} s"
    return SyncStatus(state, counts.pending, age, counts.rejected, counts.synced_at, error)


def read(sql: sqlite3.Connection) -> Counts:
    """What the file says."""
    row = sql.execute(
        """
        SELECT pending, (SELECT count(*) FROM rejected),
            (SELECT written_at FROM outbox ORDER BY lsn LIMIT 1), state, error, synced_at
        FROM node, syncing
        """
    ).fetchone()
    return Counts(*row)


def record(sql: sqlite3.Connection, state: State, error: str | None) -> None:
    """Let other processes on this file know how syncing goes."""
    sql.execute("UPDATE syncing SET state = ?, error = ?", (state, error))


def synced(sql: sqlite3.Connection) -> None:
    """An exchange succeeded."""
    sql.execute("UPDATE syncing SET synced_at = ?", [time.time()])
