"""The todo list in a browser, with Streamlit: what starts it, and the script that it runs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

import tide
from demos.launch import launched
from demos.server import EmbeddedServer
from demos.todo import MAX_TEXT, Filter, Todo
from tide.integrations.streamlit import SyncedCollection, live, sync_status

__all__ = ["main"]

LOOK = 0.25  # seconds between two looks at whether somebody serves
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "runner.postScriptGC": "false",  # a garbage collection after each rerun is most of its time
    "server.fileWatcherType": "none",
}
CSS = """<style>
.block-container { max-width: 40rem; padding-top: 3rem; }
div[data-testid="stVerticalBlock"] { gap: 0.5rem; }
</style>"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the command line *argv*; the exit code."""
    web = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    web.add_argument("--host", default="127.0.0.1", help="where the page is (default: %(default)s)")
    web.add_argument("--port", type=int, default=8501, help="its port (default: %(default)s)")
    web.add_argument("--no-browser", action="store_true", help="open no browser")
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(words):
        print(web.format_help().partition("\n\n")[2].replace("options", "options of the page"))
    options, rest = web.parse_known_args(words)
    with launched("streamlit", rest) as launch:
        settings = {
            **SETTINGS,
            "server.address": options.host,
            "server.port": options.port,
            "server.headless": str(options.no_browser).lower(),
        }
        ended = threading.Event()
        if launch.server is not None:
            threading.Thread(target=_serve, args=(launch.server, ended), daemon=True).start()
        command = [sys.executable, "-m", "streamlit", "run", __file__]
        command += [f"--{name}={value}" for name, value in settings.items()]
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        command += ["--", str(launch.db), *filter(None, [launch.endpoint])]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as app:  # noqa: S603
            try:
                return app.wait()
            except KeyboardInterrupt:
                return 130
            finally:
                app.terminate()
                ended.set()


def _serve(server: EmbeddedServer, ended: threading.Event) -> None:
    """Serve whenever nobody does."""
    while not ended.is_set():
        server.start()
        ended.wait(LOOK)


@st.cache_resource
def open_store(path: str, endpoint: str | None = None) -> tuple[tide.Connection, SyncedCollection]:
    """The store, which all tabs share."""
    db = tide.connect(path, endpoint)
    return db, SyncedCollection(db.collection("todos"))


def page(path: str, endpoint: str | None = None) -> None:
    """Draw the page; Streamlit calls it at each step."""
    st.set_page_config("Todos", "✔")
    st.html(CSS)
    db, todos = open_store(path, endpoint)
    st.title("Todos")
    st.text_input(
        "New",
        key="new",
        placeholder="What needs doing?",
        max_chars=MAX_TEXT,
        label_visibility="collapsed",
        on_change=lambda: _add(todos),
    )

    @live(todos)
    def show() -> None:
        _show(todos)

    show()
    sync_status(db)


def _show(todos: SyncedCollection) -> None:
    shown = [Todo.from_doc(id_, doc) for id_, doc in todos.items.items()]
    counts = {which: sum(map(which.keeps, shown)) for which in Filter}
    which = st.segmented_control(
        "Show",
        list(Filter),
        default=Filter.ALL,
        key="which",
        required=True,
        format_func=lambda one: f"{one.value} {counts[one]}",
        label_visibility="collapsed",
    )
    for todo in filter(which.keeps, shown):
        _row(todos, todo)
    if not counts[which]:
        st.info(
            "Nothing to do yet." if which is Filter.ALL else f"Nothing is {which.value.lower()}."
        )
    if counts[Filter.DONE]:
        done = [todo.id for todo in filter(Filter.DONE.keeps, shown)]
        st.button("Clear what is done", type="tertiary", on_click=_delete, args=(todos, *done))


def _row(todos: SyncedCollection, todo: Todo) -> None:
    box, text, bin_ = st.columns([1, 16, 1], vertical_alignment="center")
    # What the document says is a part of the key: where it changes, the widget is a new one.
    box.checkbox(
        "Done",
        todo.done,
        key=f"done-{todo.id}-{todo.done}",
        label_visibility="collapsed",
        on_change=_update,
        args=(todos, todo.id, {"done": not todo.done}),
    )
    key = f"text-{todo.id}-{todo.text}"
    text.text_input(
        "Text",
        todo.text,
        key=key,
        max_chars=MAX_TEXT,
        label_visibility="collapsed",
        on_change=lambda: _rename(todos, todo.id, st.session_state[key]),
    )
    bin_.button(
        "✕", key=f"delete-{todo.id}", type="tertiary", on_click=_delete, args=(todos, todo.id)
    )


def _add(todos: SyncedCollection) -> None:
    if text := " ".join(st.session_state.new.split()):
        todos.add({"text": text, "done": False})
    st.session_state.new = ""


def _rename(todos: SyncedCollection, id_: str, text: str) -> None:
    if text := " ".join(text.split()):
        _update(todos, id_, {"text": text})


def _update(todos: SyncedCollection, id_: str, fields: Mapping[str, Any]) -> None:
    try:
        todos.update(id_, dict(fields))
    except tide.NotFoundError:
        st.toast("It was deleted elsewhere meanwhile.")


def _delete(todos: SyncedCollection, *ids: str) -> None:
    for id_ in ids:
        todos.delete(id_)


if __name__ == "__main__":
    page(*sys.argv[1:])
