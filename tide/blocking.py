"""The blocking twins of collections, batches and live queries; see `tide.connection`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar

from tide.batch import Batch
from tide.change import Change
from tide.collection import Collection
from tide.errors import NotOpenError
from tide.limits import check_function
from tide.live import LiveQuery
from tide.picture import Diff, Document
from tide.readers import Subscription
from tide.runner import Runner

__all__ = [
    "BlockingBatch",
    "BlockingCollection",
    "BlockingLiveQuery",
    "Stop",
    "Watched",
    "mirrors",
    "watch_with",
]

logger = logging.getLogger("tide")

T = TypeVar("T")
C = TypeVar("C")
T_co = TypeVar("T_co", covariant=True)


def mirrors(twin: type[Any]) -> Callable[[type[C]], type[C]]:
    """Give the methods of a class the docstrings of those of its async *twin*, without async."""

    def document(mirror: type[C]) -> type[C]:
        for name, member in vars(mirror).items():
            doc = getattr(vars(twin).get(name), "__doc__", None)
            if doc and not name.startswith("_") and not member.__doc__:
                member.__doc__ = doc.replace("await ", "").replace("async ", "")
        return mirror

    return document


class Watched(Protocol[T_co]):
    """What can be watched: an async iterator that can be closed at once."""

    def __aiter__(self) -> AsyncIterator[T_co]: ...

    def close(self) -> None: ...


class _Following(Generic[T]):
    """A callback and what it watches. It does not hold the runner, so that one can be dropped."""

    def __init__(self, watched: Watched[T], callback: Callable[[T], object]) -> None:
        self.watched = watched
        self.stopped = False
        self._callback = callback

    async def run(self) -> None:
        try:
            async for one in self.watched:
                if self.stopped:
                    return
                self._tell(one)
                await asyncio.sleep(0)  # others have their turn, however much comes
        except Exception:
            logger.exception("the watch of %r failed, and has ended", self._callback)

    def _tell(self, one: T) -> None:
        try:
            self._callback(one)
        except Exception:
            logger.exception("the callback %r of a watch failed; it goes on", self._callback)


class Stop:
    """Ends a watch when it is called, from any thread, also from its callback. Idempotent."""

    def __init__(self, runner: Runner, following: _Following[Any]) -> None:
        self._runner = runner
        self._following = following

    def __call__(self) -> None:
        """Call the callback no more; a call that is under way may still be at work."""
        self._following.stopped = True

        async def close() -> None:
            self._following.watched.close()

        with contextlib.suppress(NotOpenError):  # closing the connection has ended it
            self._runner.submit(close)


def watch_with(
    runner: Runner, watch: Callable[[], Watched[T]], callback: Callable[[T], object]
) -> Stop:
    """Call *callback* on the runner's thread with all that comes; what it raises is logged.

    Raises:
        UsageError: *callback* is no function, or async.
    """
    check_function(callback, "a watch calls a plain function, as in `watch(lambda new: …)`")
    following = _Following(runner.ask(watch), callback)
    runner.submit(following.run)
    return Stop(runner, following)


@mirrors(Collection)
class BlockingCollection:
    """The documents of one collection, by id, for code that is not async.

    Made by `Connection.collection`; see `Collection` for what holds of documents and writes.

    Attributes:
        name: the collection's name.
    """

    def __init__(self, runner: Runner, collection: Collection) -> None:
        self.name = collection.name
        self._runner = runner
        self._twin = collection

    def __repr__(self) -> str:
        return f"<BlockingCollection {self.name}>"

    def put(self, id_: str, doc: dict[str, Any], /) -> None:
        return self._runner.call(lambda: self._twin.put(id_, doc))

    def add(self, doc: dict[str, Any], /) -> str:
        return self._runner.call(lambda: self._twin.add(doc))

    def update(self, id_: str, fields: dict[str, Any], /) -> dict[str, Any]:
        return self._runner.call(lambda: self._twin.update(id_, fields))

    def delete(self, id_: str, /) -> bool:
        return self._runner.call(lambda: self._twin.delete(id_))

    def get(self, id_: str, /) -> dict[str, Any] | None:
        return self._runner.call(lambda: self._twin.get(id_))

    def all(self) -> dict[str, dict[str, Any]]:
        return self._runner.call(self._twin.all)

    def count(self) -> int:
        return self._runner.call(self._twin.count)

    def watch(self, callback: Callable[[Change], object], id_: str | None = None, /) -> Stop:
        """Call *callback* with what changes from now on, here or in the one document *id_*.

        It runs on tide's own thread, so it should be quick and can't use the connection itself;
        what it raises is logged.

        Returns:
            A function that ends it; so does closing the connection.

        Raises:
            IdError: *id_* can't be an id.
            UsageError: *callback* is no function, or async.
        """
        return watch_with(self._runner, lambda: self._twin.watch(id_), callback)

    def live(
        self,
        *,
        where: Callable[[dict[str, Any]], Any] | None = None,
        key: Callable[[dict[str, Any]], Any] | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> BlockingLiveQuery:
        query = self._runner.call(
            lambda: self._twin.live(where=where, key=key, reverse=reverse, limit=limit)
        )
        return BlockingLiveQuery(self._runner, query)


@mirrors(LiveQuery)
class BlockingLiveQuery:
    """A `LiveQuery` for code that is not async; its picture is there from the start."""

    def __init__(self, runner: Runner, query: LiveQuery) -> None:
        self._runner = runner
        self._twin = query

    def __enter__(self) -> BlockingLiveQuery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Diff]:
        """Each step from now on, for one reader; first of all the whole picture."""
        reader = self._runner.ask(lambda: aiter(self._twin))
        with contextlib.suppress(NotOpenError):  # the connection was closed, which ends it too
            while diff := self._runner.call(lambda: anext(reader, None)):
                yield diff

    def __len__(self) -> int:
        return self._runner.ask(lambda: len(self._twin))

    @property
    def items(self) -> dict[str, Document]:
        return self._runner.ask(lambda: self._twin.items)

    @property
    def revision(self) -> int:
        return self._runner.ask(lambda: self._twin.revision)

    @property
    def state(self) -> Literal["loading", "empty", "ready"]:
        return self._runner.ask(lambda: self._twin.state)

    @property
    def errors(self) -> dict[str, Exception]:
        return self._runner.ask(lambda: self._twin.errors)

    def get(self, id_: str, /) -> Document | None:
        return self._runner.ask(lambda: self._twin.get(id_))

    def is_pending(self, id_: str, /) -> bool:
        return self._runner.ask(lambda: self._twin.is_pending(id_))

    def subscribe(
        self, callback: Callable[[Diff], object], *, owner: object | None = None
    ) -> Subscription:
        """Call *callback* with the diff of each step from now on, on tide's own thread.

        It ends with `Subscription.close`, with the query, and when its owner goes away: the object
        whose method *callback* is, or else *owner*, which are held weakly.
        """
        return self._runner.ask(lambda: self._twin.subscribe(callback, owner=owner))

    def close(self) -> None:
        with contextlib.suppress(NotOpenError):  # closing the connection has closed it
            self._runner.ask(self._twin.close)


class BlockingBatch:
    """A `Batch` for code that is not async: ``with db.batch():``.

    It applies to the thread that entered it. Made by `Connection.batch`.
    """

    def __init__(self, runner: Runner, batch: Batch) -> None:
        self._runner = runner
        self._twin = batch

    def __enter__(self) -> BlockingBatch:
        self._runner.ask(self._twin.session.use)
        self._twin.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        writes = self._twin.leave()
        if kind is None:
            self._runner.call(lambda: self._twin.commit(writes))
