"""Takes, and updates of one document each, carried out in batches.

Every worker that reserves a trial wants the same document, the oldest. When each asks the server
for it, most of them collide there, and start again. A batch of takes needs three commands: one
finds as many documents as there are takes, one gives each take a document of its own, and one reads
the result. The order is the one in which the takes would have gone one by one.

A batch of updates needs one command, which reports for each whether its document was there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.errors import BulkWriteError, DuplicateKeyError, WriteConcernError, WriteError

from aiostorage._core.queries.query import compile_condition
from aiostorage.drivers.mongodb.client import UpdateOne
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.plans import Plan
from aiostorage.drivers.mongodb.server_errors import LIBRARY_ERRORS, translate
from aiostorage.operations import Compare, Document, Find, Take

__all__ = ["carry_out_batch", "update_each"]

NO_MATCH: Final[Mapping[str, Any]] = {"_id": []}
NO_MATCH_CODE: Final = 53
"""The document that an update would insert where none matches, and the code of its refusal.

Of many updates in one command a server reports how many have matched, but not which. Of upserts it
reports each one that could not insert its document; and none can insert one with such an ``_id``.
"""

_DUPLICATE_CODES: Final = (11000, 11001, 12582)


async def carry_out_batch(
    commands: Commands, plans: Sequence[Plan], seconds: float
) -> tuple[Sequence[Any | Exception], bool]:
    """Carry out a batch, in a task that no caller cancels.

    Returns
    -------
    results, worthwhile
        The result of each operation, or its error; and whether the batch was better than its
        operations by themselves.
    """
    client, schema = commands.client, plans[0].schema
    try:
        with client.bound(seconds):
            if not isinstance(plans[0].operation, Take):
                return await update_each(commands, schema, plans), True
            results = await _take_all(commands, schema, plans)
            left = [position for position, taken in enumerate(results) if taken is None]
            rest = await asyncio.gather(*(commands.carry_out(plans[n]) for n in left))
    except LIBRARY_ERRORS as error:
        raise translate(error, client.settings.location) from error
    for position, taken in zip(left, rest, strict=True):
        results[position] = taken
    # where other processes take the same documents, the server sorts it out better than a batch
    return results, 2 * len(left) < len(plans)


async def _take_all(
    commands: Commands, schema: CollectionSchema, plans: Sequence[Plan]
) -> list[list[Document] | None]:
    """Return the result of each take; None if another process took its document first."""
    first: Take = plans[0].operation
    candidates = Find(schema.name, first.where, {"_id": True}, first.order, len(plans))
    free = await commands.find_stored(candidates)
    ids = [document["_id"] for document in free]
    results: list[list[Document] | None] = [None if n < len(ids) else [] for n in range(len(plans))]
    if not ids:
        return results
    await commands.client.collections[schema.name].bulk_write(
        [
            UpdateOne(schema.with_id(uid, plan.matching), plan.update)
            for plan, uid in zip(plans, ids, strict=False)
        ],
        ordered=False,
    )
    taken = Find(schema.name, Compare("_id", "in", tuple(ids)))
    found = await commands.find_stored(taken)
    by_id = {document["_id"]: document for document in found}
    for position, (plan, uid) in enumerate(zip(plans, ids, strict=False)):
        document, applied = by_id.get(uid), plan.operation.applied
        if document is not None and applied and compile_condition(applied)(document):
            results[position] = [document]
    return results


async def update_each(
    commands: Commands, schema: CollectionSchema, plans: Sequence[Plan]
) -> list[int | Exception]:
    """Return for each update whether its document was there, or why it failed."""
    results: list[int | Exception] = [1] * len(plans)
    try:
        await commands.client.collections[schema.name].bulk_write(
            [
                UpdateOne(plan.matching, {**plan.update, "$setOnInsert": NO_MATCH}, upsert=True)
                for plan in plans
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
                cause = (DuplicateKeyError if code in _DUPLICATE_CODES else WriteError)(
                    text, code, failed
                )
                results[failed["index"]] = translate(cause, commands.client.settings.location)
    return results
