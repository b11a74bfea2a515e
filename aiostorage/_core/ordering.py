"""Orders: what documents are sorted by, and which of them lie behind a place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, ClassVar, TypeAlias

from aiostorage._core.matching import matches
from aiostorage.errors import EncodingError
from aiostorage.operations import After, Document, Find, SortBy

__all__ = [
    "Order",
    "arranged",
    "key_of",
    "number_of",
    "order_key",
    "place_of",
    "position",
    "value_of",
    "values_of",
]

Order: TypeAlias = Sequence[str | SortBy]
"""The order of a `Find`."""


class _Descending:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it is only compared


def values_of(document: Mapping[str, Any], order: Order) -> tuple[Any, ...]:
    """Return the values by which a document is sorted, one for each item; None for missing ones."""
    return tuple(value_of(document, item) for item in order)


def value_of(document: Mapping[str, Any], item: str | SortBy) -> Any:
    """Return the value by which a document is sorted; None if it is missing."""
    try:
        if isinstance(item, str):
            return document.get(item)
        found = document.get(item.path)
    except EncodingError:  # of an `UnreadableDocument`
        return None
    return found if item.element is None else number_of(found, item)


def number_of(items: Any, by: SortBy) -> int | float | None:
    """Return the number that a `SortBy` with an element means in a list; None if there is none."""
    if by.element is None or items.__class__ is not list:
        return None
    for item in items:
        if item.__class__ is dict and matches(item, by.element):
            value = item.get("value")
            if value.__class__ is int or (value.__class__ is float and value == value):  # noqa: PLR0124  as NaN is not
                return value
            return None
    return None


def order_key(values: Sequence[Any], order: Order) -> tuple[Any, ...]:
    """Return values in a form that sorts as an order says: number, text, time.

    Parameters
    ----------
    values
        One for each item of the order, as from `values_of`.
    """
    return tuple(key_of(value, item) for value, item in zip(values, order, strict=True))


def key_of(value: Any, item: str | SortBy) -> tuple[Any, ...]:
    """Return one value in such a form."""
    if value is None:
        return (0, 0) if isinstance(item, str) else (9,)
    rank = 2 if isinstance(value, str) else 3 if isinstance(value, datetime) else 1
    if isinstance(item, str) or not item.descending:
        return rank, value
    return 0, _Descending((rank, value))


def position(document: Mapping[str, Any], order: Order, number: float) -> tuple[Any, ...]:
    """Return the place of a document in an order, in a form that sorts.

    Parameters
    ----------
    number
        Grows with each insertion.
    """
    return (*order_key(values_of(document, order), order), number)


def place_of(after: After, order: Order, number: float | None) -> tuple[Any, ...]:
    """Return the place behind which a `Find` begins, to compare with `position`.

    Parameters
    ----------
    number
        That of the document ``after.uid``; None if there is none.
    """
    return (*order_key(after.values, order), math.inf if number is None else number)


def arranged(
    found: Iterable[tuple[float, Document]], find: Find, last: float | None = None
) -> list[Document]:
    """Return the matches of a `Find` in its order, behind its `after`, up to its `limit`.

    Parameters
    ----------
    found
        The documents that match, each with a number that grows with each insertion.
    last
        The number of the document ``find.after.uid``; None if there is no such document.
    """
    placed = [(position(document, find.order, number), document) for number, document in found]
    if find.after is not None:
        place = place_of(find.after, find.order, last)
        placed = [item for item in placed if item[0] > place]
    placed.sort(key=itemgetter(0))
    return [document for _, document in placed[: find.limit]]
