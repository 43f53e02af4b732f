"""tide: local-first SQLite sync for Python apps.

A local store of documents that always answers, a durable outbox of what the server does not have
yet, and two-way sync over HTTP that converges by itself when the network comes back.
"""

from tide.change import Change
from tide.client import Tide
from tide.collection import Collection
from tide.errors import (
    CollectionNameError,
    DocumentError,
    EndpointError,
    ForbiddenError,
    ForkedError,
    IdError,
    MisconfiguredError,
    NewerStoreError,
    NotAStoreError,
    NotFoundError,
    NotOpenError,
    OfflineError,
    ProtocolError,
    ResetNeedsConfirmationError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    SyncError,
    TideError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
    WrongLoopError,
)
from tide.feed import Watcher
from tide.ids import new_id
from tide.outbox import RejectedOp
from tide.recovery import Recovered
from tide.sync import SyncResult
from tide.sync_loop import SyncLoop
from tide.transports.base import Answer, Transport

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Change",
    "Collection",
    "CollectionNameError",
    "DocumentError",
    "EndpointError",
    "ForbiddenError",
    "ForkedError",
    "IdError",
    "MisconfiguredError",
    "NewerStoreError",
    "NotAStoreError",
    "NotFoundError",
    "NotOpenError",
    "OfflineError",
    "ProtocolError",
    "Recovered",
    "RejectedOp",
    "ResetNeedsConfirmationError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "SyncError",
    "SyncLoop",
    "SyncResult",
    "Tide",
    "TideError",
    "Transport",
    "UnauthorizedError",
    "UnavailableError",
    "UsageError",
    "Watcher",
    "WrongLoopError",
    "new_id",
]
