"""The messages: what is written is read again, and what is not the protocol is refused."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tide import limits
from tide.errors import ProtocolError, RequestError
from tide.protocol import (
    BadOp,
    Op,
    Problem,
    Request,
    Response,
    Result,
    encode_op,
    parse_request,
    parse_response,
    parsing,
    readable,
)
from tide.stamp import MAX_COUNTER, MAX_WIRE_COUNTER, Stamp

NODE = "alice.phone.0001"
PUT = Op("todos", "t1", '{"text":"bread"}', Stamp(1, NODE))
DELETE = Op("todos", 't"2', None, Stamp(2, NODE))
ASKED = Request(NODE, None, (PUT,), v=1, request_id="r1")


@pytest.fixture(params=["pure", "fast"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs with both codecs."""
    if request.param == "fast":
        pytest.importorskip("msgspec")
    module = importlib.import_module(f"tide.codec.{request.param}")
    monkeypatch.setattr(parsing, "load_request", module.load_request)
    monkeypatch.setattr(parsing, "load_response", module.load_response)


def asked(**fields: Any) -> bytes:
    """The body of a request with *fields*, over the required ones."""
    return json.dumps({"node_id": NODE, "cursor": None, "ops": []} | fields).encode()


def answered(**fields: Any) -> bytes:
    """The body of a response with *fields*, over the required ones."""
    return json.dumps({"cursor": "e:1", "changes": []} | fields).encode()


def an_op(**fields: Any) -> dict[str, Any]:
    """An op as it stands in a message, with *fields* over good ones."""
    return {"collection": "todos", "id": "t1", "doc": {}, "stamp": [1, NODE]} | fields


def problem(body: bytes) -> Problem:
    """Why *body* is refused as a request."""
    with pytest.raises(RequestError) as caught:
        parse_request(body)
    return caught.value.problem


def only_op(body: bytes) -> Op | BadOp:
    (op,) = parse_request(body).ops
    return op


def only_result(**fields: Any) -> Result:
    response = parse_response(answered(results=[fields]), ASKED)
    assert response.results
    return response.results[0]


# Requests


@pytest.mark.parametrize(
    "request_",
    [
        Request(NODE, None, ()),
        Request(NODE, "e:5", (PUT, DELETE), v=1, receipt="e:7", limit=5, request_id="r-1"),
        Request(NODE, "é 1", (PUT,), v=2, limit=5000),
    ],
)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert parse_request(request_.encode()) == request_


def test_the_core_fields_alone_are_a_request_of_a_core_client() -> None:
    assert parse_request(asked()) == Request(NODE, None, (), v=0, limit=1000)


def test_null_in_an_optional_field_is_its_absence() -> None:
    body = asked(v=None, receipt=None, limit=None, request_id=None)
    assert parse_request(body) == parse_request(asked())


def test_unknown_fields_of_a_request_are_ignored() -> None:
    assert parse_request(asked(horizon="x", z=[{}])) == parse_request(asked())


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"<html>", b"\xff", b'{"ops":[1]}'])
def test_what_is_not_an_object_is_no_request(body: bytes) -> None:
    refused = problem(body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert refused.detail.startswith("the body is not a sync request: ")


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"node_id": None}, "node_id must be 8 to 64 of 0-9 a-z ."),
        ({"node_id": "UPPERCASE"}, "node_id must be"),
        ({"node_id": 12345678}, "node_id must be"),
        ({"cursor": 5}, "cursor must be null or a string"),
        ({"cursor": "a\n"}, "cursor must be"),
        ({"cursor": "a" * 257}, "cursor must be"),
        ({"v": -1}, "v must be a whole number"),
        ({"v": True}, "v must be"),
        ({"v": 1.0}, "v must be"),
        ({"v": "1"}, "v must be"),
        ({"receipt": 5}, "receipt must be null or a string"),
        ({"limit": 0}, "limit must be a whole number from 1 to 5000"),
        ({"limit": 5001}, "limit must be"),
        ({"limit": "5"}, "limit must be"),
        ({"request_id": "r" * 65}, "request_id must be a string of at most 64"),
        ({"request_id": 5}, "request_id must be"),
        ({"request_id": "\ud800"}, ""),
    ],
)
def test_a_field_that_is_not_as_it_must_be_spoils_the_request(
    fields: dict[str, Any], detail: str
) -> None:
    refused = problem(asked(**fields))
    assert (refused.status, refused.code, refused.retryable) == (400, "invalid_request", False)
    assert refused.detail.startswith(detail)


