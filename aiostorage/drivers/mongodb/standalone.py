"""Several writes on a server without transactions: all of them, or none as far as can be.

A server that is not a member of a replica set writes one document after another. So whatever can
fail is checked before anything is written, deletions come last, and writes are undone when
something fails all the same. Where every operation has a collection of its own, the first
one is carried out last: by it `aiostorage._core.gateway` knows that all of them have happened, so
that the next call repeats what a crash leaves half done.

What is undone is what was written, and only where no other worker has changed it meanwhile.

A receipt is written at the very end, so a server that dies between the last write and the receipt
leaves a write of which nothing tells that it has happened. The same goes for the rows of the outbox
when the server or the worker dies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from pymongo import errors as pymongo

from aiostorage._core.changes import apply_changes
from aiostorage._core.event_log import EventLog
from aiostorage._core.ids import new_id
from aiostorage._core.projection import copy_tree
from aiostorage._core.receipts import insertion_of
from aiostorage.drivers.mongodb.bson_codec import as_stored
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.logged_writes import run_logged
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError, DuplicateKeyError, TemporaryBackendError
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    InsertNext,
    Operation,
    OutboxNote,
    Receipt,
    StoreTime,
    Take,
    Update,
)

__all__ = ["NOTES", "all_or_none", "note_for_good"]

events: Final = EventLog("mongodb")

NOTES: Final = (OutboxNote, Receipt)
"""What is written after the changes that it records, whatever becomes of it."""


async def all_or_none(commands: Commands, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations in order; take back what was written if one of them fails.

    Raises
    ------
    AioStorageError
        What the first failure is called in `aiostorage.errors`.
    """
    follow_ups = {n: one for n, one in enumerate(operations) if isinstance(one, NOTES)}
    reads = [n for n, one in enumerate(operations) if isinstance(one, Find | Count)]
    order = [n for n in range(len(operations)) if n not in follow_ups]
    writes = [n for n in order if n not in reads]
    names = [operations[n].collection for n in writes]
    independent = len(set(names)) == len(names) > 1 and reads == order[: len(reads)]
    if independent:
        order = [*reads, *writes[1:], writes[0]]
    work = _ReversibleWrites(commands)
    with translated(commands.client.settings.location, writing=False):
        for operation in operations:
            if isinstance(operation, Receipt):
                await work.check(Insert(operation.collection, ({"_id": operation.key},)))
            elif independent and isinstance(operation, Insert):
                await work.check(operation)
    results: list[Any] = [None] * len(operations)
    try:
        for position in order:
            results[position] = await work.carry_out(operations[position], results[:position])
        deleted = await work.delete_last()
    except BaseException:
        await commands.client.beyond_limit(work.undo)
        raise
    deletions = [n for n in order if isinstance(operations[n], Delete)]
    for position, count in zip(deletions, deleted, strict=True):
        results[position] = count
    for position, follow_up in follow_ups.items():
        insertion = insertion_of(follow_up, results[:position])
        if isinstance(follow_up, Receipt):
            await work.note(insertion)
        else:
            await note_for_good(commands, insertion)
    return results


async def note_for_good(commands: Commands, insertion: Insert) -> None:
    """Write the rows of an outbox after the changes that they record.

    The changes have happened and stay. Rows that cannot be written, not even in a second attempt,
    are written with the next ones.
    """
    # with new ids, since some of them may be there already
    unwritten = tuple({**row, "_id": new_id()} for row in commands.unwritten_notes)
    commands.unwritten_notes.clear()
    rows = (*unwritten, *insertion.documents)
    if not rows:
        return
    location = commands.client.settings.location
    try:
        try:
            with translated(location, writing=True):
                await commands.note(replace(insertion, documents=rows))
        except TemporaryBackendError:
            again = tuple({**row, "_id": new_id()} for row in rows)
            with translated(location, writing=True):
                await commands.client.beyond_limit(
                    lambda: commands.note(replace(insertion, documents=again))
                )
    except AioStorageError as error:
        commands.unwritten_notes.extend(rows)
        events.warning(
            "note_not_written",
            "%(store)s: a change is still to be noted in the outbox: %(error)s",
            store=location,
            error=error,
        )


