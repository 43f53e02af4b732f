"""Who serves when several demos run, without any UI."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from demos.server import EmbeddedServer
from demos.syncing import Syncing
from tests.support import free_port, until
from tide import Tide


@asynccontextmanager
async def _node(
    folder: Path, name: str, port: int
) -> AsyncIterator[tuple[Tide, Syncing, EmbeddedServer]]:
    server = EmbeddedServer(folder / "server.db", port)
    try:
        async with Tide(folder / name, server.endpoint, durability="relaxed") as tide:
            syncing = Syncing(tide, server)
            running = asyncio.create_task(syncing.run())  # nodes need not end in reverse order
            yield tide, syncing, server
            running.cancel()
            await asyncio.wait([running])
    finally:
        server.stop()


async def test_one_of_them_serves_and_when_it_ends_another_one_does(tmp_path: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as first:
        one, one_syncing, one_server = await first.enter_async_context(_node(tmp_path, "1", port))
        await until(lambda: one_syncing.online)
        async with _node(tmp_path, "2", port) as (two, two_syncing, two_server):
            await until(lambda: two_syncing.online)
            assert (one_server.running, two_server.running) == (True, False)
            await one.collection("todos").put("t1", {"text": "bread"})
            await one.sync_once()
            await two.sync_once()

            await first.aclose()
            assert not one_server.running
            await two.collection("todos").put("t2", {"text": "milk"})
            await until(lambda: two_server.running and two_syncing.online)
            await two.sync_once()
            assert await two.pending() == 0
            assert sorted(await two.collection("todos").all()) == ["t1", "t2"]


async def test_it_is_active_while_it_runs_and_tells_why_it_is_offline(tmp_path: Path) -> None:
    async with Tide(tmp_path / "1", f"http://127.0.0.1:{free_port()}/sync") as tide:
        syncing = Syncing(tide)
        assert not syncing.active
        async with anyio.create_task_group() as group:
            group.start_soon(syncing.run)
            await until(lambda: syncing.error is not None)
            assert syncing.active
            assert not syncing.online
            group.cancel_scope.cancel()
        assert not syncing.active
        assert syncing.error is None


def test_a_port_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = EmbeddedServer(tmp_path / "server.db", listener.getsockname()[1])
        assert not server.start()
        assert not server.running
    server.stop()
    assert not (tmp_path / "server.db").exists()
