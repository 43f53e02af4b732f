"""Requests and responses, read and checked to the last field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tide import limits
from tide.codec import WireOp, load_request, load_response
from tide.errors import (
    CollectionNameError,
    DocumentError,
    IdError,
    ProtocolError,
    RequestError,
)
from tide.protocol.messages import (
    DEFAULT_LIMIT,
    BadOp,
    Op,
    Problem,
    Request,
    Response,
    Result,
    ResultStatus,
)
from tide.stamp import MAX_COUNTER, MAX_WIRE_COUNTER, Stamp, is_counter, is_node_id

__all__ = ["parse_page", "parse_request", "parse_response", "readable"]

_MAX_OPAQUE = 256  # characters of a cursor or receipt: opaque to nodes, but not unbounded
_MAX_REQUEST_ID = 64
_MAX_READABLE = 1000  # characters of a reason in words


def parse_request(body: bytes) -> Request:
    """The request in *body*; a `RequestError` if it is none.

    An op that can't be accepted for its form comes as a `BadOp`, so that the others can go on.
    """
    try:
        fields = load_request(body)
    except ValueError as error:
        raise _bad(f"the body is not a sync request: {error}") from None
    if not is_node_id(fields.get("node_id")):
        raise _bad("node_id must be 8 to 64 of 0-9 a-z .")
    if "cursor" not in fields or not _is_opaque(fields["cursor"]):
        raise _bad("cursor must be null or a string as received from this server")
    fields = _present(fields)
    request = Request(
        node_id=fields["node_id"],
        cursor=fields.get("cursor"),
        ops=_request_ops(fields.get("ops")),
        v=fields.get("v", 0),
        receipt=fields.get("receipt"),
        limit=fields.get("limit", DEFAULT_LIMIT),
        request_id=fields.get("request_id"),
    )
    if type(request.v) is not int or request.v < 0:
        raise _bad("v must be a whole number, the protocol's major version")
    if not _is_opaque(request.receipt):
        raise _bad("receipt must be null or a string as received from this server")
    if type(request.limit) is not int or not 1 <= request.limit <= limits.MAX_PAGE:
        raise _bad(f"limit must be a whole number from 1 to {limits.MAX_PAGE}")
    if not _is_opaque(request.request_id, _MAX_REQUEST_ID):
        raise _bad(f"request_id must be a string of at most {_MAX_REQUEST_ID} characters")
    return request


def parse_response(body: bytes, request: Request) -> Response:
    """The response in *body*, if it answers *request* as the protocol says.

    Raises:
        ProtocolError: anything at all is not as it must be; nothing of it may be applied.
    """
    response = parse_page(body)
    if response.request_id not in (None, request.request_id):
        raise ProtocolError("the answer belongs to another request (request_id differs)")
    return response


def parse_page(body: bytes) -> Response:
    """The response in *body*, whatever it answers; so an event of a live stream comes.

    Raises:
        ProtocolError: anything at all is not as it must be; nothing of it may be applied.
    """
    try:
        fields = load_response(body)
    except ValueError as error:
        raise ProtocolError(f"the answer is not a sync response: {error}") from None
    fields = _present(fields)
    cursor, changes = fields.get("cursor"), fields.get("changes")
    if cursor is None or not _is_opaque(cursor) or changes is None:
        raise ProtocolError("the answer is not a sync response: cursor and changes are missing")
    clock = fields.get("clock", 0)
    if type(clock) is not int or not 0 <= clock <= MAX_WIRE_COUNTER:
        raise ProtocolError(f"the answer's clock {clock!r} is out of range")
    if not _is_opaque(fields.get("receipt")) or not _is_opaque(fields.get("since")):
        raise ProtocolError("the answer's receipt or since is not a string")
    results = fields.get("results")
    return Response(
        cursor=cursor,
        changes=tuple(_change(change) for change in changes),
        has_more=fields.get("has_more") is True,
        results=None if results is None else tuple(_result(result) for result in results),
        receipt=fields.get("receipt"),
        clock=clock,
        request_id=fields.get("request_id"),
        since=fields.get("since"),
    )


def readable(value: object) -> str:
    """*value*, if it is text, such that it can be stored and shown: all Unicode, not too long."""
    if not isinstance(value, str):
        return ""
    return value[:_MAX_READABLE].encode(errors="replace").decode()


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The *fields* that are not null: null says no more than leaving the field out."""
    return {name: value for name, value in fields.items() if value is not None}


