"""The blocking twins of collections, batches and live queries; see `tide.connection`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from tide.batch import Batch
from tide.change import Change
from tide.collection import Collection
from tide.errors import NotOpenError
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


class Stop:
    """Ends a watch when it is called, from any thread, also from its callback. Idempotent."""

    def __init__(self, runner: Runner, watched: Watched[Any]) -> None:
        self._runner = runner
        self._watched = watched
        self._stopped = False

    def __call__(self) -> None:
        """Call the callback no more; a call that is under way may still be at work."""
        self._stopped = True

        async def close() -> None:
            self._watched.close()

        with contextlib.suppress(NotOpenError):  # closing the connection has ended it
            self._runner.submit(close)

    @property
    def stopped(self) -> bool:
        """Whether it was called."""
        return self._stopped


def watch_with(
    runner: Runner, watch: Callable[[], Watched[T]], callback: Callable[[T], object]
) -> Stop:
    """Call *callback* on the runner's thread with all that comes; what it raises is logged."""
    watched = runner.ask(watch)
    stop = Stop(runner, watched)
    runner.submit(functools.partial(_follow, watched, callback, weakref.ref(stop)))
    return stop
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
        async def start() -> LiveQuery:
            return await self._twin.live(where=where, key=key, reverse=reverse, limit=limit)

        return BlockingLiveQuery(self._runner, self._runner.call(start))


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
        async def start() -> AsyncIterator[Diff]:
            return aiter(self._twin)

        reader = self._runner.call(start)
        while diff := self._runner.call(lambda: _next(reader)):
            yield diff

    def __len__(self) -> int:
        return self._ask(lambda: len(self._twin))

    @property
    def items(self) -> dict[str, Document]:
        return self._ask(lambda: self._twin.items)

    @property
    def revision(self) -> int:
        return self._ask(lambda: self._twin.revision)

    @property
    def state(self) -> Literal["loading", "empty", "ready"]:
        return self._ask(lambda: self._twin.state)

    @property
    def errors(self) -> dict[str, Exception]:
        return self._ask(lambda: self._twin.errors)

    def get(self, id_: str, /) -> Document | None:
        return self._ask(lambda: self._twin.get(id_))

    def is_pending(self, id_: str, /) -> bool:
        return self._ask(lambda: self._twin.is_pending(id_))

    def subscribe(
        self, callback: Callable[[Diff], object], *, owner: object | None = None
    ) -> Subscription:
        """Call *callback* with the diff of each step from now on, on tide's own thread.

        It ends with `Subscription.close`, with the query, and when its owner goes away: the object
        whose method *callback* is, or else *owner*, which are held weakly.
        """
        return self._ask(lambda: self._twin.subscribe(callback, owner=owner))

    def close(self) -> None:
        self._ask(self._twin.close)

    def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        return self._runner.call(answer)


class BlockingBatch:
    """A `Batch` for code that is not async: ``with db.batch():``.

    It applies to the thread that entered it. Made by `Connection.batch`.
    """

    def __init__(self, runner: Runner, batch: Batch) -> None:
        self._runner = runner
        self._twin = batch

    def __enter__(self) -> BlockingBatch:
        async def check() -> None:
            self._twin.session.use()

        self._runner.call(check)
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


async def _next(reader: AsyncIterator[Diff]) -> Diff | None:
    return await anext(reader, None)
