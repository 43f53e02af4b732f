"""Stopping in the middle of an exchange, whatever the transport makes of it."""

from __future__ import annotations

import asyncio

import pytest

from tide import OfflineError, Tide, Transport


class Stubborn(Transport):
    """A transport that answers a cancellation with an error of its own, as wait_for once did."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def exchange(self, body, headers):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OfflineError("gave up") from None


async def test_the_loop_stops_even_if_the_cancellation_is_lost_on_its_way(tmp_path):
    transport = Stubborn()
    async with Tide(tmp_path / "app.db", transport=transport) as tide:
        syncing = tide.sync_forever()
        async with syncing:
            await transport.asked.wait()
            task = syncing._task
    assert task is not None
    assert task.done()


async def test_cancelling_sync_once_is_a_cancellation(tmp_path):
    transport = Stubborn()
    async with Tide(tmp_path / "app.db", transport=transport) as tide:
        syncing = asyncio.create_task(tide.sync_once())
        await transport.asked.wait()
        syncing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await syncing
