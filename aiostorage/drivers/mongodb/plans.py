"""Operations worked out before anything is sent: pure functions, no connection.

A `Plan` has everything of one operation that does not depend on replies of the server: its
filter, its update, the index that serves it, whether it needs a transaction, and which other
operations may share a command with it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import bson
import bson.errors

from aiostorage._core.shared_takes import excludes_itself
from aiostorage.drivers.mongodb.filters import CollectionSchema, has_store_time
from aiostorage.operations import (
    Compare,
    Condition,
    Count,
    Delete,
    ElementMatch,
    Find,
    FollowUp,
    Insert,
    InsertNext,
    Operation,
    StoreTime,
    Take,
    Update,
)

__all__ = ["Plan", "asks_time", "is_large", "is_single", "make_plan"]

MAX_BATCHED_CHANGES: Final = 2**16
"""Bytes of changes, at most, with which an operation may be part of a batch."""


@dataclass(slots=True)
class Plan:
    """One operation, ready to be sent.

    Attributes
    ----------
    matching
        Its filter; empty for an insertion.
    one
        Whether at most one document can match.
    single
        Whether it writes at most one document, so that it needs no transaction.
    update
        Its update; None if that needs the server's time, which has to be asked for first.
    first
        The options with which the server itself finds the first matches; None if no index has
        them in order.
    batch
        What all operations have in common that may share commands with this one; None if none may.
    large
        Whether it writes bytes that do not stay in their document.
    """

    operation: Any
    schema: CollectionSchema
    matching: dict[str, Any]
    one: bool = False
    single: bool = True
    update: Any = None
    first: dict[str, Any] | None = None
    batch: Hashable | None = None
    large: bool = False


def make_plan(
    schema: CollectionSchema, operation: Operation[Any], now: datetime | None = None
) -> Plan:
    """Return the plan of an operation.

    Parameters
    ----------
    now
        The time that `StoreTime` goes by; None for the server's clock when it is carried out.
    """
    match operation:
        case Insert(documents=documents):
            single, large = len(documents) == 1, is_large(schema, operation)
            return Plan(operation, schema, {}, single=single, large=large)
        case Find(where=where) | Count(where=where) | Delete(where=where):
            after = operation.after if isinstance(operation, Find) else None
            one = after is None and schema.matches_one(where)
            plan = Plan(operation, schema, schema.filter(where, now), one)
            if isinstance(operation, Find) and operation.limit is not None and not (one or after):
                plan.first = schema.first(where, operation.order)
            plan.single = one or not isinstance(operation, Delete)
            return plan
        case Update(where=where, changes=changes) | Take(where=where, changes=changes):
            large = is_large(schema, operation)
            batched = not schema.blobs and _may_be_batched(operation)
            plainly = (
                batched and isinstance(operation, Update) and schema.matches_one_plainly(where)
            )
            one = plainly or schema.matches_one(where)
            plan = Plan(operation, schema, schema.filter(where, now), one, large=large)
            plan.update = schema.update(changes, now)
            if isinstance(operation, Take):
                plan.single = operation.limit == 1
                plan.first = {} if one else schema.first(where, operation.order)
                if batched and not one:
                    plan.batch = (operation.collection, where, operation.order)
            else:
                plan.single = one
                plan.batch = schema.name if plainly else None
            return plan
        case _:
            raise TypeError(f"unknown operation {operation!r}")


def is_single(schema: CollectionSchema, operation: Operation[Any]) -> bool:
    """Return whether an operation writes at most one document, so that it needs no transaction."""
    match operation:
        case Insert(documents=documents) | InsertNext(documents=documents):
            return len(documents) == 1
        case Update(where=where) | Delete(where=where):
            return schema.matches_one(where)
        case Take(limit=limit):
            return limit == 1
        case _:
            return True


def is_large(schema: CollectionSchema, operation: Operation[Any]) -> bool:
    """Return whether an operation writes bytes that do not stay in their document."""
    if not schema.blobs:
        return False
    match operation:
        case Insert(documents=documents) | InsertNext(documents=documents):
            return any(map(schema.large_fields, documents))
        case Update(changes=changes) | Take(changes=changes):
            return bool(schema.large_fields(changes))
        case _:
            return False


def asks_time(operation: Operation[Any]) -> bool:
    """Return whether the server's time is part of an operation."""
    match operation:
        case Insert(documents=documents) | InsertNext(documents=documents):
            return any(has_store_time(document.values()) for document in documents)
        case Update(where=where, changes=changes) | Take(where=where, changes=changes):
            return has_store_time(changes.values()) or _compares_time(where)
        case Find(where=where) | Count(where=where) | Delete(where=where):
            return _compares_time(where)
        case FollowUp():
            return True
        case _:
            return False


def _compares_time(where: Condition) -> bool:
    if isinstance(where, Compare):
        values = where.value if where.op in ("in", "nin") else (where.value,)
        return has_store_time(values)
    if isinstance(where, ElementMatch):
        return False
    return any(map(_compares_time, where.conditions))


def _may_be_batched(operation: Update | Take) -> bool:
    """Return whether an operation may share a command, judging by the operation alone."""
    if not _is_small(operation.changes):
        return False
    if isinstance(operation, Update):
        return bool(operation.changes)
    return (
        operation.applied is not None
        and operation.limit == 1
        and excludes_itself(operation)
        and _is_hashable((operation.where, operation.order))
    )


def _is_small(changes: Mapping[str, Any]) -> bool:
    """Return whether no other operation of a batch can fail because of these changes.

    They need no expression, they can be encoded, and a full batch of them fits into one command.
    """
    values = [value for value in changes.values() if value.__class__ is not StoreTime]
    if any(v.__class__ is StoreTime and v.offset for v in changes.values()):
        return False
    try:
        return not values or len(bson.encode({"values": values})) < MAX_BATCHED_CHANGES
    except (bson.errors.BSONError, OverflowError, UnicodeError):
        return False  # the error belongs to its own caller


def _is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
