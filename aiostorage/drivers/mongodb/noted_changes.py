"""Changes of one document with a note of them, in the outbox or in a log, alone or in batches.

On a replica set each change is a transaction, and several that wait at the same time share one:
otherwise, transactions on the same document would abort each other again and again. On a standalone
server the note is written right after the change.

Two processes that take at the same time want the same documents, the first ones. A transaction
fails at once if another transaction has changed one of its documents. Therefore the next attempt
skips these documents and takes those behind them. Only if there are too few of those, it tries the
first ones again: whether one of them becomes free is known when the other transactions have ended.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from aiostorage._core.event_log import EventLog
from aiostorage._core.matching import conjuncts
from aiostorage._core.query import compile_condition
from aiostorage._core.receipts import insertion_of
from aiostorage.drivers.mongodb.attempted_transaction import BegunAnew
from aiostorage.drivers.mongodb.batches import carry_out_batch, update_each
from aiostorage.drivers.mongodb.client import Client, UpdateOne
from aiostorage.drivers.mongodb.commands import Commands, write_within
from aiostorage.drivers.mongodb.log_writing import log_for_good, log_in_transaction
from aiostorage.drivers.mongodb.logged_change import (
    NO_ROW,
    LastRow,
    LoggedChange,
    changed_fields,
    named_fields,
)
from aiostorage.drivers.mongodb.logged_writes import (
    Seen,
    change_one,
    changed_document,
    look,
    look_at_first,
    run_logged,
    still,
)
from aiostorage.drivers.mongodb.plans import Plan
from aiostorage.drivers.mongodb.standalone import note_for_good
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import And, Compare, Document, OutboxNote, Take

__all__ = ["NotedPlan", "carry_out_noted", "carry_out_noted_batch"]


events: Final = EventLog("mongodb")

RANDOM_PLACES: Final = 4
"""Places to choose from at random when other processes take the first documents.

