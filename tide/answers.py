"""What the answer to an exchange means to a node (PROTOCOL.md, "Errors"). Pure, like `protocol`.

The node decides by status first and by code second, so that it survives proxies that answer in
HTML: an answer is never taken for more than its status says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tide.codec import loads
from tide.errors import (
    ForbiddenError,
    MisconfiguredError,
    OfflineError,
    ProtocolError,
    SyncError,
    UnauthorizedError,
    UnavailableError,
)
from tide.limits import MAX_RETRY_AFTER
from tide.protocol import Request, Response, parse_response, readable

__all__ = ["Answer", "Refused", "Reset", "read_answer", "refusal"]


class Answer(NamedTuple):
    """What came back from one exchange, whatever the transport.

    Attributes:
        status: the HTTP status, or what a transport has in its stead.
        body: the whole body, inflated.
        headers: by lower-case name.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Reset(NamedTuple):
    """409: this node's cursor does not fit the server; see PROTOCOL.md, "Reset".

    Attributes:
        kind: ``restored`` (the server lost history) or ``horizon`` (the node was away too long).
    """

    kind: Literal["restored", "horizon"]


class Refused(NamedTuple):
    """400, 413 or 422: the batch can't be taken as it is; a part of it may be.

    Attributes:
        code: the problem's code, or one made of the status.
        detail: the problem in words.
        too_large: 413: fewer bytes at once may pass.
    """

    code: str
    detail: str
    too_large: bool


def read_answer(answer: Answer, request: Request) -> Response | Reset | Refused:
    """What *answer* to *request* means.

    Raises:
        SyncError: the subclass that fits the status; `retry_after` is set if the server told.
    """
    status = answer.status
    if status == 200:
        if not _is_json(answer):
            raise ProtocolError(
                "the endpoint answered 200 with something that is not JSON; a captive portal, or "
                "a web page at that URL? A tide endpoint ends in /sync"
            )
        return parse_response(answer.body, request)
    problem = _problem(answer)
    words = readable(problem.get("detail")) or readable(problem.get("title"))
    detail = f"{status} {words}".strip()
    if status == 409 and problem.get("code") == "reset":
        kind = problem.get("reset")
        if kind in ("restored", "horizon"):
            return Reset(kind)
    if status in (400, 413, 422):
        code = readable(problem.get("code")) or f"http_{status}"
        return Refused(code, detail, too_large=status == 413)
    raise refusal(answer, detail)


def refusal(answer: Answer, detail: str = "") -> SyncError:
    """The error that *answer*, which is no success, stands for; *detail* is it in words."""
    status, retry_after = answer.status, _retry_after(answer)
    detail = detail or str(status)
    if status == 401:
        return UnauthorizedError(
            f"the server refused the credentials ({detail}); check headers=",
            retry_after=retry_after,
        )
    if status == 403:
        return ForbiddenError(
            f"these credentials may not use this space ({detail})", retry_after=retry_after
        )
    if status in (408, 425, 429) or status >= 500:
        return UnavailableError(f"the server can't serve now ({detail})", retry_after=retry_after)
    if 300 <= status < 400:
        return OfflineError(
            f"the endpoint redirects elsewhere ({detail}), which is not followed; a captive "
            "portal, or a URL that lacks https or has moved?"
        )
    return MisconfiguredError(
        f"the endpoint does not answer as a tide server ({detail}); check its URL, "
        "which ends in /sync or /sync/{space}",
        retry_after=retry_after,
    )


def _is_json(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def _problem(answer: Answer) -> dict[str, Any]:
    """The problem document of *answer*; empty if its body is anything else."""
    try:
        problem = loads(answer.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _retry_after(answer: Answer) -> float:
    """Seconds of a Retry-After header; 0.0 if there is none, or a date, which is ignored."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER) if text.isascii() and text.isdigit() else 0.0
