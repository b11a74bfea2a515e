"""Operations carried out on a MongoDB server, inside a transaction or outside of one."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from aiostorage.drivers.mongodb.blobs import Blobs
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import Table, place, tells_time
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Operation,
    Take,
    Update,
)

__all__ = ["Run", "asks_time", "single"]

T = TypeVar("T")

BATCH: Final = 500
"""Documents that one answer of the server brings, at most, so that decoding is soon over."""


def single(table: Table, operation: Operation[Any]) -> bool:
    """Tell whether an operation writes at most one document, so that it needs no transaction."""
    match operation:
        case Insert(documents=documents):
            return len(documents) == 1
        case Update(where=where) | Delete(where=where):
            return table.one(where)
        case Take(limit=limit):
            return limit == 1
        case _:
            return True


def asks_time(operation: Operation[Any]) -> bool:
    """Tell whether the server's time is part of an operation."""
    match operation:
        case Insert(documents=documents):
            return any(tells_time(document.values()) for document in documents)
        case Update(where=where, changes=changes) | Take(where=where, changes=changes):
            return tells_time(changes.values()) or _timed(where)
        case Find(where=where) | Count(where=where) | Delete(where=where):
            return _timed(where)
        case _:
            return False


def _timed(where: Condition) -> bool:
    if isinstance(where, Compare):
        values = where.value if where.op in ("in", "nin") else (where.value,)
        return tells_time(values)
    return any(map(_timed, where.conditions))


def _used_up(items: list[T]) -> Iterator[T]:
    """Let go of items one by one, for all of them at once would hold up the event loop."""
    items.reverse()
    while items:
        yield items.pop()


async def _in_order(cursor: Any, order: Sequence[str]) -> list[Document]:
    """Answer what a cursor finds by `order` and then by insertion.

    A large result is sorted in parts, so that the event loop turns meanwhile.
    """
    parts: list[list[tuple[tuple[Any, ...], Document]]] = []
    while batch := await cursor.to_list(BATCH):
        parts.append(sorted((place(document, order), document) for document in batch))
    if len(parts) == 1:
        return [document for _, document in parts[0]]
    documents: list[Document] = []
    # no two have one place, so that no documents are compared
    for _, document in heapq.merge(*map(_used_up, parts)):
        documents.append(document)
        if len(documents) % BATCH == 0:
            await asyncio.sleep(0)
    return documents


