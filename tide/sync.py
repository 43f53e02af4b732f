"""One exchange after the other: what `sync_once` does.

Everything that can go wrong in between is safe: nothing is recorded but by the transaction that
applies an answer, and every request can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections import Counter, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple

from tide import outbox
from tide.answers import Refused, Reset, read_answer
from tide.errors import (
    MisconfiguredError,
    ProtocolError,
    ResetNeedsConfirmationError,
    UnavailableError,
)
from tide.ids import token
from tide.limits import MAX_OPS
from tide.merge import Merged, apply_answer, apply_reset, reject_op
from tide.protocol import VERSION, Event, Op, Request, Response
from tide.sending import Headers, Sender
from tide.store import Store
from tide.transports.base import Transport

__all__ = ["SyncResult", "Synchronizer"]

logger = logging.getLogger("tide")

PAGE = 1000  # changes wanted in one answer
MAX_BATCH = 1 << 20  # bytes of documents in one request
DEADLINE = 120.0  # seconds for one exchange, whatever the transport does
MAX_RESETS = 3  # of one sync_once
MAX_OVERTAKEN = 20  # times in one sync_once
MAX_RESTAMPS = 3  # of one op in one sync_once
MAX_REFUSALS = 3  # of one op alone, before it becomes a rejected op


class SyncResult(NamedTuple):
    """What a `sync_once` did.

    Attributes:
        pushed: ops that the server has now.
        pulled: changes from the server that took effect here.
        rejected: ops that the server refused for good, see `Tide.rejected`.
    """

    pushed: int
    pulled: int
    rejected: int


@dataclass
class _Pass:
    """Where one `sync_once` stands. Each op is sent once in it, unless it gets a new stamp.

    Attributes:
        upto: the position of the op that was written last when it began.
        position: the ops up to here were sent.
        total: what was done.
        resets: how often the server asked to start over.
        overtaken: how often an answer was out of date, since another process had synced.
        restamps: how often ops with a new stamp were sent.
        restamped: whether ops got a new stamp, and are to be sent when all others were.
        suspects: ops that the server refused alone, with what it said.
        held: documents that wait for a confirmation to be removed.
    """

    upto: int = 0
    position: int = 0
    total: Merged = field(default_factory=Merged)
    resets: int = 0
    overtaken: int = 0
    restamps: int = 0
    restamped: bool = False
    suspects: list[tuple[Op, Refused]] = field(default_factory=list)
    held: int = 0

    def overtake(self) -> bool:
        """Another process synced meanwhile: ask again from where it got to, but not for ever."""
        self.overtaken += 1
        if self.overtaken > MAX_OVERTAKEN:
            raise UnavailableError("others who sync this file were quicker again and again")
        return True

    def add(self, merged: Merged) -> None:
        self.held = merged.held
        self.restamped = self.restamped or merged.restamped > 0
        self.total = Merged(
            pushed=self.total.pushed + merged.pushed,
            pulled=self.total.pulled + merged.pulled,
            rejected=self.total.rejected + merged.rejected,
        )


class _Outgoing(NamedTuple):
    """What the store has to say, from one snapshot of it."""

    cursor: str | None
    receipt: str | None
    answers: int
    ops: list[tuple[int, Op]]


class Synchronizer:
    """Exchanges a store's ops and changes with a server.

    Attributes:
        steps: how many exchanges there were, and pages of the live stream, whatever came of them.
    """

    def __init__(self, store: Store, transport: Transport, headers: Headers | None) -> None:
        self._store = store
        self._sender = Sender(transport, headers)
        self._turn = asyncio.Lock()
        self._batch = MAX_OPS  # ops in one request; less after a refusal
        self._refusals: Counter[Op] = Counter()
        self._deferred: dict[Op, float] = {}  # until when, by the loop's clock
        self._passed: deque[str] = deque(maxlen=100)  # cursors at which this node stood
        self.steps = 0

    async def sync_once(self) -> SyncResult:
        """Push what waits and pull what is new, in as many exchanges as that takes.

        Raises:
            SyncError: an exchange failed; those before it count, and nothing is lost.
        """
        async with self._turn:
            state = _Pass(upto=await self._store.read(outbox.last))
            while await self._exchange(state):
                pass
        if state.held:
            raise ResetNeedsConfirmationError(
                f"the server no longer has {state.held} documents of this store, which is most of "
                "it; call confirm_reset() to remove them here too"
            )
        return SyncResult(state.total.pushed, state.total.pulled, state.total.rejected)

    async def take_page(self, page: Response) -> bool:
        """Apply a page of the live stream, if it starts where this node stands.

        Returns:
            Whether the node now has all that the page tells of. If not, it has to pull.
        """
        async with self._turn:
            self.steps += 1
            cursor, answers, resync = await self._store.read(_read_position)
            if resync:  # whose end only a page that was asked for can be
                return False
            if page.cursor == cursor or page.cursor in self._passed:
                return True  # it tells of what this node pushed or pulled itself
            if page.since != cursor:
                return False
            merged = await self._store.write(lambda tx: apply_answer(tx, answers, [], page))
            if merged is None:
                return False
            self._passed.append(page.cursor)
            return not page.has_more

    async def listen(self) -> AsyncGenerator[Event, None]:
        """The server's live stream, from where this node stands; see `Transport.listen`."""
        cursor, _, _ = await self._store.read(_read_position)
        if cursor is None:
            return
        async with contextlib.aclosing(self._sender.listen(cursor)) as events:
            async for event in events:
                yield event

    async def _exchange(self, state: _Pass) -> bool:
        """One exchange; whether there is more to do."""
        self.steps += 1
        outgoing = await self._store.read(
            lambda sql: _read_outgoing(sql, state.position, state.upto, self._batch)
        )
        ops = self._sendable(outgoing.ops)
        request = Request(
            node_id=self._store.node_id,
            cursor=outgoing.cursor,
            ops=tuple(ops),
            v=VERSION,
            receipt=outgoing.receipt,
            limit=PAGE,
            request_id=token(8),
        )
        answer = read_answer(await self._sender.exchange(request.encode(), DEADLINE), request)
        if isinstance(answer, Reset):
            return await self._start_over(state, outgoing, answer)
        if isinstance(answer, Refused):
            return self._divide(state, ops, answer, outgoing)
        if answer.has_more and answer.cursor == outgoing.cursor:
            raise ProtocolError("the server says there is more but does not move the cursor")
        merged = await self._store.write(lambda tx: apply_answer(tx, outgoing.answers, ops, answer))
        if merged is None:
            return state.overtake()
        self._passed.append(answer.cursor)
        state.add(merged)
        self._defer(ops, answer)
        if outgoing.ops:
            state.position = outgoing.ops[-1][0]
        if ops:
            self._batch = min(MAX_OPS, self._batch * 2)
        rejected = await self._blame(state)
        if rejected or answer.has_more or (outgoing.ops and state.position < state.upto):
            return True
        return state.restamped and await self._send_restamped(state)

    def _sendable(self, waiting: list[tuple[int, Op]]) -> list[Op]:
        """The ops of *waiting* but those that the server wants later."""
        now = asyncio.get_running_loop().time()
        self._deferred = {op: until for op, until in self._deferred.items() if until > now}
        return [op for _, op in waiting if op not in self._deferred]

    def _defer(self, sent: list[Op], response: Response) -> None:
        """Take note of when ops that the server did not take now may be sent again."""
        now = asyncio.get_running_loop().time()
        for op, result in zip(sent, response.results or (), strict=False):
            if result.status == "deferred":
                self._deferred[op] = now + result.retry_after

    async def _send_restamped(self, state: _Pass) -> bool:
        """Go on with the ops that got a new stamp."""
        state.restamps += 1
        if state.restamps > MAX_RESTAMPS:
            raise ProtocolError("the server asks for new stamps again and again")
        state.restamped = False
        state.upto = await self._store.read(outbox.last)
        return True

    async def _start_over(self, state: _Pass, outgoing: _Outgoing, reset: Reset) -> bool:
        state.resets += 1
        if state.resets > MAX_RESETS:
            raise ProtocolError("the server asks to start over again and again")
        logger.info("the server asks to start over (%s)", reset.kind)
        self._passed.clear()
        await self._store.write(lambda tx: apply_reset(tx, outgoing.answers, reset.kind))
        state.position = 0
        state.suspects = []
        state.upto = await self._store.read(outbox.last)
        return True

    def _divide(self, state: _Pass, ops: list[Op], refused: Refused, outgoing: _Outgoing) -> bool:
        """The server refuses the whole batch: find the op that it is about, by halves."""
        if not ops:
            raise MisconfiguredError(
                f"the server refuses even a request without ops ({refused.detail}); check the URL"
            )
        if len(ops) > 1:
            self._batch = len(ops) // 2
            return True
        state.position = outgoing.ops[-1][0]
        state.suspects.append((ops[0], refused))
        return True

    async def _blame(self, state: _Pass) -> bool:
        """Reject the ops that were refused alone often enough; whether there were any.

        Only after the server took another request: what refuses all of them is no tide server,
        and no op is to blame.
        """
        suspects, state.suspects = state.suspects, []
        blamed = False
        for op, refused in suspects:
            self._refusals[op] += 1
            if refused.too_large or self._refusals[op] >= MAX_REFUSALS:
                del self._refusals[op]
                blamed = True
                code = "too_large" if refused.too_large else refused.code
                work = functools.partial(reject_op, op=op, code=code, detail=refused.detail)
                state.add(Merged(rejected=await self._store.write(work)))
        return blamed


def _read_position(sql: sqlite3.Connection) -> tuple[str | None, int, int]:
    cursor, answers, resync = sql.execute("SELECT cursor, answers, resync FROM node").fetchone()
    return cursor, answers, resync


def _read_outgoing(sql: sqlite3.Connection, after: int, upto: int, max_ops: int) -> _Outgoing:
    cursor, receipt, answers = sql.execute("SELECT cursor, receipt, answers FROM node").fetchone()
    ops = outbox.batch(sql, after, upto, max_ops, MAX_BATCH)
    return _Outgoing(cursor, receipt, answers, ops)
