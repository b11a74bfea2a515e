"""Writes of documents whose changes are logged: each write keeps its changes for the rows.

In a transaction, the documents to change are read first, together with the last row of each of them
and the server's time: no other writer can change the document or write its rows until the
transaction ends. A standalone server changes the document first, and returns it as it was before.

`aiostorage.drivers.mongodb.log_writing` writes the rows, after all writes that belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pymongo import errors as pymongo

from aiostorage._core.queries.changes import apply_changes
from aiostorage._core.queries.matching import conjuncts
from aiostorage._core.queries.projection import copy_tree
from aiostorage.drivers.mongodb.bson_codec import as_stored
from aiostorage.drivers.mongodb.client import UpdateOne
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.logged_change import (
    NO_ROW,
    Doubt,
    LastRow,
    LoggedChange,
    changed_fields,
    named_fields,
)
from aiostorage.drivers.mongodb.plans import Plan, make_plan
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Delete,
    Document,
    Insert,
    Logged,
    Operation,
    StoreTime,
    Take,
    Update,
)

__all__ = [
    "Seen",
    "change_one",
    "changed_document",
    "look",
    "look_at_first",
    "run_logged",
    "still",
]

LAST_ROW_FIELD: Final = "last row of it"
TIME_FIELD: Final = "time of the server"
DOCUMENT_FIELD: Final = "document itself"
"""Fields that are added to documents; no document has fields of these names."""

MAX_IDS: Final = 10_000
"""Ids in one command, at most."""


async def run_logged(commands: Commands, operation: Operation[Any]) -> Any:
    """Carry out one operation, and keep its changes for the log; return its result."""
    logged = commands.logged(operation)
    if logged is None:
        return await commands.run(operation)
    if isinstance(operation, Insert):
        with _doubted(commands, operation):
            await commands.run(operation)
        commands.changed.extend(LoggedChange(logged, None, one) for one in operation.documents)
        return None
    writes: Any = _InTransaction if commands.session is not None else _ByItself
    work = writes(commands, commands.schemas[operation.collection], logged)
    match operation:
        case Update():
            return await work.update(operation)
        case Take():
            return await work.take(operation)
        case Delete():
            return await work.delete(operation)
        case _:
            raise TypeError(f"unknown operation {operation!r}")


# ----------------------------------------------------------------------------------- looking


@dataclass(slots=True)
class Seen:
    """A document that is to be changed, and the server's time.

    Attributes
    ----------
    last
        Its last row; None if that was not looked up together with it.
    """

    document: Document
    last: LastRow | None
    now: datetime


async def look(
    commands: Commands,
    schema: CollectionSchema,
    stages: Sequence[Mapping[str, Any]],
    fields: Mapping[str, Any] | None = None,
    *,
    one: bool = False,
    **options: Any,
) -> list[Seen]:
    """Return documents, and the last row of one in a transaction, if changes are logged.

    For one document that saves a command. For each of several, the server would take as long as
    for another command, which finds the rows of all of them: `log_writing` sends it.

    Parameters
    ----------
    stages
        The stages of the aggregation that find the documents.
    fields
        The selection of what is needed of them; None for all.
    one
        Whether there is one at most.
    """
    logged = schema.logged if one and commands.logs and commands.session is not None else None
    stages = [
        *stages,
        *([] if fields is None else [{"$project": dict(fields)}]),
        *([] if logged is None else [_last_row_of(logged)]),
        {"$addFields": {TIME_FIELD: "$$NOW"}},
    ]
    found = await commands.client.aggregate(
        schema.name, stages, session=commands.session, **options
    )
    return [_seen(commands, document) for document in found]


async def change_one(commands: Commands, plan: Plan) -> list[Seen] | None:
    """Change the document of a plan at once; return it as it was, in a list, if there was one.

    None if one command cannot do that.
    """
    operation, schema = plan.operation, plan.schema
    update = schema.timed_update(operation.changes)
    taking = isinstance(operation, Take)
    if update is None or commands.now is not None or (taking and plan.first is None):
        return None
    fields: dict[str, Any] = {"_id": False, DOCUMENT_FIELD: "$$ROOT"}
    if not taking and schema.logged is not None:
        fields = dict(named_fields(schema.logged))
    found = await commands.find_one_and_update(
        plan, update, projection={**fields, TIME_FIELD: "$$NOW"}, **(plan.first or {})
    )
    if found is None:
        return []
    now = found.pop(TIME_FIELD)
    return [Seen(found.get(DOCUMENT_FIELD, found), None, now)]


def _last_row_of(logged: Logged) -> dict[str, Any]:
    same = [{"$eq": ["$owner", "$$owner"]}, {"$eq": ["$name", "$$name"]}]
    last_row = {
        "from": logged.log,
        "let": {"owner": f"${logged.owner}", "name": f"${logged.name}"},
        "pipeline": [
            {"$match": {"$expr": {"$and": same}}},
            {"$sort": {"_id": -1}},
            {"$limit": 1},
            {"$project": {"attempt": 1, "after": 1, "holder": 1}},
        ],
        "as": LAST_ROW_FIELD,
    }
    return {"$lookup": last_row}


def _seen(commands: Commands, document: Document) -> Seen:
    last, now = document.pop(LAST_ROW_FIELD, None), document.pop(TIME_FIELD)
    now = commands.now or now
    if last is None:
        return Seen(document, None, now)
    return Seen(document, LastRow.of(last[0]) if last else NO_ROW, now)


async def look_at_first(
    commands: Commands, take: Take, where: Condition, limit: int | None, skipped: int = 0
) -> list[Seen]:
    """Return the first documents that a take can get, after some that are skipped."""
    schema = commands.schemas[take.collection]
    first = schema.first(take.where, take.order) if limit is not None else None
    if first is None:
        wanted = None if limit is None else limit + skipped
        ids = (await commands.ids(schema, where, take.order, wanted))[skipped:]
        seen = await _look_at(commands, schema, ids)
        return [seen[uid] for uid in ids if uid in seen]
    stages: list[dict[str, Any]] = [{"$match": schema.filter(where, commands.now)}]
    options: dict[str, Any] = {}
    if "hint" in first:
        stages.append({"$sort": dict(first["sort"])})
        options["hint"] = first["hint"]
    elif first["sort"] == [("$natural", 1)]:
        options["hint"] = {"$natural": 1}
    else:
        stages.append({"$sort": dict(first["sort"])})
    if skipped:
        stages.append({"$skip": skipped})
    stages.append({"$limit": limit})
    return await look(commands, schema, stages, one=limit == 1, **options)


async def _look_at(
    commands: Commands, schema: CollectionSchema, ids: Sequence[Any]
) -> dict[Any, Seen]:
    found: dict[Any, Seen] = {}
    for begin in range(0, len(ids), MAX_IDS):
        chosen = schema.references_of(ids[begin : begin + MAX_IDS])
        for seen in await look(commands, schema, [{"$match": {"_id": {"$in": chosen}}}]):
            found[seen.document["_id"]] = seen
    return found


def changed_document(before: Document, changes: Mapping[str, Any], now: datetime) -> Document:
    """Return a document as it is after changes at a given time."""
    timed = {k: v.at(now) if v.__class__ is StoreTime else v for k, v in changes.items()}
    after: Document = copy_tree(before)
    apply_changes(after, as_stored(timed))
    return after


# ------------------------------------------------------------------------ in a transaction


@dataclass(slots=True)
class _InTransaction:
    commands: Commands
    schema: CollectionSchema
    logged: Logged

    async def update(self, update: Update) -> int:
        seen = await self._look(update.where)
        await self._set(seen, update.changes)
        return len(self._keep(seen, update))

    async def take(self, take: Take) -> list[Document]:
        seen = await look_at_first(self.commands, take, take.where, take.limit)
        await self._set(seen, take.changes)
        self._keep(seen, take)
        return [changed_document(one.document, take.changes, one.now) for one in seen]

    async def delete(self, delete: Delete) -> int:
        seen = await self._look(delete.where)
        collection = self.commands.client.collections[self.schema.name]
        for chosen in self._chosen(seen):
            await collection.delete_many(chosen, session=self.commands.session)
        self.commands.changed.extend(
            LoggedChange(self.logged, one.document, None, one.last, one.now) for one in seen
        )
        return len(seen)

    async def _look(self, where: Condition) -> list[Seen]:
        match = {"$match": self.schema.filter(where, self.commands.now)}
        return await look(self.commands, self.schema, [match], named_fields(self.logged))

    async def _set(self, seen: Sequence[Seen], changes: Mapping[str, Any]) -> None:
        if not seen:
            return
        collection = self.commands.client.collections[self.schema.name]
        update = self.schema.update(changes, seen[0].now)
        for chosen in self._chosen(seen):
            await collection.update_many(chosen, update, session=self.commands.session)

    def _chosen(self, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        ids = self.schema.references_of([one.document["_id"] for one in seen])
        return [{"_id": {"$in": ids[n : n + MAX_IDS]}} for n in range(0, len(ids), MAX_IDS)]

    def _keep(self, seen: Sequence[Seen], operation: Update | Take) -> list[LoggedChange]:
        kept = [
            replace(
                changed_fields(self.logged, one.document, operation), last=one.last, time=one.now
            )
            for one in seen
        ]
        self.commands.changed.extend(kept)
        return kept


# ------------------------------------------------------------------ on a standalone server


@dataclass(slots=True)
class _ByItself:
    commands: Commands
    schema: CollectionSchema
    logged: Logged

    async def update(self, update: Update) -> int:
        plan = make_plan(self.schema, update, self.commands.now)
        if plan.one:
            before = await self._replaced(plan, projection=named_fields(self.logged))
            found = [] if before is None else [before]
            matched = len(found)
        else:
            found, matched = await self._update_all(plan)
        self.commands.changed.extend(changed_fields(self.logged, one, update) for one in found)
        return matched

    async def take(self, take: Take) -> list[Document]:
        taken: list[Document] = []
        while take.limit is None or len(taken) < take.limit:
            others = Compare("_id", "nin", tuple(one["_id"] for one in taken))
            where = And((take.where, others)) if taken else take.where
            document = await self._take_one(replace(take, where=where, limit=1))
            if document is None:
                break
            taken.append(document)
        return taken

    async def delete(self, delete: Delete) -> int:
        collection = self.commands.client.collections[self.schema.name]
        matching = self.schema.filter(delete.where, self.commands.now)
        before = await collection.find(matching, named_fields(self.logged)).to_list(None)
        gone: list[Document] = []
        for begin in range(0, len(before), MAX_IDS):
            some = before[begin : begin + MAX_IDS]
            ids = self.schema.references_of([document["_id"] for document in some])
            chosen = {"$and": [{"_id": {"$in": ids}}, matching]}
            with _doubted(self.commands, delete, some):
                deleted = (await collection.delete_many(chosen)).deleted_count
            if deleted < len(some):  # other writers have changed or deleted some meanwhile
                rest = await collection.find({"_id": {"$in": ids}}, {"_id": True}).to_list(None)
                left = {document["_id"] for document in rest}
                some = [document for document in some if document["_id"] not in left][:deleted]
            gone += some
        self.commands.changed.extend(LoggedChange(self.logged, one, None) for one in gone)
        return len(gone)

    async def _take_one(self, take: Take) -> Document | None:
        """Take one document, and return it as it is after that."""
        plan = make_plan(self.schema, take, self.commands.now)
        while plan.first is None:
            ids = await self.commands.ids(self.schema, take.where, take.order, 1)
            if not ids:
                return None
            one = And((Compare("_id", "eq", ids[0]), take.where))
            if taken := await self._take_one(replace(take, where=one)):
                return taken
        before = await self._replaced(plan, **plan.first)
        if before is None:
            return None
        change = changed_fields(self.logged, before, take)
        self.commands.changed.append(change)
        (key,) = self.schema.references_of([before["_id"]])
        collection = self.commands.client.collections[self.schema.name]
        after: Document | None = await collection.find_one({"_id": key})
        same = after is not None and all(
            after.get(field) == (change.after or {}).get(field)
            for field in (self.logged.state, self.logged.holder)
        )
        if after is not None and same:
            return after
        return changed_document(before, take.changes, await self.commands.client.now())

    async def _replaced(self, plan: Plan, **options: Any) -> Document | None:
        """Change one document; return it as it was before."""
        update = plan.update
        if update is None:
            update = plan.schema.update(plan.operation.changes, await self.commands.client.now())
        with _doubted(self.commands, plan.operation):
            before: Document | None = await self.commands.find_one_and_update(
                plan, update, **options
            )
            return before

    async def _update_all(self, plan: Plan) -> tuple[list[Document], int]:
        """Change all documents that match.

        Returns
        -------
        before, matched
            The documents as they were before, without those of which it is not known whether this
            update or another one has changed them; and the number of those that this one changed.
        """
        collection = self.commands.client.collections[self.schema.name]
        update = plan.update
        if update is None:
            update = plan.schema.update(plan.operation.changes, await self.commands.client.now())
        before = await collection.find(plan.matching, named_fields(self.logged)).to_list(None)
        if not before:
            return [], 0
        writes = [UpdateOne(still(self.schema, one, plan.matching), update) for one in before]
        with _doubted(self.commands, plan.operation, before):
            done = await collection.bulk_write(writes, ordered=False)
        matched: int = done.matched_count
        if matched == len(before):
            return list(before), matched
        # other writers have changed some of them at the same time
        changed = await self._changed_of(before, plan) if matched else []
        ours = {one["_id"] for one in changed}
        rest = tuple(one["_id"] for one in before if one["_id"] not in ours)
        if len(changed) > matched:  # some of them in the same way
            doubt = Compare("_id", "in", tuple(ours))
            self.commands.doubts.append(Doubt(self.schema.name, doubt))
            changed = []
        again = And((plan.operation.where, Compare("_id", "in", rest)))
        operation = replace(plan.operation, where=again)
        more, count = await self._update_all(make_plan(self.schema, operation, self.commands.now))
        return [*changed, *more], matched + count

    async def _changed_of(self, before: Sequence[Document], plan: Plan) -> list[Document]:
        """Return those that now have the values of the plan."""
        ids = self.schema.references_of([one["_id"] for one in before])
        wanted = {k: v for k, v in plan.operation.changes.items() if v.__class__ is not StoreTime}
        same = And(tuple(Compare(k, "eq", v) for k, v in wanted.items()))
        matching = {"$and": [{"_id": {"$in": ids}}, self.schema.filter(same)]}
        collection = self.commands.client.collections[self.schema.name]
        found = await collection.find(matching, {"_id": True}).to_list(None)
        there = {one["_id"] for one in found}
        return [one for one in before if one["_id"] in there]


def still(
    schema: CollectionSchema, document: Document, matching: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the filter of a document that matches, and has the state that was read."""
    logged = schema.logged
    fields = () if logged is None else (logged.state, logged.holder)
    same = And(tuple(Compare(name, "eq", document.get(name)) for name in fields))
    (key,) = schema.references_of([document["_id"]])
    # an upsert refuses a path that equals something twice, and would take an equal _id for its own
    more = {k: v for k, v in schema.filter(same).items() if matching.get(k) != v}
    return {"$and": [{"_id": {"$gte": key, "$lte": key}, **more}, dict(matching)]}


