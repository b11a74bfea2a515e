"""How MongoDB compares values.

The source is MongoDB's manual, "Comparison/Sort Order", and the server where that is silent; see
`aiostorage._core.queries.query`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, TypeAlias

__all__ = [
    "MISSING",
    "Predicate",
    "equal",
    "equal_to",
    "exists",
    "one_of",
    "ordered",
]

Predicate: TypeAlias = Callable[[Any], bool]
"""Returns whether a value, or `MISSING`, meets a condition."""

MISSING: Final = object()
"""Stands for the value of a field that does not exist."""

_RANK: Final[dict[type, int]] = {
    kind: rank
    for rank, kinds in enumerate(
        ((type(None),), (int, float), (str,), (dict,), (list,), (bytes,), (bool,), (datetime,))
    )
    for kind in kinds
}
"""The position of each type in MongoDB's order; a query orders only values of the same rank."""

_NOT_LOOKED_UP: Final = frozenset((bool, dict, list))
"""The types not looked up in a set: True would be 1 there, and containers are not hashable."""

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def exists(found: Any) -> bool:
    """Return whether there is a value."""
    return found is not MISSING


def _is_null(found: Any) -> bool:
    return found is None or found is MISSING


def _is_nan(found: Any) -> bool:
    return found.__class__ is float and found != found  # noqa: PLR0124 -- as only NaN does


def _never(_found: Any) -> bool:
    return False


def equal_to(value: Any) -> Predicate:
    """Make the predicate of ``$eq``; null also equals a missing field."""
    kind = value.__class__
    if value is None:
        return _is_null
    if kind is bool:
        return lambda found: found is value
    if _is_nan(value):
        return _is_nan
    if kind is int or kind is float:
        return lambda found: found == value and found.__class__ is not bool
    if kind is dict or kind is list:
        return partial(equal, value)
    return partial(operator.eq, value)


def one_of(values: Sequence[Any]) -> Predicate:
    """Make the predicate of ``$in``."""
    hashed: set[Any] = set()
    others: list[Predicate] = []
    for value in values:
        if value.__class__ in _NOT_LOOKED_UP or value is None or _is_nan(value):
            others.append(equal_to(value))
        else:
            hashed.add(value)

    def is_any(found: Any) -> bool:
        if found.__class__ not in _NOT_LOOKED_UP and found in hashed:
            return True
        for other in others:  # noqa: SIM110 -- any() costs a generator for every value
            if other(found):
                return True
        return False

    return is_any


def ordered(op: Literal["gt", "gte", "lt", "lte"], value: Any) -> Predicate:
    """Make the predicate of an inequality, which only values of the same type can meet.

    Null and NaN equal themselves, and are neither greater nor less than anything.
    """
    kind, compare = value.__class__, _ORDER[op]
    if value is None or _is_nan(value):
        return equal_to(value) if op in ("gte", "lte") else _never
    if kind is int or kind is float:
        return lambda found: (
            (found.__class__ is float or found.__class__ is int) and compare(found, value)
        )
    if kind is dict or kind is list or kind is bytes:
        key = _sort_key(value)
        return lambda found: found.__class__ is kind and compare(_sort_key(found), key)
    return lambda found: found.__class__ is kind and compare(found, value)


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal to MongoDB.

    1 equals 1.0, but not True; NaN equals NaN; the order of keys counts.
    """
    kind = one.__class__
    if kind is not other.__class__:
        return one == other and kind is not bool and other.__class__ is not bool
    if kind is list:
        return len(one) == len(other) and all(map(equal, one, other))
    if kind is dict:
        # Comparing the keys first is cheap, and usually enough.
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    return one == other or (_is_nan(one) and _is_nan(other))


def _sort_key(value: Any) -> tuple[Any, ...]:
    """Make a key that sorts as MongoDB sorts the value among values of any type."""
    kind = value.__class__
    rank = _RANK[kind]
    if kind is dict:
        # The type of a value counts more than its name, which counts more than the value.
        return rank, [(_RANK[item.__class__], key, _sort_key(item)) for key, item in value.items()]
    if kind is list:
        return rank, list(map(_sort_key, value))
    if kind is bytes:
        return rank, len(value), value
    if kind is float:
        return (rank, 0) if _is_nan(value) else (rank, 1, value)
    return (rank, 1, value) if kind is int else (rank, value)
