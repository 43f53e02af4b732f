"""Waiting until what was written so far is on the server."""

from __future__ import annotations

import asyncio

from tide import log, outbox
from tide.errors import NotFlushedError
from tide.status import SyncStatus
from tide.status_watcher import Alarm
from tide.store import Store

__all__ = ["not_flushed", "until_flushed"]


async def until_flushed(store: Store, seconds: float) -> bool:
    """Wait, at most *seconds*, until no op waits that was written by now; whether none does."""
    alarm = Alarm(store.feed)
    lsn = await store.read(log.head)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while await store.read(lambda sql: outbox.waits_before(sql, lsn)):
        if loop.time() >= end:
            return False
        await alarm.wait(end - loop.time())
    return True


def not_flushed(status: SyncStatus, seconds: float) -> NotFlushedError:
    """The error that says, of the *status* after *seconds*, why not all is on the server."""
    why = f", {status.error}" if status.error else ""
    if status.state == "stopped":
        why += ": enter `async with tide.sync_forever():` or call sync_once()"
    return NotFlushedError(
        f"writes not on the server after {seconds} s: {status.pending}; "
        f"syncing is {status.state}{why}"
    )
