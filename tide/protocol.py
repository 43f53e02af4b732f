"""The messages of PROTOCOL.md: requests, responses and problems, parsed, checked and written.

Pure: no I/O, no clock, no loop. Client, server and tests run this same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from tide import limits
from tide.codec import WireOp, dumps, load_request, load_response, quote
from tide.errors import (
    CollectionNameError,
    DocumentError,
    IdError,
    ProtocolError,
    RequestError,
)
from tide.stamp import MAX_COUNTER, MAX_WIRE_COUNTER, Stamp, is_counter, is_node_id

__all__ = [
    "DEFAULT_LIMIT",
    "VERSION",
    "BadOp",
    "Op",
    "Problem",
    "Request",
    "Response",
    "Result",
    "encode_op",
    "parse_request",
    "parse_response",
    "readable",
]

VERSION: Final = 1
"""The protocol's major version that this code speaks."""
DEFAULT_LIMIT: Final = 1000
"""How many changes a request without ``limit`` wants."""
_MAX_OPAQUE = 256  # characters of a cursor or receipt: opaque to nodes, but not unbounded
_MAX_REQUEST_ID = 64
_MAX_READABLE = 1000  # characters of a reason in words

ResultStatus = Literal["ok", "superseded", "restamp", "rejected", "deferred", "unknown"]


class Op(NamedTuple):
    """One write with its stamp; as a server sends it, a change.

    Attributes:
        collection: the collection's name.
        id: the document's id.
        doc: the document's JSON text; None for a delete.
        stamp: when it was written.
    """

    collection: str
    id: str
    doc: str | None
    stamp: Stamp

    @property
    def key(self) -> tuple[str, str]:
        """What names the document: its collection and id."""
        return self.collection, self.id


class BadOp(NamedTuple):
    """An op that can never be accepted, for its form.

    Attributes:
        code: ``invalid_doc``, ``invalid_id``, ``unknown_collection`` or ``too_large``.
        detail: what is wrong, in words.
    """

    code: str
    detail: str


class Result(NamedTuple):
    """What became of one op of a request (PROTOCOL.md, "Results").

    Attributes:
        status: ``unknown`` stands for a status that this version does not know: still pending.
        current: the server's op of that document, if it told.
        min_counter: with ``restamp``: the new stamp's counter must be greater.
        reason: with ``restamp``: ``clock_ahead``, ``forgotten`` or ``stamp_reused``.
        code: with ``rejected``: a stable code.
        detail: with ``rejected``: the reason in words.
        retry_after: with ``deferred``: seconds to wait.
    """

    status: ResultStatus
    current: Op | None = None
    min_counter: int = 0
    reason: str = ""
    code: str = ""
    detail: str = ""
    retry_after: float = 0.0

    def encode(self) -> str:
        """The JSON text of this result."""
        fields = [f'"status":"{self.status}"']
        if self.status == "restamp":
            fields.append(f'"min_counter":{self.min_counter},"reason":{quote(self.reason)}')
        if self.status == "rejected":
            fields.append(f'"code":{quote(self.code)},"detail":{quote(self.detail)}')
        if self.status == "deferred":
            fields.append(f'"retry_after":{dumps(self.retry_after)}')
        if self.current is not None or self.status == "rejected":
            fields.append(f'"current":{encode_op(self.current) if self.current else "null"}')
        return "{" + ",".join(fields) + "}"


class Request(NamedTuple):
    """What a node asks: take these ops, tell me what came after this cursor.

    Attributes:
        node_id: the open store that asks.
        cursor: where it has read up to, as last received; None at the start.
        ops: its pending ops; a server finds a `BadOp` where one can't be accepted for its form.
        v: the protocol's major version; 0 is a core client, which reads no results.
        receipt: as last received.
        limit: how many changes it wants at most.
        request_id: echoed by the server.
    """

    node_id: str
    cursor: str | None
    ops: tuple[Op | BadOp, ...]
    v: int = 0
    receipt: str | None = None
    limit: int = DEFAULT_LIMIT
    request_id: str | None = None

    def encode(self) -> bytes:
        """The body of this request."""
        optional = {
            "v": self.v or None,
            "receipt": self.receipt,
            "limit": None if self.limit == DEFAULT_LIMIT else self.limit,
            "request_id": self.request_id,
        }
        fields = [f'"node_id":{quote(self.node_id)}', f'"cursor":{_quote_or_null(self.cursor)}']
        fields += [f'"{k}":{dumps(v)}' for k, v in optional.items() if v is not None]
        fields.append(f'"ops":[{",".join(encode_op(op) for op in self.ops if type(op) is Op)}]')
        return ("{" + ",".join(fields) + "}").encode()


