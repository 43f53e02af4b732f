"""How syncing goes, in a badge."""

from __future__ import annotations

import weakref
from typing import Any

from tide import SyncStatus as Status
from tide import Tide
from tide_integrations._framework import needs
from tide_integrations.nicegui.opening import opened

with needs("nicegui"):
    from nicegui import background_tasks, ui

__all__ = ["SyncStatus"]

OLD = 10.0  # seconds after which the age of what waits is told

_told: weakref.WeakKeyDictionary[Tide, int] = weakref.WeakKeyDictionary()
"""The newest rejected op that somebody was told of."""

NAMES = {"stopped": "offline", "confirm_reset": "waiting"}
COLORS = {"online": "positive", "connecting": "grey-7", "stopped": "grey-7", "offline": "warning"}


class SyncStatus(ui.badge):
    """A badge that says how syncing goes. It also tells of what the server refused.

    Args:
        tide: the store, which must be open, or made by `connect`.
        options: of a badge.

    Attributes:
        status: the newest status of the store; None until there is one.
    """

    def __init__(self, tide: Tide, **options: Any) -> None:
        super().__init__("", **options)
        self.tide = tide
        self.status: Status | None = None
        self._told = _told.get(tide, 0)
        self._tooltip = ui.tooltip("").move(self)
        self._task = background_tasks.create(self._follow(), name="tide status")

    async def _follow(self) -> None:
        await opened(self.tide)
        watcher = self.tide.watch_status()
        try:
            async for status in watcher:
                self._take(status)
                if status.rejected:
                    await self._tell_of_rejected()
        finally:
            watcher.close()

    def _take(self, status: Status) -> None:
        self.status = status
        self.text = self.line(status)
        self.props(f"color={COLORS.get(status.state, 'negative')}")
        self._tooltip.text = status.error or "All that was written is on the server."
        self._tooltip.visible = bool(status.error) or self.text == "online"

    def line(self, status: Status) -> str:
        """What the badge says; override it to say something else."""
        local = self.tide._transport is None  # noqa: SLF001 - it has no other name
        if local and status.state == "stopped":
            return "on this computer only"
        name = NAMES.get(status.state, status.state)
        if not status.pending:
            return name
        age = status.oldest_pending_age
        oldest = f", the oldest for {age:.0f} s" if age >= OLD else ""
        changes = "1 change" if status.pending == 1 else f"{status.pending:,} changes"
        return f"{name} · {changes} to send{oldest}"

    async def _tell_of_rejected(self) -> None:
        for op in await self.tide.rejected():
            if op.number > self._told:
                self._told = op.number
                _told[self.tide] = max(op.number, _told.get(self.tide, 0))
                with self.client:
                    ui.notify(f"The server refused a change: {op.detail}", type="warning")

    def _handle_delete(self) -> None:  # the page is closed, or this is taken off it
        self._task.cancel()
        super()._handle_delete()
