"""Every exception of tide, each with what happened and what to do about it.

TideError
├── DocumentError (ValueError)       the document can't be stored and come back equal
├── IdError (ValueError)             the id can't name a document
├── CollectionNameError (ValueError) the name can't name a collection
├── EndpointError (ValueError)       the endpoint, or an option of syncing, can't be used
├── NotFoundError (KeyError)         there is no such document or rejected op
├── UsageError (RuntimeError)        the call can't work here and now
│   ├── NotOpenError                 the Tide is not open: not yet, or no more
│   ├── WrongLoopError               it was opened in another event loop
│   └── ForkedError                  the file was open when this process was forked
├── StoreError                       the local file failed
│   ├── NotAStoreError               the file is not a tide store; it was left untouched
│   ├── NewerStoreError              a newer tide wrote it; it was left untouched
│   ├── StoreBusyError               another process kept it locked for too long
│   ├── StoreFullError               the disk is full; nothing was half-written
│   └── StoreCorruptError            the file is damaged
├── SyncError                        an exchange with the server failed; nothing is lost
│   ├── OfflineError                 the server can't be reached now; worth another try
│   │   └── UnavailableError         it answers, but can't serve now: overloaded, restarting
│   ├── UnauthorizedError            the credentials were not accepted
│   ├── ForbiddenError               the credentials don't reach this space
│   ├── MisconfiguredError           the endpoint does not speak tide's protocol
│   ├── ProtocolError                what came back is not the protocol; nothing was applied
│   └── ResetNeedsConfirmationError  a resync would remove most documents
├── NotFlushedError (TimeoutError)   what was written is not on the server yet; nothing is lost
└── RequestError                     (server) the request is refused; carries the problem
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tide.protocol import Problem

__all__ = [
    "CollectionNameError",
    "DocumentError",
    "EndpointError",
    "ForbiddenError",
    "ForkedError",
    "IdError",
    "MisconfiguredError",
    "NewerStoreError",
    "NotAStoreError",
    "NotFlushedError",
    "NotFoundError",
    "NotOpenError",
    "OfflineError",
    "ProtocolError",
    "RequestError",
    "ResetNeedsConfirmationError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "SyncError",
    "TideError",
    "UnauthorizedError",
    "UnavailableError",
    "UsageError",
    "WrongLoopError",
]


class TideError(Exception):
    """The base of every exception that tide raises on purpose."""


class DocumentError(TideError, ValueError):
    """The document can't be stored and come back equal; nothing was stored.

    Attributes:
        path: where in the document, such as ``tags[2].price``; empty for the document itself.
        reason: what is wrong there and what to do instead.
        code: the wire's code for it, ``invalid_doc`` or ``too_large``.
    """

    def __init__(self, path: str, reason: str, code: str = "invalid_doc") -> None:
        super().__init__(f"at {path}: {reason}" if path else f"the document {reason}")
        self.path = path
        self.reason = reason
        self.code = code

    def __reduce__(self) -> tuple[type[DocumentError], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.code)  # as for a process pool


class IdError(TideError, ValueError):
    """The id can't name a document: empty, too long, or with characters that ids don't have."""


class CollectionNameError(TideError, ValueError):
    """The name can't name a collection; see PROTOCOL.md, "Limits"."""


class EndpointError(TideError, ValueError):
    """The endpoint, or an option of syncing, can't be used."""


class NotFoundError(TideError, KeyError):
    """There is no such document, or no such rejected op."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class UsageError(TideError, RuntimeError):
    """The call can't work here and now; the message says what to do instead."""


class NotOpenError(UsageError):
    """The Tide is not open: not yet, or no more."""


class WrongLoopError(UsageError):
    """The Tide was opened in another event loop than the one that calls it."""


class ForkedError(UsageError):
    """The file was open when this process was forked; SQLite files must not cross a fork."""


class StoreError(TideError):
    """The local file failed."""


class NotAStoreError(StoreError):
    """The file exists and is not a tide store; it was left untouched."""


class NewerStoreError(StoreError):
    """The file was written by a newer tide; it was left untouched."""


class StoreBusyError(StoreError):
    """Another process kept the file locked for too long; the write did not happen."""


class StoreFullError(StoreError):
    """The disk is full; nothing was half-written, and the write did not happen."""


class StoreCorruptError(StoreError):
    """The file is damaged; the next open sets it aside and saves what can be read."""


class SyncError(TideError):
    """An exchange with the server failed; every pending op is kept.

    Attributes:
        retry_after: seconds that the server asked to be left alone, or 0.0.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OfflineError(SyncError):
    """The server can't be reached, or can't answer now; worth another try."""


class UnavailableError(OfflineError):
    """The server answers that it can't serve now (408, 425, 429, 5xx); worth another try."""


class UnauthorizedError(SyncError):
    """The server did not accept the credentials (401), also not after asking for fresh ones."""


class ForbiddenError(SyncError):
    """The credentials don't reach this space (403)."""


class MisconfiguredError(SyncError):
    """The endpoint answers, but not as a tide server: a wrong URL, or a wrong version."""


class ProtocolError(SyncError):
    """What came back is not the protocol, or not the answer to this request.

    Nothing of it was applied.
    """


class ResetNeedsConfirmationError(SyncError):
    """A resync would remove most documents of the store, so it waits for a yes.

    Call ``await tide.confirm_reset()`` to let it remove them. Until then they stay.
    """


class NotFlushedError(TideError, TimeoutError):
    """What was written is not on the server yet; it is pushed when the network allows."""


class RequestError(TideError):
    """(server) The request is refused as a whole; nothing of it was stored.

    Attributes:
        problem: the answer to give, as problem+json.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    def __reduce__(self) -> tuple[type[RequestError], tuple[Problem]]:
        return type(self), (self.problem,)
