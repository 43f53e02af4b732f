"""Transports for tests: one that a test can watch and step into, one that answers by a script."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tide import Answer, OfflineError, Transport

__all__ = ["Line", "Scripted", "op"]

JSON = {"content-type": "application/json"}


class Line(Transport):
    """Carries exchanges to *transport*, remembers them, and lets a test step in.

    Attributes:
        requests: what was asked, as JSON values.
        bodies: the same as it was sent.
        answers: what was answered, before anything was altered.
        meanwhile: called once, when the next answer is there and the node has not got it yet.
        alter: called with each 200's fields and its request, to change the fields.
        cut: whether all requests get lost.
    """

    def __init__(self, transport: Transport) -> None:
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.answers: list[Answer] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.alter: Callable[[dict[str, Any], dict[str, Any]], object] | None = None
        self.cut = False
        self._transport = transport

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        request = json.loads(body)
        self.requests.append(request)
        self.bodies.append(body)
        if self.cut:
            raise OfflineError("the line is cut")
        answer = await self._transport.exchange(body, headers)
        self.answers.append(answer)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        if self.alter is not None and answer.status == 200:
            fields = json.loads(answer.body)
            self.alter(fields, request)
            answer = answer._replace(body=json.dumps(fields).encode())
        return answer

    async def lost(self) -> None:
        """For `meanwhile`: the answer does not get through."""
        raise OfflineError("the answer was lost")

    def sent(self) -> list[list[str]]:
        """The ids of the ops of each request so far."""
        return [[op["id"] for op in request["ops"]] for request in self.requests]


class Scripted(Transport):
    """A server of one function: from a request to an answer, to a 200's fields, or to an error."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = answer

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        request = json.loads(body)
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, Answer):
            return answer
        if isinstance(answer, BaseException):
            raise answer
        fields = {"cursor": "c1", "changes": [], "request_id": request["request_id"], **answer}
        return Answer(200, json.dumps(fields).encode(), JSON)


def op(id_: str, doc: object, counter: int, node_id: str = "other.00000001") -> dict[str, Any]:
    """An op or a change of the collection ``todos``, as it stands on the wire."""
    return {"collection": "todos", "id": id_, "doc": doc, "stamp": [counter, node_id]}
