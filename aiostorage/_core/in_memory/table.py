"""The documents of one collection in memory, and its indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

from aiostorage._core.in_memory.sorted_keys import Key
from aiostorage._core.in_memory.steady_clock import ClockedFields
from aiostorage._core.in_memory.table_indexes import (
    GroupedIndex,
    SortedIndex,
    UniqueIndex,
    sort_key,
)
from aiostorage._core.queries.changes import changed_copy
from aiostorage._core.queries.matching import compile_condition, conjuncts, meets
from aiostorage._core.queries.ordering import Order, order_key, place_of, position, values_of
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    After,
    Collection,
    Compare,
    Condition,
    Document,
    Index,
    Layout,
    Logged,
    SortBy,
)

__all__ = ["DocumentTable", "sort_key_by", "tables_of"]

MAX_UNCOMPILED_TESTS: Final = 4
"""How many documents are tested before their condition is compiled, which takes as long."""

SUBJECT: Final = ("owner", "name")
"""The fields of a row of a log that name what it is about."""

MAX_TOUCHED: Final = 256
"""How many shapes of changes a table remembers."""

AnyIndex: TypeAlias = UniqueIndex | SortedIndex | GroupedIndex

_SCALARS: Final = frozenset((type(None), str, int, datetime))
"""Types of the values that an index is looked up by."""


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
        self._indexes: tuple[AnyIndex, ...] = (*self._unique, *self._sorted)
        self._subjects: GroupedIndex | None = None
        """The index of a log by its subjects."""
        for index in self._sorted:
            if isinstance(index, GroupedIndex) and index.index.fields == SUBJECT:
                self._subjects = index
        self._touched: dict[tuple[str, ...], list[AnyIndex]] = {}
        """The indexes that changes of these paths touch; the same few come again and again."""

    def find(
        self, where: Condition, order: Order = (), after: After | None = None
    ) -> Iterator[Document]:
        """Yield the stored documents that match, in order; do not change them."""
        candidates, missing = self.candidates(where, order)
        found = _matching(candidates, where)
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
        for item in order:
            if item.__class__ is str and item in steady:
                return tuple(steady.get(i, i) if isinstance(i, str) else i for i in order)
        return tuple(order)

    def _number(self, uid: Any) -> int | None:
        return self._unique[0].by_key.get((uid,))

    def newest(self, owner: Any, name: Any) -> Document | None:
        """Return the last row of a log on one subject."""
        if self._subjects is None:
            raise TypeError(f"{self.name} has no index of {SUBJECT}")
        seqs = self._subjects.by_key.get((owner, name))
        return self.documents[seqs[-1]] if seqs else None

    def candidates(
        self, where: Condition, order: Order
    ) -> tuple[Iterator[Document], tuple[str | SortBy, ...]]:
        """Return documents among which all matches are, and the order that is still missing."""
        bound = _bound(where)
        for unique in self._unique:  # most look for one document
            seq = unique.look_up(bound)
            if seq is not None:
                return iter((self.documents[seq],) if seq in self.documents else ()), ()
        order = self._sorted_by(order)
        if among := _among(where):
            for unique in self._unique:
                seqs = unique.look_up_several(bound, among)
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
        seq = self._unique[0].by_key[(uid,)]
        old = self.documents[seq]
        new = changed_copy(old, changes)
        touched = self._touched_by(tuple(changes))
        if touched and touched[0].__class__ is UniqueIndex:
            self._check(new, seq)
        self._swap(seq, old, new, touched)
        undo.append(partial(self._swap, seq, new, old, touched))
        return new

    def _touched_by(self, paths: tuple[str, ...]) -> Sequence[AnyIndex]:
        """Return the indexes of the fields that changes are about, the unique ones first."""
        touched = self._touched.get(paths)
        if touched is None:
            if len(self._touched) >= MAX_TOUCHED:
                self._touched.clear()
            changed = {path.partition(".")[0] for path in paths}
            touched = [one for one in self._indexes if not changed.isdisjoint(one.paths)]
            self._touched[paths] = touched
        return touched

    def _swap(self, seq: int, old: Document, new: Document, touched: Sequence[AnyIndex]) -> None:
        """Put one document in the place of another one; all other indexes stay as they are."""
        self.documents[seq] = new
        for index in touched:
            index.move(seq, old, new)

    def remove(self, uid: Any, undo: list[Callable[[], None]]) -> None:
        """Remove a document by its ``_id``."""
        seq = self._unique[0].by_key[(uid,)]
        old = self.documents[seq]
        self._drop(seq)

        def back() -> None:
            self._put(seq, old)
            self.documents = dict(sorted(self.documents.items()))

        undo.append(back)

    def _check(self, document: Document, seq: int | None) -> None:
        for unique in self._unique:
            holder = unique.by_key.get(unique.key(document))
            if holder is not None and holder != seq:
                fields = unique.index.fields
                raise DuplicateKeyError(
                    collection=self.name,
                    fields=fields,
                    values=tuple(document.get(name) for name in fields),
                )

    def _put(self, seq: int, document: Document) -> None:
        self.documents[seq] = document
        for index in self._indexes:
            index.add(seq, document)

    def _drop(self, seq: int) -> None:
        document = self.documents.pop(seq)
        for index in self._indexes:
            index.drop(seq, document)


def _matching(candidates: Iterator[Document], where: Condition) -> Iterator[Document]:
    """Yield the documents that match a condition, which is compiled only for many of them."""
    for document in islice(candidates, MAX_UNCOMPILED_TESTS):
        if meets(document, where):
            yield document
    for document in candidates:
        matcher = compile_condition(where)
        if matcher(document):
            yield document
        yield from filter(matcher, candidates)


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


def _bound(where: Condition) -> dict[str, Any]:
    """Return the fields that must equal a scalar, with that scalar."""
    bound = {}
    for one in conjuncts(where):
        if one.__class__ is Compare and one.op == "eq" and one.value.__class__ in _SCALARS:
            bound[one.path] = one.value
    return bound


def _among(where: Condition) -> dict[str, tuple[Any, ...]]:
    """Return the fields that must have one of several scalars, with those scalars."""
    return {
        one.path: one.value
        for one in conjuncts(where)
        if one.__class__ is Compare
        and one.op == "in"
        and all(value.__class__ in _SCALARS for value in one.value)
    }
