"""Changes of one document with a note of them, alone or in batches.

On a replica set each is a transaction, and several that wait at the same time share one: else those
who want the same document would undo each other's work again and again. A server by itself gets the
note right after the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiostorage._core.event_log import EventLog
from aiostorage._core.query import compile_condition
from aiostorage._core.receipts import insertion_of
from aiostorage.drivers.mongodb.batches import carry_out_batch, take_all
from aiostorage.drivers.mongodb.client import UpdateOne
from aiostorage.drivers.mongodb.commands import Commands, write_within
from aiostorage.drivers.mongodb.plans import Plan
from aiostorage.drivers.mongodb.standalone import note_for_good
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import And, Compare, Document, Insert, OutboxNote, Take

__all__ = ["NotedPlan", "carry_out_noted", "carry_out_noted_batch"]


events = EventLog("mongodb")


@dataclass(slots=True)
class NotedPlan:
    """A change, and the note of it."""

    plan: Plan
    note: OutboxNote


async def carry_out_noted(commands: Commands, noted: NotedPlan, seconds: float) -> Any:
    """Carry out one change, in a task that no caller cancels."""
    [result] = await write_within(commands.client, seconds, partial(_one, commands, noted))
    return result


async def carry_out_noted_batch(
    commands: Commands, batch: Sequence[NotedPlan], seconds: float
) -> tuple[Sequence[Any | Exception], bool]:
    """Carry out a batch of changes; see `aiostorage.drivers.mongodb.batches.carry_out_batch`."""
    client = commands.client
    if not client.replicated:
        plans = [noted.plan for noted in batch]
        done, worthwhile = await carry_out_batch(commands, plans, seconds)
        noting = partial(note_for_good, commands, _rows(batch, done))
        await write_within(client, seconds, noting)
        return done, worthwhile
    together = _taken if isinstance(batch[0].plan.operation, Take) else _updated
    in_one = partial(client.in_transaction, partial(together, commands, batch))
    results: list[Any] = [None] * len(batch)
    try:
        results = await write_within(client, seconds, in_one)
    except TemporaryBackendError:
        raise
    except AioStorageError as error:  # one of them is to blame, and none has happened
        events.debug("batch_refused", "changes go one by one: %(error)s", error=error)
    for position, result in enumerate(results):
        if result is None:
            try:
                results[position] = await carry_out_noted(commands, batch[position], seconds)
            except Exception as error:  # noqa: BLE001  its own caller gets it
                results[position] = error
    return results, True


async def _one(commands: Commands, noted: NotedPlan) -> list[Any]:
    if commands.client.replicated:
        results: list[Any] = await commands.client.in_transaction(partial(_noted, commands, noted))
        return results
    results = [await commands.carry_out(noted.plan)]
    await note_for_good(commands, insertion_of(noted.note, results))
    return results


async def _noted(commands: Commands, noted: NotedPlan, session: Any) -> list[Any]:
    own = commands.fresh(session=session)
    results = [await own.carry_out(noted.plan)]
    await own.note(insertion_of(noted.note, results))
    return results


async def _taken(commands: Commands, batch: Sequence[NotedPlan], session: Any) -> list[Any]:
    own = commands.fresh(session=session)
    results = await take_all(own, batch[0].plan.schema, [noted.plan for noted in batch])
    await own.note(_rows(batch, results))
    return results


async def _updated(commands: Commands, batch: Sequence[NotedPlan], session: Any) -> list[Any]:
    """Update in one command; None for those whose document another one of the batch changes.

    In a transaction, an update cannot tell that it has not matched without ending all of it, as
    `aiostorage.drivers.mongodb.batches` lets it. So the documents are looked up first.
    """
    own, schema = commands.fresh(session=session), batch[0].plan.schema
    collection = commands.client.collections[schema.name]
    keys = [_key(noted.plan) for noted in batch]
    paths = {path: True for noted in batch for path in noted.plan.matching}
    cursor = collection.find(
        {"$or": [noted.plan.matching for noted in batch]}, paths, session=session
    )
    found: dict[Any, Document] = {}
    for document in await cursor.to_list(None):
        for names in {names for names, _ in keys}:
            found[names, tuple(document.get(name) for name in names)] = document
    results: list[Any] = [0] * len(batch)
    updates, seen = [], set()
    for position, (noted, key) in enumerate(zip(batch, keys, strict=True)):
        document = found.get(key)
        if key in seen:
            results[position] = None
        elif document is not None and compile_condition(noted.plan.operation.where)(document):
            results[position] = 1
            updates.append(UpdateOne(noted.plan.matching, noted.plan.update))
        seen.add(key)
    if updates:
        await collection.bulk_write(updates, ordered=False, session=session)
    await own.note(_rows(batch, results))
    return results


def _key(plan: Plan) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the unique fields by which a plan names its document, and their values."""
    where = plan.operation.where
    parts = where.conditions if isinstance(where, And) else (where,)
    bound: Mapping[str, Any] = {p.path: p.value for p in parts if isinstance(p, Compare)}
    names = next(names for names in plan.schema.unique if bound.keys() >= set(names))
    return names, tuple(bound[name] for name in names)


def _rows(batch: Sequence[NotedPlan], results: Sequence[Any]) -> Insert:
    """Return the insertion of all rows of a batch, without those of changes that failed."""
    documents: list[Document] = []
    for noted, result in zip(batch, results, strict=True):
        if result is not None and not isinstance(result, Exception):
            documents += insertion_of(noted.note, [result]).documents
    return replace(insertion_of(replace(batch[0].note, changes=()), ()), documents=tuple(documents))
