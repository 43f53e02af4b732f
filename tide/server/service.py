"""The server's half of the protocol, without a web framework."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tide import limits
from tide.errors import RequestError
from tide.protocol import BadOp, Op, Problem, Request, Response, Result, parse_request, readable
from tide.server.access import Access, Validate, Write
from tide.server.hub import Hub, Listener
from tide.server.rules import judge
from tide.server.storage.base import Space, Storage

__all__ = ["Service"]

DAY = 86400.0
LIVE_CHANGES, LIVE_BYTES = 500, 1 << 18  # in one event of a live stream; for more, nodes pull
_POSITION = re.compile(r"([0-9a-f]{1,64}):([0-9]{1,18})(?::([0-9]{1,18}))?")


class _Position(NamedTuple):
    """A place in a space's history: what a cursor or a receipt stands for.

    Attributes:
        epoch: whose sequence.
        seq: up to here it was read.
        floor: the horizon when this node began from nothing: it never saw what was deleted
            before, so what was forgotten up to here does not concern it.
    """

    epoch: str
    seq: int
    floor: int = 0

    @classmethod
    def parse(cls, text: str) -> _Position | None:
        """The position in a cursor or receipt; None if it is none of ours."""
        match = _POSITION.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3] or 0)) if match else None

    def __str__(self) -> str:
        floor = f":{self.floor}" if self.floor > self.seq else ""
        return f"{self.epoch}:{self.seq}{floor}"


class Service:
    """Answers exchanges from a storage.

    Args:
        storage: where the changes are; the service closes it.
        validate: refuses single writes, see `Validate`; called outside of any transaction.
        tombstone_days: for how many days deletions are remembered.
        now: the time, Unix seconds; only the age of tombstones is measured with it.

    Attributes:
        hub: the live streams.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        validate: Validate | None = None,
        tombstone_days: float = 90.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.hub = Hub(self._page_after)
        self._storage = storage
        self._validate = validate
        self._keep = tombstone_days * DAY
        self._now = now
        self._tidied: dict[str, float] = {}  # when each space's tombstones were last looked at

    async def open(self) -> None:
        """Open the storage. Idempotent; the first exchange does it too."""
        await self._storage.open()

    async def aclose(self) -> None:
        """End the live streams, and close the storage. Idempotent."""
        await self.hub.aclose()
        await self._storage.aclose()

    async def exchange(self, space: str, body: bytes, access: Access) -> bytes:
        """The body of the answer to a request's *body*.

        Raises:
            RequestError: the request is refused; nothing of it was stored.
            StoreError: the database failed; nothing of it was stored.
        """
        return (await self.answer(space, parse_request(body), access)).encode()

    async def answer(self, space: str, request: Request, access: Access) -> Response:
        """The response to *request*; raises as `exchange` does."""
        refusals = self._refusals(space, request, access)
        now = self._now()
        stale = abs(now - self._tidied.get(space, 0.0)) > DAY

        def work(stored: Space) -> Response | Problem:
            if stale:
                stored.forget_tombstones(now - self._keep)
            return _answer(stored, request, access, refusals)

        answer = await self._storage.run(space, work)
        if stale:
            self._tidied[space] = now
        if isinstance(answer, Problem):
            raise RequestError(answer)
        if request.ops:
            self.hub.poke(space)
        return answer

    async def listen(self, space: str, access: Access) -> Listener:
        """A live stream of *space*.

        Raises:
            RequestError: the caller may not read there.
            StoreError: the database failed.
        """
        if not access.read:
            raise RequestError(Problem(403, "forbidden", "you may not read this space"))
        return await self.hub.join(space)

    async def _page_after(self, space: str, cursor: str | None) -> Response:
        return await self._storage.run(space, lambda stored: _live_page(stored, cursor))

    def _refusals(self, space: str, request: Request, access: Access) -> list[BadOp | None]:
        """For each op, why it is refused whatever is stored; None if it is not."""
        refusals: list[BadOp | None] = []
        for op in request.ops:
            if isinstance(op, BadOp):
                refusals.append(op)
            elif not access.write:
                refusals.append(BadOp("forbidden", "you may not write to this space"))
            elif self._validate is not None:
                write = Write(access.who, space, op.collection, op.id, op.doc)
                reason = self._validate(write)
                refusals.append(None if reason is None else BadOp("forbidden", readable(reason)))
            else:
                refusals.append(None)
        return refusals


