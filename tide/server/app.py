"""HTTP in and out: the server as a Starlette app. The only importer of Starlette."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tide import limits
from tide.codec import dumps
from tide.errors import RequestError, StoreError
from tide.protocol import DEFAULT_LIMIT, VERSION, Problem, parse_request
from tide.server import bodies
from tide.server.access import Access, Validate
from tide.server.auth import Authenticate, admit
from tide.server.live import LiveStream, process_is_ending
from tide.server.service import Service
from tide.server.storage.sqlite import SqliteStorage

__all__ = ["create_app"]

logger = logging.getLogger("tide.server")

BODY_DEADLINE = 10.0  # seconds for a whole request body to arrive
_SPACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_COMPRESS = 1024  # bytes from which on an answer is compressed, if the caller takes that
_OFF_LOOP = 64 << 10  # bytes from which on work on a body leaves the event loop


def create_app(
    db_path: str | os.PathLike[str] = "server.db",
    *,
    authenticate: Authenticate | None = None,
    anonymous: bool = False,
    validate: Validate | None = None,
    tombstone_days: float = 90.0,
) -> Starlette:
    """The sync server, as an app to run or to mount in another one.

    Serves ``POST`` and ``GET`` on ``/sync`` and ``/sync/{space}``, and ``GET /healthz``. The
    database is opened at the first request, or at startup if the app gets to hear of it.

    Args:
        db_path: the database file; made if there is none.
        authenticate: ``authenticate(request, space)``, async or not, returns what the caller may
            do as an `Access`, or None to refuse them. See also `bearer`. Without it, and without
            *anonymous*, only callers on this machine are answered.
        anonymous: let everybody read and write everything.
        validate: says why a single write is refused, or None; see `Write`. It is called for each
            op, on the event loop, so it should be quick.
        tombstone_days: for how many days deletions are remembered. Keep it longer than the age of
            the oldest backup that you would restore.
    """
    service = Service(SqliteStorage(db_path), validate=validate, tombstone_days=tombstone_days)
    service.hub.ending = process_is_ending
    endpoint = _Endpoint(service, authenticate, anonymous=anonymous)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette passes it
        await service.open()
        yield
        await service.aclose()

    handle = _guarded(endpoint.handle)
    app = Starlette(
        routes=[
            Route("/sync", handle, methods=["GET", "POST"]),
            Route("/sync/{space}", handle, methods=["GET", "POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_problem},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # clients follow no redirect: better that they hear of it
    app.state.service = service
    return app


@dataclass
class _Log:
    """What the log tells of one exchange: no document, no id, no header."""

    space: str
    began: float = field(default_factory=time.perf_counter)
    who: str = "-"
    node: str = "-"
    ops: int = 0
    changes: int = 0

    def write(self, status: int, code: str, size: int) -> None:
        logger.info(
            "sync space=%s who=%r node=%s ops=%d changes=%d bytes=%d status=%d code=%s ms=%.1f",
            self.space,
            self.who,
            self.node,
            self.ops,
            self.changes,
            size,
            status,
            code,
            (time.perf_counter() - self.began) * 1000,
        )


class _Endpoint:
    """Answers requests to ``/sync``."""

    def __init__(
        self, service: Service, authenticate: Authenticate | None, *, anonymous: bool
    ) -> None:
        self._service = service
        self._authenticate = authenticate
        self._anonymous = anonymous

    async def handle(self, request: Request) -> Response | LiveStream:
        """Any request."""
        return await (self.sync(request) if request.method == "POST" else self.info(request))

    async def sync(self, request: Request) -> Response:
        """``POST``: one exchange."""
        log = _Log(_space(request))
        try:
            body = await self._exchange(request, log)
        except RequestError as error:
            log.write(error.problem.status, error.problem.code, 0)
            raise
        log.write(200, "ok", len(body))
        return await _json(request, body)

    async def info(self, request: Request) -> Response | LiveStream:
        """``GET``: a live stream, or what this server speaks."""
        space = _space(request)
        access = await self._admit(request, space)
        wanted = request.headers.get("accept", "")
        if request.method != "GET" or "text/event-stream" not in wanted:  # HEAD has no end to wait
            return await _json(request, dumps(_INFO).encode())
        listener = await self._service.listen(space, access)
        logger.info("live space=%s who=%r", space, access.who)
        return LiveStream(self._service.hub, space, listener, access.expires_at)

    async def _exchange(self, request: Request, log: _Log) -> bytes:
        access = await self._admit(request, log.space)
        log.who = access.who
        bodies.check_head(request.headers)
        body = await _body(request)
        parsed = await _off_loop(len(body), lambda: parse_request(body))
        log.node, log.ops = parsed.node_id, len(parsed.ops)
        answer = await self._service.answer(log.space, parsed, access)
        log.changes = len(answer.changes)
        return answer.encode()

    async def _admit(self, request: Request, space: str) -> Access:
        return await admit(request, space, self._authenticate, anonymous=self._anonymous)


_INFO = {
    "protocol": "tide",
    "versions": [VERSION],
    "features": ["results", "gzip", "live"],
    "limits": {
        "max_ops": limits.MAX_OPS,
        "max_body_bytes": limits.MAX_BODY,
        "max_inflated_bytes": limits.MAX_INFLATED,
        "max_doc_bytes": limits.MAX_DOC,
        "max_doc_depth": limits.MAX_DEPTH,
        "max_id_bytes": limits.MAX_ID,
        "max_changes": limits.MAX_PAGE,
        "default_changes": DEFAULT_LIMIT,
    },
}


def _space(request: Request) -> str:
    space: str = request.path_params.get("space", "default")
    if not _SPACE.fullmatch(space):
        detail = "a space's name is 1 to 64 of A-Z a-z 0-9 _ . - after a letter"
        raise RequestError(Problem(404, "not_found", detail))
    return space


async def _body(request: Request) -> bytes:
    try:
        return await asyncio.wait_for(bodies.read(request.headers, request.stream()), BODY_DEADLINE)
    except asyncio.TimeoutError:
        detail = f"the body did not arrive within {BODY_DEADLINE:.0f} seconds"
        raise RequestError(Problem(408, "timeout", detail, retryable=True)) from None
    except ClientDisconnect:
        raise RequestError(Problem(400, "invalid_request", "the body was cut off")) from None


async def _off_loop(size: int, work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work) if size > _OFF_LOOP else work()


async def _json(request: Request, body: bytes) -> Response:
    headers = {**_HEADERS, "vary": "accept-encoding"}
    accepted = request.headers.get("accept-encoding", "").replace(" ", "").lower().split(",")
    if len(body) > _COMPRESS and "gzip" in accepted:
        body = await _off_loop(len(body), lambda: gzip.compress(body, compresslevel=1, mtime=0))
        headers["content-encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)


def _guarded(
    handle: Callable[[Request], Awaitable[Response | LiveStream]],
) -> Callable[[Request], Awaitable[Response | LiveStream]]:
    """*handle*, with every failure turned into a problem that gives nothing away."""

    async def guarded(request: Request) -> Response | LiveStream:
        try:
            return await handle(request)
        except RequestError as error:
            return _problem(error.problem)
        except StoreError:
            logger.exception("the database failed")
            detail = "the server's database can't be used now; nothing was stored"
            return _problem(Problem(503, "unavailable", detail, retryable=True))
        except Exception:
            logger.exception("a request failed")
            detail = "the server failed in a way that it does not know; nothing was stored"
            return _problem(Problem(500, "internal", detail, retryable=True))

    return guarded


def _problem(problem: Problem) -> Response:
    headers = dict(_HEADERS)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.status == 503:
        headers["retry-after"] = "2"
    return Response(
        problem.encode(), problem.status, headers, media_type="application/problem+json"
    )


async def _http_problem(request: Request, error: Exception) -> Response:  # noqa: ARG001
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")
    detail = "the endpoint is /sync or /sync/{space}: POST to exchange, GET to learn about it"
    response = _problem(Problem(status, code, detail))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _healthz(request: Request) -> Response:
    return await _json(request, b'{"status":"ok"}')