@dataclass
class Run:
    """Carries out operations that belong together.

    Attributes
    ----------
    session
        The transaction's; None outside of one.
    now
        The time that all of them go by; None for the server's clock at each.
    stale
        Blobs that nothing refers to once the operations have succeeded.
    """

    client: Client
    tables: Mapping[str, Table]
    blobs: Blobs
    session: Any = None
    now: datetime | None = None
    stale: list[Any] = field(default_factory=list)

    async def run(self, operation: Operation[Any]) -> Any:
        """Carry out one operation and answer its result."""
        table = self.tables[operation.collection]
        collection = self.client.collection(table.name)
        match operation:
            case Find():
                found = await self.find(table, operation)
                return await self.blobs.filled(table, found)
            case Count(where=where):
                return await collection.count_documents(
                    table.filter(where, self.now), session=self.session
                )
            case Insert(documents=documents):
                await self._insert(table, documents)
                return None
            case Update(where=where, changes=changes):
                return await self._update(table, where, changes)
            case Take():
                taken = await self._take(table, operation)
                return await self.blobs.filled(table, taken)
            case Delete(where=where):
                return await self._delete(table, where)
            case _:
                raise TypeError(f"unknown operation {operation!r}")

    # ------------------------------------------------------------------------------ reading

    async def find(self, table: Table, find: Find) -> list[Document]:
        """Answer documents as they are stored, with references for blobs."""
        collection = self.client.collection(table.name)
        where = table.filter(find.where, self.now)
        fields = None if find.selection is None else dict(find.selection)
        options: dict[str, Any] = {"session": self.session, "batch_size": BATCH}
        if find.limit == 0:
            return []
        if table.one(find.where):
            found = await collection.find_one(where, fields, session=self.session)
            return [] if found is None else [found]
        if find.limit is not None:
            if not find.order:
                options["sort"] = [("$natural", 1)]
            elif (index := table.serving(find.where, find.order)) is not None:
                options["sort"] = [(name, 1) for name in find.order]
                options["hint"] = table.index_name(index)
            else:
                return await self._first(table, find)
            cursor = collection.find(where, fields, limit=find.limit, **options)
            documents: list[Document] = await cursor.to_list(None)
            return documents
        if find.order and fields is not None:
            return await self._first(table, find)
        cursor = collection.find(where, fields, show_record_id=True, **options)
        return await _in_order(cursor, find.order)

    async def _first(self, table: Table, find: Find) -> list[Document]:
        """Find by an order that no index has; the server's own sort forgets the insertion."""
        ids = await self.ids(table, find.where, find.order, find.limit)
        chosen = Compare("_id", "in", tuple(ids))
        again = Find(table.name, And((find.where, chosen)), find.selection)
        by_id = {d["_id"]: d for d in await self.find(table, again)} if ids else {}
        return [by_id[uid] for uid in ids if uid in by_id]

    async def ids(
        self, table: Table, where: Condition, order: Sequence[str] = (), limit: int | None = None
    ) -> list[Any]:
        """Answer the ids of what matches, in order."""
        cursor = self.client.collection(table.name).find(
            table.filter(where, self.now),
            {"_id": True, **dict.fromkeys(order, True)},
            show_record_id=True,
            session=self.session,
        )
        found = await _in_order(cursor, order)
        return [document["_id"] for document in found[:limit]]

    # ------------------------------------------------------------------------------ writing

    async def _insert(self, table: Table, documents: Sequence[Document]) -> None:
        made = [table.document(document, self.now) for document in documents]
        collection = self.client.collection(table.name)
        if len(made) == 1:
            await collection.insert_one(made[0], session=self.session)
        elif made:
            await collection.insert_many(made, session=self.session)

    async def _change(self, table: Table, changes: Mapping[str, Any]) -> Any:
        update = table.update(changes, self.now)
        return table.update(changes, await self.client.now()) if update is None else update

    async def _update(self, table: Table, where: Condition, changes: Mapping[str, Any]) -> int:
        collection = self.client.collection(table.name)
        matching = table.filter(where, self.now)
        if not changes:
            return int(await collection.count_documents(matching, session=self.session))
        update = await self._change(table, changes)
        blobs = [name for name in table.blobs if name in changes]
        if not table.one(where):
            if blobs:
                self.stale += await self.blobs.referred(table, matching, self.session)
            updated = await collection.update_many(matching, update, session=self.session)
            return int(updated.matched_count)
        if blobs:  # one trip writes, and tells what is to be thrown away
            before = await self.client.find_one_and_update(
                table.name, matching, update, self.blobs.references(blobs), session=self.session
            )
            self.stale += self.blobs.in_document(table, before)
            return int(before is not None)
        updated = await collection.update_one(matching, update, session=self.session)
        return int(updated.matched_count)

    async def _take(self, table: Table, take: Take) -> list[Document]:
        if take.limit != 1:
            return await self._take_several(table, take)
        options: dict[str, Any] = {"return_document": True, "session": self.session}
        if not table.one(take.where):
            if not take.order:
                options["sort"] = [("$natural", 1)]
            elif (index := table.serving(take.where, take.order)) is not None:
                options["sort"] = [(name, 1) for name in take.order]
                options["hint"] = table.index_name(index)
            else:
                return await self._take_chosen(table, take)
        matching, update = (
            table.filter(take.where, self.now),
            await self._change(table, take.changes),
        )
        taken = await self.client.find_one_and_update(table.name, matching, update, **options)
        return [] if taken is None else [taken]

    async def _take_chosen(self, table: Table, take: Take) -> list[Document]:
        """Choose by an order that no index has, then take; again if somebody was faster."""
        while True:
            ids = await self.ids(table, take.where, take.order, 1)
            if not ids:
                return []
            one = And((Compare("_id", "eq", ids[0]), take.where))
            taken = await self._take(table, Take(table.name, one, take.changes))
            if taken:
                return taken

    async def _take_several(self, table: Table, take: Take) -> list[Document]:
        ids = await self.ids(table, take.where, take.order, take.limit)
        if not ids:
            return []
        chosen = {"_id": {"$in": table.references_of(ids)}}
        collection = self.client.collection(table.name)
        await collection.update_many(
            chosen, await self._change(table, take.changes), session=self.session
        )
        cursor = collection.find(chosen, session=self.session)
        by_id = {document["_id"]: document for document in await cursor.to_list(None)}
        return [by_id[uid] for uid in ids]

    async def _delete(self, table: Table, where: Condition) -> int:
        matching = table.filter(where, self.now)
        if table.blobs:
            self.stale += await self.blobs.referred(table, matching, self.session)
        deleted = await self.client.collection(table.name).delete_many(
            matching, session=self.session
        )
        return int(deleted.deleted_count)
