"""Takes, and updates of one document each, carried out many at a time.

Every worker that reserves a trial wants the same document, the oldest. When each asks the server
for it, most of them collide there, and start again. Together they need three commands: one looks
for as many documents as there are takes, one gives each take a document of its own, one reads what
they got. That is the order in which the takes would have gone one by one.

Updates need one command, which tells of each whether its document was there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import bson
import bson.errors
from pymongo.errors import BulkWriteError, DuplicateKeyError, WriteConcernError, WriteError

from aiostorage._core.query import compile_condition
from aiostorage.drivers.mongodb.client import UpdateOne
from aiostorage.drivers.mongodb.commands import Run
from aiostorage.drivers.mongodb.fair_queue import Queue
from aiostorage.drivers.mongodb.filters import Table, one_each
from aiostorage.drivers.mongodb.server_errors import as_ours
from aiostorage.operations import (
    And,
    Compare,
    Document,
    Find,
    Operation,
    StoreTime,
    Take,
    Update,
)

__all__ = ["carry_out_together", "kind_of"]

NO_MATCH: Final[Mapping[str, Any]] = {"_id": []}
NO_MATCH_CODE: Final = 53
"""What an update would insert where its document is not there, and how the server refuses it.

Of many updates in one command a server tells how many have matched, but not which. Of those that
may insert a document it tells each one that could not; and none can insert one with such an
``_id``.
"""

HANDY: Final = 2**16
"""Bytes of changes, at most, that go together with others."""

_DUPLICATE: Final = (11000, 11001, 12582)


def kind_of(table: Table, operation: Operation[Any]) -> Hashable | None:
    """Answer what operations that can go together have in common; None if this one cannot."""
    if table.blobs or not isinstance(operation, Take | Update) or not _handy(operation.changes):
        return None
    if isinstance(operation, Update):
        return table.name if operation.changes and table.plain(operation.where) else None
    if operation.applied is None or not one_each(operation) or table.one(operation.where):
        return None
    key = (operation.collection, operation.where, operation.order)
    return key if _hashable(key) else None


def _handy(changes: Mapping[str, Any]) -> bool:
    """Tell whether changes are nothing that others might fail with.

    They take no expression, they can be sent, and together they fit into one command.
    """
    values = [value for value in changes.values() if value.__class__ is not StoreTime]
    if any(v.__class__ is StoreTime and v.offset for v in changes.values()):
        return False
    try:
        return not values or len(bson.encode({"values": values})) < HANDY
    except (bson.errors.BSONError, OverflowError, UnicodeError):
        return False  # its own caller will hear of it


def _hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


async def carry_out_together(
    run: Run, table: Table, queue: Queue[Any, Any], operations: Sequence[Any]
) -> Sequence[Any | Exception]:
    """Carry out operations of one kind; answer the result of each, or its error."""
    if isinstance(operations[0], Take):
        results = await _take(run, table, operations)
        left = [position for position, taken in enumerate(results) if taken is None]
        # where other processes take the same documents, the server sorts it out better than we do
        queue.went_well(2 * len(left) < len(operations))
        rest = await asyncio.gather(*(run.run(operations[position]) for position in left))
        for position, taken in zip(left, rest, strict=True):
            results[position] = taken
        return results
    return await _update(run, table, operations)


async def _take(run: Run, table: Table, takes: Sequence[Take]) -> list[list[Document] | None]:
    """Answer what each take got; None for those that others were faster than."""
    first = takes[0]
    free = await run.find(
        table, Find(table.name, first.where, {"_id": True}, first.order, len(takes))
    )
    ids = [document["_id"] for document in free]
    results: list[list[Document] | None] = [None if n < len(ids) else [] for n in range(len(takes))]
    if not ids:
        return results
    await run.client.collection(table.name).bulk_write(
        [
            UpdateOne(
                table.filter(And((Compare("_id", "eq", uid), first.where))),
                table.update(take.changes, None),
            )
            for take, uid in zip(takes, ids, strict=False)
        ],
        ordered=False,
    )
    found = await run.find(table, Find(table.name, Compare("_id", "in", tuple(ids))))
    by_id = {document["_id"]: document for document in found}
    for position, (take, uid) in enumerate(zip(takes, ids, strict=False)):
        document, applied = by_id.get(uid), take.applied
        if document is not None and applied and compile_condition(applied)(document):
            results[position] = [document]
    return results


async def _update(run: Run, table: Table, updates: Sequence[Update]) -> list[int | Exception]:
    results: list[int | Exception] = [1] * len(updates)
    try:
        await run.client.collection(table.name).bulk_write(
            [
                UpdateOne(
                    table.filter(update.where),
                    {**table.update(update.changes, None), "$setOnInsert": NO_MATCH},
                    upsert=True,
                )
                for update in updates
            ],
            ordered=False,
        )
    except BulkWriteError as error:
        details: Mapping[str, Any] = error.details or {}
        for concern in details.get("writeConcernErrors") or ():
            raise WriteConcernError(concern.get("errmsg", ""), concern.get("code")) from error
        for failed in details.get("writeErrors") or ():
            code, text = failed["code"], failed.get("errmsg", "")
            results[failed["index"]] = 0
            if code != NO_MATCH_CODE:
                cause = (DuplicateKeyError if code in _DUPLICATE else WriteError)(
                    text, code, failed
                )
                results[failed["index"]] = as_ours(cause, run.client.settings.location)
    return results
