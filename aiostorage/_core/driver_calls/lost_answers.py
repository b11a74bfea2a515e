"""Writes whose answer was lost: an attempt may have happened, so a repetition checks first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiostorage._core.follow_ups.next_keys import documents_at_next_keys
from aiostorage.errors import AioStorageError, DuplicateKeyError, TemporaryBackendError
from aiostorage.operations import (
    Compare,
    Count,
    Document,
    Find,
    Insert,
    InsertNext,
    Operation,
    Receipt,
    Take,
    Update,
)
from aiostorage.protocols import Driver

__all__ = ["repeat", "repeat_next", "repeat_once"]


async def repeat(driver: Driver, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations that may have happened already, and return their results.

    If the first one is in place, all of them are. Its result is read from the store; the results of
    the others are lost, and 0 is returned for them.
    """
    found = await _result_in_place(driver, operations[0])
    if found is None:
        try:
            return await driver.transact(_again(operations))
        except DuplicateKeyError:
            # the earlier attempt was still running, and has finished in the meantime
            found = await _result_in_place(driver, operations[0])
            if found is None:
                raise
    return [found, *[0] * (len(operations) - 1)]


async def repeat_once(
    driver: Driver, operations: Sequence[Operation[Any]], receipt: Receipt
) -> list[Any]:
    """Carry out operations unless an earlier attempt with this receipt has done so.

    Returns
    -------
    list
        Their results, of this attempt or of the earlier one.
    """
    results = await _noted_results(driver, receipt, operations)
    if results is not None:
        return results
    try:
        results = await driver.transact((*_again(operations), replace(receipt, repeated=True)))
    except TemporaryBackendError:
        raise
    except AioStorageError:
        # the earlier attempt was still running, and has finished in the meantime
        results = await _noted_results(driver, receipt, operations)
        if results is None:
            raise
        return results
    return results[:-1]


async def repeat_next(driver: Driver, look: Find, insert: InsertNext) -> list[Document]:
    """Insert documents under the next free keys unless an earlier attempt has done so.

    They are found by their own ``_id``, which no two attempts can insert. Without transactions an
    earlier attempt may have inserted only some of them: those keep their keys.

    Returns
    -------
    list
        The documents with their keys; as far as they were inserted earlier, as they are now.
    """
    found = await _inserted(driver, insert)
    while True:
        there = {document["_id"] for document in found}
        left = tuple(one for one in insert.documents if one["_id"] not in there)
        rest = replace(insert, documents=left)
        try:
            taken, _ = await driver.transact((look, rest)) if left else ((), None)
        except DuplicateKeyError:
            # the earlier attempt was still running, and has finished in the meantime
            again = await _inserted(driver, insert)
            if len(again) == len(found):
                raise
            found = again
        else:
            return [*found, *documents_at_next_keys(rest, taken)]


async def _inserted(driver: Driver, insert: InsertNext) -> list[Document]:
    """Return the documents that an earlier attempt has inserted."""
    own = Compare("_id", "in", tuple(document["_id"] for document in insert.documents))
    return await driver.execute(Find(insert.collection, own, majority=True))


def _again(operations: Sequence[Operation[Any]]) -> list[Operation[Any]]:
    """Return operations as they are repeated."""
    return [
        replace(operation, repeated=True) if isinstance(operation, Insert) else operation
        for operation in operations
    ]


async def _noted_results(
    driver: Driver, receipt: Receipt, operations: Sequence[Operation[Any]]
) -> list[Any] | None:
    """Return the results of operations from their receipt; None if there is no receipt."""
    mine = Compare("_id", "eq", receipt.key)
    found = await driver.execute(Find(receipt.collection, mine, limit=1, majority=True))
    if not found:
        return None
    return [
        await _documents(driver, operation, noted["ids"]) if isinstance(noted, dict) else noted
        for operation, noted in zip(operations, found[0]["answers"], strict=True)
    ]


async def _documents(
    driver: Driver, operation: Operation[Any], ids: Sequence[Any]
) -> list[Document]:
    """Return the documents that still exist, as they are now, in the order of their ids."""
    chosen = Compare("_id", "in", tuple(ids))
    found = await driver.execute(Find(operation.collection, chosen, majority=True))
    by_id = {document["_id"]: document for document in found}
    return [by_id[uid] for uid in ids if uid in by_id]


async def _result_in_place(driver: Driver, operation: Operation[Any]) -> Any:
    """Return the result of an operation that is in place already, else None."""
    match operation:
        case Insert(collection, documents):
            ids = tuple(document["_id"] for document in documents)
            there = Count(collection, Compare("_id", "in", ids), majority=True)
            return 0 if await driver.execute(there) == len(ids) else None
        case Update(collection, applied=applied) if applied is not None:
            there = Count(collection, applied, majority=True)
            return await driver.execute(there) or None
        case Take(collection, order=order, applied=applied) if applied is not None:
            taken = Find(collection, applied, order=order, majority=True)
            return await driver.execute(taken) or None
        case _:
            return None
