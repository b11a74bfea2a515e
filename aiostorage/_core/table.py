"""The documents of one collection in memory, and its indexes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any, Final, TypeAlias

from aiostorage._core.changes import apply_changes
from aiostorage._core.matching import conjuncts
from aiostorage._core.ordering import Order, order_key, place_of, position, values_of
from aiostorage._core.projection import copy_tree
from aiostorage._core.query import compile_condition
from aiostorage._core.steady_clock import ClockedFields
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    EVERYTHING,
    After,
    And,
    Collection,
    Compare,
    Condition,
    Document,
    Index,
    Layout,
    Logged,
    SortBy,
)

__all__ = [
    "DocumentTable",
    "GroupedIndex",
    "Key",
    "SortedIndex",
    "UniqueIndex",
    "sort_key",
    "sort_key_by",
    "tables_of",
]

Key: TypeAlias = tuple[tuple[int, Any], ...]
"""Values of declared fields in a form that sorts."""


_SCALARS: Final = frozenset({NoneType, str, int, datetime})


class DocumentTable:
    """The documents of one collection, in the order of their insertion, and their indexes.

    Parameters
    ----------
    collection
        The collection.
    is_log
        Whether it is the log of another one: documents only come, and their order is that of their
        insertion. So what has to be found needs no sorted index.
    """

    def __init__(self, collection: Collection, *, is_log: bool = False) -> None:
        self.name: str = collection.name
        self.logged: Logged | None = collection.logged
        self.clocked: ClockedFields = ClockedFields(collection)
        self.documents: dict[int, Document] = {}
        self.last: int = 0
        self._unique = [
            UniqueIndex(index)
            for index in (Index(("_id",), unique=True), *collection.indexes)
            if index.unique
        ]
        self._sorted: list[SortedIndex | GroupedIndex] = [
            (GroupedIndex if is_log and index.where is None else SortedIndex)(
                replace(index, fields=self.clocked.sorted_by(index.fields))
            )
            for index in collection.indexes
            if not index.unique
        ]

    def find(
        self, where: Condition, order: Order = (), after: After | None = None
    ) -> Iterator[Document]:
        """Yield the stored documents that match, in order; do not change them."""
        candidates, missing = self.candidates(where, order)
        found = filter(compile_condition(where), candidates)
        if after is not None:
            found = filter(self.behind(after, order), found)
        return iter(sorted(found, key=sort_key_by(missing))) if missing else found

    def behind(self, after: After, order: Order) -> Callable[[Document], bool]:
        """Return the function that says whether a document comes after a place in an order."""
        fields = self._sorted_by(order)
        place = place_of(after, fields, self._number(after.uid))
        return lambda d: position(d, fields, self._number(d["_id"]) or 0) > place

    def _sorted_by(self, order: Order) -> tuple[str | SortBy, ...]:
        steady = self.clocked.steady
        return tuple(steady.get(item, item) if isinstance(item, str) else item for item in order)

    def _number(self, uid: Any) -> int | None:
        return self._unique[0].by_key.get(sort_key({"_id": uid}, ("_id",)))

    def newest(self, bound: Mapping[str, Any]) -> Document | None:
        """Return the last document that was inserted with these keys in the fields of an index."""
        for index in self._sorted:
            if index.index.fields == tuple(bound) and index.index.where is None:
                seqs = index.equal_to(bound)
                return self.documents[seqs[-1]] if seqs else None
        raise TypeError(f"{self.name} has no index of {tuple(bound)}")

    def candidates(
        self, where: Condition, order: Order
    ) -> tuple[Iterator[Document], tuple[str | SortBy, ...]]:
        """Return documents among which all matches are, and the order that is still missing."""
        bound, order = _bound(where), self._sorted_by(order)
        among = _among(where)
        for unique in self._unique:
            seq = unique.look_up(bound)
            if seq is not None:
                return iter([self.documents[seq]] if seq in self.documents else []), ()
            seqs = unique.look_up_several(bound, among) if among else None
            if seqs is not None:
                return map(self.documents.__getitem__, seqs), order
        for index in self._sorted:
            part = index.part(where, bound, order)
            if part is not None:
                return (self.documents[seq] for seq in part[0]), part[1]
        return iter(self.documents.values()), order

    def load(self, documents: Mapping[int, Document]) -> None:
        """Make these the documents, by sequence number; those that are there already stay.

        DuplicateKeyError if two of them cannot be in one table, which is unusable then.
        """
        for seq in [
            s for s, document in self.documents.items() if documents.get(s) is not document
        ]:
            self._drop(seq)
        new = documents.keys() - self.documents.keys()
        for seq in sorted(new):
            self._check(documents[seq], None)
            self._put(seq, documents[seq])
        if new:
            self.documents = dict(sorted(self.documents.items()))
        self.last = max(self.documents, default=0)

    def insert(self, document: Document, undo: list[Callable[[], None]]) -> None:
        """Add a document."""
        self._check(document, None)
        self.last += 1
        self._put(self.last, document)
        undo.append(partial(self._take_back, self.last))

    def _take_back(self, seq: int) -> None:
        """Remove a document as if it had never been inserted."""
        self._drop(seq)
        if self.last == seq:
            self.last -= 1

    def replace(
        self, uid: Any, changes: Mapping[str, Any], undo: list[Callable[[], None]]
    ) -> Document:
        """Replace a document by a changed copy, and return the copy."""
        seq = self._unique[0].by_key[sort_key({"_id": uid}, ("_id",))]
        old = self.documents[seq]
        new: Document = copy_tree(old)
        apply_changes(new, changes)
        self._check(new, seq)
        self._drop_from_indexes(seq)
        self._put(seq, new)

        def back() -> None:
            self._drop_from_indexes(seq)
            self._put(seq, old)

        undo.append(back)
        return new

    def remove(self, uid: Any, undo: list[Callable[[], None]]) -> None:
        """Remove a document by its ``_id``."""
        seq = self._unique[0].by_key[sort_key({"_id": uid}, ("_id",))]
        old = self.documents[seq]
        self._drop(seq)

        def back() -> None:
            self._put(seq, old)
            self.documents = dict(sorted(self.documents.items()))

        undo.append(back)

    def _check(self, document: Document, seq: int | None) -> None:
        for unique in self._unique:
            holder = unique.by_key.get(sort_key(document, unique.index.fields))
            if holder is not None and holder != seq:
                fields = unique.index.fields
                raise DuplicateKeyError(
                    collection=self.name,
                    fields=fields,
                    values=tuple(document.get(name) for name in fields),
                )

    def _put(self, seq: int, document: Document) -> None:
        self.documents[seq] = document
        for unique in self._unique:
            unique.by_key[sort_key(document, unique.index.fields)] = seq
        for index in self._sorted:
            index.add(seq, document)

    def _drop(self, seq: int) -> None:
        self._drop_from_indexes(seq)
        del self.documents[seq]

    def _drop_from_indexes(self, seq: int) -> None:
        document = self.documents[seq]
        for unique in self._unique:
            del unique.by_key[sort_key(document, unique.index.fields)]
        for index in self._sorted:
            index.drop(seq, document)


class UniqueIndex:
    """A unique index: the sequence number of the document for each combination of values."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.by_key: dict[Key, int] = {}

    def look_up(self, bound: Mapping[str, Any]) -> int | None:
        """Return the only candidate, -1 if there is none; None if the index does not apply."""
        if not all(name in bound for name in self.index.fields):
            return None
        return self.by_key.get(sort_key(bound, self.index.fields), -1)

    def look_up_several(
        self, bound: Mapping[str, Any], among: Mapping[str, tuple[Any, ...]]
    ) -> list[int] | None:
        """Return the candidates in ascending order; None if the index does not apply.

        Parameters
        ----------
        among
            The fields that have one of several values, with these.
        """
        open_fields = [name for name in self.index.fields if name not in bound]
        if len(open_fields) != 1 or open_fields[0] not in among:
            return None
        name, fields = open_fields[0], self.index.fields
        keys = (sort_key({**bound, name: value}, fields) for value in among[name])
        return sorted({self.by_key[key] for key in keys if key in self.by_key})


