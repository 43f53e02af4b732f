"""The server as an app: its answers over HTTP, its problems, and how it lives in other apps."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support import served
from tide import Tide
from tide.limits import MAX_OPS
from tide.protocol import Request, parse_response
from tide.server import Write, create_app
from tide.server.storage import sqlite

NODE = "alice.phone.0001"
JSON = {"content-type": "application/json"}
numbers = itertools.count(1)


def op(id_="1", counter=1, doc=None, node=NODE):
    doc = {"n": counter} if doc is None else doc
    return {"collection": "todos", "id": id_, "doc": doc, "stamp": [counter, node]}


def asks(*ops, cursor=None, **fields):
    return {"node_id": NODE, "cursor": cursor, "ops": list(ops), "v": 1, **fields}


@pytest.fixture
async def app(tmp_path):
    app = create_app(tmp_path / "server.db")
    yield app
    await app.state.service.aclose()


def calling(app, **options):
    """An HTTP client of *app* that no network lies between."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://tide")


@pytest.fixture
async def http(app):
    async with calling(app) as http:
        yield http


# Answers


async def test_an_exchange_answers_as_the_protocol_says(http):
    answer = await http.post("/sync", json=asks(op("1", 1), op("2", 2), request_id="r1"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    request = Request(NODE, None, (), request_id="r1")
    response = parse_response(answer.content, request)
    assert [result.status for result in response.results or ()] == ["ok", "ok"]
    assert (response.clock, response.cursor) == (2, response.receipt)


async def test_sync_is_the_space_default_and_each_space_is_its_own(http):
    await http.post("/sync", json=asks(op("1", 1, {"in": "default"})))
    await http.post("/sync/home", json=asks(op("1", 1, {"in": "home"})))
    found = {}
    for path in ("/sync", "/sync/default", "/sync/home", "/sync/Home"):
        (*docs,) = [c["doc"] for c in (await http.post(path, json=asks())).json()["changes"]]
        found[path] = docs
    assert found == {
        "/sync": [{"in": "default"}],
        "/sync/default": [{"in": "default"}],
        "/sync/home": [{"in": "home"}],
        "/sync/Home": [],
    }


@pytest.mark.parametrize("path", ["/sync", "/sync/home"])
async def test_get_tells_what_the_server_speaks(http, path):
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.json() == {
        "protocol": "tide",
        "versions": [1],
        "features": ["results", "gzip", "live"],
        "limits": {
            "max_ops": 500,
            "max_body_bytes": 4 << 20,
            "max_inflated_bytes": 8 << 20,
            "max_doc_bytes": 1 << 20,
            "max_doc_depth": 64,
            "max_id_bytes": 255,
            "max_changes": 5000,
            "default_changes": 1000,
        },
    }


async def test_an_answer_is_gzipped_for_who_takes_that(http):
    await http.post("/sync", json=asks(op("1", 1, {"text": "x" * 100_000})))
    plain = await http.post("/sync", json=asks(), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for accepted in ("gzip", "br, gzip", "GZIP"):
        async with http.stream(
            "POST", "/sync", json=asks(), headers={"accept-encoding": accepted}
        ) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "accept-encoding"
        assert len(raw) < 2000
        assert gzip.decompress(raw) == plain.content


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "*", "notgzip"])
async def test_nobody_gets_gzip_who_did_not_ask_for_it(http, accepted):
    await http.post("/sync", json=asks(op("1", 1, {"text": "x" * 5000})))
    answer = await http.post("/sync", json=asks(), headers={"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert len(answer.json()["changes"]) == 1


# Headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/sync", 200),
        ("GET", "/sync", 200),
        ("GET", "/healthz", 200),
        ("GET", "/", 404),
        ("PUT", "/sync", 405),
        ("OPTIONS", "/sync", 405),
        ("POST", "/sync/1", 404),
        ("POST", "/sync/a", 400),
    ],
)
async def test_every_answer_forbids_storing_and_guessing_and_opens_nothing_to_web_pages(
    http, method, path, status
):
    body = asks() if status == 200 else {}
    headers = {"access-control-request-method": "POST"}
    answer = await http.request(method, path, json=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "set-cookie" not in answer.headers
    assert "server" not in answer.headers


# Problems


def problem(answer):
    """What a problem says that programs read; everything else about it is checked here."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert said["type"] == "about:blank"
    assert said["title"] == said["code"].replace("_", " ")
    assert said["detail"]
    return answer.status_code, said["code"], said["retryable"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/"),
        ("POST", "/sync/"),
        ("POST", "/sync/home/"),
        ("POST", "/sync/a/b"),
        ("POST", "/Sync"),
        ("GET", "/sync.html"),
        ("GET", "/docs"),
        ("GET", "/healthz/"),
    ],
)
async def test_another_path_is_404_and_the_answer_names_the_right_one(http, method, path):
    answer = await http.request(method, path, json=asks())
    assert problem(answer) == (404, "not_found", False)
    assert "/sync/{space}" in answer.json()["detail"]


@pytest.mark.parametrize(
    "space",
    ["1", "_a", "a%20b", "%C3%A9", "a" * 65, "a%0A", "a%00", "%FF", "a%2Fb", "a;b", "'--", "a%25"],
)
async def test_f67_a_space_that_none_can_be_called_is_404(http, space, tmp_path):
    answer = await http.post(f"/sync/{space}", json=asks(op()))
    assert problem(answer) == (404, "not_found", False)
    assert not (tmp_path / "server.db").exists()


@pytest.mark.parametrize("space", ["a", "Z", "a-b_c.d", "a" * 64, "a..", "default", "sync"])
async def test_any_other_name_can_be_a_space(http, space):
    assert (await http.post(f"/sync/{space}", json=asks(op()))).status_code == 200


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path in ("/sync", "/sync/a") for method in ("PUT", "DELETE", "PATCH")]
    + [("/healthz", "POST"), ("/sync", "OPTIONS")],
)
async def test_another_method_is_405_and_the_answer_names_the_right_ones(http, path, method):
    answer = await http.request(method, path)
    assert problem(answer) == (405, "method_not_allowed", False)
    allowed = set(answer.headers["allow"].split(", "))
    assert allowed == ({"GET", "HEAD"} if path == "/healthz" else {"GET", "HEAD", "POST"})


WRONG_FIELDS: list[dict[str, Any]] = [
    {"node_id": None},
    {"node_id": "UPPERCASE"},
    {"node_id": "short"},
    {"node_id": 12345678},
    {"cursor": 5},
    {"cursor": "x" * 257},
    {"cursor": "a\nb"},
    {"ops": None},
    {"ops": {}},
    {"ops": "[]"},
    {"ops": [None]},
    {"ops": [[]]},
    {"v": -1},
    {"v": "1"},
    {"v": True},
    {"limit": 0},
    {"limit": 5001},
    {"limit": True},
    {"limit": 1.0},
    {"receipt": 7},
    {"receipt": {}},
    {"request_id": 7},
    {"request_id": "x" * 65},
    {"request_id": "\ud800"},
    {"ops": [op("1", 1), op("1", 2)]},
]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{}",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"<html>",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        json.dumps(asks()).encode()[:-1],
        json.dumps(asks()).encode() + b"}",
        json.dumps(asks()).encode("utf-16"),
        *(json.dumps({**asks(), **wrong}).encode() for wrong in WRONG_FIELDS),
    ],
)
async def test_what_is_no_request_is_400(http, body):
    answer = await http.post("/sync", content=body, headers=JSON)
    assert problem(answer) == (400, "invalid_request", False)


async def test_a_field_that_is_missing_is_400(http):
    for name in ("node_id", "cursor", "ops"):
        body = asks()
        del body[name]
        answer = await http.post("/sync", json=body)
        assert problem(answer) == (400, "invalid_request", False)
        assert name in answer.json()["detail"]


async def test_what_nobody_knows_is_ignored(http):
    body = {**asks({**op(), "seq": 7, "who": "root"}), "space": "other", "epoch": "x", "v": 2}
    answer = await http.post("/sync", json=body)
    assert answer.json()["results"] == [{"status": "ok"}]
    (change,) = (await http.post("/sync", json=asks())).json()["changes"]
    assert change == op()


async def test_a_reset_is_409(http):
    answer = await http.post("/sync", json=asks(cursor="ffffffffffffffff:9"))
    assert problem(answer) == (409, "reset", False)
    assert answer.json()["reset"] == "restored"


async def test_too_many_ops_are_413_and_the_answer_says_how_many_may_be(http):
    ops = [op(str(n), n + 1) for n in range(MAX_OPS + 1)]
    answer = await http.post("/sync", json=asks(*ops))
    assert problem(answer) == (413, "too_large", False)
    assert answer.json()["max_ops"] == MAX_OPS
    assert (await http.post("/sync", json=asks())).json()["changes"] == []
    assert (await http.post("/sync", json=asks(*ops[:-1]))).status_code == 200


async def test_another_type_is_415(http):
    answer = await http.post("/sync", content=b"{}", headers={"content-type": "text/plain"})
    assert problem(answer) == (415, "unsupported_media_type", False)


async def test_f10_a_bad_op_of_a_core_client_is_422(http):
    body = asks(op("1", 1), op("", 2))
    del body["v"]
    answer = await http.post("/sync", json=body)
    assert problem(answer) == (422, "invalid_ops", False)
    assert [bad["op"] for bad in answer.json()["ops"]] == [1]


async def test_f48_a_database_that_is_locked_is_503_for_now(http, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    await http.post("/sync", json=asks())
    with contextlib.closing(sqlite3.connect(tmp_path / "server.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = await http.post("/sync", json=asks(op()))
        other.execute("ROLLBACK")
    assert problem(answer) == (503, "unavailable", True)
    assert int(answer.headers["retry-after"]) >= 1
    assert str(tmp_path) not in answer.text
    assert (await http.post("/sync", json=asks())).json()["changes"] == []
    assert "the database failed" in caplog.text


async def test_a_database_that_cannot_be_opened_is_503_until_it_can(tmp_path):
    app = create_app(tmp_path / "later" / "server.db")
    async with calling(app) as http:
        answer = await http.post("/sync", json=asks(op()))
        assert problem(answer) == (503, "unavailable", True)
        (tmp_path / "later").mkdir()
        assert (await http.post("/sync", json=asks(op()))).status_code == 200
    await app.state.service.aclose()


async def test_a_failure_that_nobody_foresaw_gives_nothing_away(tmp_path, caplog):
    def validate(write: Write) -> str | None:
        raise RuntimeError("hunter2")

    app = create_app(tmp_path / "server.db", validate=validate)
    async with calling(app) as http:
        answer = await http.post("/sync", json=asks(op()))
        assert problem(answer) == (500, "internal", True)
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        assert (await http.post("/sync", json=asks())).json()["changes"] == []
    assert "hunter2" in caplog.text  # the operator wants to know
    await app.state.service.aclose()


async def test_validate_refuses_single_writes(tmp_path):
    def validate(write: Write) -> str | None:
        done = write.doc is not None and write.doc.get("done") == "maybe"
        return f"{write.who}, done is yes or no" if done else None

    app = create_app(tmp_path / "server.db", validate=validate)
    async with calling(app) as http:
        ops = [op("1", 1, {"done": "maybe"}), op("2", 2, {"done": "yes"})]
        bad, good = (await http.post("/sync", json=asks(*ops))).json()["results"]
    assert (bad["code"], bad["detail"]) == ("forbidden", "anonymous, done is yes or no")
    assert good == {"status": "ok"}
    await app.state.service.aclose()


# Logs


async def test_a_line_is_logged_for_each_exchange_with_no_id_no_document_and_no_header(
    http, caplog
):
    caplog.set_level(logging.INFO, "tide.server")
    headers = {"authorization": "Bearer hunter2", "cookie": "hunter2"}
    ops = [op("hunter2-id", 1, {"hunter2-key": "hunter2-value"}), op("2", 2)]
    await http.post("/sync/home", json=asks(*ops, request_id="hunter2-r"), headers=headers)
    await http.post("/sync/home", json=asks(cursor="hunter2"), headers=headers)
    lines = [record.getMessage() for record in caplog.records if record.name == "tide.server"]
    assert len(lines) == 2
    assert "hunter2" not in "".join(lines)
    for known in ("space=home", f"node={NODE}", "ops=2", "status=200", "code=ok"):
        assert known in lines[0]
    assert "status=409 code=reset" in lines[1]


# Many at once


async def test_f14_a_reader_that_pages_while_many_write_misses_nothing(tmp_path):
    writers, each = 8, 12
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with httpx.AsyncClient(timeout=30) as http:

            async def write(number):
                node = f"writer.{number:06}"
                for count in range(each):
                    one = op(f"{number}.{count}", count + 1, node=node)
                    shared = op(f"shared {count}", count + 1, {"by": number}, node=node)
                    await http.post(endpoint, json=asks(one, shared))

            async def read(done):
                cursor, held = None, dict[str, Any]()
                while True:
                    last = done.is_set()
                    page = (await http.post(endpoint, json=asks(cursor=cursor, limit=3))).json()
                    cursor = page["cursor"]
                    for change in page["changes"]:
                        found = held.get(change["id"])
                        assert found is None or change["stamp"] > found["stamp"]
                        held[change["id"]] = change
                    if last and not page.get("has_more"):
                        return held

            done = asyncio.Event()
            reading = asyncio.ensure_future(read(done))
            await asyncio.gather(*(write(number) for number in range(writers)))
            done.set()
            held = await reading
            everything = (await http.post(endpoint, json=asks())).json()["changes"]
    assert held == {change["id"]: change for change in everything}
    assert len(held) == writers * each + each
    greatest = f"writer.{writers - 1:06}"
    assert all(held[f"shared {n}"]["stamp"] == [n + 1, greatest] for n in range(each))


# In another app


async def test_an_app_that_hears_of_startup_opens_its_database_then(tmp_path):
    app = create_app(tmp_path / "server.db")
    async with app.router.lifespan_context(app):
        assert (tmp_path / "server.db").exists()
        async with calling(app) as http:
            await http.post("/sync", json=asks(op()))
    assert [path.name for path in tmp_path.iterdir()] == ["server.db"]


def threads_of(folder):
    return [thread for thread in threading.enumerate() if str(folder) in thread.name]


async def test_apps_mounted_where_no_lifespan_reaches_them_open_at_the_first_request(tmp_path):
    one, two = create_app(tmp_path / "1.db"), create_app(tmp_path / "2.db")
    outer = Starlette(routes=[Mount("/one", one), Mount("/deep/two", two)])
    async with outer.router.lifespan_context(outer), calling(outer) as http:
        assert list(tmp_path.iterdir()) == []
        assert (await http.get("/one/sync")).status_code == 200
        await http.post("/one/sync", json=asks(op("1", 1)))
        assert not (tmp_path / "2.db").exists()
        await http.post("/deep/two/sync/home", json=asks(op("2", 1)))
        for path, ids in (("/one/sync", ["1"]), ("/deep/two/sync/home", ["2"])):
            changes = (await http.post(path, json=asks())).json()["changes"]
            assert [change["id"] for change in changes] == ids
        assert problem(await http.get("/one/other"))[0] == 404
        assert problem(await http.put("/one/sync"))[0] == 405
    assert len(threads_of(tmp_path)) == 2
    await one.state.service.aclose()
    await two.state.service.aclose()
    assert threads_of(tmp_path) == []


async def test_a_node_syncs_with_a_mounted_app(tmp_path):
    app = create_app(tmp_path / "server.db")
    with served(Starlette(routes=[Mount("/api/tide", app)])) as endpoint:
        mounted = endpoint.removesuffix("/sync") + "/api/tide/sync/home"
        async with Tide(tmp_path / "app.db", mounted) as tide:
            await tide.collection("todos").put("1", {"text": "bread"})
            assert (await tide.sync_once()).pushed == 1
    await app.state.service.aclose()


async def test_an_app_can_be_mounted_under_plain_asgi(tmp_path):
    app = create_app(tmp_path / "server.db")

    async def outer(scope, receive, send):
        assert scope["type"] == "http"  # no lifespan at all
        await app({**scope, "root_path": "/x"}, receive, send)

    async with calling(outer) as http:
        assert (await http.post("/x/sync", json=asks(op()))).status_code == 200
    await app.state.service.aclose()


FORGETFUL = """
import asyncio, gc, sys, threading
import httpx
from starlette.applications import Starlette
from starlette.routing import Mount
from tide.server import create_app

async def main():
    outer = Starlette(routes=[Mount("/1", create_app("1.db")), Mount("/2", create_app("2.db"))])
    transport = httpx.ASGITransport(outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://tide") as http:
        for number in "12":
            op = {"collection": "a", "id": number, "doc": {}, "stamp": [1, "node.0001"]}
            body = {"node_id": "node.0001", "cursor": None, "ops": [op]}
            assert (await http.post(f"/{number}/sync", json=body)).status_code == 200
    return outer

kept = asyncio.run(main())
if sys.argv[1] == "drop":
    del kept
    gc.collect()
    assert threading.active_count() == 1, threading.enumerate()
"""


@pytest.mark.parametrize("how", ["drop", "exit"])
def test_f62_an_app_that_nobody_closes_is_closed_without_a_word(tmp_path, how):
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", FORGETFUL, how]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db"]


async def test_one_app_can_be_used_from_one_event_loop_after_the_other(tmp_path):
    app = create_app(tmp_path / "server.db")

    def elsewhere(number):
        async def main():
            async with calling(app) as http:
                return (await http.post("/sync", json=asks(op(number, 1)))).status_code

        return asyncio.run(main())

    assert [await asyncio.to_thread(elsewhere, number) for number in "123"] == [200] * 3
    await app.state.service.aclose()