@pytest.mark.parametrize("name", ["node_id", "cursor", "ops"])
def test_the_core_fields_are_required(name: str) -> None:
    fields = json.loads(asked())
    del fields[name]
    assert problem(json.dumps(fields).encode()).detail.startswith(f"{name} must be")


def test_ops_may_be_500_and_no_more() -> None:
    ops = [an_op(id=str(n)) for n in range(limits.MAX_OPS + 1)]
    assert len(parse_request(asked(ops=ops[:-1])).ops) == limits.MAX_OPS
    refused = problem(asked(ops=ops))
    assert (refused.status, refused.code) == (413, "too_large")
    assert refused.extra == {"max_ops": 500}


def test_two_ops_for_one_document_spoil_the_request() -> None:
    assert problem(asked(ops=[an_op(), an_op()])).detail.startswith("two ops for one document")
    assert problem(asked(ops=[an_op(), an_op(doc=5)])).detail.startswith("two ops for one doc")
    assert len(parse_request(asked(ops=[an_op(), an_op(collection="lists")])).ops) == 2


# Ops


def test_the_counter_of_an_op_may_be_the_greatest_there_is() -> None:
    op = only_op(asked(ops=[an_op(stamp=[MAX_COUNTER, NODE])]))
    assert isinstance(op, Op)
    assert op.stamp == Stamp(MAX_COUNTER, NODE)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"collection": "1"}, "unknown_collection"),
        ({"collection": None}, "unknown_collection"),
        ({"id": ""}, "invalid_id"),
        ({"id": "a\x00"}, "invalid_id"),
        ({"id": "é" * 128}, "invalid_id"),
        ({"id": 5}, "invalid_id"),
        ({"doc": []}, "invalid_doc"),
        ({"doc": "x"}, "invalid_doc"),
        ({"doc": {"a": 2**63}}, "invalid_doc"),
        ({"doc": {"a": "x" * limits.MAX_DOC}}, "too_large"),
    ],
)
def test_an_op_that_can_not_be_accepted_for_its_form_spoils_only_itself(
    fields: dict[str, Any], code: str
) -> None:
    bad, good = parse_request(asked(ops=[an_op(**fields), an_op(id="t2")])).ops
    assert isinstance(bad, BadOp)
    assert isinstance(good, Op)
    assert bad.code == code
    assert bad.detail
    is_named = code in ("invalid_doc", "too_large")
    assert bad.key == (("todos", "t1") if is_named else None)


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        5,
        [],
        [1],
        [1, NODE, 1],
        {"counter": 1},
        ["1", NODE],
        [1, "short"],
        [1, 5],
        [True, NODE],
        *([counter, NODE] for counter in (0, -1, 1.0, 1.5, 2**53, 2**63 - 1, 2**63, 1e300)),
    ],
)
def test_f18_a_stamp_that_is_none_is_never_taken(stamp: object) -> None:
    bad = only_op(asked(ops=[an_op(stamp=stamp)]))
    assert isinstance(bad, BadOp)
    assert bad.code == "invalid_doc"
    assert "has no stamp" in bad.detail


def test_an_op_without_a_doc_is_no_delete() -> None:
    fields = an_op()
    del fields["doc"]
    assert isinstance(only_op(asked(ops=[fields])), BadOp)
    deleted = only_op(asked(ops=[an_op(doc=None)]))
    assert isinstance(deleted, Op)
    assert deleted.doc is None


