"""The seam between syncing and the network: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from tide.answers import Answer

__all__ = ["Answer", "Transport"]


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

    async def aclose(self) -> None:
        """Let go of connections. Called when the Tide closes, which may be opened again."""
        return
