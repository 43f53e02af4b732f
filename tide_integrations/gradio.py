"""tide in Gradio: a collection that triggers events, rows for tables, and how syncing goes.

A page can't be told of anything by the server; it has to ask. So a hidden element of each page
waits on the server, by a coroutine that holds neither a thread nor a place in Gradio's queue. A
browser opens six connections to one server, however many tabs there are: only one tab of a browser
waits, for all that its tabs show, and tells the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import itertools
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tide import Connection, Diff
from tide import SyncStatus as Status
from tide.blocking import BlockingCollection
from tide_integrations._framework import needs

with needs("gradio"):
    import gradio as gr

__all__ = ["SyncStatus", "SyncedCollection"]

Document = dict[str, Any]

PATIENCE = 25.0  # seconds that a page waits before it asks anew
LOOK = 0.5  # seconds between two looks at whether a page that waits is still there

# `seen` are the revisions of all that the server's process shows, `shown` is ours. Web Locks are
# missing where a page is no secure context (plain http from another machine): then each tab asks
# once a second, rather than that tabs take all connections of the browser.
SCRIPT = """
const channel = new BroadcastChannel("tide NAME");
const sleep = (time) => new Promise((done) => setTimeout(done, time));
let seen = null, shown = null, leads = false;
const take = (news) => {
  seen = news;
  if (news["KEY"] !== shown) {
    shown = news["KEY"];
    trigger("change");
  }
};
channel.onmessage = ({data}) => {
  if (data !== null) take(data);
  else if (leads && seen !== null) channel.postMessage(seen);
};
const follow = async (waits) => {
  let pause = 250;
  while (element.isConnected) {
    try {
      const news = await server.wait({seen, waits});
      take(news);
      if (waits) channel.postMessage(news);
      else await sleep(1000);
      pause = 250;
    } catch {
      await sleep(pause);
      pause = Math.min(2 * pause, 5000);
    }
  }
};
if (navigator.locks) {
  channel.postMessage(null);
  navigator.locks.request("tide NAME", async () => {
    leads = true;
    await follow(true).finally(() => { leads = false; });
  });
} else follow(false);
"""


class _Hub:
    """The revisions of all that this process shows, and the pages that wait for news."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)  # pages of a process that has ended share nothing with us
        self.revisions: dict[str, str] = {}
        self.waiting: set[Callable[[], object]] = set()
        self._steps = itertools.count(1)
        self._lock = threading.Lock()

    def step(self, key: str) -> None:
        """There is news of *key*; from any thread."""
        with self._lock:
            self.revisions[key] = f"{self.name} {next(self._steps)}"
            waiting = tuple(self.waiting)
        for wake in waiting:
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                wake()

    def drop(self, key: str) -> None:
        """Nobody shows *key* any more."""
        with self._lock:
            self.revisions.pop(key, None)

    def now(self) -> dict[str, str]:
        with self._lock:
            return dict(self.revisions)

    async def news(self, seen: object, request: gr.Request) -> dict[str, str]:
        """The revisions, once they aren't *seen*, or the page has gone, or it should ask anew."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        ends = loop.time() + PATIENCE

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        with self._lock:  # before looking, so that nothing falls in between
            self.waiting.add(wake)
        try:
            while (now := self.now()) == seen and loop.time() < ends:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(event.wait(), LOOK)
                event.clear()
                if await request.is_disconnected():
                    break
            return now
        finally:
            with self._lock:
                self.waiting.discard(wake)


_hub = _Hub()
_keys = itertools.count(1)


class _Changed:
    """An event of Gradio: to call, and to use in ``gr.on`` and ``gr.render``.

    It is the event ``change`` of the hidden element, of which Gradio runs a listener once more if
    there was news while it ran; events of other names are dropped meanwhile.
    """

    def __init__(self, element: gr.HTML) -> None:
        self._listener = element.change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)  # what Gradio looks for, such as the element

    def __call__(
        self, fn: Callable[..., Any], inputs: Any = None, outputs: Any = None, **options: Any
    ) -> Any:
        """Call *fn* on each page when it opens and when there is news; *options* as in Gradio."""
        options.setdefault("show_progress", "hidden")
        return self._listener(fn, inputs, outputs, **options)


class _Synced:
    """What pages wait for.

    It is not a subclass of ``gr.HTML``: of those, Gradio writes a stub file beside their module.
    """

    def __init__(self) -> None:
        key = str(next(_keys))
        self._key = key

        async def wait(asked: dict[str, Any], request: gr.Request) -> dict[str, str]:
            return await _hub.news(asked["seen"], request) if asked["waits"] else _hub.now()

        element = gr.HTML(
            visible="hidden",
            html_template="",
            js_on_load=SCRIPT.replace("NAME", _hub.name).replace("KEY", key),
            server_functions=[wait],
        )
        vars(element)["synced"] = self  # which lives as long
        self.changed = _Changed(element)
        _hub.step(key)
        weakref.finalize(self, _hub.drop, key)

    def _step(self, _news: object = None) -> None:
        _hub.step(self._key)


class SyncedCollection(_Synced):
    """A collection whose ``changed`` event is triggered on all pages when it changes.

    Make it inside ``gr.Blocks``; it is not seen. *where*, *key*, *reverse* and *limit* are those of
    `Collection.live`.

    >>> todos = SyncedCollection(db.collection("todos"), columns=["text"])
    >>> table = gr.Dataframe(todos.rows)
    >>> todos.changed(todos.rows, outputs=table)

    Attributes:
        collection: the collection.
        changed: the event; it comes on opening a page, too.
    """

    def __init__(
        self,
        collection: BlockingCollection,
        *,
        columns: Sequence[str] | None = None,
        where: Callable[[Document], Any] | None = None,
        key: Callable[[Document], Any] | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.collection = collection
        self._columns = columns
        self._query = collection.live(where=where, key=key, reverse=reverse, limit=limit)
        self._subscription = self._query.subscribe(self._take)

    def _take(self, _diff: Diff) -> None:
        self._step()

    @property
    def items(self) -> dict[str, Document]:
        """``{id: doc}`` in order, as of now. It can't be changed."""
        return self._query.items

    def rows(self) -> dict[str, list[Any]]:
        """The value of a ``gr.Dataframe``: the id, then the *columns*, or else all fields."""
        docs = self.items
        fields: Mapping[str, Any] | Sequence[str] | None = self._columns
        if fields is None:
            fields = dict.fromkeys(itertools.chain.from_iterable(docs.values()))
        data = [[id_, *(doc.get(field) for field in fields)] for id_, doc in docs.items()]
        return {"headers": ["id", *fields], "data": data}

    def is_pending(self, id_: str, /) -> bool:
        """Whether the newest write of the document *id_* is not on the server yet."""
        return self._query.is_pending(id_)

    def put(self, id_: str, doc: Document, /) -> None:
        """See `Collection.put`."""
        self.collection.put(id_, doc)

    def add(self, doc: Document, /) -> str:
        """See `Collection.add`."""
        return self.collection.add(doc)

    def update(self, id_: str, fields: Document, /) -> Document:
        """See `Collection.update`."""
        return self.collection.update(id_, fields)

    def delete(self, id_: str, /) -> bool:
        """See `Collection.delete`."""
        return self.collection.delete(id_)


