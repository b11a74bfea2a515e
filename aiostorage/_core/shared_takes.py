"""Takes that wait at the same time and may share their search: pure functions.

One search finds as many documents as such takes want in all, and each take gets its own of them, in
the order in which the takes would have gone one by one.
"""

from __future__ import annotations

from typing import Any, Final

from aiostorage._core.queries.matching import conjuncts
from aiostorage.operations import And, Compare, Condition, Or, StoreTime, Take

__all__ = ["are_alike", "excludes_itself"]

_PLAIN: Final = frozenset({str, int, StoreTime})
"""Classes whose values mean the same in a condition if they are equal, as 1 and True do not."""


def excludes_itself(take: Take) -> bool:
    """Return whether a document that a take has changed no longer meets the take's condition.

    Then no other take with this condition, carried out after it, can get the same document.
    """
    for condition in conjuncts(take.where):
        if isinstance(condition, Compare) and condition.op in ("eq", "in"):
            new = take.changes.get(condition.path)
            wanted = condition.value if condition.op == "in" else (condition.value,)
            if (
                new.__class__ is str
                and "." not in condition.path  # it may lead to several values
                and all(v.__class__ is str and v != new for v in wanted)
            ):
                return True
    return False


def are_alike(take: Take, other: Take) -> bool:
    """Return whether two takes look for the same documents in the same order."""
    return (
        take.collection == other.collection
        and take.order == other.order
        and _are_same(take.where, other.where)
    )


def _are_same(one: Condition, other: Condition) -> bool:
    if one is other:
        return True
    if isinstance(one, Compare):
        return (
            isinstance(other, Compare)
            and one.path == other.path
            and one.op == other.op
            and _is_same(one.value, other.value)
        )
    if isinstance(one, And | Or):
        return (
            isinstance(other, one.__class__)
            and len(one.conditions) == len(other.conditions)
            and all(map(_are_same, one.conditions, other.conditions))
        )
    return False


def _is_same(one: Any, other: Any) -> bool:
    if one.__class__ is not other.__class__:
        return False
    if one.__class__ is tuple:
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one.__class__ in _PLAIN and bool(one == other)
