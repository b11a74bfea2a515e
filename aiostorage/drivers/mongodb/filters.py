"""Operations as MongoDB's own filters, updates and sorts: pure functions, no connection.

A collection is a MongoDB collection, a document a document. Two things are not stored as they are:

- An ``_id`` of 24 hex digits, and what refers to one, is an ObjectId, as Oríon's own storage writes
  it. It comes back as 24 hex digits.
- `StoreTime` becomes ``$$NOW`` or ``$currentDate``, so that the server's clock decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from bson import ObjectId

from aiostorage._core.matching import conjuncts
from aiostorage._core.ordering import Order, key_of, value_of
from aiostorage.operations import (
    Collection,
    Compare,
    Condition,
    Document,
    ElementMatch,
    Index,
    Layout,
    Logged,
    Or,
    SortBy,
    StoreTime,
)

__all__ = ["RECORD_ID", "CollectionSchema", "has_store_time", "rank", "schemas_of", "sort_key"]

RECORD_ID: Final = "$recordId"
"""The server's name for the number of a document, which grows with each insertion."""

MAX_INLINE_BYTES: Final = 12 * 2**20
"""Bytes that stay in the document, at most; MongoDB refuses documents of more than 16 MiB."""

_OBJECT_ID: Final = re.compile(r"[0-9a-f]{24}\Z")
_NEVER: Final[dict[str, Any]] = {"$nor": [{}]}


def sort_key(document: Document, order: Order, by_id: bool = False) -> tuple[Any, ...]:
    """Return the sort key of a document, `order` and then insertion; remove its `RECORD_ID`.

    Parameters
    ----------
    by_id
        Whether the ids tell the order of insertion.
    """
    number = document.pop(RECORD_ID)
    last = (rank(document["_id"]), number) if by_id else (number,)
    return (*(_key(document, item) for item in order), *last)


def _key(document: Document, item: str | SortBy) -> tuple[Any, ...]:
    if item.__class__ is str:
        return rank(document.get(item))
    return key_of(value_of(document, item), item)


def rank(value: Any) -> tuple[int, Any]:
    """Return a sort key as the server has it: None first, then numbers, texts, times."""
    if value is None:
        return (0, 0)
    return (2 if isinstance(value, str) else 3 if isinstance(value, datetime) else 1, value)


def has_store_time(values: Iterable[Any]) -> bool:
    """Return whether a `StoreTime` is among the values."""
    return any(value.__class__ is StoreTime for value in values)


