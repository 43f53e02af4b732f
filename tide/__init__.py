"""tide: local-first SQLite sync for Python apps.

A local store of documents that always answers, a durable outbox of what the server does not have
yet, and two-way sync over HTTP that converges by itself when the network comes back.
"""

from tide.blocking import BlockingBatch, BlockingCollection, BlockingLiveQuery, Stop
from tide.change import Change
from tide.client import Tide
from tide.collection import Collection
from tide.connection import Connection, connect
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
    NotFlushedError,
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
from tide.live import LiveQuery
from tide.outbox import RejectedOp
from tide.picture import Diff, Placed
from tide.readers import LiveReader, Subscription
from tide.recovery import Recovered
from tide.status import SyncStatus
from tide.status_watcher import StatusWatcher
from tide.sync import SyncResult
from tide.sync_loop import SyncLoop
from tide.transports.base import Answer, Event, Transport

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BlockingBatch",
    "BlockingCollection",
    "BlockingLiveQuery",
    "Change",
    "Collection",
    "CollectionNameError",
    "Connection",
    "Diff",
    "DocumentError",
    "EndpointError",
    "Event",
    "ForbiddenError",
    "ForkedError",
    "IdError",
    "LiveQuery",
    "LiveReader",
    "MisconfiguredError",
    "NewerStoreError",
    "NotAStoreError",
    "NotFlushedError",
    "NotFoundError",
    "NotOpenError",
    "OfflineError",
    "Placed",
    "ProtocolError",
    "Recovered",
    "RejectedOp",
    "ResetNeedsConfirmationError",
    "StatusWatcher",
    "Stop",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "Subscription",
    "SyncError",
    "SyncLoop",
    "SyncResult",
    "SyncStatus",
    "Tide",
    "TideError",
    "Transport",
    "UnauthorizedError",
    "UnavailableError",
    "UsageError",
    "Watcher",
    "WrongLoopError",
    "connect",
    "new_id",
]
