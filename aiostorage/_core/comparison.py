"""Paths into documents, and how MongoDB compares the values that stand there.

The source is MongoDB's manual, "Comparison/Sort Order", and the server where that is silent; see
`aiostorage._core.query`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from aiostorage.errors import UnsupportedQuery

__all__ = [
    "MISSING",
    "Test",
    "array_index",
    "equal",
    "equal_to",
    "is_there",
    "one_of",
    "ordered",
    "split_path",
]

_MAX_NAMES: Final = 100  # as deep as documents may nest

Test: TypeAlias = Callable[[Any], bool]
"""Tells whether a value, or `MISSING`, meets a condition."""

MISSING: Final = object()
"""What stands where there is no value."""

# --------------------------------------------------------------------------------------- paths


def split_path(path: Any) -> list[str]:
    """Split a dotted path into its names.

    Raises
    ------
    UnsupportedQuery
        `path` is no str, or a name in it is empty, starts with ``$`` or contains a NUL.
    """
    if not isinstance(path, str):
        raise UnsupportedQuery(f"field names are strings, not {path!r}")
    names = path.split(".")
    if len(names) > _MAX_NAMES:
        raise UnsupportedQuery(f"the path {path[:40]!r}... has more than {_MAX_NAMES} names")
    for name in names:
        if not name or name.startswith("$") or "\0" in name:
            raise UnsupportedQuery(
                f"the path {path!r} is not supported: its names, which dots separate, may not be "
                f"empty, start with '$' or contain a NUL"
            )
    return names


def array_index(name: str) -> int | None:
    """Read a name of a path as an index; None if it is not one, such as ``01``."""
    if len(name) <= 10 and name.isascii() and name.isdigit() and (name[0] != "0" or name == "0"):
        return int(name)
    return None


# --------------------------------------------------------------------------------- comparisons

_RANK: Final[dict[type, int]] = {
    kind: rank
    for rank, kinds in enumerate(
        ((type(None),), (int, float), (str,), (dict,), (list,), (bytes,), (bool,), (datetime,))
    )
    for kind in kinds
}
"""Where MongoDB sorts each type; only values of the same rank are greater or less by a query."""

_NEVER_PLAIN: Final = frozenset((bool, dict, list))
"""What cannot be looked up in a set: True would be 1 there, and containers do not get in."""

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def is_there(found: Any) -> bool:
    """Test for any value at all."""
    return found is not MISSING


def _is_null(found: Any) -> bool:
    return found is None or found is MISSING


def _is_nan(found: Any) -> bool:
    return found.__class__ is float and found != found  # noqa: PLR0124 -- as only NaN does


def _never(_found: Any) -> bool:
    return False


def equal_to(value: Any) -> Test:
    """Make the test of ``$eq``; null equals what is missing, too."""
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


def one_of(values: Sequence[Any]) -> Test:
    """Make the test of ``$in``."""
    plain: set[Any] = set()
    others: list[Test] = []
    for value in values:
        if value.__class__ in _NEVER_PLAIN or value is None or _is_nan(value):
            others.append(equal_to(value))
        else:
            plain.add(value)

    def test(found: Any) -> bool:
        if found.__class__ not in _NEVER_PLAIN and found in plain:
            return True
        for other in others:  # noqa: SIM110 -- any() costs a generator for every value
            if other(found):
                return True
        return False

    return test


def ordered(op: Literal["gt", "gte", "lt", "lte"], value: Any) -> Test:
    """Make the test of an inequality, which only values of the same type can pass.

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
    """Tell whether two values are equal to MongoDB.

    1 equals 1.0, but not True; NaN equals NaN; the order of keys counts.
    """
    kind = one.__class__
    if kind is not other.__class__:
        return one == other and kind is not bool and other.__class__ is not bool
    if kind is list:
        return len(one) == len(other) and all(map(equal, one, other))
    if kind is dict:
        # Comparing the keys first is cheap and mostly enough.
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    return one == other or (_is_nan(one) and _is_nan(other))


def _sort_key(value: Any) -> tuple[Any, ...]:
    """Make a key that sorts among keys as the value sorts among values of MongoDB, of any type."""
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
