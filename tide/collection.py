"""A collection: documents by id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tide import documents
from tide.batch import Batch, current_batch
from tide.codec import loads, loads_stored
from tide.errors import NotFoundError, UsageError
from tide.feed import Watcher
from tide.ids import new_id
from tide.limits import check_collection, check_function, check_id, encode_document
from tide.live import LiveQuery
from tide.picture import Picture
from tide.session import Session
from tide.store import Delete, Merge, Put

__all__ = ["Collection"]


class Collection:
    """The documents of one collection, by id. Made by `Tide.collection`.

    A document is a dict that JSON can hold. What you put is copied at once, and what you get is
    your own: changing it changes nothing here.

    Each write is durable when it returns (see *durability* of `Tide`), and is pushed to the
    server when the network allows. Cancelling one cancels the waiting, not the write.

    Attributes:
        name: the collection's name.
    """

    def __init__(self, session: Session, name: str) -> None:
        self.name = check_collection(name)
        self._session = session

    def __repr__(self) -> str:
        return f"<Collection {self.name}>"

    async def put(self, id_: str, doc: dict[str, Any], /) -> None:
        """Store *doc* under *id_*, in place of what may be there.

        Raises:
            DocumentError: *doc* holds something that would not come back equal.
            IdError: *id_* can't be an id.
            StoreError: the file failed; nothing was stored.
        """
        store = self._session.use()
        write = Put(self.name, check_id(id_), encode_document(doc))
        if batch := current_batch(self._session):
            batch.stage(write)
        else:
            await store.write(lambda tx: tx.write([write]))

    async def add(self, doc: dict[str, Any], /) -> str:
        """Store *doc* under a new id, and return the id: a UUIDv7, so ids sort by time.

        Raises:
            DocumentError: *doc* holds something that would not come back equal.
            StoreError: the file failed; nothing was stored.
        """
        id_ = new_id()
        await self.put(id_, doc)
        return id_

    async def update(self, id_: str, fields: dict[str, Any], /) -> dict[str, Any]:
        """Set the top-level *fields* of a document, atomically, and return the whole document.

        Raises:
            NotFoundError: there is no such document.
            DocumentError: *fields*, or the document with them, can't be stored.
            IdError: *id_* can't be an id.
            StoreError: the file failed; nothing was stored.
        """
        store = self._session.use()
        write = Merge(self.name, check_id(id_), encode_document(fields))
        if batch := current_batch(self._session):
            return await self._update_in(batch, write)
        doc: dict[str, Any] = loads((await store.write(lambda tx: tx.write([write])))[0])
        return doc

    async def delete(self, id_: str, /) -> bool:
        """Delete a document; whether it existed.

        Raises:
            IdError: *id_* can't be an id.
            StoreError: the file failed; nothing was deleted.
        """
        store = self._session.use()
        write = Delete(self.name, check_id(id_))
        if batch := current_batch(self._session):
            existed = await self.get(id_) is not None
            batch.stage(write)
            return existed
        return bool((await store.write(lambda tx: tx.write([write])))[0])

    async def get(self, id_: str, /) -> dict[str, Any] | None:
        """The document under *id_*, or None.

        Raises:
            IdError: *id_* can't be an id.
        """
        key = check_id(id_)
        text = await self._session.use().read(lambda sql: documents.read(sql, self.name, key))
        if batch := current_batch(self._session):
            return batch.view(self.name, key, text)
        return None if text is None else loads_stored(text)

    async def all(self) -> dict[str, dict[str, Any]]:
        """Every document, ``{id: doc}``, ordered by id."""
        rows = await self._session.use().read(lambda sql: documents.read_all(sql, self.name))
        if batch := current_batch(self._session):
            return self._all_in(batch, dict(rows))
        # One array is read faster than its documents one by one.
        docs = loads_stored(f"[{','.join([text for _, text in rows])}]")
        return dict(zip([id_ for id_, _ in rows], docs, strict=True))

    async def count(self) -> int:
        """How many documents there are."""
        if current_batch(self._session):
            return len(await self.all())
        return await self._session.use().read(lambda sql: documents.count(sql, self.name))

    def watch(self, id_: str | None = None, /) -> Watcher:
        """What changes from now on, in this collection or in the one document *id_*.

        >>> async for change in todos.watch():
        ...     print(change.kind, change.id, change.doc)

        It counts from this call, not from the first step of the loop; only of what another process
        wrote in the second before may some be told too. Each change is told once, in commit order,
        whether it was made here, by another process on this file, or came from the server.
        Leaving the loop ends it; so does closing the `Watcher`, or the Tide.

        Raises:
            IdError: *id_* can't be an id.
        """
        store = self._session.use()
        return store.feed.watch(self.name, None if id_ is None else check_id(id_))

    def live(
        self,
        *,
        where: Callable[[dict[str, Any]], Any] | None = None,
        key: Callable[[dict[str, Any]], Any] | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> LiveQuery:
        """A picture of this collection in memory that stays current: ordered, filtered.

        >>> async with todos.live(where=lambda doc: not doc["done"], limit=10) as open_todos:
        ...     print(open_todos.items)

        Args:
            where: whether a document, which it must not change, is in the picture; None: all are.
            key: what to sort by, made of a document; None: the id. Numbers, text, dates and the
                like, and tuples and lists of them, in any mixture; None comes first, so a field
                that is missing here and there is fine: ``key=lambda doc: doc.get("due")``.
                Documents with equal keys are in the order of their ids.
            reverse: whether all of that is the other way round: the greatest comes first.
            limit: how many documents the picture shows at most; None: all.

        Raises:
            UsageError: *where* or *key* is no plain function, or *limit* no positive whole number.
        """
        if where is not None:
            check_function(where, 'where= is a function, as in `where=lambda doc: not doc["done"]`')
        if key is not None:
            check_function(key, 'key= is a function, as in `key=lambda doc: doc["text"]`')
        if limit is not None and (type(limit) is not int or limit < 1):
            raise UsageError(f"limit must be a positive whole number or None, not {limit!r}")
        self._session.use()
        picture = Picture(where, key, reverse=reverse, limit=limit)
        return LiveQuery(self._session, self.name, picture)

    async def _update_in(self, batch: Batch, write: Merge) -> dict[str, Any]:
        doc = await self.get(write.id)
        if doc is None:
            raise NotFoundError(
                f"there is no document {write.id!r} in {self.name!r} to update; use put()"
            )
        merged = {**doc, **loads(write.text)}
        encode_document(merged)  # what can't be stored is refused here, not when the batch ends
        batch.stage(write)
        return merged

    def _all_in(self, batch: Batch, stored: dict[str, str]) -> dict[str, dict[str, Any]]:
        ids = sorted({*stored, *batch.staged(self.name)}, key=str.encode)
        views = {id_: batch.view(self.name, id_, stored.get(id_)) for id_ in ids}
        return {id_: doc for id_, doc in views.items() if doc is not None}