class SyncStatus(_Synced):
    """A line that says how syncing goes. Make it inside ``gr.Blocks``.

    Attributes:
        status: the newest status of the store.
        changed: the event that it has changed.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.status: Status = connection.status
        me = weakref.ref(self)

        def take(status: Status) -> None:
            if (line := me()) is not None:
                line.status = status
                line._step()  # noqa: SLF001 - it is this class

        stop = connection.watch_status(take)
        weakref.finalize(self, stop)
        # (Not a State: for one, Gradio keeps a connection open for each tab.)
        line, told = gr.HTML(self.line), gr.Number(-1, precision=0, visible=False)
        # It is in Gradio's queue, without which there are no messages, but nobody waits for another
        self.changed(self._show, told, [line, told], concurrency_limit=None)

    def line(self) -> str:
        """What is shown, in HTML; override it to say something else."""
        status = self.status
        mark = "●" if status.state == "online" else "○"
        name = {"stopped": "offline", "confirm_reset": "waiting"}.get(status.state, status.state)
        waits = (
            f"{status.pending:,} to send" if status.pending and status.state != "stopped" else ""
        )
        parts = [f"{mark} {name}", waits, status.error or ""]
        return html.escape(" · ".join(filter(None, parts)))

    def _show(self, told: int) -> tuple[str, int]:
        numbers = {op.number: op for op in self._connection.rejected()}
        newest = max(numbers, default=0)
        for number, op in numbers.items():
            if 0 <= told < number:
                gr.Warning(html.escape(f"The server refused a change: {op.detail}"))
        return self.line(), max(newest, told)