def test_an_op_is_written_with_its_document_as_it_is() -> None:
    op = Op("c", 'a"\\é', '{ "a" : 1 }', Stamp(1, NODE))
    assert encode_op(op) == (
        f'{{"collection":"c","id":"a\\"\\\\é","doc":{{ "a" : 1 }},"stamp":[1,"{NODE}"]}}'
    )
    assert op.key == ("c", 'a"\\é')


def test_a_bad_op_is_not_written() -> None:
    assert Request(NODE, None, (BadOp("x", "y"),)).encode().endswith(b'"ops":[]}')


# Responses


@pytest.mark.parametrize(
    "response",
    [
        Response("e:5", ()),
        Response("e:5", (PUT, DELETE), has_more=True, receipt="e:9", clock=7, request_id="r1"),
        Response(
            "e:5",
            (),
            results=(
                Result("ok"),
                Result("superseded", current=PUT),
                Result("restamp", min_counter=9, reason="clock_ahead"),
                Result("rejected", code="forbidden", detail="no", current=DELETE),
                Result("rejected", code="quota", detail='é "full"'),
                Result("deferred", retry_after=2.5),
            ),
        ),
    ],
)
def test_a_response_is_read_as_it_was_written(response: Response) -> None:
    assert parse_response(response.encode(), ASKED) == response


def test_the_core_fields_alone_are_a_response_of_a_core_server() -> None:
    assert parse_response(answered(), ASKED) == Response("e:1", (), results=None, clock=0)


def test_null_in_an_optional_field_of_a_response_is_its_absence() -> None:
    nothing = dict.fromkeys(("has_more", "results", "receipt", "clock", "request_id"))
    assert parse_response(answered(**nothing), ASKED) == parse_response(answered(), ASKED)
    fields = ("current", "min_counter", "reason", "code", "detail", "retry_after")
    assert only_result(status="ok", **dict.fromkeys(fields)) == Result("ok")