def _answer(
    space: Space, request: Request, access: Access, refusals: Sequence[BadOp | None]
) -> Response | Problem:
    """(in a transaction) Take the ops, and read what the node does not have."""
    position = _fitting(space, request, access)
    if isinstance(position, Problem):
        return position
    before = space.head
    results, accepted = _judge_all(space, request, access, refusals)
    if request.v < 1 and (problem := _core_problem(results)):
        return problem
    space.accept(accepted)
    page = space.page(position.seq, before if access.read else 0, request.limit, limits.MAX_BODY)
    # What this very request brought needs no telling: the head is read up to, unless there is more.
    seq = page.last if page.has_more else (space.head if access.read else position.seq)
    return Response(
        cursor=str(_Position(space.epoch, seq, position.floor)),
        changes=page.ops,
        has_more=page.has_more,
        results=tuple(results) if request.v >= 1 else None,
        receipt=str(_Position(space.epoch, space.head)),
        clock=space.clock,
        request_id=request.request_id,
    )


def _live_page(space: Space, cursor: str | None) -> Response:
    """(in a transaction) What a live stream that stands at *cursor* tells next."""
    head = str(_Position(space.epoch, space.head))
    position = None if cursor is None else _Position.parse(cursor)
    if position and _lies_on(space, position) and not _is_below_horizon(space, position):
        page = space.page(position.seq, space.head, LIVE_CHANGES, LIVE_BYTES)
        if not page.has_more:
            return Response(head, page.ops, receipt=head, clock=space.clock, since=cursor)
    return Response(head, (), since=head)  # which fits no node, so each pulls


def _fitting(space: Space, request: Request, access: Access) -> _Position | Problem:
    """Where the node stands, or the reset that it needs."""
    if request.receipt is not None and not _lies_on(space, _Position.parse(request.receipt)):
        return _reset("restored")
    if request.cursor is None:
        return _Position(space.epoch, 0, space.horizon.seq)
    position = _Position.parse(request.cursor)
    if position is None or not _lies_on(space, position):
        return _reset("restored")
    # Who may not read holds nothing that could have been deleted by others.
    if access.read and _is_below_horizon(space, position):
        return _reset("horizon")
    return position


def _is_below_horizon(space: Space, position: _Position) -> bool:
    return max(position.seq, position.floor) < space.horizon.seq


def _lies_on(space: Space, position: _Position | None) -> bool:
    return position is not None and space.covers(position.epoch, position.seq)


def _reset(kind: str) -> Problem:
    detail = {
        "restored": "this server lost some of what you have: offer everything, and pull anew",
        "horizon": "you were away for longer than deletions are remembered: pull anew",
    }
    return Problem(409, "reset", detail[kind], extra={"reset": kind})


def _judge_all(
    space: Space, request: Request, access: Access, refusals: Sequence[BadOp | None]
) -> tuple[list[Result], list[Op]]:
    """A result for each op, and the ops to store."""
    results: list[Result] = []
    accepted: list[Op] = []
    clock = space.clock
    room = limits.MAX_BODY  # for the documents that results carry
    for op, refusal in zip(request.ops, refusals, strict=True):
        stored = None if op.key is None else space.find(op.key)
        if refusal is not None or isinstance(op, BadOp):
            code, detail, _ = refusal or BadOp("", "")
            result = Result("rejected", current=stored, code=code, detail=detail)
        else:
            result, is_new = judge(op, stored, clock, space.horizon)
            if is_new:
                accepted.append(op)
                clock = max(clock, op.stamp.counter)
        if result.current is not None:
            room -= len((result.current.doc or "").encode())
            if not access.read:
                result = _for_the_blind(result)
            elif room < 0:
                result = _without_current(result)
        results.append(result)
    return results, accepted


def _for_the_blind(result: Result) -> Result:
    """What to answer instead of *result* to who may write but not read."""
    if result.status == "superseded":  # nothing will ever show them the winner
        return Result("ok")
    return result._replace(current=None)


def _without_current(result: Result) -> Result:
    """What to answer instead of *result* if its document would make the answer too large."""
    if result.status == "superseded":  # it stays pending until a later page brings the winner
        return Result("superseded")
    return Result("deferred")  # what is rejected needs its document, to be put back to it


def _core_problem(results: Sequence[Result]) -> Problem | None:
    """A core client reads no results, so nothing that needs one may happen behind its back."""
    bad = [
        {"op": number, "code": result.code, "detail": result.detail}
        if result.status == "rejected"
        else {
            "op": number,
            "code": result.reason or result.status,
            "min_counter": result.min_counter,
        }
        for number, result in enumerate(results)
        if result.status not in ("ok", "superseded")
    ]
    if not bad:
        return None
    detail = f"{len(bad)} of {len(results)} ops can't be accepted; nothing was stored"
    return Problem(422, "invalid_ops", detail, extra={"ops": bad})
