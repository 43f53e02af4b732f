"""tide in NiceGUI: collections, two-way documents, lists and grids by id, and how syncing goes."""

from tide_integrations.nicegui.collection import SyncedCollection, SyncedGrid, SyncedList
from tide_integrations.nicegui.document import SyncedDocument
from tide_integrations.nicegui.opening import connect
from tide_integrations.nicegui.status import SyncStatus

__all__ = [
    "SyncStatus",
    "SyncedCollection",
    "SyncedDocument",
    "SyncedGrid",
    "SyncedList",
    "connect",
]
