"""Helpers for tests of apps that use tide: a server in memory, and a network that fails.

async with memory_server(tmp_path / "server.db") as server:
    async with Tide(tmp_path / "app.db", transport=server.transport()) as tide:
        ...
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

from tide.errors import OfflineError, RequestError, StoreError
from tide.protocol import COMMENT, HEARTBEAT, Event, EventReader, Problem
from tide.transports.base import Answer, Transport
from tide.transports.memory import MemoryTransport

if TYPE_CHECKING:  # importing tide.testing must not need the server's packages
    from tide.server.access import Access, Validate
    from tide.server.service import Service

__all__ = ["FaultyTransport", "MemoryServer", "memory_server"]


@asynccontextmanager
async def memory_server(
    db_path: str | os.PathLike[str],
    *,
    validate: Validate | None = None,
    tombstone_days: float = 90.0,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[MemoryServer]:
    """The real server without HTTP, on the database file *db_path*.

    Args:
        db_path: the server's database; made if there is none.
        validate: see `tide.server.create_app`.
        tombstone_days: see `tide.server.create_app`.
        now: the server's time, Unix seconds.
    """
    from tide.server.service import Service  # noqa: PLC0415
    from tide.server.storage.sqlite import SqliteStorage  # noqa: PLC0415

    service = Service(
        SqliteStorage(db_path, now), validate=validate, tombstone_days=tombstone_days, now=now
    )
    try:
        yield MemoryServer(service)
    finally:
        await service.aclose()


class MemoryServer:
    """A server in this process; see `memory_server`.

    Attributes:
        service: the server's half of the protocol.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    def transport(
        self, space: str = "default", *, who: str = "test", read: bool = True, write: bool = True
    ) -> Transport:
        """A way for one node to *space*, as the caller *who*, who may *read* and *write* there."""
        from tide.server.access import Access  # noqa: PLC0415

        access = Access(who, read=read, write=write)

        async def handle(body: bytes, headers: Mapping[str, str]) -> Answer:  # noqa: ARG001
            try:
                answer = await self.service.exchange(space, body, access)
            except RequestError as error:
                return _problem(error.problem)
            except StoreError as error:
                return _problem(Problem(503, "unavailable", str(error), retryable=True))
            return Answer(200, answer, {"content-type": "application/json"})

        return MemoryTransport(handle, lambda: _listen(self.service, space, access))


async def _listen(service: Service, space: str, access: Access) -> AsyncGenerator[Event, None]:
    reader = EventReader()
    try:
        listener = await service.listen(space, access)
    except (RequestError, StoreError):  # over HTTP, no stream either
        return
    try:
        while not listener.ended:
            for event in reader.feed(await listener.next(HEARTBEAT) or COMMENT):
                yield event
    finally:
        service.hub.leave(space, listener)


def _problem(problem: Problem) -> Answer:
    headers = {"content-type": "application/problem+json"}
    return Answer(problem.status, problem.encode(), headers)


FAULTS = ("drop", "lose", "double", "late", "cut", "html", "busy")


class FaultyTransport(Transport):
    """A network that fails: some exchanges through it go wrong, as *random* decides.

    - ``drop``: the request never arrives.
    - ``lose``: the server answers, and the answer is lost.
    - ``double``: the request arrives twice; one of the two answers comes back.
    - ``late``: the request seems lost, and arrives before a later one.
    - ``cut``: only a part of the answer comes back.
    - ``html``: something on the way answers 200 with a web page.
    - ``busy``: something on the way answers 503.

    Attributes:
        rate: which share of the exchanges goes wrong, 0.0 to 1.0; set it to 0.0 to heal.
        happened: how often each fault did.
    """

    def __init__(self, transport: Transport, random: Random, *, rate: float = 0.3) -> None:
        self.rate = rate
        self.happened: Counter[str] = Counter()
        self._transport = transport
        self._random = random
        self._late: list[tuple[bytes, Mapping[str, str]]] = []

    async def exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.exchange`."""
        for _ in range(self._random.randrange(5)):  # others may overtake
            await asyncio.sleep(0)
        late, self._late = self._late, []
        for request in late:
            await self._transport.exchange(*request)
        if self._random.random() >= self.rate:
            return await self._transport.exchange(body, headers)
        fault = self._random.choice(FAULTS)
        self.happened[fault] += 1
        return await self._fail(fault, body, headers)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self._transport.aclose()

    async def _fail(self, fault: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if fault == "html":
            return Answer(200, b"<html>Please log in</html>", {"content-type": "text/html"})
        if fault == "busy":
            return Answer(503, b"<html>Bad gateway</html>", {"content-type": "text/html"})
        if fault == "late":
            self._late.append((body, headers))
        if fault in ("drop", "late"):
            raise OfflineError("the request was lost (by FaultyTransport)")
        answers = [await self._transport.exchange(body, headers)]
        if fault == "double":
            answers.append(await self._transport.exchange(body, headers))
            return self._random.choice(answers)
        if fault == "cut":
            size = max(len(answers[0].body), 1)
            return answers[0]._replace(body=answers[0].body[: self._random.randrange(size)])
        raise OfflineError("the answer was lost (by FaultyTransport)")
