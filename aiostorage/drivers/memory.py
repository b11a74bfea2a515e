"""Memory: dicts in this process, for tests, dry runs and single-process work.

A stored document is never changed in place: a write puts a new one in its stead. What a reader
found therefore stays as it was while the reader copies it, a slice at a time, without holding up
the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar, assert_never, cast

import anyio
import anyio.lowlevel

from aiostorage._core.changes import apply_changes
from aiostorage._core.projection import copy_tree, select
from aiostorage._core.query import compile_condition
from aiostorage.errors import DuplicateKeyError, StorageClosedError
from aiostorage.operations import (
    EVERYTHING,
    And,
    Collection,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Index,
    Insert,
    Layout,
    Operation,
    Or,
    StoreTime,
    Take,
    Update,
)

__all__ = ["MemoryDriver"]

T = TypeVar("T")

SLICE: Final = 500
"""Documents that are looked at between two turns of the event loop."""

_Key = tuple[tuple[int, Any], ...]


class MemoryDriver:
    """Documents in dicts. A pickled copy has its own copy of the documents.

    Parameters
    ----------
    clock
        Tells the time, in UTC.
    """

    name = "memory"
    location = "memory://"
    resolution = timedelta(microseconds=1)

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._tables: dict[str, _Table] = {}
        self._open = False
        self._versions = 0
        self._changed = anyio.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {"tables": self._tables}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._tables = state["tables"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        for collection in layout.collections:
            self._tables.setdefault(collection.name, _Table(collection))
        self._open = True

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        self._open = False
        self._changed.set()

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        if isinstance(operation, Find):
            return cast(T, await self._find(operation))
        return cast(T, (await self.transact((operation,)))[0])

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        await anyio.lowlevel.checkpoint()
        now = self._clock()
        with self._all_or_none() as undo:
            results = [self._run(operation, now, undo) for operation in operations]
        if undo:
            self._versions += 1
            self._changed.set()
            self._changed = anyio.Event()
        return results

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        table, match = self._table(find), compile_condition(_resolved(find.where, self._clock()))
        documents: list[Document] = []
        for seq in range(cast(int, after or 0) + 1, table.last + 1):
            if seq % SLICE == 0:
                await asyncio.sleep(0)
            document = table.documents.get(seq)
            if document is not None and match(document):
                documents.append(select(document, find.selection))
                if len(documents) == size:
                    return documents, seq
        await anyio.lowlevel.checkpoint()
        return documents, None

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  one mark for all
        since: object | None,
        timeout: float,
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        await anyio.lowlevel.checkpoint()
        if since == self._versions:
            with anyio.move_on_after(timeout):
                await self._changed.wait()
        return self._versions

    async def _find(self, find: Find) -> list[Document]:
        table, where = self._table(find), _resolved(find.where, self._clock())
        match = compile_condition(where)
        candidates, order = table.candidates(where, find.order)
        snapshot = list(candidates)
        found: list[tuple[_Key, int, Document]] = []
        for start in range(0, len(snapshot) or 1, SLICE):
            await asyncio.sleep(0)
            for document in snapshot[start : start + SLICE]:
                if match(document):
                    found.append((_key(document, order), len(found), document))
            if not order and find.limit is not None and len(found) >= find.limit:
                break
        if order:
            found.sort()
        documents: list[Document] = []
        for _, _, document in found[: find.limit]:
            documents.append(select(document, find.selection))
            if len(documents) % SLICE == 0:
                await asyncio.sleep(0)
        return documents

    def _table(self, operation: Operation[Any]) -> _Table:
        if not self._open:
            raise StorageClosedError(f"{self!r} is not open")
        return self._tables[operation.collection]

    @contextmanager
    def _all_or_none(self) -> Iterator[list[Callable[[], None]]]:
        undo: list[Callable[[], None]] = []
        try:
            yield undo
        except BaseException:
            for step in reversed(undo):
                step()
            raise

    def _run(self, operation: Operation[Any], now: datetime, undo: list[Callable[[], None]]) -> Any:
        table = self._table(operation)
        match operation:
            case Take(where=where, changes=changes):
                found = list(
                    islice(table.find(_resolved(where, now), operation.order), operation.limit)
                )
                return [copy_tree(table.replace(d["_id"], _at(changes, now), undo)) for d in found]
            case Update(where=where, changes=changes):
                found = list(table.find(_resolved(where, now)))
                for document in found:
                    table.replace(document["_id"], _at(changes, now), undo)
                return len(found)
            case Insert():
                for document in operation.documents:
                    table.insert(copy_tree(_at(document, now)), undo)
                return None
            case Find():
                documents = table.find(_resolved(operation.where, now), operation.order)
                first = islice(documents, operation.limit)
                return [select(d, operation.selection) for d in first]
            case Count():
                return sum(1 for _ in table.find(_resolved(operation.where, now)))
            case Delete():
                doomed = list(table.find(_resolved(operation.where, now)))
                for document in doomed:
                    table.remove(document["_id"], undo)
                return len(doomed)
            case _:
                raise TypeError(f"unknown operation {operation!r}")


class _Table:
    """The documents of one collection, by insertion, and their indexes."""

    def __init__(self, collection: Collection) -> None:
        self.name = collection.name
        self.documents: dict[int, Document] = {}
        self.last = 0
        self._unique = [
            _Unique(index)
            for index in (Index(("_id",), unique=True), *collection.indexes)
            if index.unique
        ]
        self._sorted = [_Sorted(index) for index in collection.indexes if not index.unique]

    def find(self, where: Condition, order: tuple[str, ...] = ()) -> Iterator[Document]:
        """Yield the stored documents that match, in order; do not change them."""
        candidates, order = self.candidates(where, order)
        found = filter(compile_condition(where), candidates)
        return iter(sorted(found, key=lambda d: _key(d, order))) if order else found

    def candidates(
        self, where: Condition, order: tuple[str, ...]
    ) -> tuple[Iterator[Document], tuple[str, ...]]:
        """Answer documents among which all matches are, and the order that they still lack."""
        bound = _bound(where)
        for unique in self._unique:
            seq = unique.look_up(bound)
            if seq is not None:
                return iter([self.documents[seq]] if seq in self.documents else []), ()
        for index in self._sorted:
            part = index.part(where, bound, order)
            if part is not None:
                return (self.documents[seq] for seq in part[0]), part[1]
        return iter(self.documents.values()), order

    def insert(self, document: Document, undo: list[Callable[[], None]]) -> None:
        self._check(document, None)
        self.last += 1
        self._put(self.last, document)
        undo.append(lambda seq=self.last: self._drop(seq))  # type: ignore[misc]

    def replace(
        self, uid: Any, changes: Mapping[str, Any], undo: list[Callable[[], None]]
    ) -> Document:
        """Put a changed copy in a document's stead; answer it."""
        seq = self._unique[0].by_key[_key({"_id": uid}, ("_id",))]
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
        seq = self._unique[0].by_key[_key({"_id": uid}, ("_id",))]
        old = self.documents[seq]
        self._drop(seq)

        def back() -> None:
            self._put(seq, old)
            self.documents = dict(sorted(self.documents.items()))

        undo.append(back)

    def _check(self, document: Document, seq: int | None) -> None:
        for unique in self._unique:
            holder = unique.by_key.get(_key(document, unique.index.fields))
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
            unique.by_key[_key(document, unique.index.fields)] = seq
        for index in self._sorted:
            index.add(seq, document)

    def _drop(self, seq: int) -> None:
        self._drop_from_indexes(seq)
        del self.documents[seq]

    def _drop_from_indexes(self, seq: int) -> None:
        document = self.documents[seq]
        for unique in self._unique:
            del unique.by_key[_key(document, unique.index.fields)]
        for index in self._sorted:
            index.drop(seq, document)


