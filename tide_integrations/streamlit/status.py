"""How syncing goes, on a page; and a store as one of Streamlit's connections."""

from __future__ import annotations

import weakref
from typing import Any

from tide import BlockingCollection, Connection, SyncStatus, connect
from tide_integrations._framework import needs
from tide_integrations.streamlit.collection import live
from tide_integrations.streamlit.push import Source

with needs("streamlit"):
    import streamlit as st
    from streamlit.connections import BaseConnection

__all__ = ["TideConnection", "sync_status"]


class _Status(Source):
    """How syncing goes; at a new number when something but a time is different."""

    def __init__(self, db: Connection) -> None:
        super().__init__()
        self._told: tuple[object, ...] = ()
        db.watch_status(self._take)

    def _take(self, status: SyncStatus) -> None:
        told = (status.state, status.pending, status.rejected, status.error)
        if told != self._told:
            self._told = told
            self.changed(self.number() + 1)


_statuses: weakref.WeakKeyDictionary[Connection, _Status] = weakref.WeakKeyDictionary()


def sync_status(db: Connection) -> None:
    """A line that says how syncing goes, always current; a toast tells what the server refused."""
    source = _statuses.get(db)
    if source is None:
        source = _statuses[db] = _Status(db)

    @live(source)
    def line() -> None:
        status = db.status
        st.caption(words(status))
        told = st.session_state.get("tide-refused", 0)
        for op in db.rejected() if status.rejected else ():
            if op.number > told:
                st.session_state["tide-refused"] = op.number
                st.toast(f"The server refused a change: {op.detail}", icon="⚠️")

    line()


def words(status: SyncStatus) -> str:
    """A *status* as people read it."""
    if status.state == "stopped":
        return "○ offline · kept in this file only"
    mark = "●" if status.state == "online" else "○"
    many = "1 change" if status.pending == 1 else f"{status.pending:,} changes"
    pending = f"{many} to send" if status.pending else "all sent"
    parts = [f"{mark} {status.state}", pending, status.error]
    return " · ".join(part for part in parts if part)


class TideConnection(BaseConnection[Connection]):
    """A store as a connection of Streamlit, with what `.streamlit/secrets.toml` says.

    >>> db = st.connection("tide", type=TideConnection)
    >>> todos = db.collection("todos")

    The section ``[connections.tide]`` has ``db_path``, ``endpoint`` and ``token``, which is sent as
    ``Authorization: Bearer …``; keyword arguments of `st.connection` win over it.
    """

    def _connect(self, **kwargs: Any) -> Connection:
        options = {**self._secrets.to_dict(), **kwargs}
        token = options.pop("token", None)
        if token is not None:
            options.setdefault("headers", {"Authorization": f"Bearer {token}"})
        return connect(options.pop("db_path"), options.pop("endpoint", None), **options)

    def collection(self, name: str) -> BlockingCollection:
        """See `Connection.collection`."""
        return self._instance.collection(name)

    @property
    def connection(self) -> Connection:
        """The open store, for all else."""
        return self._instance

    @property
    def status(self) -> SyncStatus:
        """See `Connection.status`."""
        return self._instance.status

    def reset(self) -> None:
        """Close the store; the next use opens it anew."""
        self.close()
        super().reset()

    def close(self) -> None:
        """Close the store; Streamlit calls it when it forgets the connection."""
        if getattr(self, "_raw_instance", None) is not None:
            self._instance.close()