class SortedIndex:
    """A sorted index: a list of keys, each of which ends with its document's sequence number."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._has = compile_condition(index.where or EVERYTHING)
        self._keys: list[tuple[Any, ...]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "keys": self._keys}  # a compiled condition has no pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["index"])  # type: ignore[misc]
        self._keys = state["keys"]

    def add(self, seq: int, document: Document) -> None:
        """Add a document, if it belongs into the index."""
        if self._has(document):
            insort(self._keys, (*sort_key(document, self.index.fields), seq))

    def drop(self, seq: int, document: Document) -> None:
        """Take a document out, if it is in the index."""
        if self._has(document):
            del self._keys[bisect_left(self._keys, (*sort_key(document, self.index.fields), seq))]

    def equal_to(self, bound: Mapping[str, Any]) -> list[int]:
        """Return the sequence numbers of the documents with these keys, in ascending order."""
        key = sort_key(bound, self.index.fields)
        low = bisect_left(self._keys, key)
        high = bisect_left(self._keys, (*key[:-1], (*key[-1], None)), low)
        return [self._keys[position][-1] for position in range(low, high)]

    def part(
        self, where: Condition, bound: Mapping[str, Any], order: tuple[str | SortBy, ...]
    ) -> tuple[Iterable[int], tuple[str | SortBy, ...]] | None:
        """Return the candidates and the order still missing; None if the index does not apply."""
        fields = self.index.fields
        if fields[0] not in bound or not (
            self.index.where is None or _implied(self.index.where, where)
        ):
            return None
        prefix = 1
        while prefix < len(fields) and fields[prefix] in bound:
            prefix += 1
        rest = fields[prefix:]
        *head, last = sort_key(bound, fields[:prefix])
        low = bisect_left(self._keys, (*head, last))
        high = bisect_left(self._keys, (*head, (*last, None)))  # just behind the last one
        seqs = (self._keys[position][-1] for position in range(low, high))
        # a sort that follows is stable, so what is equal has to come by insertion
        return (seqs, ()) if order == rest else (sorted(seqs), order)


class GroupedIndex:
    """The sequence numbers of the documents with the same keys, in ascending order.

    It grows in the same time however many there are, which a sorted list does not.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._groups: dict[Key, list[int]] = {}

    def add(self, seq: int, document: Document) -> None:
        """Add a document."""
        insort(self._groups.setdefault(sort_key(document, self.index.fields), []), seq)

    def drop(self, seq: int, document: Document) -> None:
        """Take a document out."""
        key = sort_key(document, self.index.fields)
        self._groups[key].remove(seq)
        if not self._groups[key]:
            del self._groups[key]

    def equal_to(self, bound: Mapping[str, Any]) -> list[int]:
        """Return the sequence numbers of the documents with these keys, in ascending order."""
        return self._groups.get(sort_key(bound, self.index.fields), [])

    def part(
        self,
        where: Condition,  # noqa: ARG002  as a sorted index
        bound: Mapping[str, Any],
        order: tuple[str | SortBy, ...],
    ) -> tuple[Iterable[int], tuple[str | SortBy, ...]] | None:
        """Return the candidates and the order still missing; None if the index does not apply."""
        if not all(name in bound for name in self.index.fields):
            return None
        return tuple(self.equal_to(bound)), order