def test_unknown_fields_of_a_response_are_ignored() -> None:
    assert parse_response(answered(z=1, w={}), ASKED) == parse_response(answered(), ASKED)
    assert only_result(status="ok", z=1) == Result("ok")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b'{"cursor":"a"',
        b"{'cursor':'a'}",
        b"\xff",
        answered(cursor=None),
        answered(cursor=5),
        answered(cursor="\x00"),
        answered(cursor="a" * 257),
        answered(changes=None),
        answered(changes={}),
        answered(changes=[1]),
        answered(results=1),
        answered(results=False),
        answered(results=[1]),
        answered(results=[{"current": 5}]),
        answered(receipt=5),
        answered(clock=-1),
        answered(clock=1.0),
        answered(clock=True),
        answered(clock=MAX_WIRE_COUNTER + 1),
        answered(request_id="other"),
        answered(request_id=1),
    ],
)
def test_f38_nothing_of_an_answer_that_is_not_the_protocol_is_taken(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response(body, ASKED)


def test_f39_an_answer_cut_off_anywhere_is_refused() -> None:
    whole = Response("e:5", (PUT, DELETE), results=(Result("ok"),), request_id="r1").encode()
    for size in range(len(whole)):
        with pytest.raises(ProtocolError):
            parse_response(whole[:size], ASKED)


def test_f05_an_answer_to_another_request_is_refused() -> None:
    with pytest.raises(ProtocolError, match="belongs to another request"):
        parse_response(answered(request_id="r2"), ASKED)
    assert parse_response(answered(request_id="r1"), ASKED).request_id == "r1"


@pytest.mark.parametrize(
    "fields",
    [
        {"collection": "1"},
        {"id": ""},
        {"doc": []},
        {"stamp": [0, NODE]},
        {"stamp": None},
        {"stamp": [MAX_WIRE_COUNTER + 1, NODE]},
        {"stamp": [2**63, NODE]},
        {"doc": {"a": 2**64}},
    ],
)
def test_f04_one_change_that_can_not_be_stored_spoils_the_whole_answer(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(ProtocolError, match="a change that can't be stored"):
        parse_response(answered(changes=[an_op(), an_op(**fields)]), ASKED)
    with pytest.raises(ProtocolError, match="a change that can't be stored"):
        only_result(status="rejected", current=an_op(**fields))


def test_f18_a_change_may_have_the_greatest_counter_of_the_wire() -> None:
    (change,) = parse_response(
        answered(changes=[an_op(stamp=[MAX_WIRE_COUNTER, NODE])]), ASKED
    ).changes
    assert change.stamp.counter == MAX_WIRE_COUNTER


@pytest.mark.parametrize("has_more", [1, "true", [True], None, False])
def test_only_true_means_that_there_is_more(has_more: object) -> None:
    assert parse_response(answered(has_more=has_more), ASKED).has_more is False
    assert parse_response(answered(has_more=True), ASKED).has_more is True


# Results


@pytest.mark.parametrize("status", ["accepted", "OK", "", None, 5, [], {}, True])
def test_f10_an_unknown_status_is_no_acknowledgement(status: object) -> None:
    assert only_result(status=status).status == "unknown"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_f10_results_may_be_fewer_or_more_than_the_ops(count: int) -> None:
    response = parse_response(answered(results=[{"status": "ok"}] * count), ASKED)
    assert response.results == (Result("ok"),) * count


@pytest.mark.parametrize("min_counter", [-1, 1.5, "5", True, MAX_WIRE_COUNTER + 1, 2**63])
def test_a_min_counter_out_of_range_spoils_the_answer(min_counter: object) -> None:
    with pytest.raises(ProtocolError, match="min_counter"):
        only_result(status="restamp", min_counter=min_counter)


@pytest.mark.parametrize("retry_after", [-1, -0.5, "5", True, [5]])
def test_a_retry_after_that_is_no_time_spoils_the_answer(retry_after: object) -> None:
    with pytest.raises(ProtocolError, match="retry_after"):
        only_result(status="deferred", retry_after=retry_after)


@pytest.mark.parametrize(
    ("told", "taken"), [(0, 0.0), (1.5, 1.5), (1e12, 3600.0), (10**400, 3600.0)]
)
def test_nobody_waits_for_more_than_an_hour(told: float, taken: float) -> None:
    assert only_result(status="deferred", retry_after=told).retry_after == taken


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("why", "why"),
        ("", ""),
        (None, ""),
        (5, ""),
        ({}, ""),
        ("x" * 5000, "x" * 1000),
        ("a\ud800b", "a?b"),
    ],
)
def test_words_from_a_server_can_be_stored_and_shown(value: object, text: str) -> None:
    assert readable(value) == text
    readable(value).encode()


# Problems


def test_a_problem_is_problem_json_with_its_code_and_limits() -> None:
    body = Problem(413, "too_large", "501 ops, at most 500", extra={"max_ops": 500}).encode()
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "too large",
        "status": 413,
        "code": "too_large",
        "detail": "501 ops, at most 500",
        "retryable": False,
        "max_ops": 500,
    }


# Anything


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from([NODE, "ok", "rejected", "e:1", 2**53, 2**64, "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
OPS = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("collection", "id", "doc", "stamp"), JSON))
    | JSON,
    max_size=3,
)
RESULTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "current": JSON | st.just(an_op()),
            **dict.fromkeys(
                ("status", "min_counter", "reason", "code", "detail", "retry_after"), JSON
            ),
        },
    ),
    max_size=3,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("v", "receipt", "limit", "request_id", "node_id", "cursor"), JSON)
        | {"ops": OPS | JSON},
    )
)
def test_any_request_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        parsed = parse_request(asked(**fields))
    except RequestError as error:
        error.problem.encode()
    else:
        assert parse_request(parsed.encode())._replace(ops=()) == parsed._replace(ops=())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("cursor", "has_more", "receipt", "clock", "request_id"), JSON)
        | {"changes": OPS | JSON, "results": RESULTS | JSON},
    )
)
def test_any_answer_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        parsed = parse_response(answered(**fields), ASKED)
    except ProtocolError:
        return
    parsed.encode()
