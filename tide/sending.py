"""What goes to the server, with its headers, and letting go of what takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TypeGuard, TypeVar

from tide.errors import OfflineError, SyncError, UsageError
from tide.transports.base import Answer, Event, Transport

__all__ = ["Headers", "Sender", "check_headers", "within"]

T = TypeVar("T")

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Headers for each request, or a function, async or not, that is asked for each request."""


def check_headers(headers: object) -> None:
    """Raise a `UsageError` unless *headers* can be those of a `Sender`."""
    if not (headers is None or callable(headers) or _is_text(headers)):
        raise UsageError(
            'headers= is a dict, such as {"Authorization": "Bearer TOKEN"}, or a function that '
            "returns one"
        )


class Sender:
    """A transport, and the headers that each request over it gets."""

    def __init__(self, transport: Transport, headers: Headers | None) -> None:
        self._transport = transport
        self._headers = headers

    async def exchange(self, body: bytes, deadline: float) -> Answer:
        """One exchange, whatever the transport does within *deadline* seconds.

        Raises:
            SyncError: no answer came.
        """
        answer = await within(deadline, self._exchange(body))
        if answer.status == 401 and callable(self._headers):  # perhaps a token ran out just now
            answer = await within(deadline, self._exchange(body))
        return answer

    async def listen(self, cursor: str) -> AsyncGenerator[Event, None]:
        """See `Transport.listen`."""
        headers = await self._current_headers()
        async with contextlib.aclosing(self._transport.listen(cursor, headers)) as events:
            async for event in events:
                yield event

    async def _exchange(self, body: bytes) -> Answer:
        return await self._transport.exchange(body, await self._current_headers())

    async def _current_headers(self) -> Mapping[str, str]:
        if not callable(self._headers):
            return self._headers or {}
        try:
            headers = self._headers()
            headers = await headers if inspect.isawaitable(headers) else headers
            headers = dict(headers) if isinstance(headers, Mapping) else headers
        except Exception as error:
            raise SyncError(f"the function given as headers= failed: {error!r}") from error
        if not _is_text(headers):
            raise SyncError(
                f"the function given as headers= returned {_kind(headers)} instead of a "
                'dict such as {"Authorization": "Bearer TOKEN"}'
            )
        return headers


def _is_text(headers: object) -> TypeGuard[Mapping[str, str]]:
    return isinstance(headers, Mapping) and all(
        isinstance(part, str) for pair in headers.items() for part in pair
    )


def _kind(headers: object) -> str:
    """What *headers* is, without its values, which may be secret."""
    if not isinstance(headers, Mapping):
        return "None" if headers is None else f"something of type {type(headers).__name__}"
    kinds = {type(part).__name__ for pair in headers.items() for part in pair}
    return f"a mapping that holds {', '.join(sorted(kinds - {'str'}))}"


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What *work* gives; it is other people's code, so whatever else it does is an error.

    Raises:
        OfflineError: it gave nothing within *seconds*, or ended in a way that would end its
            caller too.
    """
    # Not asyncio.wait_for: before Python 3.12 it can swallow a cancellation.
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise OfflineError(f"no answer within {seconds:.0f} seconds")
        return _outcome(task)
    finally:
        task.add_done_callback(_forget)  # also one that fails just when this is cancelled
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)  # it lets go of its connection


def _outcome(task: asyncio.Future[T]) -> T:
    if task.cancelled():  # from inside: a cancellation from outside does not get here
        raise OfflineError("the exchange was cancelled, by the transport or by headers=")
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise OfflineError(f"the exchange failed: {error!r}") from error
    return task.result()


def _forget(task: asyncio.Future[T]) -> None:
    """Take note of how a given-up *task* ended, which nobody waits for."""
    if not task.cancelled():
        task.exception()
