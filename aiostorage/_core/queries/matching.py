"""What conditions mean on a document: functions that test documents.

`aiostorage._core.queries.query` says whose meaning that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never

from aiostorage._core.queries.comparison import (
    MISSING,
    Predicate,
    equal_to,
    exists,
    one_of,
    ordered,
)
from aiostorage._core.queries.paths import array_index, split_path
from aiostorage.operations import And, Compare, Condition, ElementMatch, Or

__all__ = ["Matcher", "compile_condition", "conjuncts", "matches", "meets"]

Matcher: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Returns whether a document meets a condition."""

_MAX_COMPILED: Final = 64

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


def meets(document: Mapping[str, Any], condition: Condition) -> bool:
    """Return what ``compile_condition(condition)(document)`` returns.

    It takes less time for one document, as most conditions on one compare texts.
    """
    for part in conjuncts(condition):
        if part.__class__ is Compare and part.path.isidentifier():
            op, value = part.op, part.value
            if op == "eq" and value.__class__ is str:
                found = document.get(part.path, MISSING)
                if found.__class__ is str:
                    if found != value:
                        return False
                    continue
            elif op == "in":
                found = document.get(part.path, MISSING)
                if found.__class__ is str:
                    if found not in value:
                        return False
                    continue
        if not compile_condition(part)(document):
            return False
    return True


def conjuncts(condition: Condition) -> tuple[Condition, ...]:
    """Return the conditions that all have to hold: those of an `And`, or the condition itself."""
    return condition.conditions if isinstance(condition, And) else (condition,)


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
    if isinstance(condition, ElementMatch):
        names = split_path(condition.path)
        return _compile_path(names, _element_predicate(condition), whole=True)[0]
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
    predicate, negated = _predicate(compare)
    found = _any_at(compare.path, predicate)
    return _negated(found) if negated else found


def _negated(matcher: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda document: not matcher(document)


# ----------------------------------------------------------------------------------- elements


def _element_predicate(match: ElementMatch) -> Predicate:
    """Make the predicate of whether a value is a list of which one element matches."""
    if match.of_itself:
        is_right = _itself_predicate(match.condition)
        return lambda found: found.__class__ is list and any(map(is_right, found))
    matcher = compile_condition(match.condition)

    def from_list(found: Any) -> bool:
        if found.__class__ is not list:
            return False
        for item in found:
            kind = item.__class__
            if kind is dict:
                if matcher(item):
                    return True
            elif kind is list and matcher({str(n): inner for n, inner in enumerate(item)}):
                return True
        return False

    return from_list


def _itself_predicate(condition: Condition) -> Predicate:
    """Make the predicate of conditions whose paths are empty."""
    if isinstance(condition, ElementMatch):
        return _element_predicate(condition)
    if isinstance(condition, Compare):
        predicate, negated = _predicate(condition)
        return _negated(predicate) if negated else predicate
    if isinstance(condition, Or):
        raise TypeError("only an And stands in a condition on an element itself")
    predicates = tuple(map(_itself_predicate, condition.conditions))
    return lambda found: all(is_right(found) for is_right in predicates)


def _predicate(compare: Compare) -> tuple[Predicate, bool]:
    """Make the predicate of a comparison; and whether what does not meet it is meant."""
    op, value = compare.op, compare.value
    if op == "eq":
        return equal_to(value), False
    if op == "ne":
        return equal_to(value), True
    if op == "in":
        return one_of(value), False
    if op == "nin":
        return one_of(value), True
    if op == "exists":
        return exists, not value
    return ordered(op, value), False


# -------------------------------------------------------------------------------------- paths


def _any_at(path: str, predicate: Predicate) -> Matcher:
    """Make the matcher of whether any of the values that a path leads to meets the predicate."""
    names = split_path(path)
    if len(names) == 1:
        return _last_step(path, predicate)[0]
    return _compile_path(names, predicate)[0]


def _compile_path(
    names: list[str], predicate: Predicate, *, whole: bool = False
) -> tuple[Predicate, Predicate]:
    """Make the predicates of what the names lead to, from a dict and from a list.

    If `whole`, a list at the end of the path is meant itself, and not its elements.

    Nested functions test a document twice as fast as a loop over the names.
    """
    name, rest = names[0], names[1:]
    index = array_index(name)
    from_dict, from_index = (
        _inner_step(name, *_compile_path(rest, predicate, whole=whole), predicate(MISSING))
        if rest
        else _last_step(name, predicate, whole=whole)
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


def _last_step(
    name: str, predicate: Predicate, *, whole: bool = False
) -> tuple[Predicate, Predicate]:
    if whole:
        return lambda document: predicate(document.get(name, MISSING)), predicate

    def from_dict(document: Any) -> bool:
        found = document.get(name, MISSING)
        if found.__class__ is list:
            return predicate(found) or any(map(predicate, found))
        return predicate(found)

    # A path leads to an array and to its elements; a path with an index, only to that element.
    return from_dict, predicate
