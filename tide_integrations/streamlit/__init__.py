"""tide in Streamlit: pages that are drawn anew when a collection changes, whoever changed it."""

from tide_integrations.streamlit.collection import SyncedCollection, live, synced_editor, watch
from tide_integrations.streamlit.status import TideConnection, sync_status

__all__ = [
    "SyncedCollection",
    "TideConnection",
    "live",
    "sync_status",
    "synced_editor",
    "watch",
]
