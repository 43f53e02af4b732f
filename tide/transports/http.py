"""Exchanges over HTTP. The only importer of httpx."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import httpx

from tide.answers import refusal
from tide.errors import EndpointError, OfflineError, ProtocolError, SyncError, UnavailableError
from tide.protocol import EventReader
from tide.transports.base import Answer, Event, Transport

__all__ = ["HttpTransport"]

MAX_WIRE = 16 << 20
"""The longest answer that is read, in bytes as they come."""
MAX_INFLATED = 64 << 20
"""The longest answer that is read, in bytes after inflating."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0, pool=5.0)  # seconds
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Says no more, since what httpx says of it shows the header, which may be secret.
_BAD_HEADERS = (
    "HTTP can't carry what headers= gives: names and values are ASCII text, without line breaks or "
    "spaces around them"
)


class HttpTransport(Transport):
    """Posts each exchange to *endpoint*, over connections that are kept and used again.

    Never follows a redirect, so that credentials stay with the origin they are for. Times out:
    5 s to connect, 30 s without a byte.

    Raises:
        EndpointError: *endpoint* is not an http or https URL.
    """

    def __init__(self, endpoint: str) -> None:
        self._url = _parse(endpoint)
        self._shown = self._url.copy_with(userinfo=b"", query=None)  # without what is secret
        # Compressing pays on a network, and costs on this machine.
        self._encodings = "identity" if self._url.host in _LOOPBACK else "gzip"
        self._client: httpx.AsyncClient | None = None

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.exchange`."""
        client = await self._connected()
        sent = self._all_headers(body, headers)
        try:
            async with client.stream("POST", self._url, content=body, headers=sent) as response:
                return Answer(
                    response.status_code,
                    await _read(response),
                    {name.lower(): value for name, value in response.headers.items()},
                )
        except httpx.LocalProtocolError:
            raise SyncError(_BAD_HEADERS) from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise OfflineError(f"no answer from {self._shown}: {reason}") from error

    async def listen(self, cursor: str, headers: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """See `Transport.listen`."""
        client = await self._connected()
        url = self._url.copy_merge_params({"cursor": cursor})
        sent = _readable_headers(headers)
        sent["accept"] = "text/event-stream"
        sent["accept-encoding"] = "identity"  # compressing would hold events back
        reader = EventReader()
        try:
            async with client.stream("GET", url, headers=sent) as response:
                if not _is_stream(response):
                    return
                async for chunk in response.aiter_raw():
                    for event in reader.feed(chunk):
                        yield event
        except httpx.LocalProtocolError:
            raise SyncError(_BAD_HEADERS) from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise OfflineError(f"the live stream of {self._shown} broke: {reason}") from error

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RuntimeError):  # its event loop ended, its connections too
                await client.aclose()

    def _all_headers(self, body: bytes, headers: Mapping[str, str]) -> httpx.Headers:
        """The *headers* to send with *body*; in which our own take the place of any others."""
        sent = _readable_headers(headers)
        sent["content-type"] = "application/json"
        sent["content-length"] = str(len(body))
        sent["accept-encoding"] = self._encodings
        return sent

    async def _connected(self) -> httpx.AsyncClient:
        verify: ssl.SSLContext | bool = False
        if self._client is None and self._url.scheme == "https":
            verify = await asyncio.to_thread(_ssl_context)  # reads files for tens of milliseconds
        if self._client is None:  # still: another exchange may have been here meanwhile
            self._client = httpx.AsyncClient(timeout=_TIMEOUT, verify=verify)
        return self._client


def _readable_headers(headers: Mapping[str, str]) -> httpx.Headers:
    try:
        return httpx.Headers(headers)
    except (AttributeError, TypeError, UnicodeError):
        raise SyncError(_BAD_HEADERS) from None


def _is_stream(response: httpx.Response) -> bool:
    """Whether a live stream follows; if not, the server offers none, or can't now."""
    if response.status_code != 200:
        error = refusal(Answer(response.status_code, b"", response.headers))
        if isinstance(error, UnavailableError):
            raise error
        return False
    kind = str(response.headers.get("content-type", ""))
    return kind.partition(";")[0].strip().lower() == "text/event-stream"


def _parse(endpoint: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint)
        host = url.host
        url.raw_host.decode().encode("idna")  # as looking it up will do: no empty or long labels
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise EndpointError(f"{endpoint!r} is no URL: {error}") from None
    port = 1 if url.port is None else url.port
    if url.scheme not in ("http", "https") or not host or not 0 < port < 65536:
        raise EndpointError(f"{endpoint!r} is no endpoint; it looks like https://example.com/sync")
    path, mark, query = url.raw_path.partition(b"?")
    return url.copy_with(raw_path=path.removesuffix(b"/") + mark + query)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


async def _read(response: httpx.Response) -> bytes:
    """The body of *response*; empty if it can't be read and the status says enough."""
    try:
        return await _read_whole(response)
    except SyncError:
        if response.status_code == 200:
            raise
        return b""


async def _read_whole(response: httpx.Response) -> bytes:
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
