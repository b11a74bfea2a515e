"""MongoDB's filters, and what they mean on a document: the one definition for every engine.

`parse` turns a filter into the records of `aiostorage.operations`; `compile_condition`, of the
module `matching`, turns those into a function that tests documents. The meaning is that of a
MongoDB 6.0 server, from its manual ("Query and Projection Operators", "Comparison/Sort Order",
"Query on Nested Documents", "Query an Array") and, where the manual is silent, from the server
itself: ``tests/mongo/test_query_differential.py`` compares both on random documents.

There are deliberate deviations:

- A path must have a shape that means the same everywhere: 1 to 100 names, none of them empty or
  starting with ``$``. The server, for example, ignores an empty last name after an array.
- A value only some of whose keys start with ``$`` (``{"a": {"x": 1, "$gt": 2}}``) is refused. The
  server decides by the first key and reads this one as a sub-document. The value of ``$eq`` may
  have any keys.
- ``$exists`` takes a bool or a number. The server takes anything, so that "no" means yes.
- Regular expressions are refused everywhere, also as plain values.
- ``$elemMatch`` takes what the rest of the language has; there is no ``$not`` in it either.
- A filter has at most `MAX_CONDITIONS` conditions and `MAX_NESTING` levels: each engine has limits
  of its own, and all of them hold that much.
- Datetimes have microseconds; the server's have milliseconds.

Documents are plain, as `aiostorage._core.normalise.normalise` returns them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from aiostorage._core.normalise import normalise
from aiostorage._core.queries.matching import Matcher, compile_condition, conjuncts, matches
from aiostorage._core.queries.paths import split_path
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import (
    And,
    Compare,
    Comparison,
    Condition,
    ElementMatch,
    Or,
    StoreTime,
)

__all__ = [
    "MAX_CONDITIONS",
    "MAX_NESTING",
    "Matcher",
    "compile_condition",
    "matches",
    "parse",
    "parse_all",
]

_OPERATORS: Final[dict[str, Comparison]] = {
    "$eq": "eq",
    "$ne": "ne",
    "$in": "in",
    "$nin": "nin",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
    "$exists": "exists",
}
MAX_CONDITIONS: Final = 1000
"""How many conditions a filter may have; each operator of a field is one, whatever it lists."""

MAX_NESTING: Final = 32
"""How many levels of ``$and``, ``$or`` and ``$elemMatch`` may stand in each other."""

_SUPPORTED: Final = (
    f"supported are equality, {', '.join(_OPERATORS)}, $elemMatch, and $and and $or around them"
)

# ------------------------------------------------------------------------------------ parsing


def parse(query: Mapping[str, Any] | None) -> Condition:
    """Read a filter as MongoDB's ``find`` does.

    Parameters
    ----------
    query : mapping or None
        Equality, ``$eq $ne $in $nin $gt $gte $lt $lte $exists $elemMatch``, ``$and $or``, dotted
        paths.
        A `StoreTime` may take the place of a value.

    Returns
    -------
    Condition
        The condition, whose values share nothing with `query`; `EVERYTHING` for None and for an
        empty filter.

    Raises
    ------
    UnsupportedQuery
        The filter uses anything else, is larger or deeper than `MAX_CONDITIONS` and `MAX_NESTING`
        allow, or MongoDB would refuse it.
    EncodingError
        A value cannot be stored, so that nothing can be compared with it.
    """
    return parse_all(query)


def parse_all(*queries: Mapping[str, Any] | None) -> Condition:
    """Read several filters as one that asks for all of them; see `parse`."""
    condition = _all_of([_parse_filter(q, MAX_NESTING) for q in queries if q is not None])
    if _size(condition) > MAX_CONDITIONS:
        raise UnsupportedQuery(
            f"the filter has more than {MAX_CONDITIONS} conditions; list values with $in, or ask "
            "several times"
        )
    return condition


def _size(condition: Condition) -> int:
    """Return the number of conditions; an empty one counts too, since an engine gets it."""
    if isinstance(condition, ElementMatch):
        return _size(condition.condition)
    if isinstance(condition, Compare) or not condition.conditions:
        return 1
    return sum(map(_size, condition.conditions))


def _parse_filter(query: Any, levels_left: int) -> Condition:
    if not isinstance(query, Mapping):
        raise UnsupportedQuery(f"a filter is a mapping, not {_type(query)}; {_SUPPORTED}")
    found: list[Condition] = []
    for key, value in query.items():
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise UnsupportedQuery(f"{key} takes a list of filters that is not empty")
            _check_levels(levels_left)
            parts = tuple(_parse_filter(part, levels_left - 1) for part in value)
            found.extend(parts if key == "$and" or len(parts) == 1 else (Or(parts),))
        elif _is_operator(key):
            raise UnsupportedQuery(f"the operator {key} is not supported here; {_SUPPORTED}")
        else:
            split_path(key)
            found.extend(_parse_field(key, value, levels_left))
    return _all_of(found)


def _check_levels(levels_left: int) -> None:
    if not levels_left:
        raise UnsupportedQuery(
            f"$and, $or and $elemMatch are nested deeper than {MAX_NESTING} levels; flatten the "
            "filter"
        )


def _parse_elements(path: str, operand: Any, levels_left: int) -> ElementMatch:
    """Read the operand of ``$elemMatch``: a filter, or operators for the elements themselves."""
    if not isinstance(operand, Mapping):
        raise UnsupportedQuery(f"$elemMatch at {path!r} takes a mapping, not {_type(operand)}")
    _check_levels(levels_left)
    if any(map(_is_operator, operand.keys() - {"$and", "$or"})):
        condition = _all_of(_parse_field("", operand, levels_left - 1, f"{path}.$elemMatch"))
    else:
        condition = _parse_filter(operand, levels_left - 1)
    if _has_store_time(condition):
        raise UnsupportedQuery(f"the time of the store cannot stand in the $elemMatch at {path!r}")
    return ElementMatch(path, condition)


def _has_store_time(condition: Condition) -> bool:
    if isinstance(condition, ElementMatch):
        return _has_store_time(condition.condition)
    if isinstance(condition, Compare):
        values = condition.value if condition.op in ("in", "nin") else (condition.value,)
        return any(value.__class__ is StoreTime for value in values)
    return any(map(_has_store_time, condition.conditions))


def _parse_field(
    path: str, value: Any, levels_left: int, place: str | None = None
) -> list[Condition]:
    place = place or path
    if not _has_operators(value):
        return [Compare(path, "eq", _parse_value(place, value))]
    found: list[Condition] = []
    for name, operand in value.items():
        if name == "$elemMatch":
            found.append(_parse_elements(path, operand, levels_left))
            continue
        op = _OPERATORS.get(name) if isinstance(name, str) else None
        if op is None:
            raise UnsupportedQuery(_no_operator(name, place))
        if op in ("in", "nin"):
            if not isinstance(operand, (list, tuple)):
                raise UnsupportedQuery(f"{name} at {place!r} takes a list, not {_type(operand)}")
            if any(map(_has_operators, operand)):
                raise UnsupportedQuery(f"{name} at {place!r} takes values, not operators")
            operand = tuple(_parse_value(place, element) for element in operand)  # noqa: PLW2901
        elif op == "exists":
            if not isinstance(operand, (bool, int, float)):
                raise UnsupportedQuery(f"$exists at {place!r} takes a bool, not {_type(operand)}")
            operand = bool(operand)  # noqa: PLW2901
        else:
            operand = _parse_value(place, operand)  # noqa: PLW2901
        found.append(Compare(path, op, operand))
    return found


def _no_operator(name: Any, place: str) -> str:
    if _is_operator(name):
        return f"the operator {name!r} at {place!r} is not supported; {_SUPPORTED}"
    return f"the plain key {name!r} at {place!r} stands among operators; {_SUPPORTED}"


def _has_operators(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping) and any(map(_is_operator, value))


def _is_operator(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("$")


def _parse_value(path: str, value: Any) -> Any:
    if isinstance(value, StoreTime):
        return value
    if isinstance(value, re.Pattern):
        raise UnsupportedQuery(f"the regular expression at {path!r} is not supported; {_SUPPORTED}")
    return normalise(value, path)


def _type(value: Any) -> str:
    return f"a {type(value).__name__}"


def _all_of(conditions: list[Condition]) -> Condition:
    """Join conditions without nesting an `And` in an `And`."""
    flat: list[Condition] = []
    for condition in conditions:
        flat.extend(conjuncts(condition))
    return flat[0] if len(flat) == 1 else And(tuple(flat))
