"""What each kind of answer means to a node: by status first, by code second."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tide.answers import Answer, Refused, Reset, read_answer
from tide.errors import (
    ForbiddenError,
    MisconfiguredError,
    OfflineError,
    ProtocolError,
    SyncError,
    UnauthorizedError,
    UnavailableError,
)
from tide.protocol import Problem, Request, Response

ASKED = Request("alice.phone.0001", None, (), v=1, request_id="r1")
JSON = {"content-type": "application/json"}
HTML = b"<!doctype html><title>Welcome to the hotel's network</title>"


def problem(status: int, code: str = "x", **extra: Any) -> Answer:
    """An answer as a tide server gives it."""
    body = Problem(status, code, "what happened", extra=extra).encode()
    return Answer(status, body, {"content-type": "application/problem+json"})


def error_of(answer: Answer) -> SyncError:
    with pytest.raises(SyncError) as caught:
        read_answer(answer, ASKED)
    return caught.value


def test_200_is_a_response() -> None:
    response = Response("e:1", (), request_id="r1")
    for kind in ("application/json", "Application/JSON ; charset=utf-8"):
        answer = Answer(200, response.encode(), {"content-type": kind})
        assert read_answer(answer, ASKED) == response


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, HTML, {"content-type": "text/html"}),
        Answer(200, Response("e:1", ()).encode(), {"content-type": "text/html"}),
        Answer(200, Response("e:1", ()).encode()),
        Answer(200, HTML, JSON),
        Answer(200, b"", JSON),
        Answer(200, b"{}", JSON),
        Answer(200, b"[]", JSON),
        Answer(200, b"null", JSON),
        Answer(200, '{"cursor":"a","changes":[]}'.encode("utf-16"), JSON),
        Answer(200, Response("e:1", (), request_id="r2").encode(), JSON),
    ],
)
def test_f38_a_200_that_is_not_the_protocol_is_never_taken_for_an_answer(answer: Answer) -> None:
    assert type(error_of(answer)) is ProtocolError


@pytest.mark.parametrize("kind", ["restored", "horizon"])
def test_409_reset_asks_to_start_over(kind: Any) -> None:
    assert read_answer(problem(409, "reset", reset=kind), ASKED) == Reset(kind)


@pytest.mark.parametrize(
    "answer",
    [
        problem(409),
        problem(409, "reset"),
        problem(409, "reset", reset="everything"),
        problem(409, "reset", reset=["restored"]),
        Answer(409, HTML),
    ],
)
def test_any_other_409_resets_nothing(answer: Answer) -> None:
    assert type(error_of(answer)) is MisconfiguredError


@pytest.mark.parametrize("status", [400, 413, 422])
def test_f36_a_batch_that_is_refused_may_be_divided(status: int) -> None:
    refused = Refused("too_large", f"{status} what happened", too_large=status == 413)
    assert read_answer(problem(status, "too_large"), ASKED) == refused


@pytest.mark.parametrize("body", [HTML, b"", b"[]", b'{"code":5}', b'{"code":null}', b"[" * 10_000])
def test_f36_also_when_a_proxy_says_so_in_its_own_way(body: bytes) -> None:
    assert read_answer(Answer(413, body), ASKED) == Refused("http_413", "413", too_large=True)


def test_the_words_of_a_problem_can_be_stored_and_shown() -> None:
    body = rb'{"code":"a\ud800","detail":5,"title":"no\udfff"}'
    refused = read_answer(Answer(422, body), ASKED)
    assert isinstance(refused, Refused)
    refused.code.encode()
    refused.detail.encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, MisconfiguredError) for status in (201, 204, 206, 402, 404, 405, 406, 410)),
        *((status, MisconfiguredError) for status in (411, 415, 418, 426, 451)),
        *((status, OfflineError) for status in (300, 301, 302, 303, 307, 308)),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        *((status, UnavailableError) for status in (408, 425, 429, 500, 501, 502, 503, 504)),
        *((status, UnavailableError) for status in (507, 511, 520, 599)),
    ],
)
@pytest.mark.parametrize("body", [HTML, problem(200).body])
def test_f37_each_other_status_is_an_error_of_its_own_kind(
    status: int, kind: type[SyncError], body: bytes
) -> None:
    error = error_of(Answer(status, body))
    assert type(error) is kind
    assert ("what happened" in str(error)) is (body != HTML)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("3600", 3600),
        ("999999", 3600),
        ("9" * 5000, 3600),
        ("-1", 0),
        ("", 0),
        ("1.5", 0),
        ("٣", 0),
        ("²", 0),
        ("nan", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_retry_after_in_seconds_is_obeyed_up_to_an_hour(
    status: int, value: str, seconds: float
) -> None:
    assert error_of(Answer(status, b"", {"retry-after": value})).retry_after == seconds
    assert json.loads(problem(status).body)["status"] == status
