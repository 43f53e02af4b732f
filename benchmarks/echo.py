"""The reference for push: an event stream that passes on what is posted, and does nothing else."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import uvicorn

listeners: set[asyncio.Queue[bytes]] = set()
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """``POST``: to all listeners; ``GET``: listen."""
    if scope["type"] != "http":
        return
    status = {"type": "http.response.start", "status": 200, "headers": HEADERS}
    if scope["method"] == "POST":
        message = await receive()
        for queue in listeners:
            queue.put_nowait(b"data: %b\n\n" % message["body"])
        await send(status)
        await send({"type": "http.response.body", "body": b""})
        return
    mine: asyncio.Queue[bytes] = asyncio.Queue()
    listeners.add(mine)
    await send(status)
    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    while True:
        frame = await mine.get()
        await send({"type": "http.response.body", "body": frame, "more_body": True})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    uvicorn.run(app, port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=0)
