"""Exchanges over HTTP. The only importer of httpx."""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping

import httpx

from tide.errors import EndpointError, OfflineError, ProtocolError
from tide.transports.base import Answer, Transport

__all__ = ["HttpTransport"]

MAX_WIRE = 16 << 20
"""The longest answer that is read, in bytes as they come."""
MAX_INFLATED = 64 << 20
"""The longest answer that is read, in bytes after inflating."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0, pool=5.0)  # seconds
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class HttpTransport(Transport):
    """Posts each exchange to *endpoint*, over connections that are kept and used again.

    Never follows a redirect, so that credentials stay with the origin they are for. Times out:
    5 s to connect, 30 s without a byte.

    Raises:
        EndpointError: *endpoint* is not an http or https URL.
    """

    def __init__(self, endpoint: str) -> None:
        self._url = _parse(endpoint)
        # Compressing pays on a network, and costs on this machine.
        self._encodings = "identity" if self._url.host in _LOOPBACK else "gzip"
        self._client: httpx.AsyncClient | None = None

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.exchange`."""
        client = await self._connected()
        fixed = {"content-type": "application/json", "accept-encoding": self._encodings}
        try:
            async with client.stream(
                "POST", self._url, content=body, headers={**headers, **fixed}
            ) as response:
                return Answer(
                    response.status_code,
                    await _read(response),
                    {name.lower(): value for name, value in response.headers.items()},
                )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise OfflineError(f"no answer from {self._url}: {reason}") from error

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            verify: ssl.SSLContext | bool = False
            if self._url.scheme == "https":  # reading all certificates takes tens of milliseconds
                verify = await asyncio.to_thread(_ssl_context)
            self._client = httpx.AsyncClient(timeout=_TIMEOUT, verify=verify)
        return self._client


def _parse(endpoint: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint)
    except (httpx.InvalidURL, TypeError) as error:
        raise EndpointError(f"{endpoint!r} is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise EndpointError(f"{endpoint!r} is no endpoint; it looks like https://example.com/sync")
    return url


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


async def _read(response: httpx.Response) -> bytes:
    """The whole body of *response*, inflated, within bounds that hold while it is read."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return b"".join([chunk async for chunk in _bounded(response)])
    if encoding != "gzip":
        raise ProtocolError(f"the answer has the content-encoding {encoding!r}, which is unknown")
    inflater = zlib.decompressobj(wbits=31)
    parts = []
    room = MAX_INFLATED
    try:
        async for chunk in _bounded(response):
            part = inflater.decompress(chunk, room + 1)
            room -= len(part)
            if room < 0:
                raise ProtocolError(f"the answer inflates to more than {MAX_INFLATED} bytes")
            parts.append(part)
    except zlib.error as error:
        raise ProtocolError(f"the answer is not the gzip that it says it is: {error}") from None
    if not inflater.eof:
        raise OfflineError("the answer was cut off")
    return b"".join(parts)


async def _bounded(response: httpx.Response) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_WIRE:
            raise ProtocolError(f"the answer has more than {MAX_WIRE} bytes")
        yield chunk
