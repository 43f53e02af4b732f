"""Reading a request's body: its limits hold before and while it is read."""

from __future__ import annotations

import gzip
import itertools
import socket
import tracemalloc
import zlib

import httpx
import pytest

from tests.support import served
from tide.errors import RequestError
from tide.limits import MAX_BODY, MAX_INFLATED
from tide.server import app as server_app
from tide.server import bodies, create_app

NODE = "alice.phone.0001"
OP = f'{{"collection":"todos","id":"1","doc":{{"a":1}},"stamp":[1,"{NODE}"]}}'
PUSH = f'{{"node_id":"{NODE}","cursor":null,"v":1,"ops":[{OP}]}}'.encode()
PULL = f'{{"node_id":"{NODE}","cursor":null,"ops":[]}}'.encode()
numbers = itertools.count()
JSON = {"content-type": "application/json"}
GZIP = {**JSON, "content-encoding": "gzip"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with served(create_app(tmp_path_factory.mktemp("server") / "server.db")) as endpoint:
        yield endpoint


@pytest.fixture
def space(endpoint):
    """The endpoint of a space for this test alone."""
    return f"{endpoint}/test{next(numbers)}-"


async def post(url, content, headers=JSON):
    async with httpx.AsyncClient() as http:
        return await http.post(url, content=content, headers=headers)


async def stored(url):
    return (await post(url, PULL)).json()["changes"]


async def chunks(*parts):
    for part in parts:
        yield part


def padded(size):
    return PUSH[:-1] + b" " * (size - len(PUSH)) + b"}"


# Headers


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;x",
    ],
)
async def test_json_is_taken(space, kind):
    assert (await post(space, PUSH, {"content-type": kind})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=application/json"},
        {"content-type": "application/jsonx"},
        {**JSON, "content-encoding": "br"},
        {**JSON, "content-encoding": "gzip, gzip"},
        {**JSON, "content-encoding": "deflate"},
    ],
)
async def test_another_type_or_encoding_is_refused(space, headers):
    answer = await post(space, PUSH, headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.text or "gzip" in answer.text
    assert await stored(space) == []


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "²", "+5", "0x10", "1,1"])
def test_a_length_that_is_no_number_is_refused(length):
    with pytest.raises(RequestError, match="content-length") as caught:
        bodies.check_head({**JSON, "content-length": length})
    assert caught.value.problem.status == 400


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 20, "9" * 5000])
def test_f40_a_length_that_is_too_much_is_refused_before_anything_is_read(length):
    with pytest.raises(RequestError) as caught:
        bodies.check_head({**JSON, "content-length": length})
    assert caught.value.problem.status == 413
    assert caught.value.problem.extra == {"max_bytes": MAX_BODY}


def test_f40_a_body_is_refused_by_its_length_alone(space):
    """Over a bare socket: the body itself is never sent."""
    host, port = space.removeprefix("http://").split("/")[0].split(":")
    path = "/" + space.removeprefix("http://").split("/", 1)[1]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {MAX_BODY + 1}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(head.encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 413")


# Size


async def test_a_body_may_have_4_mib_and_no_byte_more(space):
    assert (await post(space, padded(MAX_BODY))).status_code == 200
    answer = await post(f"{space}b", padded(MAX_BODY + 1))
    assert answer.status_code == 413
    assert {**answer.json(), "detail": ""} == {
        "type": "about:blank",
        "title": "too large",
        "status": 413,
        "code": "too_large",
        "detail": "",
        "retryable": False,
        "max_bytes": MAX_BODY,
    }
    assert await stored(f"{space}b") == []


async def test_a_body_of_unknown_length_is_counted_while_it_is_read(space):
    whole = padded(MAX_BODY + 1)
    answer = await post(space, chunks(whole[:-1], whole[-1:]))
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, MAX_BODY)
    assert await stored(space) == []
    assert (await post(space, chunks(PUSH[:10], PUSH[10:]))).status_code == 200


async def test_a_body_that_is_too_large_is_not_read_to_its_end():
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1 << 20
            yield b" " * (1 << 20)

    with pytest.raises(RequestError):
        await bodies.read(JSON, endless())
    assert read == MAX_BODY + (1 << 20)


# gzip


async def test_a_gzipped_body_is_inflated(space):
    squeezed = gzip.compress(PUSH)
    assert (await post(space, squeezed, GZIP)).json()["results"] == [{"status": "ok"}]
    slowly = chunks(*(squeezed[n : n + 1] for n in range(len(squeezed))))
    assert (await post(space, slowly, {**GZIP, "content-encoding": "GZIP"})).status_code == 200


async def test_f40_a_body_may_have_8_mib_inflated_and_no_byte_more(space):
    assert (await post(space, gzip.compress(padded(MAX_INFLATED)), GZIP)).status_code == 200
    answer = await post(f"{space}b", gzip.compress(padded(MAX_INFLATED + 1)), GZIP)
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, MAX_INFLATED)
    assert await stored(f"{space}b") == []


async def test_f40_a_gzip_bomb_needs_no_more_memory_than_a_body_may_have():
    deflater = zlib.compressobj(9, wbits=31)
    zeros = b"\0" * (1 << 20)
    bomb = b"".join(deflater.compress(zeros) for _ in range(300)) + deflater.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            await bodies.read(GZIP, chunks(bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.problem.status == 413
    assert peak < 3 * MAX_INFLATED


async def test_f40_gzip_within_gzip_is_inflated_once(space):
    answer = await post(space, gzip.compress(gzip.compress(PUSH)), GZIP)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "broken",
    [
        PUSH,
        b"",
        b"\x1f\x8b",
        zlib.compress(PUSH),
        gzip.compress(PUSH)[:-9] + b"\0" * 9,
        gzip.compress(PUSH) + b"more",
        gzip.compress(PUSH) + gzip.compress(b" "),
    ],
)
async def test_f39_what_is_not_one_whole_gzip_is_refused(space, broken):
    answer = await post(space, broken, GZIP)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "gzip" in answer.json()["detail"]
    assert await stored(space) == []


async def test_f39_a_gzip_cut_at_any_byte_is_refused():
    squeezed = gzip.compress(PUSH)
    for size in range(len(squeezed)):
        with pytest.raises(RequestError, match="gzip") as caught:
            await bodies.read(GZIP, chunks(squeezed[:size]))
        assert caught.value.problem.status == 400
    assert await bodies.read(GZIP, chunks(squeezed)) == PUSH


# Time


async def test_a_body_that_comes_too_slowly_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(server_app, "BODY_DEADLINE", 0.1)
    with served(create_app(tmp_path / "server.db")) as endpoint:
        host, port = endpoint.removeprefix("http://").split("/")[0].split(":")
        head = f"POST /sync HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as line:
            line.sendall(f"{head}Content-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH[:-1])
            answer = line.recv(1000)
            while not answer.endswith(b"}"):
                answer += line.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"timeout"' in answer
        assert b'"retryable":true' in answer
        assert await stored(endpoint) == []


async def test_a_body_that_is_cut_off_stores_nothing_and_troubles_nobody(tmp_path, caplog):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        host, port = endpoint.removeprefix("http://").split("/")[0].split(":")
        head = f"POST /sync HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        for size in (0, 1, len(PUSH) - 1):
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(f"{head}Content-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH[:size])
        assert await stored(endpoint) == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
