"""tide in Textual: a collection that tells what changes, lists, tables, and how syncing goes."""

from tide_integrations.textual.collection import SyncedCollection
from tide_integrations.textual.rows import SyncedDataTable, SyncedOptionList
from tide_integrations.textual.status import SyncCommands, SyncStatus

__all__ = ["SyncCommands", "SyncStatus", "SyncedCollection", "SyncedDataTable", "SyncedOptionList"]
