"""The seam between syncing and the network: one method, and one more for live streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping

from tide.answers import Answer
from tide.protocol import Event

__all__ = ["Answer", "Event", "Transport"]


class Transport(ABC):
    """Carries one exchange to a server and its answer back.

    To write your own, subclass it and implement `exchange`; then run the contract suite
    ``tests/contracts/transport.py`` on it.
    """

    @abstractmethod
    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send *body* (JSON, a sync request) with *headers*, and wait for the answer.

        Must end within a bounded time, and must not follow a redirect to another origin.

        Raises:
            OfflineError: no answer came, or not all of it.
            ProtocolError: what came is out of bounds, such as too large.
        """

    async def listen(
        self,
        cursor: str,  # noqa: ARG002 - this one has no use for them
        headers: Mapping[str, str],  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """The server's live stream from *cursor*: its events, as they come.

        It ends when the server ends it, and at once if the server offers none; then nodes ask
        again and again instead. A transport that can't have one leaves this as it is.

        Raises:
            OfflineError: the stream broke, or was silent for too long, or the server can't now.
            ProtocolError: what came is out of bounds.
        """
        return
        yield  # this makes it a generator

    async def aclose(self) -> None:
        """Let go of connections. Called when the Tide closes, which may be opened again."""
        return
