"""The indexes of a collection in memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from datetime import datetime
from math import inf
from typing import Any

from aiostorage._core.in_memory.sorted_keys import Key, SortedKeys
from aiostorage._core.queries.matching import compile_condition
from aiostorage.operations import (
    EVERYTHING,
    And,
    Compare,
    Condition,
    Document,
    ElementMatch,
    Index,
    SortBy,
)

__all__ = ["GroupedIndex", "SortedIndex", "UniqueIndex", "sort_key"]


class UniqueIndex:
    """A unique index: the sequence number of the document for each combination of values.

    Attributes
    ----------
    paths
        The fields that it depends on.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: frozenset[str] = frozenset(index.fields)
        self.by_key: dict[tuple[Any, ...], int] = {}

    def key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the key of a document; a missing field counts as None."""
        return tuple(map(values.get, self.index.fields))

    def look_up(self, bound: Mapping[str, Any]) -> int | None:
        """Return the only candidate, -1 if there is none; None if the index does not apply."""
        for name in self.index.fields:
            if name not in bound:
                return None
        return self.by_key.get(self.key(bound), -1)

    def look_up_several(
        self, bound: Mapping[str, Any], among: Mapping[str, tuple[Any, ...]]
    ) -> list[int] | None:
        """Return the candidates in ascending order; None if the index does not apply.

        Parameters
        ----------
        among
            The fields that have one of several values, with these.
        """
        if self.paths.isdisjoint(among):  # as mostly
            return None
        open_fields = self.paths - bound.keys()
        if len(open_fields) != 1 or not open_fields <= among.keys():
            return None
        (name,) = open_fields
        keys = (self.key({**bound, name: value}) for value in among[name])
        return sorted({self.by_key[key] for key in keys if key in self.by_key})

    def add(self, seq: int, document: Document) -> None:
        """Add a document whose key is free."""
        self.by_key[self.key(document)] = seq

    def drop(self, seq: int, document: Document) -> None:  # noqa: ARG002  as the other indexes
        """Take a document out."""
        del self.by_key[self.key(document)]

    def move(self, seq: int, old: Document, new: Document) -> None:
        """Put a document, whose key is free, in the place of another one."""
        del self.by_key[self.key(old)]
        self.by_key[self.key(new)] = seq


class SortedIndex:
    """A sorted index: for each value of its first field, the keys of the others in order.

    A key ends with the sequence number of its document.

    Attributes
    ----------
    paths
        The fields that it depends on.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: frozenset[str] = frozenset(index.fields) | _paths_of(index.where or EVERYTHING)
        self._has = None if index.where is None else compile_condition(index.where)
        self._first, self._others = index.fields[0], index.fields[1:]
        self._groups: dict[Any, SortedKeys] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "groups": self._groups}  # a compiled condition has no pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["index"])  # type: ignore[misc]
        self._groups = state["groups"]

    def add(self, seq: int, document: Document) -> None:
        """Add a document, if it belongs into the index."""
        if self._has is None or self._has(document):
            keys = self._groups.setdefault(document.get(self._first), SortedKeys())
            keys.add((*sort_key(document, self._others), seq))

    def drop(self, seq: int, document: Document) -> None:
        """Take a document out, if it is in the index."""
        if self._has is None or self._has(document):
            first = document.get(self._first)
            keys = self._groups[first]
            keys.remove((*sort_key(document, self._others), seq))
            if not keys:
                del self._groups[first]

    def move(self, seq: int, old: Document, new: Document) -> None:
        """Put a document in the place of another one."""
        self.drop(seq, old)
        self.add(seq, new)

    def _keys(self, bound: Mapping[str, Any], count: int) -> Iterable[Key]:
        """Return the keys with these values in the first field and so many of the others."""
        keys = self._groups.get(bound[self._first])
        if keys is None:
            return ()
        if not count:
            return keys
        low = sort_key(bound, self._others[:count])
        return keys.between(low, (*low, inf))

    def part(
        self, where: Condition, bound: Mapping[str, Any], order: tuple[str | SortBy, ...]
    ) -> tuple[Iterable[int], tuple[str | SortBy, ...]] | None:
        """Return the candidates and the order still missing; None if the index does not apply."""
        if self._first not in bound or not (
            self.index.where is None or _implied(self.index.where, where)
        ):
            return None
        others, count = self._others, 0
        while count < len(others) and others[count] in bound:
            count += 1
        seqs = (key[-1] for key in self._keys(bound, count))
        # a sort that follows is stable, so what is equal has to come by insertion
        return (seqs, ()) if order == others[count:] else (sorted(seqs), order)


class GroupedIndex:
    """The sequence numbers of the documents with the same keys, in ascending order.

    It grows in the same time however many there are, which a sorted list does not.

    Attributes
    ----------
    paths
        The fields that it depends on.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: frozenset[str] = frozenset(index.fields)
        self.by_key: dict[tuple[Any, ...], list[int]] = {}

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(map(values.get, self.index.fields))

    def add(self, seq: int, document: Document) -> None:
        """Add a document."""
        group = self.by_key.setdefault(self._key(document), [])
        if not group or group[-1] < seq:  # as nearly always
            group.append(seq)
        else:
            insort(group, seq)

    def drop(self, seq: int, document: Document) -> None:
        """Take a document out."""
        key = self._key(document)
        self.by_key[key].remove(seq)
        if not self.by_key[key]:
            del self.by_key[key]

    def move(self, seq: int, old: Document, new: Document) -> None:
        """Put a document in the place of another one."""
        self.drop(seq, old)
        self.add(seq, new)

    def part(
        self,
        where: Condition,  # noqa: ARG002  as a sorted index
        bound: Mapping[str, Any],
        order: tuple[str | SortBy, ...],
    ) -> tuple[Iterable[int], tuple[str | SortBy, ...]] | None:
        """Return the candidates and the order still missing; None if the index does not apply."""
        if not self.paths <= bound.keys():
            return None
        return tuple(self.by_key.get(self._key(bound), ())), order


def sort_key(values: Mapping[str, Any], names: tuple[str, ...]) -> Key:
    """Return the values of fields in a form that sorts: None first, then number, text, time."""
    key: list[Any] = []
    for name in names:
        value = values.get(name)
        if value is None:
            key += (0, 0)
        elif isinstance(value, str):
            key += (2, value)
        elif isinstance(value, datetime):
            key += (3, value)
        else:
            key += (1, value)
    return tuple(key)


def _implied(condition: Condition, where: Condition) -> bool:
    return condition in (where.conditions if isinstance(where, And) else (where,))


def _paths_of(condition: Condition) -> frozenset[str]:
    """Return the fields that a condition is about."""
    if isinstance(condition, Compare | ElementMatch):
        return frozenset((condition.path.partition(".")[0],))
    return frozenset().union(*map(_paths_of, condition.conditions))