If all went for the next ones, all but one of them would fail again.
"""


@dataclass(slots=True)
class NotedPlan:
    """A change, and its note for the outbox; None if only a log records it."""

    plan: Plan
    note: OutboxNote | None = None


async def carry_out_noted(commands: Commands, noted: NotedPlan, seconds: float) -> Any:
    """Carry out one change, in a task that its caller cannot cancel."""
    return await write_within(commands.client, seconds, partial(_one, commands, noted))


async def carry_out_noted_batch(
    commands: Commands, batch: Sequence[NotedPlan], seconds: float
) -> tuple[Sequence[Any | Exception], bool]:
    """Carry out a batch of changes; see `aiostorage.drivers.mongodb.batches.carry_out_batch`."""
    client, first = commands.client, batch[0].plan.operation
    if not client.replicated and not commands.logged(first):
        plans = [noted.plan for noted in batch]
        done, worthwhile = await carry_out_batch(commands, plans, seconds)
        noting = partial(_note_for_good, commands, batch, done)
        await write_within(client, seconds, noting)
        return done, worthwhile
    if client.replicated:
        in_one = partial(_in_transaction, commands, batch)
    else:
        in_one = partial(_by_itself, commands, batch)
    results: list[Any] = [None] * len(batch)
    try:
        results = await write_within(client, seconds, in_one)
    except TemporaryBackendError:
        raise
    except AioStorageError as error:  # one of them has failed, so none has happened
        events.debug("batch_refused", "changes go one by one: %(error)s", error=error)
    left = 0
    for position, result in enumerate(results):
        if result is None:
            left += 1
            try:
                results[position] = await carry_out_noted(commands, batch[position], seconds)
            except Exception as error:  # noqa: BLE001  its own caller gets it
                results[position] = error
    return results, client.replicated or 2 * left < len(batch)


async def _one(commands: Commands, noted: NotedPlan) -> Any:
    if commands.client.replicated:
        [result] = await _in_transaction(commands, [noted])
        return result
    own = commands.fresh()
    result = await run_logged(own, noted.plan.operation)
    await _note_for_good(own, [noted], [result])
    await log_for_good(own)
    return result


# ---------------------------------------------------------------------- in one transaction


class _Together:
    """Changes that share a transaction; called again for each attempt."""

    def __init__(self, commands: Commands, batch: Sequence[NotedPlan]) -> None:
        self.commands = commands
        self.batch = batch
        self.schema = batch[0].plan.schema
        self._attempts = 0
        self._presumes = True
        self._written: dict[str, list[Document]] = {}

    async def __call__(self, client: Client, session: Any) -> list[Any]:
        own = self.commands.fresh(session=session, client=client)
        self._attempts += 1
        seen = None
        if len(self.batch) == 1 and self._attempts == 1:
            seen = await change_one(own, self.batch[0].plan)
        results = await self.carry_out(own) if seen is None else [self._changed(own, seen)]
        for rows in _rows(self.batch, results):
            await own.note(rows)
        try:
            self._written = await log_in_transaction(own)
        except BegunAnew:
            self._presumes = False
            raise
        return results

    def committed(self) -> None:
        """Remember the rows, since they are written for good."""
        for log, rows in self._written.items():
            self.commands.known.add(log, rows)

    def _changed(self, own: Commands, seen: Sequence[Seen]) -> Any:
        """Return the result of the only change, which is made."""
        raise NotImplementedError

    async def carry_out(self, own: Commands) -> list[Any]:
        """Return the result of each change; None for those that have to be made separately."""
        raise NotImplementedError

    def _keep(self, own: Commands, plan: Plan, seen: Seen) -> None:
        """Keep a change for the log, and what its last row probably is."""
        logged = own.logged(plan.operation)
        if logged is None:
            return
        change = changed_fields(logged, seen.document, plan.operation)
        presumed: LastRow | None = None
        if self._presumes:
            presumed = own.known.last(logged.log, change.name)
            if presumed is None and seen.document.get(logged.holder) is None:
                presumed = NO_ROW  # no worker has taken it yet
        own.changed.append(replace(change, last=seen.last, time=seen.now, presumed=presumed))


async def _in_transaction(commands: Commands, batch: Sequence[NotedPlan]) -> list[Any]:
    together = _together(commands, batch)
    results = await commands.client.in_short_transaction(together)
    together.committed()
    return results


def _together(commands: Commands, batch: Sequence[NotedPlan]) -> _Together:
    takes = isinstance(batch[0].plan.operation, Take)
    return (_Takes if takes else _Updates)(commands, batch)


class _Takes(_Together):
    def __init__(self, commands: Commands, batch: Sequence[NotedPlan]) -> None:
        super().__init__(commands, batch)
        self._tried: list[Any] = []
        self._left_to_others: list[Any] = []

    def _changed(self, own: Commands, seen: Sequence[Seen]) -> list[Document]:
        plan = self.batch[0].plan
        for one in seen:
            self._keep(own, plan, one)
        return [changed_document(one.document, plan.operation.changes, one.now) for one in seen]

    async def carry_out(self, own: Commands) -> list[Any]:
        first, wanted = self.batch[0].plan.operation, len(self.batch)
        self._left_to_others += self._tried
        seen: list[Seen] = []
        where = first.where
        if self._left_to_others:
            others = Compare("_id", "nin", tuple(self._left_to_others))
            rest = And((where, others))
            skipped = wanted * random.randrange(RANDOM_PLACES)  # noqa: S311  no secret
            seen = await look_at_first(own, first, rest, wanted, skipped)
            if not seen and skipped:
                seen = await look_at_first(own, first, rest, wanted)
        results: list[Any] = [None] * wanted
        if not seen:
            self._left_to_others.clear()
            seen = await look_at_first(own, first, where, wanted)
            results[len(seen) :] = [[] for _ in results[len(seen) :]]
        self._tried = [one.document["_id"] for one in seen]
        if not seen:
            return results
        updates = []
        for position, (noted, one) in enumerate(zip(self.batch, seen, strict=False)):
            take = noted.plan.operation
            (key,) = self.schema.references_of([one.document["_id"]])
            updates.append(({"_id": key}, self.schema.update(take.changes, one.now)))
            results[position] = [changed_document(one.document, take.changes, one.now)]
            self._keep(own, noted.plan, one)
        await own.update_each(self.schema, updates)
        return results


class _Updates(_Together):
    def _changed(self, own: Commands, seen: Sequence[Seen]) -> int:
        for one in seen:
            self._keep(own, self.batch[0].plan, one)
        return len(seen)

    async def carry_out(self, own: Commands) -> list[Any]:
        results, chosen = await _chosen(own, self.batch)
        updates = []
        for position, one in chosen.items():
            plan = self.batch[position].plan
            (key,) = self.schema.references_of([one.document["_id"]])
            updates.append(({"_id": key}, self.schema.update(plan.operation.changes, one.now)))
            results[position] = 1
            self._keep(own, plan, one)
        await own.update_each(self.schema, updates)
        return results


async def _chosen(own: Commands, batch: Sequence[NotedPlan]) -> tuple[list[Any], dict[int, Seen]]:
    """Find out which updates of a batch have a document to change.

    In `aiostorage.drivers.mongodb.batches`, an update that matches nothing fails, which would abort
    the transaction. So the documents are looked up first.

    Returns
    -------
    results, chosen
        0 for each update, or None for one whose document another update of the batch changes; and
        the documents of those that match, by the place of the update.
    """
    schema = batch[0].plan.schema
    keys = [_key(noted.plan) for noted in batch]
    fields = {path: True for noted in batch for path in noted.plan.matching}
    if schema.logged is not None:
        fields |= named_fields(schema.logged)
    matching = [noted.plan.matching for noted in batch]
    match = {"$match": matching[0] if len(matching) == 1 else {"$or": matching}}
    found: dict[Any, Seen] = {}
    for seen in await look(own, schema, [match], fields, one=len(batch) == 1):
        for names in {names for names, _ in keys}:
            found[names, tuple(seen.document.get(name) for name in names)] = seen
    results: list[Any] = [0] * len(batch)
    chosen: dict[int, Seen] = {}
    known: set[Any] = set()
    for position, (noted, key) in enumerate(zip(batch, keys, strict=True)):
        one = found.get(key)
        if key in known:
            results[position] = None
        elif one is not None and compile_condition(noted.plan.operation.where)(one.document):
            chosen[position] = one
        known.add(key)
    return results, chosen


# ---------------------------------------------------------------- on a standalone server


async def _by_itself(commands: Commands, batch: Sequence[NotedPlan]) -> list[Any]:
    """Carry out logged changes; None for those that have to be made separately."""
    own = commands.fresh()
    carry_out = _taken if isinstance(batch[0].plan.operation, Take) else _updated
    results = await carry_out(own, batch)
    await _note_for_good(own, batch, results)
    await log_for_good(own)
    return results


async def _taken(own: Commands, batch: Sequence[NotedPlan]) -> list[Any]:
    schema, first = batch[0].plan.schema, batch[0].plan.operation
    seen = await look_at_first(own, first, first.where, len(batch))
    results: list[Any] = [None if n < len(seen) else [] for n in range(len(batch))]
    if not seen:
        return results
    collection = own.client.collections[schema.name]
    await collection.bulk_write(
        [
            UpdateOne(still(schema, one.document, noted.plan.matching), noted.plan.update)
            for noted, one in zip(batch, seen, strict=False)
        ],
        ordered=False,
    )
    ids = schema.references_of([one.document["_id"] for one in seen])
    found = await collection.find({"_id": {"$in": ids}}).to_list(None)
    by_id = {document["_id"]: document for document in found}
    for position, (noted, one) in enumerate(zip(batch, seen, strict=False)):
        document, applied = by_id.get(one.document["_id"]), noted.plan.operation.applied
        if document is not None and compile_condition(applied)(document):
            results[position] = [document]
            _keep_for_good(own, noted.plan, one)
    return results


async def _updated(own: Commands, batch: Sequence[NotedPlan]) -> list[Any]:
    schema = batch[0].plan.schema
    results, chosen = await _chosen(own, batch)
    if not chosen:
        return results
    plans = [
        replace(
            batch[position].plan,
            matching=still(schema, one.document, batch[position].plan.matching),
        )
        for position, one in chosen.items()
    ]
    done = await update_each(own, schema, plans)
    for (position, one), result in zip(chosen.items(), done, strict=True):
        results[position] = result or None  # it has changed meanwhile
        if result == 1:
            _keep_for_good(own, batch[position].plan, one)
    return results


def _keep_for_good(own: Commands, plan: Plan, seen: Seen) -> None:
    logged = own.logged(plan.operation)
    if logged is not None:
        change: LoggedChange = changed_fields(logged, seen.document, plan.operation)
        own.changed.append(change)


async def _note_for_good(
    commands: Commands, batch: Sequence[NotedPlan], results: Sequence[Any]
) -> None:
    for rows in _rows(batch, results):
        await note_for_good(commands, rows)


# ------------------------------------------------------------------------------- the rest


def _key(plan: Plan) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the unique fields by which a plan names its document, and their values."""
    where = plan.operation.where
    parts = conjuncts(where)
    bound: Mapping[str, Any] = {p.path: p.value for p in parts if isinstance(p, Compare)}
    names = next(names for names in plan.schema.unique if bound.keys() >= set(names))
    return names, tuple(bound[name] for name in names)


def _rows(batch: Sequence[NotedPlan], results: Sequence[Any]) -> list[Any]:
    """Return the operation that inserts the notes of a batch, except those of failed changes."""
    documents: list[Document] = []
    notes = [noted.note for noted in batch if noted.note is not None]
    if not notes:
        return []
    for noted, result in zip(batch, results, strict=True):
        if noted.note and result is not None and not isinstance(result, Exception):
            documents += insertion_of(noted.note, [result]).documents
    nothing = insertion_of(replace(notes[0], changes=()), ())
    return [replace(nothing, documents=tuple(documents))]
