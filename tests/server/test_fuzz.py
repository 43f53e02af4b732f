"""No input makes the server fail: it answers 200, or a problem below 500, and goes on."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tide.protocol import EventReader, Request, parse_response
from tide.server import create_app

NODE = "alice.phone.0001"
fuzz = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALID: dict[str, Any] = {
    "node_id": NODE,
    "cursor": None,
    "v": 1,
    "receipt": None,
    "limit": 3,
    "request_id": "r1",
    "ops": [
        {"collection": "todos", "id": "1", "doc": {"a": [1, {"b": None}]}, "stamp": [1, NODE]},
        {"collection": "todos", "id": "2", "doc": None, "stamp": [2, NODE]},
    ],
}

numbers = st.one_of(
    st.sampled_from([0, -1, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, 1e300, -0.0, 1.5]),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
)
texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc"]), max_size=3),
    st.sampled_from(["", "\0", "\ud800", "'", '"', "e:1", "ffffffffffffffff:0", "a" * 300, NODE]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


class Server:
    """An app in a folder of its own, asked without a network."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.app = create_app(Path(self.folder.name) / "server.db")
        self.app.state.service.hub.ending = lambda: True  # so that a live stream ends soon
        # What it does not foresee would be a 500, and what not even that catches is raised here.
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://tide")

    def ask(self, body, path="/sync", method="POST", **headers):
        headers = {"content-type": "application/json", **headers}
        answer = self.loop.run_until_complete(
            self.http.request(method, path, content=body, headers=headers)
        )
        check(answer)
        return answer

    def close(self):
        self.loop.run_until_complete(self.http.aclose())
        self.loop.run_until_complete(self.app.state.service.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def check(answer):
    """The answer is one of PROTOCOL.md's."""
    assert answer.status_code < 500, answer.text
    assert answer.headers["cache-control"] == "no-store"
    if answer.headers["content-type"] == "text/event-stream":
        names = [event.name for event in EventReader().feed(answer.content)]
        assert names == ["changes", "bye"]
        return
    said = json.loads(answer.content)  # strictly UTF-8, and JSON
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["status"] == answer.status_code
        assert {"code", "detail", "retryable", "title", "type"} <= set(said)


def text(value):
    """JSON, or what Python takes for it: lone surrogates, NaN, numbers of any size."""
    return json.dumps(value, ensure_ascii=True).encode()


@fuzz
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_are_answered(server, body):
    server.ask(body)
    server.ask(body, **{"content-encoding": "gzip"})
    server.ask(gzip.compress(body), **{"content-encoding": "gzip"})


@fuzz
@given(values)
def test_any_json_is_answered(server, value):
    server.ask(text(value))


@fuzz
@given(st.dictionaries(st.sampled_from([*VALID, "x"]), values))
def test_any_fields_are_answered(server, fields):
    server.ask(text({**VALID, **fields}))


@fuzz
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "collection": texts | values,
            "id": texts | values,
            "doc": st.dictionaries(texts, values, max_size=4) | values,
            "stamp": st.tuples(numbers | values, st.just(NODE) | texts) | values,
        },
    )
)
def test_any_op_is_answered_and_its_neighbour_is_taken(server, fields):
    odd, good = {**VALID["ops"][0], **fields}, VALID["ops"][1]
    assume((odd["collection"], odd["id"]) != (good["collection"], good["id"]))
    body = text({**VALID, "ops": [odd, good]})
    answer = server.ask(body, "/sync/ops")
    if answer.status_code == 400:  # what no JSON reader has to take
        assert re.search(rb"\\ud[89a-f]|NaN|Infinity|[0-9]{19}", body)
    else:
        assert len(answer.json()["results"]) == 2
        assert answer.json()["results"][1] == {"status": "ok"}


@st.composite
def mutations(draw):
    """The valid request with values somewhere inside put in, left out or doubled."""
    value = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = value, draw(st.sampled_from(sorted(value)))
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.booleans()):
            holder = holder[key]
            key = draw(
                st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
            )
        match draw(st.sampled_from(["put", "drop", "double"])):
            case "put":
                holder[key] = draw(values)
            case "drop":
                del holder[key]
            case "double":
                if isinstance(holder, list):
                    holder.append(holder[key])
        assume(value)
    return value


@fuzz
@given(mutations())
def test_a_request_with_anything_wrong_is_answered_and_the_answer_parses(server, value):
    answer = server.ask(text(value))
    if answer.status_code == 200:
        request = Request(NODE, None, (), request_id=value.get("request_id"))
        response = parse_response(answer.content, request)
        if response.results is not None:
            assert len(response.results) == len(value["ops"])


@fuzz
@given(st.integers(0, 1000), st.binary(max_size=3), st.integers(0, 5))
def test_a_request_with_bytes_replaced_is_answered(server, at, new, cut):
    body = text(VALID)
    at %= len(body)
    server.ask(body[:at] + new + body[at + cut :])


@fuzz
@given(mutations())
def test_a_request_of_a_core_client_is_answered(server, value):
    value.pop("v", None)
    assert "results" not in server.ask(text(value)).json()


@fuzz
@given(
    st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "BREW"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_any_path_and_method_are_answered(server, method, path):
    quoted = "".join(f"%{byte:02X}" for byte in path.encode())
    for prefix in ("/", "/sync/"):
        server.ask(text(VALID), prefix + quoted, method)


HEADERS = ["content-type", "content-encoding", "content-length", "accept", "accept-encoding",
           "authorization", "x-forwarded-for", "host", "expect", "transfer-encoding"]  # fmt: skip


@fuzz
@given(
    st.sampled_from(HEADERS),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"9" * 5000, b"-1", b"gzip", b"application/json", b"text/event-stream"]),
    ),
    st.sampled_from(["GET", "POST"]),
)
@example("accept", b"text/event-stream", "GET")
def test_any_header_is_answered(server, name, value, method):
    server.ask(text(VALID), method=method, **{name: value})


def test_after_all_that_it_still_works(server):
    """Run alone it says little; run after the others it says that they broke nothing."""
    fresh = {**VALID, "ops": [{**VALID["ops"][0], "id": "at the end", "stamp": [1000, NODE]}]}
    assert server.ask(text(fresh), "/sync/fresh").json()["results"] == [{"status": "ok"}]
