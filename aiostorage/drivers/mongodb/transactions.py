"""Several operations at once: all of them happen, or none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from aiostorage._core.receipts import insertion_of
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.plans import asks_time, is_large, is_single
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.drivers.mongodb.standalone import all_or_none
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Insert, Operation, Receipt

__all__ = ["carry_out_all"]


async def carry_out_all(commands: Commands, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations in order, all or none; return their results."""
    files: list[list[str]] = [[] for _ in operations]  # the blobs that each one wrote
    try:
        with translated(commands.client.settings.location, writing=True):
            operations = [
                await _extracted(commands, operation, written)
                for operation, written in zip(operations, files, strict=True)
            ]
            results, stale = await _in_one(commands, operations)
    except AioStorageError as error:
        if not (isinstance(error, TemporaryBackendError) and error.ambiguous):
            await commands.blobs.discard([*chain(*files)])
        raise
    for written, result in zip(files, results, strict=True):
        if not result and result is not None:  # no document matched
            stale += written
    if stale or any(files):
        await commands.blobs.discard(stale, sweep=commands.schemas if any(files) else None)
    return results


async def _extracted(
    commands: Commands, operation: Operation[Any], files: list[str]
) -> Operation[Any]:
    """Return an operation without large bytes; they are written into blobs, `files`."""
    schema = commands.schemas[operation.collection]
    if not is_large(schema, operation):
        return operation
    return await commands.blobs.extract(schema, operation, files)


async def _in_one(
    commands: Commands, operations: Sequence[Operation[Any]]
) -> tuple[list[Any], list[str]]:
    """Return the results, and the blobs that no document refers to any more."""
    client = commands.client
    now = await client.now() if _need_one_time(operations, client.replicated) else None
    first = operations[0]
    if len(operations) == 1 and is_single(commands.schemas[first.collection], first):
        return await _one_by_one(commands, operations, None, now=now)
    if not client.replicated:
        own = commands.fresh(now=now)
        return await all_or_none(own, operations), own.stale
    return await client.in_transaction(partial(_one_by_one, commands, operations, now=now))


def _need_one_time(operations: Sequence[Operation[Any]], transacted: bool) -> bool:
    """Return whether the server has to be asked for the time that all operations go by."""
    asking = [operation for operation in operations if asks_time(operation)]
    others = [operation for operation in asking if not isinstance(operation, Receipt)]
    if not transacted or len(others) == len(asking):
        return bool(asking)
    # one operation and its receipt may go by the server's clock each
    return len(others) > 1 or any(isinstance(operation, Insert) for operation in others)


async def _one_by_one(
    commands: Commands, operations: Sequence[Operation[Any]], session: Any, *, now: Any
) -> tuple[list[Any], list[str]]:
    own = commands.fresh(session=session, now=now)
    results: list[Any] = []
    for operation in operations:
        if isinstance(operation, Receipt):
            await own.note(insertion_of(operation, results))
            results.append(None)
        else:
            results.append(await own.run(operation))
    return results, own.stale
