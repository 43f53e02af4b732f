"""Requests, responses and problems, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from tide.codec import dumps, quote
from tide.stamp import Stamp

__all__ = [
    "DEFAULT_LIMIT",
    "VERSION",
    "BadOp",
    "Op",
    "Problem",
    "Request",
    "Response",
    "Result",
    "ResultStatus",
    "encode_op",
]

VERSION: Final = 1
"""The protocol's major version that this code speaks."""
DEFAULT_LIMIT: Final = 1000
"""How many changes a request without ``limit`` wants."""

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
        key: which document it is about, if that much is right.
    """

    code: str
    detail: str
    key: tuple[str, str] | None = None


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
        since: in a live stream, the cursor that the page starts from.
    """

    cursor: str
    changes: tuple[Op, ...]
    has_more: bool = False
    results: tuple[Result, ...] | None = None
    receipt: str | None = None
    clock: int = 0
    request_id: str | None = None
    since: str | None = None

    def encode(self) -> bytes:
        """The body of this response."""
        fields = [f'"cursor":{quote(self.cursor)}']
        if self.since is not None:
            fields.append(f'"since":{quote(self.since)}')
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


def _quote_or_null(text: str | None) -> str:
    return "null" if text is None else quote(text)
