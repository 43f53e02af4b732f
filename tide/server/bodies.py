"""Reading a request's body within its limits, which hold while it is read."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping

from tide.errors import RequestError
from tide.limits import MAX_BODY, MAX_INFLATED
from tide.protocol import Problem

__all__ = ["check_head", "read"]


def check_head(headers: Mapping[str, str]) -> None:
    """Refuse by its headers a body that would be refused anyway, before any of it is read.

    Raises:
        RequestError: it is too large, no JSON, or encoded in an unknown way.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _refusal(415, "unsupported_media_type", "send content-type: application/json")
    if headers.get("content-encoding", "identity").lower() not in ("identity", "gzip"):
        raise _refusal(415, "unsupported_media_type", "send content-encoding: gzip, or none")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _refusal(400, "invalid_request", "content-length is not a number")
    if len(length) > 20 or int(length) > MAX_BODY:
        raise _too_large(MAX_BODY)


async def read(headers: Mapping[str, str], stream: AsyncIterator[bytes]) -> bytes:
    """The whole body, inflated.

    Raises:
        RequestError: it has more than 4 MiB, or more than 8 MiB inflated, or is not the gzip that
            it says it is.
    """
    gzip = headers.get("content-encoding", "identity").lower() == "gzip"
    inflater = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    wire = size = 0
    async for chunk in stream:
        wire += len(chunk)
        if wire > MAX_BODY:
            raise _too_large(MAX_BODY)
        part = _inflate(inflater, chunk, MAX_INFLATED + 1 - size) if gzip else chunk
        size += len(part)
        if size > MAX_INFLATED:
            raise _too_large(MAX_INFLATED)
        parts.append(part)
    if gzip and not inflater.eof:
        raise _refusal(400, "invalid_request", "the gzip body is cut off")
    return b"".join(parts)


def _inflate(inflater: zlib._Decompress, chunk: bytes, room: int) -> bytes:
    try:
        part = inflater.decompress(chunk, room)
    except zlib.error as error:
        raise _refusal(400, "invalid_request", f"the body is not gzip: {error}") from None
    if inflater.unused_data:
        raise _refusal(400, "invalid_request", "the gzip body goes on behind its end")
    return part


def _too_large(limit: int) -> RequestError:
    return _refusal(413, "too_large", f"a body has at most {limit} bytes", max_bytes=limit)


def _refusal(status: int, code: str, detail: str, **extra: int) -> RequestError:
    return RequestError(Problem(status, code, detail, extra=extra))
