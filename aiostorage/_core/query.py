"""MongoDB's filters, and what they mean on a document: the one definition for every engine.

`parse` turns a filter into the records of `aiostorage.operations`; `compile_condition` turns those
into a function that tests documents. The meaning is that of a MongoDB 6.0 server, from its manual
("Query and Projection Operators", "Comparison/Sort Order", "Query on Nested Documents", "Query an
Array") and, where the manual is silent, from the server itself:
``tests/mongo/test_query_differential.py`` compares both on random documents.

There are deliberate deviations:

- A path must have a shape that means the same everywhere: 1 to 100 names, none of them empty or
  starting with ``$``. The server, for example, ignores an empty last name after an array.
- A value only some of whose keys start with ``$`` (``{"a": {"x": 1, "$gt": 2}}``) is refused. The
  server decides by the first key and reads this one as a sub-document. The value of ``$eq`` may
  have any keys.
- ``$exists`` takes a bool or a number. The server takes anything, so that "no" means yes.
- Regular expressions are refused everywhere, also as plain values.
- A filter has at most `MAX_CONDITIONS` conditions and `MAX_NESTING` levels: each engine has limits
  of its own, and all of them hold that much.
- Datetimes have microseconds; the server's have milliseconds.

Documents are plain, as `aiostorage._core.normalise.normalise` returns them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeGuard, assert_never

from aiostorage._core.comparison import (
    MISSING,
    Predicate,
    equal_to,
    exists,
    one_of,
    ordered,
)
from aiostorage._core.normalise import normalise
from aiostorage._core.paths import array_index, split_path
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import EVERYTHING, And, Compare, Comparison, Condition, Or, StoreTime

__all__ = ["MAX_CONDITIONS", "MAX_NESTING", "Matcher", "compile_condition", "matches", "parse"]

Matcher: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Returns whether a document meets a condition."""

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
"""How many levels of ``$and`` and ``$or`` may stand in each other."""

_MAX_COMPILED: Final = 64
_SUPPORTED: Final = f"supported are equality, {', '.join(_OPERATORS)}, and $and and $or around them"

# ------------------------------------------------------------------------------------ parsing


