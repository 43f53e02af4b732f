"""The parts of the Textual demo that know nothing of tide: a list of todos, and a dialog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, OptionList
from textual.widgets.option_list import Option

from demos.todo import MAX_TEXT, Todo

__all__ = ["EditScreen", "Keys", "NewTodo", "TodoView"]

BOX = 3  # columns that the box in front of a todo takes
DOUBLE = 2  # clicks
UNFOCUSED = "Press a to add a todo"


class TodoView(OptionList):
    """The todos; whatever comes and goes around it, the cursor's todo stays where it is.

    What the keys and the mouse ask for are actions of the app.
    """

    DEFAULT_CSS = """
    TodoView { text-wrap: nowrap; text-overflow: ellipsis; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "app.focus('new')", "Add"),
        Binding("e", "app.edit", "Edit"),
        Binding("enter", "app.edit", show=False),
        Binding("space", "app.toggle_done", "Toggle"),
        Binding("d,delete", "app.delete", "Delete", key_display="d"),
    ]

    def __init__(self) -> None:
        super().__init__(markup=False, id="list")
        self._todos: list[Todo] = []

    @property
    def current(self) -> Todo | None:
        """The todo under the cursor."""
        return None if self.highlighted is None else self._todos[self.highlighted]

    def show(self, todos: list[Todo], hint: str) -> None:
        """Show *todos*, or the *hint* if there are none."""
        if todos and self._todos and _ids(todos[: len(self._todos)]) == _ids(self._todos):
            self._extend(todos)
        else:
            self._rebuild(todos, hint)

    def select(self, id_: str) -> None:
        """Put the cursor on a todo."""
        self.highlighted = self.get_option_index(id_)

    def _extend(self, todos: list[Todo]) -> None:
        """Show what changed in the todos that were shown, and the new ones below them."""
        for index, (before, now) in enumerate(zip(self._todos, todos, strict=False)):
            if before != now:
                self.replace_option_prompt_at_index(index, _prompt(now))
        self.add_options(map(_option, todos[len(self._todos) :]))
        self._todos = todos

    def _rebuild(self, todos: list[Todo], hint: str) -> None:
        top, before = self.scroll_offset.y, self.highlighted
        cursor = self._cursor_in(todos)
        with self.app.batch_update():
            self.clear_options()
            self._todos = todos
            self.add_options(map(_option, todos) if todos else [Option(hint, disabled=True)])
            self.highlighted = cursor
            if cursor is not None and before is not None:
                # A todo takes one line.
                self.scroll_to(y=top + cursor - before, animate=False, force=True, immediate=True)

    def _cursor_in(self, todos: Sequence[Todo]) -> int | None:
        """Where the cursor belongs: on its todo, or on the next one that is left."""
        if not todos:
            return None
        places = {todo.id: place for place, todo in enumerate(todos)}
        below = self._todos[self.highlighted or 0 :]
        left = (places[todo.id] for todo in below if todo.id in places)
        return next(left, len(todos) - 1 if below else 0)

    async def on_click(self, event: events.Click) -> None:
        """A click selects; on the box in front it toggles, and a second one edits."""
        index: int | None = event.style.meta.get("option")
        offset = event.get_content_offset(self)
        if index is None or offset is None or not self._todos:
            return
        self.highlighted = index
        if offset.x < BOX:
            await self.run_action("app.toggle_done")
        elif event.chain == DOUBLE:
            await self.run_action("app.edit")


def _ids(todos: Sequence[Todo]) -> list[str]:
    return [todo.id for todo in todos]


def _option(todo: Todo) -> Option:
    return Option(_prompt(todo), id=todo.id)


def _prompt(todo: Todo) -> Content:
    # Assembled, not formatted: what somebody typed is never read as markup.
    if todo.done:
        return Content.assemble(("[✓]", "$success"), " ", (todo.text, "dim strike"))
    return Content.assemble(("[ ]", "$text-muted"), " ", todo.text)


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
