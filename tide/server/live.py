"""A live stream as an HTTP answer: frames of the hub, heartbeats, and when it ends.

Plain ASGI, since it costs half the memory of a framework's stream for each that waits.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tide.protocol import COMMENT, HEARTBEAT
from tide.server.hub import Hub, Listener

__all__ = ["LiveStream", "process_is_ending"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # asks nginx not to hold events back
]


class LiveStream:
    """An answer that goes on until the caller leaves, the server stops, or the credentials end.

    Args:
        hub: where the space's changes come from.
        space: the space's name.
        listener: this stream's place in the hub.
        expires_at: when the caller's credentials end, Unix seconds; None: never.
    """

    def __init__(self, hub: Hub, space: str, listener: Listener, expires_at: float | None) -> None:
        self._hub = hub
        self._space = space
        self._listener = listener
        self._expires_at = expires_at

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, as ASGI wants it."""
        gone = asyncio.ensure_future(self._until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while not gone.done():
                frame = await self._listener.next(self._patience())
                await send(_body(frame or COMMENT, more=True))
                if self._listener.ended:
                    break
            await send(_body(b"", more=False))
        finally:
            gone.cancel()
            self._hub.leave(self._space, self._listener)

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._listener.rouse()

    def _patience(self) -> float:
        """Seconds until something has to be sent, or the stream has to end."""
        if self._expires_at is None:
            return HEARTBEAT
        left = self._expires_at - time.time()
        if left <= 0:
            self._listener.end()
        return min(HEARTBEAT, max(left, 0.0))


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def process_is_ending() -> bool:
    """Whether uvicorn, if that is what runs this process, was told to stop.

    It waits for all streams before it tells the app, so the app has to look for itself: the
    handler of the signal is a method of the server.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