def tables_of(layout: Layout) -> dict[str, DocumentTable]:
    """Return empty tables for all collections, by their names."""
    logs = {one.logged.log for one in layout.collections if one.logged is not None}
    return {one.name: DocumentTable(one, is_log=one.name in logs) for one in layout.collections}


def sort_key_by(order: Order) -> Callable[[Document], Key]:
    """Return the function that returns the sort key of a document for an order."""
    names = tuple(item for item in order if isinstance(item, str))
    if len(names) == len(order):
        return lambda document: sort_key(document, names)
    return lambda document: order_key(values_of(document, order), order)


def sort_key(values: Mapping[str, Any], names: tuple[str, ...]) -> Key:
    """Return the values of fields in a form that sorts: None first, then number, text, time."""
    key = []
    for name in names:
        value = values.get(name)
        if value is None:
            key.append((0, 0))
        elif isinstance(value, str):
            key.append((2, value))  # type: ignore[arg-type]
        elif isinstance(value, datetime):
            key.append((3, value))  # type: ignore[arg-type]
        else:
            key.append((1, value))
    return tuple(key)


def _bound(where: Condition) -> dict[str, Any]:
    """Return the fields that must equal a scalar, with that scalar."""
    return {
        c.path: c.value
        for c in conjuncts(where)
        if isinstance(c, Compare) and c.op == "eq" and type(c.value) in _SCALARS
    }


def _among(where: Condition) -> dict[str, tuple[Any, ...]]:
    """Return the fields that must have one of several scalars, with those scalars."""
    return {
        c.path: c.value
        for c in conjuncts(where)
        if isinstance(c, Compare) and c.op == "in" and _SCALARS.issuperset(map(type, c.value))
    }


def _implied(condition: Condition, where: Condition) -> bool:
    return condition == where or (isinstance(where, And) and condition in where.conditions)
