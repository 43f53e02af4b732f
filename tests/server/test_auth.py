"""Who is let in: the rule for this machine, `authenticate`, and bearer tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support import served
from tide import ForbiddenError, Tide, UnauthorizedError
from tide.server import Access, bearer, create_app

NODE = "alice.phone.0001"
LOCAL = ("127.0.0.1", 50000)
ELSEWHERE = ("10.0.0.1", 50000)
PULL: dict[str, Any] = {"node_id": NODE, "cursor": None, "ops": [], "v": 1}
PUSH: dict[str, Any] = {
    **PULL,
    "ops": [{"collection": "todos", "id": "1", "doc": {"a": 1}, "stamp": [1, NODE]}],
}


@pytest.fixture
async def ask(tmp_path):
    """Asks an app with these options, as if from *client*."""
    services = []

    async def ask(
        body=PULL, *, method="POST", space="default", client=LOCAL, headers=None, **options
    ):
        app = create_app(tmp_path / "server.db", **options)
        services.append(app.state.service)
        transport = httpx.ASGITransport(app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://tide") as http:
            url = f"/sync/{space}"
            return await http.request(
                method, url, json=body if method == "POST" else None, headers=headers
            )

    yield ask
    for service in services:
        await service.aclose()


def token(text):
    return {"authorization": f"Bearer {text}"}


# Without authenticate


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"]
)
async def test_a_program_on_this_machine_is_let_in(ask, address, method):
    assert (await ask(method=method, client=(address, 1))).status_code == 200


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    "client",
    [
        ("10.0.0.1", 1),
        ("192.168.1.5", 1),
        ("::ffff:10.0.0.1", 1),
        ("::", 1),
        ("0.0.0.0", 1),
        ("fe80::1", 1),
        ("127.0.0.1.example.com", 1),
        ("localhost", 1),
        ("", 1),
        None,
    ],
)
async def test_who_comes_from_elsewhere_or_from_nowhere_is_told_how_to_be_let_in(
    ask, client, method
):
    answer = await ask(method=method, client=client)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    problem = answer.json()
    assert (problem["code"], problem["retryable"]) == ("unauthorized", False)
    for way in ("authenticate=", "anonymous=True", "--token-file", "--anonymous"):
        assert way in problem["detail"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("Origin", "http://127.0.0.1"),
    ],
)
async def test_a_proxy_or_a_browser_on_this_machine_speaks_for_others(ask, name, value):
    assert (await ask(headers={name: value})).status_code == 401


async def test_uvicorn_believing_a_proxy_lets_nobody_in(tmp_path):
    with served(create_app(tmp_path / "server.db")) as endpoint:
        async with httpx.AsyncClient() as http:
            assert (await http.post(endpoint, json=PULL)).status_code == 200
            for address in ("127.0.0.1", "::1", "10.0.0.1"):
                headers = {"x-forwarded-for": address}
                assert (await http.post(endpoint, json=PULL, headers=headers)).status_code == 401


async def test_nothing_of_who_is_refused_is_stored(ask):
    await ask(PUSH, client=ELSEWHERE)
    assert (await ask()).json()["changes"] == []


async def test_anonymous_lets_everybody_in(ask):
    for client in (ELSEWHERE, None):
        assert (await ask(PUSH, client=client, anonymous=True)).json()["results"] == [
            {"status": "ok"}
        ]


async def test_who_is_well_is_told_to_everybody(tmp_path):
    app = create_app(tmp_path / "server.db")
    transport = httpx.ASGITransport(app, client=ELSEWHERE)
    async with httpx.AsyncClient(transport=transport, base_url="http://tide") as http:
        answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert not (tmp_path / "server.db").exists()


# authenticate


def sync_authenticate(request, space):
    return Access("alice") if request.headers.get("x-key") == f"key of {space}" else None


async def async_authenticate(request, space):
    await asyncio.sleep(0)
    return sync_authenticate(request, space)


@pytest.mark.parametrize("authenticate", [sync_authenticate, async_authenticate])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_authenticate_decides_for_each_space_wherever_they_are(ask, authenticate, method):
    for client in (LOCAL, ELSEWHERE):
        options = {"client": client, "authenticate": authenticate, "method": method}
        right = await ask(space="a", headers={"x-key": "key of a"}, **options)
        wrong = await ask(space="b", headers={"x-key": "key of a"}, **options)
        assert (right.status_code, wrong.status_code) == (200, 401)
        assert wrong.json()["code"] == "unauthorized"
        assert "anonymous" not in wrong.json()["detail"]
        assert wrong.headers["www-authenticate"] == "Bearer"


async def test_authenticate_goes_before_anonymous(ask):
    answer = await ask(authenticate=lambda request, space: None, anonymous=True)
    assert answer.status_code == 401


async def test_who_may_only_read_gets_changes_and_writes_nothing(ask):
    await ask(PUSH)
    push = json.loads(json.dumps(PUSH))
    push["ops"][0]["stamp"][0] = 2
    answer = await ask(push, authenticate=lambda request, space: Access("bob", write=False))
    (result,) = answer.json()["results"]
    assert (result["status"], result["code"]) == ("rejected", "forbidden")
    assert result["current"]["doc"] == {"a": 1}
    assert answer.json()["changes"] == PUSH["ops"]
    assert (await ask()).json()["changes"] == PUSH["ops"]


async def test_who_may_only_write_gets_no_changes(ask):
    await ask(PUSH)
    push = {**PUSH, "ops": [{**PUSH["ops"][0], "id": "2"}]}
    answer = await ask(push, authenticate=lambda request, space: Access("bob", read=False))
    assert answer.json()["results"] == [{"status": "ok"}]
    assert answer.json()["changes"] == []
    assert len((await ask()).json()["changes"]) == 2


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_who_may_neither_read_nor_write_is_forbidden_the_space(ask, method):
    def authenticate(request, space):
        return Access("bob", read=False, write=False)

    answer = await ask(PUSH, method=method, authenticate=authenticate)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.json()["retryable"] is False
    assert (await ask()).json()["changes"] == []


async def test_an_authenticate_that_fails_lets_nobody_in(ask):
    def authenticate(request, space):
        raise RuntimeError("the user database is down, by the way its password is hunter2")

    answer = await ask(PUSH, authenticate=authenticate)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.json()["retryable"] is True
    assert "hunter2" not in answer.text
    assert (await ask()).json()["changes"] == []


# Tokens

TOKENS = bearer({"s3cret": "alice", "look": Access("bob", write=False)})


@pytest.mark.parametrize("value", ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "])
async def test_a_bearer_of_a_token_is_let_in(ask, value):
    answer = await ask(client=ELSEWHERE, headers={"authorization": value}, authenticate=TOKENS)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"s3cret",
        b"Bearer",
        b"Bearer ",
        b"Bearer s3cre",
        b"Bearer s3cret2",
        b"Bearer S3CRET",
        b"Basic s3cret",
        b"Bearer s3cret, Bearer look",
        "Bearer s3crét".encode(),
        "Bearer ☕".encode(),
        b"Bearer \xff\xfe",
    ],
)
async def test_whatever_else_stands_there_is_401_and_never_a_failure(ask, value):
    answer = await ask(headers={b"authorization": value}, authenticate=TOKENS)
    assert answer.status_code == 401


async def test_a_token_can_stand_for_less_than_everything(ask):
    answer = await ask(PUSH, headers=token("look"), authenticate=TOKENS)
    assert answer.json()["results"][0]["code"] == "forbidden"


def test_every_token_is_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one, two):
        compared.append(one)
        return one == two

    monkeypatch.setattr("tide.server.auth.hmac.compare_digest", compare)

    class Caller:
        headers = token("s3cret")
        client = None

    assert TOKENS(Caller, "default") == Access("alice")
    assert [type(digest) for digest in compared] == [bytes, bytes]


# Nodes


async def test_a_node_syncs_with_its_token_and_is_told_without(tmp_path):
    def authenticate(request, space):
        access = TOKENS(request, space)
        return Access("bob", read=False, write=False) if access and space == "secret" else access

    with served(create_app(tmp_path / "server.db", authenticate=authenticate)) as endpoint:
        async with Tide(tmp_path / "app.db", endpoint, headers=token("s3cret")) as tide:
            await tide.collection("todos").put("1", {"text": "bread"})
            assert (await tide.sync_once()).pushed == 1
        async with Tide(tmp_path / "app.db", f"{endpoint}/secret", headers=token("look")) as tide:
            with pytest.raises(ForbiddenError):
                await tide.sync_once()
        async with Tide(tmp_path / "other.db", endpoint) as tide:
            await tide.collection("todos").put("2", {"text": "milk"})
            with pytest.raises(UnauthorizedError):
                await tide.sync_once()
            assert await tide.pending() == 1
