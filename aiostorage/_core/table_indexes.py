"""The indexes of a collection in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from aiostorage._core.matching import compile_condition
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

__all__ = ["GroupedIndex", "Key", "SortedIndex", "UniqueIndex", "sort_key"]

Key: TypeAlias = tuple[tuple[int, Any], ...]
"""Values of declared fields in a form that sorts."""


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
        if not self.paths <= bound.keys():
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


class SortedIndex:
    """A sorted index: a list of keys, each of which ends with its document's sequence number.

    Attributes
    ----------
    paths
        The fields that it depends on.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: frozenset[str] = frozenset(index.fields) | _paths_of(index.where or EVERYTHING)
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

    Attributes
    ----------
    paths
        The fields that it depends on.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: frozenset[str] = frozenset(index.fields)
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
        if not self.paths <= bound.keys():
            return None
        return tuple(self.equal_to(bound)), order


def sort_key(values: Mapping[str, Any], names: tuple[str, ...]) -> Key:
    """Return the values of fields in a form that sorts: None first, then number, text, time."""
    key: list[tuple[int, Any]] = []
    for name in names:
        value = values.get(name)
        if value is None:
            key.append((0, 0))
        elif isinstance(value, str):
            key.append((2, value))
        elif isinstance(value, datetime):
            key.append((3, value))
        else:
            key.append((1, value))
    return tuple(key)


def _implied(condition: Condition, where: Condition) -> bool:
    return condition == where or (isinstance(where, And) and condition in where.conditions)


def _paths_of(condition: Condition) -> frozenset[str]:
    """Return the fields that a condition is about."""
    if isinstance(condition, Compare | ElementMatch):
        return frozenset((condition.path.partition(".")[0],))
    return frozenset().union(*map(_paths_of, condition.conditions))
