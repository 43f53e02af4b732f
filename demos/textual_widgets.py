"""The parts of the Textual demo: the list of todos, the line below it, and a dialog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Input

from demos.launch import Launch
from demos.syncing import Syncing
from demos.todo import MAX_TEXT, Filter, Todo
from tide import Collection, Tide
from tide import SyncStatus as Status
from tide.integrations.textual import SyncedOptionList, SyncStatus

__all__ = ["EditScreen", "Keys", "NewTodo", "StatusLine", "TodoView"]

BOX = 3  # columns that the box in front of a todo takes
DOUBLE = 2  # clicks
UNFOCUSED = "Press a to add a todo"


class TodoView(SyncedOptionList):
    """The todos; what the keys and the mouse ask for are actions of the app."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "app.focus('new')", "Add"),
        Binding("e", "app.edit", "Edit"),
        Binding("enter", "app.edit", show=False),
        Binding("space", "app.toggle_done", "Toggle"),
        Binding("d,delete", "app.delete", "Delete", key_display="d"),
    ]

    def __init__(self, todos: Collection, hint: str) -> None:
        super().__init__(todos, _prompt, hint=hint, id="list")

    @property
    def current(self) -> Todo | None:
        """The todo under the cursor."""
        id_ = self.current_id
        return None if id_ is None else Todo.from_doc(id_, self.items[id_])

    def filter(self, which: Filter, hint: str) -> None:
        """Show those that *which* keeps, or the *hint* if there are none."""
        self.hint = hint
        self.show(where=lambda doc: which.keeps(Todo.from_doc("", doc)))

    async def on_click(self, event: events.Click) -> None:
        """A click selects; on the box in front it toggles, and a second one edits."""
        index: int | None = event.style.meta.get("option")
        offset = event.get_content_offset(self)
        if index is None or offset is None or self.current is None:
            return
        self.highlighted = index
        if offset.x < BOX:
            await self.run_action("app.toggle_done")
        elif event.chain == DOUBLE:
            await self.run_action("app.edit")


def _prompt(id_: str, doc: Mapping[str, Any]) -> Content:
    todo = Todo.from_doc(id_, doc)
    if todo.done:
        return Content.assemble(("[✓]", "$success"), " ", (todo.text, "dim strike"))
    return Content.assemble(("[ ]", "$text-muted"), " ", todo.text)


class StatusLine(SyncStatus):
    """Names the server, and the key to press."""

    def __init__(self, tide: Tide, launch: Launch) -> None:
        sync = Syncing(tide, launch.server).run if launch.endpoint else False
        super().__init__(tide, sync=sync)
        self._launch = launch

    def why(self, status: Status) -> str:
        """What is beside the state, as a person would say it."""
        server, endpoint = self._launch.server, self._launch.endpoint
        if status.state == "online":
            serves = server is not None and server.running
            return f"{'serving' if serves else 'with'} {endpoint}"
        if status.state == "offline":
            return f"no answer from {endpoint}"
        if status.state == "stopped" and endpoint:
            return "press o to go online again"
        return super().why(status)


class NewTodo(Input):
    """Where a new todo is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Add"),
        Binding("escape,down", "app.focus('list')", "To the list", key_display="esc"),
    ]

    def __init__(self) -> None:
        super().__init__(
            placeholder=UNFOCUSED,
            max_length=MAX_TEXT,
            select_on_focus=False,  # coming back must not select, and so endanger, what is typed
            id="new",
        )

    def on_focus(self) -> None:
        """Ask."""
        self.placeholder = "What needs doing?"

    def on_blur(self) -> None:
        """Say how to come back."""
        self.placeholder = UNFOCUSED

    async def on_key(self, event: events.Key) -> None:
        """Take Enter in its turn: a binding would be run after what is typed right behind it."""
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            await self.action_submit()

    async def action_submit(self) -> None:
        """Hand over the text, and be ready for the next one at once."""
        await super().action_submit()
        self.clear()


class Keys(Footer):
    """What the keys do; in rows of four where the app's CSS makes it a grid."""

    def compose(self) -> ComposeResult:
        """The keys that count where the focus is."""
        yield from super().compose()
        self.styles.grid_size_columns = 4


class EditScreen(ModalScreen[str | None]):
    """Asks for a todo's new text; None if the user thought better of it."""

    DEFAULT_CSS = """
    EditScreen { align: center middle; }
    EditScreen Input, EditScreen Input:focus {
        width: 80%; max-width: 80; border: round $accent; background: $background;
    }
    """
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Cancel")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Just the text, over the list."""
        field = Input(self._text, max_length=MAX_TEXT, select_on_focus=False)
        field.border_title = "Edit"
        field.border_subtitle = "Enter saves, Esc cancels"
        yield field

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: this is the new text."""
        event.stop()
        self.dismiss(event.value)
