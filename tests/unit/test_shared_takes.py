"""Which takes may share a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiostorage._core.shared_takes import are_alike, excludes_itself
from aiostorage.operations import And, Compare, Condition, ElementMatch, Or, StoreTime, Take

FREE = Compare("state", "in", ("new", "gone"))
TAKE = Take("plants", And((Compare("bed", "eq", "east"), FREE)), {"state": "kept"}, ("sown",))


@pytest.mark.parametrize(
    ("where", "changes", "excluded"),
    [
        (FREE, {"state": "kept"}, True),
        (FREE, {"state": "gone"}, False),
        (FREE, {"keeper": "k"}, False),
        (FREE, {"state": None}, False),
        (FREE, {"state": 1}, False),
        (And((Compare("x", "gt", 1), FREE)), {"state": "kept"}, True),
        (Compare("state", "eq", "new"), {"state": "kept"}, True),
        (Compare("state", "eq", None), {"state": "kept"}, False),
        (Compare("state", "ne", "kept"), {"state": "kept"}, False),
        (Compare("state", "in", ("new", None)), {"state": "kept"}, False),
        (Or((FREE, Compare("bed", "eq", "east"))), {"state": "kept"}, False),
        (Compare("a.0", "eq", "new"), {"a.0": "kept"}, False),
    ],
)
def test_whether_a_take_excludes_what_it_took(
    where: Condition, changes: dict[str, Any], excluded: bool
) -> None:
    assert excludes_itself(Take("plants", where, changes)) is excluded


def test_takes_that_differ_in_what_they_set_are_alike() -> None:
    where = And((Compare("bed", "eq", "east"), replace(FREE)))
    other = Take("plants", where, {"state": "kept", "keeper": "k"}, ("sown",), 3, FREE, "why")
    assert are_alike(TAKE, other)


@pytest.mark.parametrize(
    "other",
    [
        replace(TAKE, collection="trees"),
        replace(TAKE, order=()),
        replace(TAKE, where=FREE),
        replace(TAKE, where=And((Compare("bed", "eq", "west"), FREE))),
        replace(TAKE, where=And((Compare("bed", "ne", "east"), FREE))),
        replace(TAKE, where=And((Compare("bad", "eq", "east"), FREE))),
        replace(TAKE, where=And((Compare("bed", "eq", "east"), FREE, FREE))),
        replace(TAKE, where=Or((Compare("bed", "eq", "east"), FREE))),
    ],
)
def test_takes_that_look_for_something_else_are_not_alike(other: Take) -> None:
    assert not are_alike(TAKE, other)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        ((1,), (True,), False),
        (("a", None), ("a", None), False),
        (StoreTime(1.0), StoreTime(1.0), True),
        (StoreTime(1.0), StoreTime(2.0), False),
        ([], [], False),
    ],
)
def test_values_are_alike_only_if_they_mean_the_same(one: Any, other: Any, alike: bool) -> None:
    takes = [replace(TAKE, where=Compare("bed", "in", value)) for value in (one, other)]
    assert are_alike(*takes) is alike


def test_what_is_about_elements_is_alike_if_it_is_the_same_object() -> None:
    where = ElementMatch("fruit", Compare("ripe", "eq", 1))
    assert are_alike(replace(TAKE, where=where), replace(TAKE, where=where))
    other = ElementMatch("fruit", Compare("ripe", "eq", 1))
    assert not are_alike(replace(TAKE, where=where), replace(TAKE, where=other))