class _Unique:
    """A unique index: where each combination of values is."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.by_key: dict[_Key, int] = {}

    def look_up(self, bound: Mapping[str, Any]) -> int | None:
        """Answer the only candidate, -1 if there is none; None if the index does not apply."""
        if not all(name in bound for name in self.index.fields):
            return None
        return self.by_key.get(_key(bound, self.index.fields), -1)


class _Sorted:
    """An index in order: keys of a sorted list, each ending with where its document is."""

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
        if self._has(document):
            insort(self._keys, (*_key(document, self.index.fields), seq))

    def drop(self, seq: int, document: Document) -> None:
        if self._has(document):
            del self._keys[bisect_left(self._keys, (*_key(document, self.index.fields), seq))]

    def part(
        self, where: Condition, bound: Mapping[str, Any], order: tuple[str, ...]
    ) -> tuple[Iterable[int], tuple[str, ...]] | None:
        """Answer the candidates and the order still missing; None if the index does not apply."""
        fields = self.index.fields
        if fields[0] not in bound or not (
            self.index.where is None or _implied(self.index.where, where)
        ):
            return None
        prefix = 1
        while prefix < len(fields) and fields[prefix] in bound:
            prefix += 1
        rest = fields[prefix:]
        *head, last = _key(bound, fields[:prefix])
        low = bisect_left(self._keys, (*head, last))
        high = bisect_left(self._keys, (*head, (*last, None)))  # just behind the last one
        seqs = (self._keys[position][-1] for position in range(low, high))
        # a sort that follows is stable, so what is equal has to come by insertion
        return (seqs, ()) if order == rest else (sorted(seqs), order)


def _key(values: Mapping[str, Any], names: tuple[str, ...]) -> _Key:
    """Answer what declared fields hold, such that it sorts: None first, then number, text, time."""
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
    """Answer which fields must equal which scalar."""
    conjuncts = where.conditions if isinstance(where, And) else (where,)
    return {
        c.path: c.value
        for c in conjuncts
        if isinstance(c, Compare)
        and c.op == "eq"
        and (c.value is None or type(c.value) in (str, int, datetime))
    }


def _implied(condition: Condition, where: Condition) -> bool:
    return condition == where or (isinstance(where, And) and condition in where.conditions)


def _at(changes: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    return {
        name: value.at(now) if isinstance(value, StoreTime) else value
        for name, value in changes.items()
    }


def _resolved(condition: Condition, now: datetime) -> Condition:
    """Put the time where a condition asks for the store's clock."""
    match condition:
        case Compare(path, op, StoreTime() as moment):
            return Compare(path, op, moment.at(now))
        case Compare():
            return condition
        case And(conditions):
            return And(tuple(_resolved(c, now) for c in conditions))
        case Or(conditions):
            return Or(tuple(_resolved(c, now) for c in conditions))
        case _:
            assert_never(condition)
