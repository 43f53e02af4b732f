"""Who may use a space: what an app's `authenticate` answers, and a ready-made one for tokens."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from tide.errors import RequestError
from tide.protocol import Problem
from tide.server.access import Access

__all__ = ["Authenticate", "Caller", "admit", "bearer"]


class Caller(Protocol):
    """What `authenticate` gets: the request; in the app it is Starlette's own."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the other end, if known."""


Authenticate = Callable[..., Access | Awaitable[Access | None] | None]
"""``authenticate(request, space)``: what the caller may do there; None refuses them (401)."""

_UNAUTHORIZED = Problem(401, "unauthorized", "credentials are missing, or are not accepted")
_NOT_LOOPBACK = Problem(
    401,
    "unauthorized",
    "this server answers callers on its own machine only; to let others in, its operator sets "
    "authenticate=, or anonymous=True, in create_app(), or starts tide serve with --token-file or "
    "--anonymous",
)
_FORBIDDEN = Problem(403, "forbidden", "you may neither read nor write this space")
# Who sends one of these speaks for others: a proxy, or a browser for the web page that it shows.
_FOR_OTHERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")


def bearer(tokens: Mapping[str, Access | str]) -> Authenticate:
    """An `authenticate` for ``Authorization: Bearer <token>``.

    Args:
        tokens: for each token what its bearer may do, or just who they are, to let them read and
            write every space.
    """
    known = [
        (_digest(token), Access(access) if isinstance(access, str) else access)
        for token, access in tokens.items()
    ]

    def authenticate(request: Caller, space: str) -> Access | None:  # noqa: ARG001 - any space
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = _digest(token.strip())
        # Compares with each, and each in constant time: how long it takes tells nothing.
        found = [access for digest, access in known if hmac.compare_digest(digest, given)]
        return found[0] if found else None

    return authenticate


async def admit(
    request: Caller, space: str, authenticate: Authenticate | None, *, anonymous: bool
) -> Access:
    """What the caller may do in *space*.

    Raises:
        RequestError: they are not let in at all (401), or may do nothing here (403).
    """
    if authenticate is not None:
        answer = authenticate(request, space)
        access = await answer if inspect.isawaitable(answer) else answer
        if access is None:
            raise RequestError(_UNAUTHORIZED)
        if not (access.read or access.write):
            raise RequestError(_FORBIDDEN)
        return access
    if anonymous or _is_local(request):
        return Access("anonymous")
    raise RequestError(_NOT_LOOPBACK)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _is_local(request: Caller) -> bool:
    """Whether the caller is a program on this machine that speaks for itself."""
    if request.client is None or any(name in request.headers for name in _FOR_OTHERS):
        return False
    try:
        address = ipaddress.ip_address(request.client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