@contextmanager
def _doubted(
    commands: Commands, operation: Operation[Any], documents: Sequence[Document] = ()
) -> Iterator[None]:
    """Note a write as doubtful if its answer is lost and it is not part of a transaction."""
    try:
        yield
    except pymongo.ConnectionFailure:
        if commands.session is None:
            commands.doubts.append(_doubt(commands, operation, documents))
        raise


def _doubt(commands: Commands, operation: Operation[Any], documents: Sequence[Document]) -> Doubt:
    name = operation.collection
    if isinstance(operation, Insert):
        ids = tuple(document["_id"] for document in operation.documents)
        return Doubt(name, Compare("_id", "in", ids), inserted=True)
    if documents:
        chosen = Compare("_id", "in", tuple(document["_id"] for document in documents))
        deleted = tuple(documents) if isinstance(operation, Delete) else ()
        return Doubt(name, chosen, deleted=deleted)
    assert isinstance(operation, Update | Take)  # noqa: S101  what else changes one document
    return Doubt(name, operation.applied or _key_of(commands.schemas[name], operation.where))


def _key_of(schema: CollectionSchema, where: Condition) -> Condition:
    """Return the part of a condition that names one document; the whole condition without one."""
    parts = conjuncts(where)
    bound = {part.path: part for part in parts if isinstance(part, Compare) and part.op == "eq"}
    for names in schema.unique:
        if bound.keys() >= set(names):
            return And(tuple(bound[name] for name in names))
    return where