def parse(query: Mapping[str, Any] | None) -> Condition:
    """Read a filter as MongoDB's ``find`` does.

    Parameters
    ----------
    query : mapping or None
        Equality, ``$eq $ne $in $nin $gt $gte $lt $lte $exists``, ``$and $or``, dotted paths.
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
    if query is None:
        return EVERYTHING
    condition = _parse_filter(query, MAX_NESTING)
    if _size(condition) > MAX_CONDITIONS:
        raise UnsupportedQuery(
            f"the filter has more than {MAX_CONDITIONS} conditions; list values with $in, or ask "
            "several times"
        )
    return condition


def _size(condition: Condition) -> int:
    """Return the number of conditions; an empty one counts too, since an engine gets it."""
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
            if not levels_left:
                raise UnsupportedQuery(
                    f"$and and $or are nested deeper than {MAX_NESTING} levels; flatten the filter"
                )
            parts = tuple(_parse_filter(part, levels_left - 1) for part in value)
            found.extend(parts if key == "$and" or len(parts) == 1 else (Or(parts),))
        elif isinstance(key, str) and key.startswith("$"):
            raise UnsupportedQuery(f"the operator {key} is not supported here; {_SUPPORTED}")
        else:
            split_path(key)
            found.extend(_parse_field(key, value))
    return _all_of(found)


def _parse_field(path: str, value: Any) -> list[Condition]:
    if not _has_operators(value):
        return [Compare(path, "eq", _parse_value(path, value))]
    found: list[Condition] = []
    for name, operand in value.items():
        op = _OPERATORS.get(name) if isinstance(name, str) else None
        if op is None:
            kind = "operator" if isinstance(name, str) and name.startswith("$") else "plain key"
            message = f"the {kind} {name!r} at {path!r} is not supported among operators"
            raise UnsupportedQuery(f"{message}; {_SUPPORTED}")
        if op in ("in", "nin"):
            if not isinstance(operand, (list, tuple)):
                raise UnsupportedQuery(f"{name} at {path!r} takes a list, not {_type(operand)}")
            if any(map(_has_operators, operand)):
                raise UnsupportedQuery(f"{name} at {path!r} takes values, not operators")
            operand = tuple(_parse_value(path, element) for element in operand)  # noqa: PLW2901
        elif op == "exists":
            if not isinstance(operand, (bool, int, float)):
                raise UnsupportedQuery(f"$exists at {path!r} takes a bool, not {_type(operand)}")
            operand = bool(operand)  # noqa: PLW2901
        else:
            operand = _parse_value(path, operand)  # noqa: PLW2901
        found.append(Compare(path, op, operand))
    return found


def _has_operators(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and key.startswith("$") for key in value
    )


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
        flat.extend(condition.conditions if isinstance(condition, And) else (condition,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


# ------------------------------------------------------------------------------------ meaning


_compiled: Final[dict[int, tuple[Condition, Matcher]]] = {}


def matches(document: Mapping[str, Any], condition: Condition) -> bool:
    """Return whether a document meets a condition, as a MongoDB server would.

    Parameters
    ----------
    document : mapping
        A plain document.
    condition : Condition
        Without `StoreTime`, which the driver replaces by the time.

    Returns
    -------
    bool
        The result of the function of `compile_condition`. That function is cached, so that testing
        many documents with the same object costs little more than compiling it once.
    """
    # Conditions are compared by identity: their values need not be hashable. An entry keeps its
    # condition alive, so that no other can have its id.
    known = _compiled.get(id(condition))
    if known is None:
        if len(_compiled) >= _MAX_COMPILED:
            _compiled.clear()
        known = _compiled[id(condition)] = condition, compile_condition(condition)
    return known[1](document)


def compile_condition(condition: Condition) -> Matcher:
    """Make the function that returns whether a document meets a condition, as MongoDB would.

    Parameters
    ----------
    condition : Condition
        Without `StoreTime`, which the driver replaces by the time.

    Returns
    -------
    callable
        Takes a plain document and returns a bool.
    """
    if isinstance(condition, Compare):
        return _compile_compare(condition)
    matchers = tuple(map(compile_condition, condition.conditions))
    if isinstance(condition, And):
        return _compile_and(matchers)
    if isinstance(condition, Or):

        def any_matches(document: Mapping[str, Any]) -> bool:
            for matcher in matchers:  # noqa: SIM110 -- any() costs a generator for every document
                if matcher(document):
                    return True
            return False

        return any_matches
    assert_never(condition)


def _compile_and(matchers: tuple[Matcher, ...]) -> Matcher:
    if len(matchers) == 1:
        return matchers[0]
    if len(matchers) == 2:
        first, second = matchers
        return lambda document: first(document) and second(document)

    def all_match(document: Mapping[str, Any]) -> bool:
        for matcher in matchers:  # noqa: SIM110 -- all() costs a generator for every document
            if not matcher(document):
                return False
        return True

    return all_match


def _compile_compare(compare: Compare) -> Matcher:
    op, value = compare.op, compare.value
    if op == "eq":
        return _any_at(compare.path, equal_to(value))
    if op == "in":
        return _any_at(compare.path, one_of(value))
    if op == "exists":
        found = _any_at(compare.path, exists)
        return found if value else _negated(found)
    if op == "ne":
        return _negated(_any_at(compare.path, equal_to(value)))
    if op == "nin":
        return _negated(_any_at(compare.path, one_of(value)))
    return _any_at(compare.path, ordered(op, value))


def _negated(matcher: Matcher) -> Matcher:
    return lambda document: not matcher(document)


# -------------------------------------------------------------------------------------- paths


def _any_at(path: str, predicate: Predicate) -> Matcher:
    """Make the matcher of whether any of the values that a path leads to meets the predicate."""
    return _compile_path(split_path(path), predicate)[0]


def _compile_path(names: list[str], predicate: Predicate) -> tuple[Predicate, Predicate]:
    """Make the predicates of what the names lead to, from a dict and from a list.

    Nested functions test a document twice as fast as a loop over the names.
    """
    name, rest = names[0], names[1:]
    index = array_index(name)
    from_dict, from_index = (
        _inner_step(name, *_compile_path(rest, predicate), predicate(MISSING))
        if rest
        else _last_step(name, predicate)
    )

    def from_list(array: Any) -> bool:
        for item in array:
            if item.__class__ is dict and from_dict(item):
                return True
        # A name that is a number is both a key in the elements that are dicts, and an index.
        return index is not None and index < len(array) and from_index(array[index])

    return from_dict, from_list


def _inner_step(
    name: str, into_dict: Predicate, into_list: Predicate, if_missing: bool
) -> tuple[Predicate, Predicate]:
    def from_dict(document: Any) -> bool:
        found = document.get(name)
        kind = found.__class__
        if kind is dict:
            return into_dict(found)
        return into_list(found) if kind is list else if_missing

    def from_index(item: Any) -> bool:
        kind = item.__class__
        if kind is dict:
            return into_dict(item)
        return kind is list and into_list(item)

    return from_dict, from_index


def _last_step(name: str, predicate: Predicate) -> tuple[Predicate, Predicate]:
    def from_dict(document: Any) -> bool:
        found = document.get(name, MISSING)
        if found.__class__ is list:
            return predicate(found) or any(map(predicate, found))
        return predicate(found)

    # A path leads to an array and to its elements; a path with an index, only to that element.
    return from_dict, predicate
