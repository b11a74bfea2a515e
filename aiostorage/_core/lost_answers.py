"""Writes whose answer was lost: an attempt may have happened, so a repetition looks first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import Compare, Count, Find, Insert, Operation, Take, Update
from aiostorage.protocols import Driver

__all__ = ["repeat"]


async def repeat(driver: Driver, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations that may have happened already, and return their results.

    If the first one is in place, all of them are. Its result is read from the store; those of the
    others are lost and come back as 0.
    """
    found = await _result_in_place(driver, operations[0])
    if found is None:
        operations = [
            replace(operation, repeated=True) if isinstance(operation, Insert) else operation
            for operation in operations
        ]
        try:
            return await driver.transact(operations)
        except DuplicateKeyError:
            # the earlier attempt was still running, and has finished in the meantime
            found = await _result_in_place(driver, operations[0])
            if found is None:
                raise
    return [found, *[0] * (len(operations) - 1)]


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