class _ReversibleWrites:
    """Writes with what it takes to undo them."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._undo: list[Callable[[], Awaitable[object]]] = []
        self._deletions: list[tuple[Delete, list[Any]]] = []

    async def carry_out(self, operation: Operation[Any], results: Sequence[Any]) -> Any:
        """Carry out an operation after those with these results."""
        with translated(self._commands.client.settings.location, writing=True):
            match operation:
                case Insert():
                    return await self._insert(operation)
                case InsertNext():
                    return await self._insert(insertion_of(operation, results))
                case Update(where=where):
                    return await self._update(operation, self._left(operation, where))
                case Take(where=where):
                    return await self._take(replace(operation, where=self._left(operation, where)))
                case Delete(where=where):
                    return await self._delete(operation, self._left(operation, where))
                case Find(where=where):
                    return await self._commands.run(
                        replace(operation, where=self._left(operation, where))
                    )
                case Count(where=where):
                    count = Count(operation.collection, self._left(operation, where))
                    return await self._commands.run(count)
                case _:
                    raise TypeError(f"unknown operation {operation!r}")

    async def check(self, insert: Insert) -> None:
        """Raise the error of a taken key before anything is written.

        A document that an earlier attempt has inserted does not count as taken.
        """
        schema, documents = self._schema(insert), insert.documents
        present = await self._present(schema, documents)
        known = [uid for uid, same in present.items() if same and insert.repeated]
        for document in documents:
            if document["_id"] in present and document["_id"] not in known:
                raise _taken(schema, ("_id",), document)
            for fields in schema.unique[1:] if len(documents) == 1 else ():
                same = And(tuple(Compare(name, "eq", document.get(name)) for name in fields))
                if set(await self._commands.ids(schema, same)) - set(known):
                    raise _taken(schema, fields, document)

    async def undo(self) -> None:
        for step in reversed(self._undo):
            await step()

    async def delete_last(self) -> list[int]:
        """Carry out the deletions; return how many documents each one has deleted."""
        return [await self._delete_now(delete, ids) for delete, ids in self._deletions]

    async def note(self, receipt: Insert) -> None:
        """Write a receipt; if another attempt has one, that one counts."""
        try:
            with translated(self._commands.client.settings.location, writing=True):
                await self._commands.run(receipt)
        except DuplicateKeyError:
            await self._commands.client.beyond_limit(self.undo)
            raise
        except AioStorageError as error:  # its caller gets the answer
            events.debug("receipt_not_written", "a receipt was not written: %(error)s", error=error)

    # ------------------------------------------------------------------------------------

    def _schema(self, operation: Operation[Any]) -> CollectionSchema:
        return self._commands.schemas[operation.collection]

    def _left(self, operation: Operation[Any], where: Condition) -> Condition:
        """Return `where` without the documents that are to be deleted."""
        excluded = [
            uid
            for delete, ids in self._deletions
            if delete.collection == operation.collection
            for uid in ids
        ]
        return And((where, Compare("_id", "nin", tuple(excluded)))) if excluded else where

    async def _insert(self, insert: Insert) -> None:
        schema, documents = self._schema(insert), insert.documents
        present = await self._present(schema, documents) if insert.repeated else {}
        self._undo_by_deleting(schema, [uid for uid, same in present.items() if same])
        await self.check(insert)
        rest = tuple(document for document in documents if document["_id"] not in present)
        ids = [document["_id"] for document in rest]
        self._undo_by_deleting(schema, ids)
        try:
            await run_logged(self._commands, Insert(schema.name, rest))
        except pymongo.DuplicateKeyError:
            ids.clear()  # another worker has inserted a document of this id meanwhile
            raise
        except pymongo.BulkWriteError as error:
            if (error.details or {}).get("writeErrors"):
                del ids[error.details["nInserted"] :]
            raise

    def _undo_by_deleting(self, schema: CollectionSchema, ids: Sequence[Any]) -> None:
        async def undo() -> None:
            if ids:
                await self._commands.run(Delete(schema.name, Compare("_id", "in", tuple(ids))))

        self._undo.append(undo)

    async def _present(
        self, schema: CollectionSchema, documents: Sequence[Document]
    ) -> dict[Any, bool]:
        """Return the ids that are taken, and whether by the same documents."""
        given = {document["_id"]: document for document in documents}
        chosen = Compare("_id", "in", tuple(given))
        found = await self._commands.find_stored(Find(schema.name, chosen))
        return {document["_id"]: _same(given[document["_id"]], document) for document in found}

    async def _update(self, update: Update, where: Condition) -> int:
        before = await self._before(update, where)
        if not before:
            return 0
        ids = tuple(document["_id"] for document in before)
        chosen = Compare("_id", "eq", ids[0]) if len(ids) == 1 else Compare("_id", "in", ids)
        # another worker may have changed them meanwhile, so that they do not match any more
        still = And((chosen, *(where.conditions if isinstance(where, And) else (where,))))
        matched: int = await run_logged(self._commands, replace(update, where=still))
        return matched

    async def _take(self, take: Take) -> list[Document]:
        """Take one document after the other; in place of one that another worker took, the next."""
        schema, taken = self._schema(take), list[Document]()
        while take.limit is None or len(taken) < take.limit:
            left = None if take.limit is None else take.limit - len(taken)
            mine = Compare("_id", "nin", tuple(document["_id"] for document in taken))
            ids = await self._commands.ids(schema, And((take.where, mine)), take.order, left)
            await self._before(take, Compare("_id", "in", tuple(ids)))
            for uid in ids:
                one = And((Compare("_id", "eq", uid), take.where))
                just_one = replace(take, where=one, order=(), limit=1, applied=None)
                taken += await run_logged(self._commands, just_one)
            if take.limit is None or not ids:
                break
        return taken

    async def _before(self, change: Update | Take, where: Condition) -> list[Document]:
        """Keep the documents to be changed; raise at once if the change is impossible."""
        schema = self._schema(change)
        before = await self._commands.find_stored(Find(schema.name, where))
        plain = {k: v for k, v in change.changes.items() if v.__class__ is not StoreTime}
        after: list[Document] = [copy_tree(document) for document in before]
        for document in after:
            apply_changes(document, plain)
        changed = {path.partition(".")[0] for path in change.changes}
        set_here = changed.difference(change.changes.keys() - plain.keys())

        async def undo() -> None:
            for old, new in zip(before, after, strict=True):
                ours = {name: new.get(name) for name in ("_id", *set_here)}
                await self._commands.client.collections[schema.name].update_one(
                    schema.filter(And(tuple(Compare(k, "eq", v) for k, v in ours.items()))),
                    schema.reversal(old, changed),
                )

        if changed:
            self._undo.append(undo)
        return before

    async def _delete(self, delete: Delete, where: Condition) -> int:
        ids = await self._commands.ids(self._schema(delete), where)
        self._deletions.append((delete, ids))
        return len(ids)

    async def _delete_now(self, delete: Delete, ids: Sequence[Any]) -> int:
        if not ids:
            return 0
        chosen = And((Compare("_id", "in", tuple(ids)), delete.where))
        still = Delete(delete.collection, chosen)
        deleted: int = len(ids)
        try:
            with translated(self._commands.client.settings.location, writing=True):
                deleted = await run_logged(self._commands, still)
        except TemporaryBackendError as error:
            if not error.ambiguous:
                raise
            # it cannot be undone, but done again
            await self._commands.client.beyond_limit(lambda: run_logged(self._commands, still))
        return deleted


def _taken(
    schema: CollectionSchema, fields: tuple[str, ...], document: Document
) -> DuplicateKeyError:
    values = tuple(document.get(name) for name in fields)
    return DuplicateKeyError(collection=schema.name, fields=fields, values=values)


def _same(given: Document, found: Document) -> bool:
    """Return whether a stored document is the same, apart from the times that the server set."""
    asked = [name for name, value in given.items() if value.__class__ is StoreTime]
    left = [{k: v for k, v in d.items() if k not in asked} for d in (given, found)]
    return as_stored(left[0]) == as_stored(left[1])
