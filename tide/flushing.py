"""Waiting until what was written so far is on the server."""

from __future__ import annotations

import asyncio

from tide import log, outbox
from tide.status_watcher import Alarm
from tide.store import Store

__all__ = ["until_flushed"]


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