def _bad(
    detail: str, code: str = "invalid_request", status: int = 400, **extra: Any
) -> RequestError:
    return RequestError(Problem(status, code, detail, extra=extra))


def _is_opaque(value: object, size: int = _MAX_OPAQUE) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= size and value.isprintable())


def _request_ops(ops: list[WireOp] | None) -> tuple[Op | BadOp, ...]:
    if ops is None:
        raise _bad("ops must be an array, empty if there are none")
    if len(ops) > limits.MAX_OPS:
        detail = f"{len(ops)} ops in one request, at most {limits.MAX_OPS}: send fewer at once"
        raise _bad(detail, "too_large", 413, max_ops=limits.MAX_OPS)
    parsed = tuple(_op_or_bad(op) for op in ops)
    keys = [op.key for op in parsed if op.key is not None]
    if len(set(keys)) < len(keys):
        raise _bad("two ops for one document in one request: send the newest only")
    return parsed


def _op_or_bad(wire: WireOp) -> Op | BadOp:
    try:
        key = _key(wire)
    except CollectionNameError as error:
        return BadOp("unknown_collection", str(error))
    except IdError as error:
        return BadOp("invalid_id", str(error))
    try:
        return _op(key, wire, MAX_COUNTER)
    except DocumentError as error:
        return BadOp(error.code, str(error), key)


def _key(wire: WireOp) -> tuple[str, str]:
    return limits.check_collection(wire.collection), limits.check_id(wire.id)


def _op(key: tuple[str, str], wire: WireOp, max_counter: int) -> Op:
    if isinstance(wire.doc, DocumentError):
        raise wire.doc
    return Op(*key, wire.doc, _stamp(wire.stamp, max_counter))


def _stamp(value: object, max_counter: int) -> Stamp:
    if isinstance(value, list) and len(value) == 2:
        counter, node_id = value
        if is_counter(counter) and counter <= max_counter and is_node_id(node_id):
            return Stamp(counter, node_id)
    raise DocumentError("", "has no stamp [counter, node_id] as PROTOCOL.md says")


def _change(wire: WireOp) -> Op:
    try:
        return _op(_key(wire), wire, MAX_WIRE_COUNTER)
    except (CollectionNameError, IdError, DocumentError) as error:
        raise ProtocolError(f"the answer holds a change that can't be stored: {error}") from None


_RESULTS: Final[Mapping[object, ResultStatus]] = {
    "ok": "ok",
    "superseded": "superseded",
    "restamp": "restamp",
    "rejected": "rejected",
    "deferred": "deferred",
}


def _result(fields: Mapping[str, Any]) -> Result:
    fields = _present(fields)
    status = fields.get("status")
    current = fields.get("current")
    min_counter = fields.get("min_counter", 0)
    retry_after = fields.get("retry_after", 0.0)
    if type(min_counter) is not int or not 0 <= min_counter <= MAX_WIRE_COUNTER:
        raise ProtocolError(f"the answer's min_counter {min_counter!r} is out of range")
    if type(retry_after) not in (int, float) or not retry_after >= 0:
        raise ProtocolError(f"the answer's retry_after {retry_after!r} is not a number of seconds")
    return Result(
        status=_RESULTS.get(status, "unknown") if isinstance(status, str) else "unknown",
        current=None if current is None else _change(current),
        min_counter=min_counter,
        reason=readable(fields.get("reason")),
        code=readable(fields.get("code")),
        detail=readable(fields.get("detail")),
        retry_after=float(min(retry_after, limits.MAX_RETRY_AFTER)),
    )
