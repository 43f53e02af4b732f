"""`LiveQuery`: an ordered, filtered picture of a collection in memory that stays current.

It is what the adapters of UI frameworks wrap, so that each of them can be thin.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Literal

from tide import documents, log, outbox
from tide.change import Committed
from tide.codec import loads
from tide.errors import UsageError
from tide.frozen import FrozenDict, freeze
from tide.picture import Diff, Document, Picture, Placed
from tide.readers import LiveReader, Subscription
from tide.session import Session

__all__ = ["LiveQuery"]

FRAME = 1 / 60
"""Seconds between two steps while changes keep coming."""


class LiveQuery:
    """The documents of a collection that match, in order, always current.

    Made by `Collection.live`.

    >>> async with todos.live(where=lambda doc: not doc["done"]) as open_todos:
    ...     print(open_todos.items)
    ...     async for diff in open_todos:
    ...         print(diff.added, diff.updated, diff.removed)

    It reads the collection once, and from then on follows what is committed, here or by another
    process, at a cost that does not grow with the collection. A lone change is shown at once; of
    changes that follow each other closely, all of one frame (1/60 s) are one step.
    """

    def __init__(self, session: Session, collection: str, picture: Picture) -> None:
        self._session = session
        self._collection = collection
        self._picture = picture
        self._pending: set[str] = set()
        self._revision = 0
        self._items: FrozenDict | None = None
        self._lsn = 0  # of the newest change that the picture began with
        self._waiting: list[Committed] = []
        self._loading: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # once the picture is there
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._stepped = -math.inf  # when, by the loop's clock
        self._readers: weakref.WeakSet[LiveReader] = weakref.WeakSet()
        self._subscriptions: list[Subscription] = []

    def __await__(self) -> Generator[Any, None, LiveQuery]:
        """Wait until the picture is there."""
        return self._start().__await__()

    async def __aenter__(self) -> LiveQuery:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> LiveReader:
        """Each step from now on, for one reader; first of all the whole picture."""
        if self._loading is None:
            raise UsageError("the query was not started; use `async with collection.live() as …`")
        reader = LiveReader(self._loading, self._whole, ended=self._closed)
        self._readers.add(reader)
        return reader

    @property
    def items(self) -> dict[str, Document]:
        """``{id: doc}`` in order, as of now. It can't be changed; ``copy()`` gives a dict that can.

        The same object is returned until the next step.
        """
        self._step()
        if self._items is None:
            self._items = FrozenDict(self._picture.visible())
        return self._items

    @property
    def revision(self) -> int:
        """How many steps there were; 0 until the picture is there, which is the first."""
        self._step()
        return self._revision

    @property
    def state(self) -> Literal["loading", "empty", "ready"]:
        """``"loading"`` until the picture is there; then ``"empty"`` or ``"ready"``."""
        if self._loop is None:
            return "loading"
        self._step()
        return "ready" if len(self._picture) else "empty"

    @property
    def errors(self) -> dict[str, Exception]:
        """Why documents are left out: those for which *where* or *key* raised, by id."""
        self._step()
        return dict(self._picture.errors)

    def __len__(self) -> int:
        self._step()
        return len(self._picture)

    def get(self, id_: str, /) -> Document | None:
        """The document *id_*, if it is in the picture."""
        self._step()
        return self._picture.find(id_)

    def is_pending(self, id_: str, /) -> bool:
        """Whether the newest write of the document *id_* is not on the server yet."""
        self._step()
        return id_ in self._pending

    def subscribe(
        self, callback: Callable[[Diff], object], *, owner: object | None = None
    ) -> Subscription:
        """Call *callback* with the diff of each step from now on, on the event loop.

        If the picture is not there yet, the first diff is the whole of it. It ends with
        `Subscription.close`, with the query, and when its owner goes away: the object whose method
        *callback* is, or else *owner*, which are held weakly. (A *callback* that itself refers to
        *owner* keeps it alive.) Hold the query, or the subscription, for as long as it is to go on.

        Raises:
            UsageError: *callback* is no function, or async; use ``async for`` then.
        """
        subscription = Subscription(callback, owner, self)
        self._subscriptions.append(subscription)
        return subscription

    def close(self) -> None:
        """Follow no more, and end all readers. The last picture stays. Idempotent."""
        if self._session.is_open:
            self._session.use().feed.remove(self)
        self.end()

    def end(self) -> None:
        """No step comes after those that wait for their readers."""
        self._step()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for reader in list(self._readers):
            reader.end()
        for subscription in self._subscriptions:
            subscription.close()

    def tell(self, changes: Sequence[Committed]) -> None:
        """Take note of committed *changes*; called by the feed."""
        if self._closed:
            return
        self._waiting.extend(change for change in changes if change.lsn > self._lsn)
        if self._loop is None or self._timer is not None:
            return
        rest = self._stepped + FRAME - self._loop.time()
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._step)
        else:
            self._step()

    def _whole(self) -> Diff:
        """The picture as a diff."""
        visible = enumerate(self._picture.visible())
        added = tuple(Placed(place, id_, doc) for place, (id_, doc) in visible)
        return Diff(self._revision, added=added, whole=True)

    async def _start(self) -> LiveQuery:
        if self._closed:
            raise UsageError("the query was closed; make another one with live()")
        if self._loading is None or (self._loading.done() and self._loop is None):  # it failed
            self._loading = asyncio.ensure_future(self._load())
        await asyncio.shield(self._loading)
        return self

    async def _load(self) -> None:
        store = self._session.use()
        store.feed.add(self, self._collection)  # before reading, so that nothing falls in between
        try:
            snapshot = await store.read(lambda sql: _read(sql, self._collection))
        except BaseException:
            store.feed.remove(self)
            raise
        self._lsn, docs, self._pending = snapshot
        self._picture.load(docs)
        self._items = None
        self._revision, self._loop = 1, asyncio.get_running_loop()
        # Others, and the database thread, are ahead of what the feed has told.
        self._waiting = [change for change in self._waiting if change.lsn > self._lsn]
        if self._subscriptions:
            self._tell(self._whole())
        self._step()

    def _step(self) -> None:
        """Take in what waits, and tell who follows."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is None or not self._waiting:
            return
        self._stepped = self._loop.time()
        waiting, self._waiting = self._waiting, []
        changed: dict[str, str | None] = {}
        marked: set[str] = set()
        for change in waiting:
            if self._settle(change):
                marked.add(change.id)
            if change.what != "acknowledged":
                changed[change.id] = change.doc
        docs = {id_: None if doc is None else freeze(loads(doc)) for id_, doc in changed.items()}
        if diff := self._picture.step(docs, marked - changed.keys()):
            self._items = None
            self._revision += 1
            self._tell(diff._replace(revision=self._revision))

    def _settle(self, change: Committed) -> bool:
        """Take note of whether its document is pending; whether that changed."""
        before = change.id in self._pending
        if change.what == "local":
            self._pending.add(change.id)
        else:
            self._pending.discard(change.id)
        return before != (change.what == "local")

    def _tell(self, diff: Diff) -> None:
        for reader in list(self._readers):
            reader.tell(diff)
        for subscription in list(self._subscriptions):
            subscription.tell(diff)
        self._subscriptions = [one for one in self._subscriptions if not one.closed]


def _read(sql: Any, collection: str) -> tuple[int, dict[str, FrozenDict], set[str]]:
    """(database thread) Where the log stands, the documents, and the ids that wait."""
    rows = documents.read_all(sql, collection)
    docs = freeze(loads(f"[{','.join([text for _, text in rows])}]"))
    ids = [id_ for id_, _ in rows]
    return (
        log.head(sql),
        dict(zip(ids, docs, strict=True)),
        outbox.waiting_ids(sql, collection),
    )
