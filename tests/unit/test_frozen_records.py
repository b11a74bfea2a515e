"""Frozen records are what frozen dataclasses with slots are, where callers can see it."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import pytest

from aiostorage._core.frozen_records import FrozenRecord, frozen_record
from aiostorage.operations import And, Compare, Count, Find, Insert, StoreTime, Take


@frozen_record
class Point(FrozenRecord):
    """A record of the test."""

    x: int
    y: int = 2
    tags: tuple[str, ...] = ()


@frozen_record
class NamedPoint(Point):
    """One with a field more."""

    name: str = "origin"


@frozen_record
class Nothing(FrozenRecord):
    """One without fields."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The same as a dataclass."""

    x: int
    y: int = 2
    tags: tuple[str, ...] = ()


RECORDS: tuple[Any, ...] = (
    Point(1),
    Point(1, 2, ("a",)),
    NamedPoint(1, name="n"),
    Nothing(),
    StoreTime(3.0),
    Compare("a", "eq", 1),
    And(()),
    And((Compare("a", "eq", 1), Compare("b", "in", (1, 2)))),
    Take("trials", And(()), {"a": 1}, order=("a",), limit=None),
    Insert("trials", ({"a": 1},)),
    Find("trials"),
)


def test_it_is_made_as_a_dataclass_is() -> None:
    assert asdict(Point(1)) == asdict(Twin(1)) == {"x": 1, "y": 2, "tags": ()}
    assert asdict(Point(y=3, x=1)) == asdict(Twin(y=3, x=1))
    assert [f.name for f in fields(NamedPoint)] == ["x", "y", "tags", "name"]
    mine, theirs = inspect.signature(Point), inspect.signature(Twin)
    assert str(mine) == str(theirs)
    assert vars(Point)["__match_args__"] == vars(Twin)["__match_args__"]
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required .* 'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=2)  # type: ignore[call-arg]
    assert is_dataclass(Point)


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_copies_are_equal(record: Any) -> None:
    for copied in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert copied == record
        assert type(copied) is type(record)
        assert repr(copied) == repr(record)


def test_equality_and_hash() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Point(1) != NamedPoint(1)
    twin: Any = Twin(1)
    assert Point(1) != twin
    assert Nothing() == Nothing()
    assert {Compare("a", "eq", 1), Compare("a", "eq", 1)} == {Compare("a", "eq", 1)}
    nan = float("nan")
    assert Compare("a", "eq", nan) == Compare("a", "eq", nan)  # the same object, as in a tuple
    with pytest.raises(TypeError, match="unhashable"):
        hash(Compare("a", "eq", []))


def test_repr_is_that_of_a_dataclass() -> None:
    assert repr(Point(1, tags=("a",))) == repr(Twin(1, tags=("a",))).replace("Twin", "Point")
    assert repr(Nothing()) == "Nothing()"
    assert repr(Count("trials")) == (
        "Count(collection='trials', where=And(conditions=()), majority=False)"
    )


def test_it_cannot_be_changed() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2
    with pytest.raises(FrozenInstanceError):
        point.other = 2
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point == Point(1)
    assert not hasattr(point, "__dict__")


def test_replace_and_match() -> None:
    assert replace(Point(1), y=3) == Point(1, 3)
    assert replace(NamedPoint(1), name="b") == NamedPoint(1, name="b")
    match Compare("a", "eq", 1):
        case Compare(path, op, value):
            assert (path, op, value) == ("a", "eq", 1)
