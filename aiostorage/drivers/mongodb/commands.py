"""Operations carried out on a MongoDB server, inside a transaction or outside of one.

All modules above send their operations by these commands, which call nothing above themselves.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from operator import itemgetter
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

from aiostorage._core.queries.ordering import Order, place_of
from aiostorage.drivers.mongodb.blobs import Blobs
from aiostorage.drivers.mongodb.bson_codec import as_stored, packed, unpacked
from aiostorage.drivers.mongodb.client import Client, UpdateOne
from aiostorage.drivers.mongodb.filters import RECORD_ID, CollectionSchema, rank, sort_key
from aiostorage.drivers.mongodb.known_rows import KnownRows
from aiostorage.drivers.mongodb.logged_change import Doubt, LoggedChange, is_logged_write
from aiostorage.drivers.mongodb.plans import Plan, asks_time, make_plan
from aiostorage.drivers.mongodb.server_errors import LIBRARY_ERRORS, translate
from aiostorage.errors import AioStorageError, OperationTimeout
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Logged,
    Operation,
    Or,
    StoreTime,
    Take,
    Update,
)

__all__ = ["CURSOR_BATCH_SIZE", "SERVER_TIME_SHARE", "Commands", "read_within", "write_within"]

T = TypeVar("T")

UpdateById: TypeAlias = tuple[dict[str, Any], Any]
"""The filter of one document, and its update."""

SERVER_TIME_SHARE: Final = 0.95
"""Part of the time left that the server gets, so that it replies before the caller gives up."""

CURSOR_BATCH_SIZE: Final = 500
"""Documents in one reply of a cursor, at most, so that decoding does not block the event loop."""


async def read_within(client: Client, seconds: float, action: Callable[[], Awaitable[T]]) -> T:
    """Await a read, for so many seconds at most."""
    try:
        with client.bound(seconds):
            return await action()
    except LIBRARY_ERRORS as error:
        raise translate(error, client.settings.location, writing=False) from error


async def write_within(client: Client, seconds: float, action: Callable[[], Awaitable[T]]) -> T:
    """Await a write, for so many seconds at most."""
    location = client.settings.location
    try:
        # a transaction is begun anew for two minutes, whatever the limit is
        async with asyncio.timeout(seconds / SERVER_TIME_SHARE):
            with client.bound(seconds):
                return await action()
    except LIBRARY_ERRORS as error:
        raise translate(error, location, writing=True) from error
    except TimeoutError as error:
        if isinstance(error, AioStorageError):
            raise
        raise OperationTimeout(
            f"{location}: no answer within {seconds:.3g} s", ambiguous=True
        ) from None


def _drained(items: list[T]) -> Iterator[T]:
    """Free items one by one, since freeing all of them at once would block the event loop."""
    items.reverse()
    while items:
        yield items.pop()


def _unpacked(parts: list[list[tuple[Any, bytes]]], size: int) -> Iterator[list[Document]]:
    merged = heapq.merge(*map(_drained, parts))
    while part := list(islice(merged, size)):
        yield [unpacked(data) for _, data in part]


async def _sorted_parts(
    cursor: Any,
    order: Order,
    place: tuple[Any, ...] | None,
    form: Callable[[Document], T],
    *,
    by_id: bool,
) -> list[list[tuple[tuple[Any, ...], T]]]:
    """Return the documents of a cursor, behind a place, in parts, so that the event loop turns.

    Each part is sorted. With each document is its sort key; no two documents have the same one.
    """
    parts = []
    while batch := await cursor.to_list(CURSOR_BATCH_SIZE):
        keyed = [(sort_key(document, order, by_id), form(document)) for document in batch]
        if place is not None:
            keyed = [item for item in keyed if item[0] > place]
        parts.append(sorted(keyed, key=itemgetter(0)))
    return parts


async def _in_order(
    cursor: Any, order: Order, place: tuple[Any, ...] | None = None, *, by_id: bool = False
) -> list[Document]:
    """Return the documents of a cursor, behind a place, by `order` and then by insertion."""
    parts = await _sorted_parts(cursor, order, place, _as_it_is, by_id=by_id)
    if len(parts) == 1:
        return [document for _, document in parts[0]]
    documents: list[Document] = []
    # no two have one sort key, so that no documents are compared
    for _, document in heapq.merge(*map(_drained, parts)):
        documents.append(document)
        if len(documents) % CURSOR_BATCH_SIZE == 0:
            await asyncio.sleep(0)
    return documents


def _as_it_is(document: Document) -> Document:
    return document


def _later(find: Find) -> tuple[Condition, ...]:
    """Return the conditions by which the server leaves out what comes before a time."""
    if find.after is None or not find.order:
        return ()
    item, time = find.order[0], find.after.values[0]
    if not isinstance(time, datetime):
        return ()
    if isinstance(item, str):
        return (Compare(item, "gte", time),)
    later = Compare(item.path, "lte" if item.descending else "gte", time)
    return (Or((later, Compare(item.path, "eq", None))),)


@dataclass(frozen=True, slots=True)
class Commands:
    """Carries out operations that belong together.

    Attributes
    ----------
    session
        The transaction's; None outside of one.
    now
        The time that all of them go by; None for the server's clock at each.
    stale
        Blobs that no document refers to once the operations have succeeded.
    unwritten_notes
        Rows of the outbox that a server without transactions could not write after a change.
    logs
        Whether changes are logged where the layout says so.
    changed
        The changes that are to be logged, together with the writes that make them.
    unlogged
        Changes whose rows a server without transactions could not write.
    doubts
        What may have changed there without a row.
    copied
        The numbers of rows that have been copied from the head of a log; see `log_head`.
    numbers
        The largest number that is known to be in the head of a log.
    known
        Rows of logs that this process has written on a replica set.
    begun
        When the operations began, by `time.monotonic`.
    """

    client: Client
    schemas: Mapping[str, CollectionSchema]
    blobs: Blobs
    session: Any = None
    now: datetime | None = None
    stale: list[str] = field(default_factory=list)
    unwritten_notes: list[Document] = field(default_factory=list)
    logs: bool = False
    changed: list[LoggedChange] = field(default_factory=list)
    unlogged: list[LoggedChange] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    copied: dict[str, list[int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    known: KnownRows = field(default_factory=KnownRows)
    begun: float = field(default_factory=monotonic)

    def fresh(
        self, session: Any = None, now: datetime | None = None, client: Client | None = None
    ) -> Commands:
        """Return the same for other operations, perhaps with a client for another thread."""
        return replace(
            self,
            client=client or self.client,
            session=session,
            now=now,
            stale=[],
            changed=[],
            begun=monotonic(),
        )

    def logged(self, operation: Operation[Any]) -> Logged | None:
        """Return how the changes of an operation are logged; None if they are not."""
        logged = self.schemas[operation.collection].logged if self.logs else None
        return logged if is_logged_write(logged, operation) else None

    # --------------------------------------------------------------------- whole operations

    def run(self, operation: Operation[Any]) -> Awaitable[Any]:
        """Carry out one operation; return its result."""
        schema = self.schemas[operation.collection]
        return self.carry_out(make_plan(schema, operation, self.now))

    async def carry_out(self, plan: Plan) -> Any:
        """Carry out one operation; return its result."""
        operation = plan.operation
        match operation:
            case Find():
                found = await self.find(plan)
                if found and plan.schema.blobs:
                    await self.blobs.fill(plan.schema, found)
                return found
            case Take():
                taken = await self._take(plan)
                if taken and plan.schema.blobs:
                    await self.blobs.fill(plan.schema, taken)
                return taken
            case Update():
                return await self._update(plan)
            case Count():
                collection = self.client.collections[plan.schema.name]
                return await collection.count_documents(plan.matching, session=self.session)
            case Insert():
                return await self._insert(plan)
            case Delete():
                return await self._delete(plan)
            case _:
                raise TypeError(f"unknown operation {operation!r}")

    async def carry_out_within(self, plan: Plan, seconds: float) -> Any:
        """Carry out one operation on its own, in a task that its caller cannot cancel."""
        try:
            with self.client.bound(seconds):
                return await self.carry_out(plan)
        except LIBRARY_ERRORS as error:
            raise translate(error, self.client.settings.location) from error

    async def write(self, plan: Plan) -> Any:
        """Carry out one operation on its own, and delete the blobs that it replaces."""
        now = None
        if isinstance(plan.operation, Insert) and asks_time(plan.operation):
            now = await self.client.now()  # an insert knows no expressions
        commands = self.fresh(now=now)
        result = await commands.carry_out(plan)
        if commands.stale:
            await self.blobs.discard(commands.stale)
        return result

    # ------------------------------------------------------------------------------ reading

    async def find(self, plan: Plan) -> list[Document]:
        """Return the documents of a `Find` as they are stored."""
        find: Find = plan.operation
        collection = self.client.collections[plan.schema.name]
        fields = None if find.selection is None else dict(find.selection)
        options: dict[str, Any] = {"session": self.session, "batch_size": CURSOR_BATCH_SIZE}
        if find.limit == 0:
            return []
        if plan.one:
            found = await collection.find_one(plan.matching, fields, session=self.session)
            return [] if found is None else [found]
        if find.limit is not None and plan.first is not None:
            options |= plan.first
            cursor = collection.find(plan.matching, fields, limit=find.limit, **options)
            documents: list[Document] = await cursor.to_list(None)
            return documents
        if find.limit is not None or (find.order and fields is not None):
            return await self._find_chosen(plan.schema, find)
        place = await self._place(plan.schema, find)
        cursor = collection.find(plan.matching, fields, show_record_id=True, **options)
        return await _in_order(cursor, find.order, place, by_id=plan.schema.is_log)

    @staticmethod
    def can_pack(plan: Plan) -> bool:
        """Return whether `find_packed` can carry out a `Find`."""
        find: Find = plan.operation
        chosen = find.limit is not None or (find.order and find.selection is not None)
        return not (plan.one or chosen or plan.schema.blobs or find.majority)

    async def find_packed(self, plan: Plan, size: int) -> Iterator[list[Document]]:
        """Find documents, as `find` does, that are kept as BSON until they are asked for.

        The garbage collector passes by a key and bytes, and has a whole document to look through.
        """
        find, schema = plan.operation, plan.schema
        fields = None if find.selection is None else dict(find.selection)
        place = await self._place(schema, find)
        cursor = self.client.collections[schema.name].find(
            plan.matching,
            fields,
            show_record_id=True,
            session=self.session,
            batch_size=CURSOR_BATCH_SIZE,
        )
        parts = await _sorted_parts(cursor, find.order, place, packed, by_id=schema.is_log)
        return _unpacked(parts, size)

    async def _place(self, schema: CollectionSchema, find: Find) -> tuple[Any, ...] | None:
        """Return the place behind which to begin, with the number of its document."""
        if find.after is None:
            return None
        (key,) = schema.references_of([find.after.uid])
        found = await self.client.collections[schema.name].find_one(
            {"_id": {"$eq": key}}, {"_id": True}, show_record_id=True, session=self.session
        )
        number = None if found is None else found[RECORD_ID]
        place = place_of(find.after, find.order, number)
        return (*place[:-1], rank(find.after.uid), place[-1]) if schema.is_log else place

    def find_stored(self, find: Find) -> Awaitable[list[Document]]:
        """Return documents as they are stored, with references for blobs."""
        return self.find(make_plan(self.schemas[find.collection], find, self.now))

    async def _find_chosen(self, schema: CollectionSchema, find: Find) -> list[Document]:
        """Find by an order that no index has; the server's own sort ignores the insertion."""
        place = await self._place(schema, find)
        where = And((find.where, *_later(find)))
        ids = await self.ids(schema, where, find.order, find.limit, place)
        if not ids:
            return []
        chosen = And((find.where, Compare("_id", "in", tuple(ids))))
        found = await self.find_stored(Find(schema.name, chosen, find.selection))
        by_id = {document["_id"]: document for document in found}
        return [by_id[uid] for uid in ids if uid in by_id]

    async def ids(
        self,
        schema: CollectionSchema,
        where: Condition,
        order: Order = (),
        limit: int | None = None,
        place: tuple[Any, ...] | None = None,
    ) -> list[Any]:
        """Return the ids of what matches, behind a place, in order."""
        cursor = self.client.collections[schema.name].find(
            schema.filter(where, self.now),
            {"_id": True, **schema.projection(order)},
            show_record_id=True,
            session=self.session,
        )
        found = await _in_order(cursor, order, place, by_id=schema.is_log)
        return [document["_id"] for document in found[:limit]]

    # ------------------------------------------------------------------------------ writing

    async def _insert(self, plan: Plan) -> None:
        await self.insert(plan.schema, plan.operation.documents)

    async def insert(self, schema: CollectionSchema, documents: Sequence[Document]) -> None:
        """Insert documents."""
        made = [schema.document(document, self.now) for document in documents]
        collection = self.client.collections[schema.name]
        if len(made) == 1:
            await collection.insert_one(made[0], session=self.session)
        elif made:
            await collection.insert_many(made, session=self.session)

    async def update_each(self, schema: CollectionSchema, updates: Sequence[UpdateById]) -> None:
        """Update documents of which it is known that they are there, in no order."""
        collection = self.client.collections[schema.name]
        if len(updates) == 1:
            await collection.update_one(*updates[0], session=self.session)
        elif updates:
            made = [UpdateOne(*update) for update in updates]
            await collection.bulk_write(made, ordered=False, session=self.session)

    async def note(self, insertion: Insert) -> None:
        """Insert what a follow-up made, by the server's clock, which an insertion cannot ask."""
        if len(insertion.documents) > 1:
            now = self.now or await self.client.now()
            await self.fresh(self.session, now).run(insertion)
            return
        schema = self.schemas[insertion.collection]
        for document in insertion.documents:
            key, *_ = schema.references_of([document["_id"]])
            changes = {name: value for name, value in document.items() if name != "_id"}
            asked = next(name for name, v in changes.items() if v.__class__ is StoreTime)
            # where the key is taken, nothing matches, and the server cannot insert it
            await self.client.collections[schema.name].update_one(
                {"_id": key, asked: {"$exists": False}},
                schema.update(changes, self.now),
                upsert=True,
                session=self.session,
            )

    async def _timed_update(self, plan: Plan) -> Any:
        """Return an update that needs the server's time, which is asked for."""
        return plan.schema.update(plan.operation.changes, await self.client.now())

    async def _update(self, plan: Plan) -> int:
        schema, changes = plan.schema, plan.operation.changes
        collection = self.client.collections[schema.name]
        if not changes:
            return int(await collection.count_documents(plan.matching, session=self.session))
        update = await self._timed_update(plan) if plan.update is None else plan.update
        blobs = [name for name in schema.blobs if name in changes]
        if not plan.one:
            if blobs:
                self.stale.extend(await self.blobs.referred(schema, plan.matching, self.session))
            updated = await collection.update_many(plan.matching, update, session=self.session)
            return int(updated.matched_count)
        if blobs:  # one trip writes, and returns what is to be deleted
            references = self.blobs.references(blobs)
            before = await self.find_one_and_update(plan, update, projection=references)
            self.stale.extend(self.blobs.in_document(schema, before))
            return int(before is not None)
        updated = await collection.update_one(plan.matching, update, session=self.session)
        return int(updated.matched_count)

    async def _take(self, plan: Plan) -> list[Document]:
        if plan.operation.limit != 1:
            return await self._take_several(plan)
        if plan.first is None:
            return await self._take_chosen(plan)
        update = await self._timed_update(plan) if plan.update is None else plan.update
        taken = await self.find_one_and_update(plan, update, return_document=True, **plan.first)
        return [] if taken is None else [taken]

    async def find_one_and_update(self, plan: Plan, update: Any, **options: Any) -> Any:
        """Update one document; return it as a document of every engine.

        PyMongo would do so by the collection's options, but then it does not survive the error that
        a primary answers which steps down meanwhile: it wants to write into a document that is
        read-only (`_check_command_response`, up to 4.20 at least).
        """
        collection = self.client.undecoded[plan.schema.name]
        found = await collection.find_one_and_update(
            plan.matching, update, session=self.session, **options
        )
        return None if found is None else as_stored(found)

    async def _take_chosen(self, plan: Plan) -> list[Document]:
        """Choose by an order that no index has, then take; again if another worker was faster."""
        take: Take = plan.operation
        while True:
            ids = await self.ids(plan.schema, take.where, take.order, 1)
            if not ids:
                return []
            one = And((Compare("_id", "eq", ids[0]), take.where))
            again = Take(plan.schema.name, one, take.changes)
            taken = await self._take(make_plan(plan.schema, again, self.now))
            if taken:
                return taken

    async def _take_several(self, plan: Plan) -> list[Document]:
        schema, take = plan.schema, plan.operation
        ids = await self.ids(schema, take.where, take.order, take.limit)
        if not ids:
            return []
        chosen = {"_id": {"$in": schema.references_of(ids)}}
        collection = self.client.collections[schema.name]
        update = await self._timed_update(plan) if plan.update is None else plan.update
        await collection.update_many(chosen, update, session=self.session)
        cursor = collection.find(chosen, session=self.session)
        by_id = {document["_id"]: document for document in await cursor.to_list(None)}
        return [by_id[uid] for uid in ids]

    async def _delete(self, plan: Plan) -> int:
        collection = self.client.collections[plan.schema.name]
        if plan.schema.blobs:
            self.stale.extend(await self.blobs.referred(plan.schema, plan.matching, self.session))
        deleted = await collection.delete_many(plan.matching, session=self.session)
        return int(deleted.deleted_count)