class Response(NamedTuple):
    """What a server answers with status 200.

    Attributes:
        cursor: where the node has read up to after this page.
        changes: what it had not read, in seq order.
        has_more: whether to ask again at once.
        results: one for each op of the request, in order; None from a core server: all accepted.
        receipt: (epoch, head) of the answer; the node echoes the newest.
        clock: the highest counter accepted in the space; 0 if not told.
        request_id: the request's, echoed.
    """

    cursor: str
    changes: tuple[Op, ...]
    has_more: bool = False
    results: tuple[Result, ...] | None = None
    receipt: str | None = None
    clock: int = 0
    request_id: str | None = None

    def encode(self) -> bytes:
        """The body of this response."""
        fields = [f'"cursor":{quote(self.cursor)}']
        if self.has_more:
            fields.append('"has_more":true')
        if self.receipt is not None:
            fields.append(f'"receipt":{quote(self.receipt)}')
        if self.clock:
            fields.append(f'"clock":{self.clock}')
        if self.request_id is not None:
            fields.append(f'"request_id":{quote(self.request_id)}')
        if self.results is not None:
            fields.append(f'"results":[{",".join(result.encode() for result in self.results)}]')
        fields.append(f'"changes":[{",".join(map(encode_op, self.changes))}]')
        return ("{" + ",".join(fields) + "}").encode()


class Problem(NamedTuple):
    """An answer other than 200: RFC 9457 problem+json with a stable code.

    Attributes:
        status: the HTTP status.
        code: stable and meant for programs; see PROTOCOL.md, "Errors".
        detail: what happened and what to do, in words.
        retryable: whether the same request may succeed later.
        extra: the limit or list that applies, by name.
    """

    status: int
    code: str
    detail: str
    retryable: bool = False
    extra: Mapping[str, Any] = {}

    def encode(self) -> bytes:
        """The body of this problem."""
        return dumps(
            {
                "type": "about:blank",
                "title": self.code.replace("_", " "),
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                "retryable": self.retryable,
                **self.extra,
            }
        ).encode()


def encode_op(op: Op) -> str:
    """The JSON text of *op*, its document as it is."""
    return (
        f'{{"collection":"{op.collection}","id":{quote(op.id)},"doc":{op.doc or "null"},'
        f'"stamp":[{op.stamp.counter},"{op.stamp.node_id}"]}}'
    )


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
    try:
        fields = load_response(body)
    except ValueError as error:
        raise ProtocolError(f"the answer is not a sync response: {error}") from None
    fields = _present(fields)
    cursor, changes = fields.get("cursor"), fields.get("changes")
    if cursor is None or not _is_opaque(cursor) or changes is None:
        raise ProtocolError("the answer is not a sync response: cursor and changes are missing")
    if fields.get("request_id", request.request_id) != request.request_id:
        raise ProtocolError("the answer belongs to another request (request_id differs)")
    clock = fields.get("clock", 0)
    if type(clock) is not int or not 0 <= clock <= MAX_WIRE_COUNTER:
        raise ProtocolError(f"the answer's clock {clock!r} is out of range")
    if not _is_opaque(fields.get("receipt")):
        raise ProtocolError("the answer's receipt is not a string")
    results = fields.get("results")
    return Response(
        cursor=cursor,
        changes=tuple(_change(change) for change in changes),
        has_more=fields.get("has_more") is True,
        results=None if results is None else tuple(_result(result) for result in results),
        receipt=fields.get("receipt"),
        clock=clock,
        request_id=fields.get("request_id"),
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


def _quote_or_null(text: str | None) -> str:
    return "null" if text is None else quote(text)


def _is_opaque(value: object, size: int = _MAX_OPAQUE) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= size and value.isprintable())


def _request_ops(ops: list[WireOp] | None) -> tuple[Op | BadOp, ...]:
    if ops is None:
        raise _bad("ops must be an array, empty if there are none")
    if len(ops) > limits.MAX_OPS:
        detail = f"{len(ops)} ops in one request, at most {limits.MAX_OPS}: send fewer at once"
        raise _bad(detail, "too_large", 413, max_ops=limits.MAX_OPS)
    parsed = tuple(_op_or_bad(op) for op in ops)
    keys = [op.key for op in parsed if isinstance(op, Op)]
    if len(set(keys)) < len(keys):
        raise _bad("two ops for one document in one request: send the newest only")
    return parsed


def _op_or_bad(wire: WireOp) -> Op | BadOp:
    try:
        return _op(wire)
    except CollectionNameError as error:
        return BadOp("unknown_collection", str(error))
    except IdError as error:
        return BadOp("invalid_id", str(error))
    except DocumentError as error:
        return BadOp(error.code, str(error))


def _op(wire: WireOp, max_counter: int = MAX_COUNTER) -> Op:
    collection = limits.check_collection(wire.collection)
    id_ = limits.check_id(wire.id)
    if isinstance(wire.doc, DocumentError):
        raise wire.doc
    return Op(collection, id_, wire.doc, _stamp(wire.stamp, max_counter))


def _stamp(value: object, max_counter: int) -> Stamp:
    if isinstance(value, list) and len(value) == 2:
        counter, node_id = value
        if is_counter(counter) and counter <= max_counter and is_node_id(node_id):
            return Stamp(counter, node_id)
    raise DocumentError("", "has no stamp [counter, node_id] as PROTOCOL.md says")


def _change(wire: WireOp) -> Op:
    try:
        return _op(wire, MAX_WIRE_COUNTER)
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
    if type(retry_after) not in (int, float) or not 0 <= retry_after:
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
