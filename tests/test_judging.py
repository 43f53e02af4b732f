"""What a server answers to ops that it can't take, with what it holds instead."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tide.errors import RequestError
from tide.limits import MAX_BODY
from tide.protocol import Request, Result, parse_response
from tide.server.access import Access, Write
from tide.server.service import Service
from tide.server.storage.sqlite import SqliteStorage

NODE = "alice.phone.0001"
MIB = 1 << 20


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    def validate(write: Write) -> str | None:
        return "tea is forbidden" if write.doc == {"text": "tea"} else None

    service = Service(SqliteStorage(tmp_path / "server.db"), validate=validate)
    yield service
    await service.aclose()


def op(id_: str, doc: object, counter: int) -> dict[str, Any]:
    return {"collection": "todos", "id": id_, "doc": doc, "stamp": [counter, NODE]}


async def push(
    service: Service, *ops: dict[str, Any], v: int = 1, read: bool = True
) -> list[Result]:
    """The results of a push."""
    body = {"node_id": NODE, "cursor": None, "ops": ops, "v": v, "limit": 1}
    answer = await service.exchange(
        "default", json.dumps(body).encode(), Access("alice", read=read)
    )
    return list(parse_response(answer, Request(NODE, None, ())).results or ())


@pytest.mark.parametrize(
    ("doc", "code"),
    [
        ([], "invalid_doc"),
        ({"a": 2**64}, "invalid_doc"),
        ({"a": "x" * MIB}, "too_large"),
        ({"text": "tea"}, "forbidden"),
    ],
)
async def test_f12_whatever_is_rejected_comes_with_what_the_server_holds(
    service: Service, doc: object, code: str
) -> None:
    await push(service, op("1", {"text": "bread"}, 1))
    (result,) = await push(service, op("1", doc, 2))
    assert (result.status, result.code) == ("rejected", code)
    assert result.current is not None
    assert json.loads(result.current.doc or "") == {"text": "bread"}


async def test_who_may_not_read_is_not_told_what_the_server_holds(service: Service) -> None:
    await push(service, op("1", {"text": "bread"}, 2))
    for result in await push(service, op("1", [], 3), read=False):
        assert (result.status, result.current) == ("rejected", None)
    for result in await push(service, op("1", {}, 1), read=False):
        assert result == Result("ok")  # superseded: no page will ever show them the winner


async def test_f40_an_answer_never_grows_without_bound_with_what_the_server_holds(
    service: Service,
) -> None:
    count = MAX_BODY // MIB + 3
    for number in range(count):
        await push(service, op(str(number), {"a": "x" * (MIB - 100)}, 2))
    superseded = await push(service, *(op(str(number), {}, 1) for number in range(count)))
    assert {result.status for result in superseded} == {"superseded"}
    rejected = await push(service, *(op(str(number), [], 3) for number in range(count)))
    assert [result.status for result in rejected] == ["rejected"] * 4 + ["deferred"] * 3
    for results in (superseded, rejected):
        assert [result.current is not None for result in results] == [True] * 4 + [False] * 3


async def test_f10_a_core_client_is_told_which_of_its_ops_and_why(service: Service) -> None:
    with pytest.raises(RequestError) as caught:
        await push(service, op("1", {}, 1), op("2", [], 2), op("3", {}, 2**30), v=0)
    assert caught.value.problem.status == 422
    invalid, ahead = caught.value.problem.extra["ops"]
    assert (invalid["op"], invalid["code"]) == (1, "invalid_doc")
    assert ahead == {"op": 2, "code": "clock_ahead", "min_counter": 1}
    assert await push(service, op("1", {"new": True}, 1)) == [Result("ok")]
