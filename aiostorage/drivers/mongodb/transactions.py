"""Several operations at once: all of them happen, or none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, Final

from aiostorage._core.follow_ups.receipts import insertion_of
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.log_head import clear_head
from aiostorage.drivers.mongodb.log_writing import log_for_good, log_in_transaction
from aiostorage.drivers.mongodb.logged_writes import run_logged
from aiostorage.drivers.mongodb.plans import asks_time, is_large, is_single
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.drivers.mongodb.standalone import NOTES, all_or_none, note_for_good
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import (
    EVERYTHING,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    InsertNext,
    Operation,
    OutboxNote,
    Receipt,
)

__all__ = ["carry_out_all", "read_all"]

_INSERTS: Final = (Insert, InsertNext)


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


async def read_all(commands: Commands, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Carry out operations that only read: of one state, where the server has transactions."""
    client = commands.client
    now = await client.now() if _need_one_time(operations, client.replicated) else None
    work = partial(_one_by_one, commands, operations, now=now)
    results, _ = await (client.in_transaction(work) if client.replicated else work(None))
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
    if not client.replicated and _is_noted_write(commands, operations):
        now = await client.now() if _need_one_time(operations, transacted=True) else None
        return await _one_by_one(commands, operations, None, now=now)
    now = await client.now() if _need_one_time(operations, client.replicated) else None
    first = operations[0]
    single = len(operations) == 1 and is_single(commands.schemas[first.collection], first)
    if single and not (client.replicated and commands.logged(first)):
        return await _one_by_one(commands, operations, None, now=now)
    if client.replicated:
        written: dict[str, list[Document]] = {}
        work = partial(_one_by_one, commands, operations, now=now, written=written)
        done = await client.in_transaction(work)
        for log, rows in written.items():
            commands.known.add(log, rows)
        return done
    own = commands.fresh(now=now)
    results = await all_or_none(own, operations)
    await log_for_good(own)
    for one in operations:
        schema = commands.schemas[one.collection]
        if isinstance(one, Delete) and one.where == EVERYTHING and schema.is_log:
            await clear_head(commands, schema.name)
    return results, own.stale


def _need_one_time(operations: Sequence[Operation[Any]], transacted: bool) -> bool:
    """Return whether the server has to be asked for the time that all operations go by."""
    asking = [operation for operation in operations if asks_time(operation)]
    others = [operation for operation in asking if not isinstance(operation, NOTES)]
    if not transacted or len(others) == len(asking):
        return bool(asking)
    # one operation and what follows from it may go by the server's clock each
    return len(others) > 1 or any(isinstance(operation, _INSERTS) for operation in others)


def _is_noted_write(commands: Commands, operations: Sequence[Operation[Any]]) -> bool:
    """Return whether there is one write of one document, and the rest are reads and its note.

    Such a write cannot happen in part, and its note can be made again.
    """
    writes = [one for one in operations if not isinstance(one, Find | Count | OutboxNote)]
    return (
        len(writes) == 1 < len(operations)
        and not isinstance(writes[0], Receipt)
        and is_single(commands.schemas[writes[0].collection], writes[0])
    )


async def _one_by_one(
    commands: Commands,
    operations: Sequence[Operation[Any]],
    session: Any,
    *,
    now: Any,
    written: dict[str, list[Document]] | None = None,
) -> tuple[list[Any], list[str]]:
    """Carry out operations; return their results, and the blobs that nothing refers to any more.

    Parameters
    ----------
    written
        Gets the rows of the log that are written in the transaction.
    """
    own = commands.fresh(session=session, now=now)
    results: list[Any] = []
    for operation in operations:
        if isinstance(operation, NOTES):
            insertion = insertion_of(operation, results)
            if session is None:
                await note_for_good(own, insertion)
            else:
                await own.note(insertion)
            results.append(None)
        else:
            if isinstance(operation, InsertNext):
                operation = insertion_of(operation, results)  # noqa: PLW2901
            results.append(await run_logged(own, operation))
            if session is None:
                await log_for_good(own)
    if session is not None:
        rows = await log_in_transaction(own)
        if written is not None:
            written.update(rows)
    return results, own.stale