class CollectionSchema:
    """One collection: its filters, updates and indexes in MongoDB's own form.

    Parameters
    ----------
    partial
        Whether the server can have an ``$in`` in a partial index. Without it the field of the
        condition stands in the index instead, and the server merges the parts of the index.
    is_log
        Whether the documents are rows of a log, whose ids tell the order of their insertion.
    """

    def __init__(
        self, collection: Collection, *, partial: bool = True, is_log: bool = False
    ) -> None:
        self._partial = partial
        self.name: str = collection.name
        self.logged: Logged | None = collection.logged
        self.is_log: bool = is_log
        self.blobs: tuple[str, ...] = tuple(f.name for f in collection.fields if f.kind == "bytes")
        self.indexes: tuple[Index, ...] = collection.indexes
        self._references = ("_id", *collection.references) if collection.name else ()
        self._inner: dict[str, tuple[list[str], ...]] = {}
        # what stands in the elements of lists refers to nothing
        self._inside = self if not collection.name else CollectionSchema(Collection("", ()))
        self._named_indexes = [(index, self.index_name(index)) for index in collection.indexes]
        self.unique: list[tuple[str, ...]] = [
            ("_id",),
            *(i.fields for i in collection.indexes if i.unique),
        ]

    # ----------------------------------------------------------------------------- indexes

    def index_keys(self, index: Index) -> list[tuple[str, int]]:
        """Return the key pattern of an index."""
        names = list(index.fields)
        if index.where is not None and not self._partial:
            (field,) = self.filter(index.where)
            if field not in names:
                names.insert(1, field)
        return [(name, -1 if index.descending else 1) for name in names]

    def index_filter(self, index: Index) -> dict[str, Any] | None:
        """Return the filter of the documents that are in an index; None for all of them."""
        return self.filter(index.where) if index.where is not None and self._partial else None

    def index_name(self, index: Index) -> str:
        """Name an index as MongoDB does by default, which is what Oríon has."""
        name = "_".join(f"{name}_{way}" for name, way in self.index_keys(index))
        return name if self.index_filter(index) is None else f"{name}_partial"

    def matches_one(self, where: Condition) -> bool:
        """Return whether at most one document can match."""
        bound = _bound(where)
        return any(map(bound.issuperset, self.unique))

    def matches_one_plainly(self, where: Condition) -> bool:
        """Return whether at most one document can match, by fields that equal one scalar each."""
        bound = _bound(where)
        return (
            len(bound) == len(conjuncts(where))
            and "_id" not in bound
            and "." not in "".join(bound)
            and any(map(bound.issuperset, self.unique))
        )

    def first(self, where: Condition, order: Order) -> dict[str, Any] | None:
        """Return the options with which the server finds the first matches by `order`.

        None if no index has them in order, those that are equal by insertion.
        """
        if not order:
            return {"sort": [("_id" if self.is_log else "$natural", 1)]}
        bound, parts = _bound(where), conjuncts(where)
        for index, name in self._named_indexes:
            rest = index.fields
            while rest and rest[0] in bound:
                rest = rest[1:]
            if rest == tuple(order) and (index.where is None or index.where in parts):
                return {"sort": [(field, 1) for field in rest], "hint": name}
        return None

    # ----------------------------------------------------------------------------- filters

    def filter(self, where: Condition, now: datetime | None = None) -> dict[str, Any]:
        """Return a condition as a filter.

        Parameters
        ----------
        now
            The time that `StoreTime` goes by; None for the server's clock at that moment.
        """
        if isinstance(where, Compare):
            return self._compare(where, now)
        if isinstance(where, ElementMatch):
            return {where.path: {"$elemMatch": self._element(where, where.path)}}
        parts = [self.filter(condition, now) for condition in where.conditions]
        if isinstance(where, Or):
            return {"$or": parts} if parts else _NEVER
        merged = {path: part for each in parts for path, part in each.items()}
        return merged if len(merged) == sum(map(len, parts)) else {"$and": parts}

    def _element(self, match: ElementMatch, path: str) -> dict[str, Any]:
        """Return the argument of ``$elemMatch``; `path` is the path of the list in the document."""
        if not match.of_itself:
            return self._inside.filter(match.condition)
        operators: dict[str, Any] = {}
        for one in conjuncts(match.condition):
            if isinstance(one, ElementMatch):
                operators["$elemMatch"] = self._element(one, path)
            elif isinstance(one, Compare):
                several = one.op in ("in", "nin")
                value = list(one.value) if several else one.value
                operators[f"${one.op}"] = self._refer(path, value)
            else:
                raise TypeError(f"an element itself cannot meet {one!r}")
        return operators

    def projection(self, order: Order) -> dict[str, Any]:
        """Return the selection of what documents are sorted by."""
        return {
            item if isinstance(item, str) else item.path: (
                True
                if isinstance(item, str) or item.element is None
                else {"$elemMatch": self._inside.filter(item.element)}
            )
            for item in order
        }

    def with_id(self, uid: Any, matching: dict[str, Any]) -> dict[str, Any]:
        """Return a filter for one document, if it also matches another filter."""
        one = {"_id": {"$eq": _object_ids(uid)}}
        return {"$and": [one, matching]} if "_id" in matching else {**one, **matching}

    def _compare(self, where: Compare, now: datetime | None) -> dict[str, Any]:
        path, op, value = where.path, where.op, where.value
        if value.__class__ is StoreTime:
            return self._timed(where, value, now)
        if op not in ("in", "nin"):
            return {path: {f"${op}": self._refer(path, value)}}
        if has_store_time(value) or any(map(_looks_like_operators, value)):
            found = self.filter(Or(tuple(Compare(path, "eq", one) for one in value)), now)
            return found if op == "in" else {"$nor": [found]}
        return {path: {f"${op}": [self._refer(path, one) for one in value]}}

    def _timed(self, compare: Compare, value: StoreTime, now: datetime | None) -> dict[str, Any]:
        path, op = compare.path, compare.op
        if now is not None:
            return {path: {f"${op}": value.at(now)}}
        if op == "ne":
            return {"$nor": [self._timed(Compare(path, "eq", value), value, None)]}
        # expressions compare across types: values that are not times must not count as early ones
        return {
            "$and": [
                {path: {"$type": "date"}},
                {"$expr": {f"${op}": [f"${path}", _moment(value)]}},
            ]
        }

    @staticmethod
    def references_of(ids: Sequence[Any]) -> list[Any]:
        """Return ids as they are stored."""
        return [_object_ids(uid) for uid in ids]

    # ------------------------------------------------------------------- documents, updates

    def large_fields(self, values: Mapping[str, Any]) -> list[str]:
        """Return the fields whose bytes do not stay in their document."""
        return [
            name
            for name in self.blobs
            if values.get(name).__class__ is bytes and len(values[name]) > MAX_INLINE_BYTES
        ]

    def document(self, document: Mapping[str, Any], now: datetime | None) -> Document:
        """Return the document to insert; `now` is needed if a `StoreTime` is in it."""
        return self._assigned(document, now)

    def update(self, changes: Mapping[str, Any], now: datetime | None) -> Any:
        """Return changes as an update; None if it needs the time, which has to be asked for."""
        offsets = [v.offset for v in changes.values() if v.__class__ is StoreTime]
        if now is not None or not offsets:
            return {"$set": self._assigned(changes, now)}
        plain = {k: v for k, v in changes.items() if v.__class__ is not StoreTime}
        if not any(offsets):
            times = {name: True for name in changes if name not in plain}
            update: dict[str, Any] = {"$currentDate": times}
            if plain:
                update["$set"] = self._assigned(plain, None)
            return update
        return self.timed_update(changes)

    def timed_update(self, changes: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return changes as an update by the very time that an answer can have as ``$$NOW``.

        None if there is none.
        """
        if any("." in name for name in changes):  # a path means something else in a pipeline
            return None
        plain = {k: v for k, v in changes.items() if v.__class__ is not StoreTime}
        stage: dict[str, Any] = {
            name: {"$literal": value} for name, value in self._assigned(plain, None).items()
        }
        for name, value in changes.items():
            if value.__class__ is StoreTime:
                stage[name] = _moment(value)
        return [{"$set": stage}]

    def reversal(self, before: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Return the update that gives fields the values that they had in a document before."""
        old = {name: before[name] for name in names if name in before}
        update = {"$set": self._assigned(old, None)} if old else {}
        missing = dict.fromkeys((name for name in names if name not in before), "")
        return {**update, "$unset": missing} if missing else update

    def _assigned(self, values: Mapping[str, Any], now: datetime | None) -> dict[str, Any]:
        assigned: dict[str, Any] = {}
        for path, value in values.items():
            if value.__class__ is StoreTime:
                if now is None:
                    raise AssertionError(f"{path} needs the server's time")
                assigned[path] = value.at(now)
            else:
                assigned[path] = self._refer(path, value)
        return assigned

    def _refer(self, path: str, value: Any) -> Any:
        """Put ObjectIds where ids stand in a value that stands at a path."""
        inner = self._inner.get(path)
        if inner is None:  # what a path leads to is found out once
            inner = self._inner[path] = tuple(
                reference[len(path) + 1 :].split(".")
                for reference in self._references
                if f"{reference}.".startswith(f"{path}.")
            )
        for names in inner:
            value = _inside(value, names) if names != [""] else _object_ids(value)
        return value


def schemas_of(layout: Layout, *, partial: bool) -> dict[str, CollectionSchema]:
    """Return the schemas of all collections, by their names."""
    logs = {one.logged.log for one in layout.collections if one.logged is not None}
    return {
        one.name: CollectionSchema(one, partial=partial, is_log=one.name in logs)
        for one in layout.collections
    }


def _object_ids(value: Any) -> Any:
    if value.__class__ is str:
        return ObjectId(value) if _OBJECT_ID.match(value) else value
    return [_object_ids(one) for one in value] if value.__class__ is list else value


def _inside(value: Any, names: list[str]) -> Any:
    """Copy a dict with ObjectIds for ids where the names lead."""
    if value.__class__ is not dict or names[0] not in value:
        return value
    inner = value[names[0]]
    inner = _inside(inner, names[1:]) if len(names) > 1 else _object_ids(inner)
    return {**value, names[0]: inner}


def _looks_like_operators(value: Any) -> bool:
    """Return whether the server refuses a value in a list, although it takes it by itself."""
    return value.__class__ is dict and any(key.startswith("$") for key in value)


def _moment(value: StoreTime) -> Any:
    milliseconds = timedelta(seconds=value.offset) // timedelta(milliseconds=1)
    return {"$add": ["$$NOW", milliseconds]} if milliseconds else "$$NOW"


def _bound(where: Condition) -> set[str]:
    """Return the fields that must equal one scalar; only those cannot be a list's elements."""
    return {
        c.path
        for c in conjuncts(where)
        if isinstance(c, Compare)
        and c.op == "eq"
        and (c.value is None or c.value.__class__ in (str, int))
    }
