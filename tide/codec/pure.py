"""The codec that needs nothing but the standard library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from tide.codec.wire_op import WireOp
from tide.errors import DocumentError
from tide.limits import check_text, encode_document

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["dumps", "load_request", "load_response", "loads", "quote"]

dumps: Callable[[object], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode
"""The JSON text of a plain value."""

quote: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode
"""The JSON text of a string."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def loads(text: str | bytes) -> Any:
    """The value of JSON *text*, UTF-8 if bytes; a ValueError if it is not strictly JSON."""
    try:
        return _decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("JSON nested too deep to be read") from None


def load_request(body: bytes) -> dict[str, Any]:
    """The fields of a request, its ops as `WireOp`; a ValueError if it is not such an object."""
    fields = _load_object(body)
    if "ops" in fields:
        fields["ops"] = _ops(fields["ops"])
    return fields


def load_response(body: bytes) -> dict[str, Any]:
    """The fields of a response, its changes and each result's current as `WireOp`.

    Raises:
        ValueError: it is not such an object.
    """
    fields = _load_object(body)
    if "changes" in fields:
        fields["changes"] = _ops(fields["changes"])
    if fields.get("results") is not None:
        for result in _objects(fields["results"]):
            if result.get("current") is not None:
                result["current"] = _ops([result["current"]])[0]
    return fields


def _load_object(body: bytes) -> dict[str, Any]:
    fields = loads(body)
    if not isinstance(fields, dict):
        raise ValueError("a message must be a JSON object")  # noqa: TRY004 - as for any bad JSON
    return fields


def _objects(values: object) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("ops, changes and results must be arrays of objects")
    return values


def _ops(values: object) -> list[WireOp]:
    return [
        WireOp(op.get("collection"), op.get("id"), _doc(op.get("doc", "")), op.get("stamp"))
        for op in _objects(values)
    ]


def _doc(value: object) -> str | DocumentError | None:
    if value is None:
        return None
    try:
        return check_text(dumps(value), value)
    except DocumentError as error:
        return error
    except (ValueError, RecursionError):  # reads as infinite, or is too deep; find where
        try:
            return encode_document(value)
        except DocumentError as error:
            return error
