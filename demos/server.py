"""A sync server inside a demo's own process, on loopback, for when none runs."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import uvicorn

from tide.server import create_app

__all__ = ["PORT", "EmbeddedServer"]

PORT = 8765
"""Where the demos look for a server."""


class EmbeddedServer:
    """A server that any of the running demos may run, one at a time.

    Whoever gets the port serves; to the others it is a server like any other. It runs in a daemon
    thread with its own event loop, so that it never makes the UI wait, and can't outlive the demo,
    however that ends.

    Args:
        db: the server's own file, made if there is none.
        port: where to listen; 0 for any free port, chosen at the first `start`.
    """

    def __init__(self, db: Path, port: int = PORT) -> None:
        self._db = db
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """What a Tide takes as its endpoint."""
        return f"http://127.0.0.1:{self._port}/sync"

    @property
    def running(self) -> bool:
        """Whether this is the one that serves."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> bool:
        """Serve, unless somebody already does; whether this call started to."""
        if self.running:
            return False
        try:
            # It is bound here, not by uvicorn: the port is what decides who serves, and from now
            # on it queues what comes before the thread is ready.
            listener = socket.create_server(("127.0.0.1", self._port))
        except OSError:
            return False
        # Connections are to send at once; asyncio sees to that only for sockets that it made.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        app = create_app(self._db)
        config = uvicorn.Config(
            app,
            log_config=None,  # the terminal belongs to the UI
            timeout_graceful_shutdown=1,
        )
        server = self._server = uvicorn.Server(config)
        app.state.service.hub.ending = lambda: server.should_exit
        self._thread = threading.Thread(
            target=_serve, args=(self._server, listener), name="demo server", daemon=True
        )
        self._thread.start()
        return True

    def stop(self) -> None:
        """Finish the requests under way and let go of the port. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(5.0)
        self._server = self._thread = None


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    with listener:  # if it can't start, callers must be refused rather than left waiting
        server.run([listener])
