"""What several test files use: a real server on loopback, and waiting for what comes by itself."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import uvicorn

__all__ = ["free_port", "served", "until"]

PATIENCE = 30.0  # seconds until a test gives up; no test waits that long when all is well


@contextlib.contextmanager
def served(app: Any, *, port: int = 0) -> Iterator[str]:
    """Serve the ASGI *app* with uvicorn on 127.0.0.1; gives the endpoint, which ends in /sync."""
    with socket.create_server(("127.0.0.1", port)) as listener:  # queues who connects too early
        no_delay(listener)
        config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        if service := getattr(getattr(app, "state", None), "service", None):
            service.hub.ending = lambda: server.should_exit  # so that live streams end
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/sync"
        finally:
            server.should_exit = True
            thread.join()


def no_delay(listener: socket.socket) -> None:
    """Let its connections send at once; asyncio does so only for the sockets that it made."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def free_port() -> int:
    """A port on 127.0.0.1 where nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def until(holds: Callable[[], object | Awaitable[object]]) -> None:
    """Wait until *holds*, a function, async or not, gives something true."""
    with anyio.fail_after(PATIENCE):
        while True:
            found = holds()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await anyio.sleep(0.01)
