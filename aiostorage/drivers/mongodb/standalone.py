"""Several writes on a server without transactions: all of them, or none as far as can be.

A server that is no member of a replica set writes one document after the other. What can fail is
therefore found out before anything is written, deletions come last, and what was written is taken
back when something fails all the same. Where every operation has a collection of its own, the first
one is carried out last: it is the one by which `aiostorage._core.gateway` knows that all have
happened, so that what a crash leaves half done is done again by the next call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiostorage._core.changes import apply_changes
from aiostorage._core.projection import copy_tree
from aiostorage.drivers.mongodb.client import as_stored
from aiostorage.drivers.mongodb.commands import Run
from aiostorage.drivers.mongodb.filters import Table
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import DuplicateKeyError
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
    StoreTime,
    Take,
    Update,
)

__all__ = ["all_or_none"]


async def all_or_none(run: Run, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations in order; take back what was written if one of them fails.

    Raises
    ------
    AioStorageError
        Whatever failed, in our terms.
    """
    places = [operation.collection for operation in operations]
    apart = len(set(places)) == len(places) > 1
    turn = [*range(1, len(operations)), 0] if apart else list(range(len(operations)))
    work = _Work(run)
    if apart:
        with translated(run.client.settings.location, writing=False):
            for operation in operations:
                if isinstance(operation, Insert):
                    await work.check(operation)
    results: list[Any] = [None] * len(operations)
    try:
        for position in turn:
            results[position] = await work.carry_out(operations[position])
    except BaseException:
        await run.client.afresh(work.take_back)
        raise
    await work.delete_doomed()
    return results


class _Work:
    """What was written so far, and how to take it back."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._back: list[Callable[[], Awaitable[object]]] = []
        self._doomed: dict[str, list[Any]] = {}

    async def carry_out(self, operation: Operation[Any]) -> Any:
        with translated(self._run.client.settings.location, writing=True):
            match operation:
                case Insert():
                    return await self._insert(operation)
                case Update(where=where):
                    return await self._update(operation, self._left(operation, where))
                case Take(where=where, changes=changes, order=order, limit=limit):
                    left = self._left(operation, where)
                    return await self._take(Take(operation.collection, left, changes, order, limit))
                case Delete(where=where):
                    return await self._delete(operation, self._left(operation, where))
                case Find(where=where):
                    find = Find(
                        operation.collection,
                        self._left(operation, where),
                        operation.selection,
                        operation.order,
                        operation.limit,
                    )
                    return await self._run.run(find)
                case Count(where=where):
                    count = Count(operation.collection, self._left(operation, where))
                    return await self._run.run(count)
                case _:
                    raise TypeError(f"unknown operation {operation!r}")

    async def check(self, insert: Insert) -> None:
        """Find out what is taken before anything is written.

        What an attempt before this one has inserted is ours, and not taken.
        """
        table, documents = self._table(insert), insert.documents
        there = await self._there(table, documents)
        known = [uid for uid, same in there.items() if same and insert.repeated]
        for document in documents:
            if document["_id"] in there and document["_id"] not in known:
                raise _taken(table, ("_id",), document)
            for fields in table.unique[1:] if len(documents) == 1 else ():
                same = And(tuple(Compare(name, "eq", document.get(name)) for name in fields))
                if set(await self._run.ids(table, same)) - set(known):
                    raise _taken(table, fields, document)

    async def take_back(self) -> None:
        for back in reversed(self._back):
            await back()

    async def delete_doomed(self) -> None:
        for name, ids in self._doomed.items():
            await self._run.run(Delete(name, Compare("_id", "in", tuple(ids))))

    # ------------------------------------------------------------------------------------

    def _table(self, operation: Operation[Any]) -> Table:
        return self._run.tables[operation.collection]

    def _left(self, operation: Operation[Any], where: Condition) -> Condition:
        """Require that a document is not to be deleted."""
        doomed = self._doomed.get(operation.collection)
        return And((where, Compare("_id", "nin", tuple(doomed)))) if doomed else where

    async def _insert(self, insert: Insert) -> None:
        table, documents = self._table(insert), insert.documents
        there = await self._there(table, documents) if insert.repeated else {}
        self._delete_again(table, [uid for uid, same in there.items() if same])
        await self.check(insert)
        self._delete_again(table, [document["_id"] for document in documents])
        rest = tuple(document for document in documents if document["_id"] not in there)
        await self._run.run(Insert(table.name, rest))

    def _delete_again(self, table: Table, ids: Sequence[Any]) -> None:
        delete = Delete(table.name, Compare("_id", "in", tuple(ids)))
        if ids:
            self._back.append(lambda: self._run.run(delete))

    async def _there(self, table: Table, documents: Sequence[Document]) -> dict[Any, bool]:
        """Answer which ids are taken, and whether by the very documents."""
        ours = {document["_id"]: document for document in documents}
        chosen = Compare("_id", "in", tuple(ours))
        found = await self._run.find(table, Find(table.name, chosen))
        return {document["_id"]: _same(ours[document["_id"]], document) for document in found}

    async def _update(self, update: Update, where: Condition) -> int:
        before = await self._before(update, where)
        if not before:
            return 0
        chosen = Compare("_id", "in", tuple(d["_id"] for d in before))
        matched: int = await self._run.run(Update(update.collection, chosen, update.changes))
        return matched

    async def _take(self, take: Take) -> list[Document]:
        """Take one document after the other; whoever is faster gets it, and we take another."""
        table, taken = self._table(take), list[Document]()
        while take.limit is None or len(taken) < take.limit:
            left = None if take.limit is None else take.limit - len(taken)
            mine = Compare("_id", "nin", tuple(document["_id"] for document in taken))
            ids = await self._run.ids(table, And((take.where, mine)), take.order, left)
            await self._before(take, Compare("_id", "in", tuple(ids)))
            for uid in ids:
                one = And((Compare("_id", "eq", uid), take.where))
                taken += await self._run.run(Take(table.name, one, take.changes))
            if take.limit is None or not ids:
                break
        return taken

    async def _before(self, change: Update | Take, where: Condition) -> list[Document]:
        """Keep what is to be changed; refuse at once what cannot be changed like that."""
        table = self._table(change)
        before = await self._run.find(table, Find(table.name, where))
        plain = {k: v for k, v in change.changes.items() if v.__class__ is not StoreTime}
        for document in before:
            apply_changes(copy_tree(document), plain)

        async def back() -> None:
            for document in before:
                await self._run.client.collection(table.name).replace_one(
                    table.filter(Compare("_id", "eq", document["_id"])),
                    table.document(document, None),
                )

        self._back.append(back)
        return before

    async def _delete(self, delete: Delete, where: Condition) -> int:
        ids = await self._run.ids(self._table(delete), where)
        self._doomed.setdefault(delete.collection, []).extend(ids)
        return len(ids)


def _taken(table: Table, fields: tuple[str, ...], document: Document) -> DuplicateKeyError:
    values = tuple(document.get(name) for name in fields)
    return DuplicateKeyError(collection=table.name, fields=fields, values=values)


def _same(ours: Document, found: Document) -> bool:
    """Tell whether a stored document is ours; the times that the server put in aside."""
    asked = [name for name, value in ours.items() if value.__class__ is StoreTime]
    left = [{k: v for k, v in d.items() if k not in asked} for d in (ours, found)]
    return as_stored(left[0]) == as_stored(left[1])
