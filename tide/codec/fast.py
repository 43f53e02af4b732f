"""The codec at C speed; importing it without msgspec (extra ``fast``) is an ImportError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tide.codec.wire_op import WireOp
from tide.errors import DocumentError
from tide.limits import check_text

__all__ = ["load_request", "load_response", "loads"]


class _Op(Struct):
    collection: Any = None
    id: Any = None
    doc: Raw = Raw(b'""')  # absent is as wrong as any other value that is no object
    stamp: Any = None


class _Result(Struct):
    status: Any = None
    current: _Op | None = None
    min_counter: Any = None
    reason: Any = None
    code: Any = None
    detail: Any = None
    retry_after: Any = None


class _Request(Struct):
    node_id: Any = UNSET
    cursor: Any = UNSET
    ops: list[_Op] | UnsetType = UNSET
    v: Any = UNSET
    receipt: Any = UNSET
    limit: Any = UNSET
    request_id: Any = UNSET


class _Response(Struct):
    cursor: Any = UNSET
    changes: list[_Op] | UnsetType = UNSET
    has_more: Any = UNSET
    results: list[_Result] | UnsetType | None = UNSET
    receipt: Any = UNSET
    clock: Any = UNSET
    request_id: Any = UNSET
    since: Any = UNSET


_decode = msgspec.json.Decoder().decode
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_response = msgspec.json.Decoder(_Response).decode


def loads(text: str | bytes) -> Any:
    """As in `tide.codec.pure`."""
    return _decoded(_decode, text)


def load_request(body: bytes) -> dict[str, Any]:
    """As in `tide.codec.pure`."""
    return _fields(_decoded(_decode_request, body))


def load_response(body: bytes) -> dict[str, Any]:
    """As in `tide.codec.pure`."""
    fields = _fields(_decoded(_decode_response, body))
    if results := fields.get("results"):
        fields["results"] = [_result(result) for result in results]
    return fields


def _decoded(decode: Callable[[bytes | str], Any], body: bytes | str) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _fields(message: Struct) -> dict[str, Any]:
    fields = {
        name: value for name, value in msgspec.structs.asdict(message).items() if value is not UNSET
    }
    for name in ("ops", "changes"):
        if name in fields:
            fields[name] = [_op(op) for op in fields[name]]
    return fields


def _result(result: _Result) -> dict[str, Any]:
    fields = msgspec.structs.asdict(result)
    if result.current is not None:
        fields["current"] = _op(result.current)
    return fields


def _op(op: _Op) -> WireOp:
    return WireOp(op.collection, op.id, _doc(op.doc), op.stamp)


def _doc(raw: Raw) -> str | DocumentError | None:
    try:
        text = str(raw, "utf-8")
        if text == "null":
            return None
        return check_text(text, loads(text))
    except DocumentError as error:
        return error
    except ValueError as error:
        return DocumentError("", f"is not JSON that can be stored: {error}")
