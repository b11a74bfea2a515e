"""What filters, selections and changes mean; a MongoDB server confirms it in ``tests/mongo``."""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostorage._core import matching
from aiostorage._core.changes import (
    apply_changes,
    changed_copy,
    check_changes,
    compile_changes,
)
from aiostorage._core.comparison import equal
from aiostorage._core.matching import meets
from aiostorage._core.paths import array_index, split_path
from aiostorage._core.projection import check_selection, copy_tree, select
from aiostorage._core.query import compile_condition, matches, parse
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import EVERYTHING, And, Compare, Or, StoreTime

Document = dict[str, Any]

NAN = float("nan")
INF = float("inf")
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)

# ------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        (None, EVERYTHING),
        ({}, EVERYTHING),
        ({"a": 1}, Compare("a", "eq", 1)),
        ({"a.b": None}, Compare("a.b", "eq", None)),
        ({"a": {"$eq": 1}}, Compare("a", "eq", 1)),
        ({"a": {}}, Compare("a", "eq", {})),
        ({"a": {"b": {"$x": 1}}}, Compare("a", "eq", {"b": {"$x": 1}})),
        ({"a": {"$eq": {"$x": 1}}}, Compare("a", "eq", {"$x": 1})),
        ({"a": {"$ne": "x"}}, Compare("a", "ne", "x")),
        ({"a": {"$gte": 1, "$lt": 2}}, And((Compare("a", "gte", 1), Compare("a", "lt", 2)))),
        ({"a": {"$gt": 1}, "b": 2}, And((Compare("a", "gt", 1), Compare("b", "eq", 2)))),
        ({"a": {"$lte": 1}}, Compare("a", "lte", 1)),
        ({"a": {"$in": [1, [2], {"b": 3}]}}, Compare("a", "in", (1, [2], {"b": 3}))),
        ({"a": {"$nin": ()}}, Compare("a", "nin", ())),
        ({"a": {"$exists": True}}, Compare("a", "exists", True)),
        ({"a": {"$exists": 0.0}}, Compare("a", "exists", False)),
        ({"a": [1, 2]}, Compare("a", "eq", [1, 2])),
        ({"$and": [{"a": 1}]}, Compare("a", "eq", 1)),
        ({"$or": [{"a": 1}]}, Compare("a", "eq", 1)),
        ({"$or": [{"a": 1}, {}]}, Or((Compare("a", "eq", 1), EVERYTHING))),
        ({"$and": [{}, {}]}, EVERYTHING),
        (
            {"$and": [{"a": 1}, {"$and": [{"b": 2, "c": 3}]}], "d": 4},
            And(tuple(Compare(path, "eq", number) for number, path in enumerate("abcd", 1))),
        ),
        (
            {"$or": ({"a": 1}, {"$and": [{"b": 2}, {"$or": [{"c": 3}, {"d": 4}]}]})},
            Or(
                (
                    Compare("a", "eq", 1),
                    And(
                        (
                            Compare("b", "eq", 2),
                            Or((Compare("c", "eq", 3), Compare("d", "eq", 4))),
                        )
                    ),
                )
            ),
        ),
        (MappingProxyType({"a": OrderedDict({"$gt": 1})}), Compare("a", "gt", 1)),
    ],
)
def test_filters_become_conditions(query: Document | None, condition: object) -> None:
    assert parse(query) == condition


def test_values_are_normalised() -> None:
    condition = parse({"a": np.int64(1), "b": {"$in": [np.float32(0.5), datetime(2024, 1, 1)]}})  # noqa: DTZ001
    assert condition == And(
        (Compare("a", "eq", 1), Compare("b", "in", (0.5, datetime(2024, 1, 1, tzinfo=UTC))))
    )
    assert isinstance(condition, And)
    first = condition.conditions[0]
    assert isinstance(first, Compare)
    assert type(first.value) is int


def test_conditions_share_nothing_with_the_filter() -> None:
    inner = {"b": [1]}
    condition = parse({"a": inner})
    inner["b"].append(2)
    assert condition == Compare("a", "eq", {"b": [1]})


def test_the_time_of_the_store_passes_through() -> None:
    then = StoreTime(-60)
    assert parse({"a": then}) == Compare("a", "eq", then)
    assert parse({"a": {"$lt": then}}) == Compare("a", "lt", then)
    assert parse({"a": {"$in": [None, then]}}) == Compare("a", "in", (None, then))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([("a", 1)], "a filter is a mapping, not a list"),
        ({"$where": "this.a"}, r"operator \$where is not supported.*\$eq.*\$exists.*\$and"),
        ({"$expr": {}}, r"\$expr"),
        ({"$nor": [{"a": 1}]}, r"\$nor"),
        ({"$not": {"a": 1}}, r"\$not"),
        ({"$text": {}}, r"\$text"),
        ({"$comment": "x"}, r"\$comment"),
        ({"a": {"$not": {"$gt": 1}}}, r"\$not' at 'a'.*supported are"),
        ({"a.b": {"$regex": "x"}}, r"\$regex' at 'a.b'"),
        ({"a": {"$function": {}}}, r"\$function"),
        ({"$elemMatch": {"b": 1}}, r"\$elemMatch is not supported here"),
        ({"a": {"$elemMatch": 1}}, "takes a mapping"),
        ({"a": {"$elemMatch": {"$gt": 1, "b": 2}}}, "the plain key 'b'"),
        ({"a": {"$elemMatch": {"b": 1, "$gt": 2}}}, "the plain key 'b'"),
        ({"a": {"$elemMatch": {"$gt": 1, "$or": [{"b": 1}]}}}, r"the operator '\$or'"),
        ({"a": {"$elemMatch": {"b": {"$not": 1}}}}, r"\$not"),
        ({"a": {"$in": [{"$elemMatch": {"b": 1}}]}}, "takes values"),
        ({"a": {"$elemMatch": {"at": StoreTime()}}}, "time of the store"),
        ({"a": {"$ref": "x", "$id": 1}}, r"\$ref"),
        ({"a": {"$gt": 1, "b": 2}}, "the plain key 'b' at 'a'"),
        ({"a": {"b": 2, "$gt": 1}}, "the plain key 'b' at 'a'"),
        ({"a": {1: 2, "$gt": 1}}, "the plain key 1 at 'a'"),
        ({"a": re.compile("x")}, "regular expression at 'a'"),
        ({"a": {"$eq": re.compile("x")}}, "regular expression at 'a'"),
        ({"a": {"$in": ["x", re.compile("x")]}}, "regular expression at 'a'"),
        ({1: 2}, "field names are strings, not 1"),
        ({None: 2}, "field names are strings, not None"),
        ({"$and": []}, r"\$and takes a list of filters that is not empty"),
        ({"$or": ()}, r"\$or takes"),
        ({"$or": {"a": 1}}, r"\$or takes"),
        ({"$or": "ab"}, r"\$or takes"),
        ({"$and": None}, r"\$and takes"),
        ({"$and": [{"a": 1}, None]}, "a filter is a mapping, not a NoneType"),
        ({"$or": [[{"a": 1}]]}, "a filter is a mapping, not a list"),
        ({"a": {"$in": 1}}, r"\$in at 'a' takes a list, not a int"),
        ({"a": {"$nin": {"b"}}}, r"\$nin at 'a' takes a list, not a set"),
        ({"a": {"$in": "abc"}}, r"\$in at 'a' takes a list"),
        ({"a": {"$in": [{"$gt": 1}]}}, r"\$in at 'a' takes values, not operators"),
        ({"a": {"$exists": "no"}}, r"\$exists at 'a' takes a bool, not a str"),
        ({"a": {"$exists": None}}, r"\$exists at 'a'"),
        ({"": 1}, "the path ''"),
        ({"a..b": 1}, r"the path 'a\.\.b'"),
        ({"a.": 1}, r"the path 'a\.'"),
        ({".a": 1}, r"the path '\.a'"),
        ({"a.$": 1}, r"the path 'a\.\$'"),
        ({"a.$id": 1}, r"the path 'a\.\$id'"),
        ({"a\0b": 1}, "the path"),
        ({".".join("a" * 101): 1}, "more than 100 names"),
        ({"$or": [{"a": 1}, {"$and": [{"b": {"$mod": [2, 0]}}]}]}, r"\$mod"),
    ],
)
def test_what_is_outside_of_the_language_is_refused(query: Any, message: str) -> None:
    with pytest.raises(UnsupportedQuery, match=message):
        parse(query)


def test_what_cannot_be_stored_cannot_be_compared_with() -> None:
    with pytest.raises(EncodingError, match="a"):
        parse({"a": object()})
    with pytest.raises(EncodingError):
        parse({"a": {"$gt": 2**64}})
    with pytest.raises(EncodingError):
        parse({"a": {"$in": [{"b": {1, 2}}]}})


# ------------------------------------------------------------------------------------- meaning


def found(query: Document, document: Document) -> bool:
    condition = parse(query)
    answer = matches(document, condition)
    assert compile_condition(condition)(document) is answer
    assert meets(document, condition) is answer
    return answer


@pytest.mark.parametrize(
    ("query", "yes", "no"),
    [
        ({}, [{}, {"a": 1}], []),
        ({"a": 1}, [{"a": 1}, {"a": 1.0}, {"a": [2, 1]}], [{}, {"a": True}, {"a": [[1]]}]),
        (
            {"a": 0},
            [{"a": 0}, {"a": -0.0}, {"a": [0]}],
            [{"a": False}, {"a": [False]}, {"a": None}],
        ),
        ({"a": True}, [{"a": True}, {"a": [True]}], [{"a": 1}, {"a": 1.0}, {"a": [1]}]),
        ({"a": "x"}, [{"a": "x"}, {"a": ["x"]}], [{"a": b"x"}, {"a": "X"}, {"a": {"b": "x"}}, {}]),
        ({"a": b"x"}, [{"a": b"x"}], [{"a": "x"}]),
        ({"a": NOON}, [{"a": NOON}], [{"a": NOON + timedelta(microseconds=1)}]),
        ({"a": 2**53 + 1}, [{"a": 2**53 + 1}], [{"a": 2.0**53}]),
        # null and what is missing
        ({"a": None}, [{}, {"a": None}, {"a": [1, None]}], [{"a": 0}, {"a": []}, {"a": [[None]]}]),
        ({"a.b": None}, [{}, {"a": 1}, {"a": {}}, {"a": [{}]}], [{"a": []}, {"a": [1]}]),
        ({"a.b": None}, [{"a": {"b": None}}, {"a": [{"b": 1}, {}]}], [{"a": [{"b": 1}, 2]}]),
        ({"a.0": None}, [{"a": [None]}, {"a": [{}]}, {"a": {}}], [{"a": [1]}, {"a": [[None]]}]),
        ({"a.b.c": None}, [{"a": [{"b": 1}]}, {"a": {"b": 1}}], [{"a": {"b": [1]}}]),
        ({"a": {"$gte": None}}, [{}, {"a": None}], [{"a": 0}, {"a": False}]),
        ({"a": {"$lte": None}}, [{}, {"a": None}], [{"a": 0}]),
        ({"a": {"$gt": None}}, [], [{}, {"a": None}, {"a": 1}]),
        ({"a": {"$lt": None}}, [], [{}, {"a": None}, {"a": 1}]),
        # NaN
        ({"a": NAN}, [{"a": NAN}, {"a": [NAN]}], [{"a": 0.0}, {"a": INF}, {}]),
        ({"a": {"$gte": NAN}}, [{"a": NAN}], [{"a": 1}, {"a": INF}]),
        ({"a": {"$lte": NAN}}, [{"a": NAN}], [{"a": 1}, {"a": -INF}]),
        ({"a": {"$gt": NAN}}, [], [{"a": NAN}, {"a": 1}]),
        ({"a": {"$lt": NAN}}, [], [{"a": NAN}, {"a": -INF}]),
        ({"a": {"$lt": INF}}, [{"a": 1}, {"a": -INF}], [{"a": NAN}, {"a": INF}]),
        ({"a": {"$in": [NAN]}}, [{"a": NAN}], [{"a": 1.0}]),
        ({"a": {"b": NAN}}, [{"a": {"b": NAN}}], [{"a": {"b": 1.0}}]),
        # whole values
        ({"a": []}, [{"a": []}, {"a": [[]]}], [{}, {"a": [1]}, {"a": {}}, {"a": None}]),
        ({"a": [1, 2]}, [{"a": [1, 2]}, {"a": [[1.0, 2]]}], [{"a": [2, 1]}, {"a": [1, 2, 3]}]),
        ({"a": [1]}, [{"a": [1.0]}], [{"a": [True]}, {"a": 1}]),
        ({"a": {}}, [{"a": {}}, {"a": [{}]}], [{"a": []}, {}, {"a": {"b": 1}}]),
        (
            {"a": {"b": 1, "c": 1}},
            [{"a": {"b": 1, "c": 1.0}}, {"a": [0, {"b": 1, "c": 1}]}],
            [{"a": {"c": 1, "b": 1}}, {"a": {"b": 1}}, {"a": {"b": 1, "c": True}}],
        ),
        # paths
        (
            {"a.b": 1},
            [{"a": {"b": 1}}, {"a": {"b": [1]}}, {"a": [{"b": 1}]}],
            [{"a.b": 1}, {"a": 1}],
        ),
        ({"a.b": 1}, [{"a": [{"b": [0, 1]}]}], [{"a": [[{"b": 1}]]}, {"a": [{"b": [[1]]}]}]),
        ({"a.0": 1}, [{"a": [1, 2]}, {"a": {"0": 1}}, {"a": [0, {"0": 1}]}], [{"a": [0, 1]}]),
        ({"a.0": 1}, [], [{"a": [[1]]}, {"a": 1}, {"a": []}]),
        ({"a.0": [1]}, [{"a": [[1]]}], [{"a": [1]}, {"a": [[[1]]]}]),
        ({"a.0.b": 1}, [{"a": [{"b": 1}]}, {"a": [{"0": {"b": 1}}]}], [{"a": [0, {"b": 1}]}]),
        ({"a.1.0": 1}, [{"a": [0, [1]]}, {"a": [0, {"0": 1}]}], [{"a": [0, [[1]]]}, {"a": [1, 0]}]),
        ({"a.0.0.b": 1}, [{"a": [[{"b": 1}]]}, {"a": [{"0": [{"b": 1}]}]}], [{"a": [1]}]),
        ({"a.01": 1}, [{"a": {"01": 1}}], [{"a": [0, 1]}]),
        ({"a.-1": 1}, [{"a": {"-1": 1}}], [{"a": [1]}]),
        ({"0": 1}, [{"0": 1}, {"0": [1]}], [{}]),
        # order
        ({"a": {"$gt": 1}}, [{"a": 1.5}, {"a": [0, 2]}, {"a": INF}], [{"a": 1}, {"a": "2"}, {}]),
        ({"a": {"$gt": 0}}, [{"a": 1}], [{"a": True}, {"a": NOON}, {"a": [True]}]),
        ({"a": {"$gte": 1, "$lte": 1}}, [{"a": 1.0}, {"a": [0, 2]}], [{"a": 2}, {"a": True}]),
        ({"a": {"$lt": 2.0**53}}, [{"a": 2**53 - 1}], [{"a": 2**53}]),
        ({"a": {"$gt": "a"}}, [{"a": "b"}, {"a": "aa"}], [{"a": "a"}, {"a": "B"}, {"a": 1}]),
        ({"a": {"$gt": "\uffff"}}, [{"a": "\U0001f600"}], [{"a": "\ufffe"}]),
        ({"a": {"$gt": b"b"}}, [{"a": b"aa"}, {"a": b"c"}], [{"a": b"a"}, {"a": b""}, {"a": "c"}]),
        ({"a": {"$gte": NOON}}, [{"a": NOON}], [{"a": NOON - timedelta(1)}, {"a": None}, {}]),
        ({"a": {"$lt": True}}, [{"a": False}], [{"a": True}, {"a": 0}]),
        ({"a": {"$gte": False}}, [{"a": False}, {"a": True}], [{"a": 1}, {}]),
        (
            {"a": {"$gt": [1]}},
            [{"a": [2]}, {"a": [1, None]}, {"a": [["a"]]}],
            [{"a": [1]}, {"a": 2}],
        ),
        ({"a": {"$lt": [1]}}, [{"a": []}, {"a": [None, 9]}, {"a": [NAN]}], [{"a": [1.0]}, {}]),
        (
            {"a": {"$gt": {"b": 1}}},
            [{"a": {"b": 2}}, {"a": {"a": "x"}}],
            [{"a": {"a": 9}}, {"a": {}}],
        ),
        ({"a": {"$gt": {"b": 1}}}, [{"a": {"b": 1, "a": None}}], [{"a": {"b": None}}]),
        # the rest
        ({"a": {"$ne": 1}}, [{}, {"a": None}, {"a": True}, {"a": [2]}], [{"a": 1}, {"a": [1, 2]}]),
        ({"a": {"$ne": None}}, [{"a": 1}, {"a": []}], [{}, {"a": None}, {"a": [None]}]),
        ({"a.b": {"$ne": 1}}, [{}, {"a": [{"b": 2}]}, {"a": []}], [{"a": [{"b": 2}, {"b": 1}]}]),
        ({"a": {"$in": []}}, [], [{}, {"a": 1}, {"a": []}]),
        ({"a": {"$nin": []}}, [{}, {"a": 1}], []),
        ({"a": {"$in": [1, "x"]}}, [{"a": 1.0}, {"a": ["x"]}], [{"a": True}, {"a": [["x"]]}, {}]),
        ({"a": {"$in": [True]}}, [{"a": True}], [{"a": 1}]),
        ({"a": {"$in": [None]}}, [{}, {"a": None}], [{"a": 1}]),
        ({"a": {"$in": [[1], {"b": 1}]}}, [{"a": [1]}, {"a": {"b": 1}}, {"a": [[1]]}], [{"a": 1}]),
        ({"a": {"$nin": [1, None]}}, [{"a": 2}, {"a": []}], [{}, {"a": 1}, {"a": [2, 1]}]),
        ({"a": {"$exists": True}}, [{"a": None}, {"a": []}], [{}, {"b": 1}]),
        ({"a": {"$exists": False}}, [{}], [{"a": None}]),
        (
            {"a.b": {"$exists": True}},
            [{"a": [0, {"b": None}]}],
            [{}, {"a": []}, {"a": [1]}, {"a": 1}],
        ),
        ({"a.1": {"$exists": 1}}, [{"a": [0, 0]}, {"a": {"1": 0}}], [{"a": [0]}, {"a": [{}]}]),
        ({"a": 1, "b": 2}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
        ({"$and": [{"a": 1}, {"b": 2}, {"c": 3}]}, [{"a": 1, "b": 2, "c": 3}], [{"a": 1, "b": 2}]),
        ({"$or": [{"a": 1}, {"b": 2}]}, [{"a": 1}, {"b": 2}, {"a": 1, "b": 2}], [{}, {"a": 2}]),
        ({"$or": [{"a": 1}, {}]}, [{}], []),
    ],
)
def test_filters_mean_what_they_mean_to_mongodb(
    query: Document, yes: list[Document], no: list[Document]
) -> None:
    for document in yes:
        assert found(query, document), document
    for document in no:
        assert not found(query, document), document


def test_documents_may_be_any_mapping() -> None:
    document = MappingProxyType({"a": {"b": 1}})
    assert matches(document, parse({"a.b": 1}))
    assert select(document, None) == {"a": {"b": 1}}


def test_matches_takes_another_condition_for_another_one() -> None:
    # Compiled conditions are kept by identity, and an id may come back when its owner is gone.
    for number in range(1000):
        condition = Compare("a", "eq", number)
        assert matches({"a": number}, condition)
        assert not matches({"a": number + 1}, condition)
    assert len(matching._compiled) <= matching._MAX_COMPILED


# ---------------------------------------------------------------------------------- properties

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(width=16)
    | st.text("ab", max_size=2)
    | st.binary(max_size=2)
    | st.datetimes(timezones=st.just(UTC))
)
names = st.sampled_from(["a", "b", "0", "1"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(names, values, max_size=3)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)


@given(documents, paths, values)
def test_negations_are_negations(document: Document, path: str, value: Any) -> None:
    equals = matches(document, Compare(path, "eq", value))
    assert matches(document, Compare(path, "ne", value)) is not equals
    assert matches(document, Compare(path, "in", (value,))) is equals
    assert matches(document, Compare(path, "nin", (value,))) is not equals
    there = matches(document, Compare(path, "exists", value=True))
    assert matches(document, Compare(path, "exists", value=False)) is not there


@given(documents, paths, st.lists(values, max_size=3))
def test_in_is_an_or_of_equalities(document: Document, path: str, several: list[Any]) -> None:
    either = Or(tuple(Compare(path, "eq", value) for value in several))
    assert matches(document, Compare(path, "in", tuple(several))) is matches(document, either)


@given(values, values)
def test_order_is_total_within_a_type(one: Any, other: Any) -> None:
    less, equals, greater = (
        matches({"a": {"b": one}}, Compare("a", op, {"b": other})) for op in ("lt", "eq", "gt")
    )
    assert [less, equals, greater].count(True) == 1
    assert equals is equal(one, other) is equal(other, one)
    assert less is matches({"a": {"b": other}}, Compare("a", "gt", {"b": one}))


@given(documents)
def test_every_value_is_found_where_it_stands(document: Document) -> None:
    for key, value in document.items():
        assert matches(document, Compare(key, "eq", copy_tree(value)))


def test_names_of_paths() -> None:
    assert split_path("a.b.0") == ["a", "b", "0"]
    assert [array_index(name) for name in ("0", "7", "10")] == [0, 7, 10]
    assert {
        array_index(name) for name in ("", "01", "-1", "+1", "1.", "a", "²", "٣", "9" * 11)
    } == {None}


# ------------------------------------------------------------------------------------- copying


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


@given(values)
def test_copies_are_equal_and_share_no_container(value: Any) -> None:
    copy = copy_tree(value)
    assert equal(copy, value)
    originals = {id(container) for container in containers(value)}
    assert not any(id(container) in originals for container in containers(copy))


# ---------------------------------------------------------------------------------- selections


@pytest.mark.parametrize(
    ("selection", "checked"),
    [
        (None, None),
        ({}, None),
        ({"a": 1}, {"a": True}),
        ({"a": True, "b.c": 1, "_id": 0}, {"a": True, "b.c": True, "_id": False}),
        ({"a": 0, "b": False}, {"a": False, "b": False}),
        ({"a": 0, "_id": 1}, {"a": False, "_id": True}),
        ({"_id": False}, {"_id": False}),
        ({"a": 1, "ab": 1}, {"a": True, "ab": True}),
    ],
)
def test_selections_become_bools(
    selection: Document | None, checked: dict[str, bool] | None
) -> None:
    assert check_selection(selection) == checked
    assert all(type(keep) is bool for keep in (check_selection(selection) or {}).values())


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"a": 2}, "has 2 at 'a'; supported are 0, 1, False and True"),
        ({"a": 1.0}, "has 1.0 at 'a'"),
        ({"a": None}, "None at 'a'"),
        ({"a": "b"}, "'b' at 'a'"),
        ({"a": {"$slice": 1}}, "slice"),
        ({"a": {"b": 1}}, "at 'a'"),
        ({"a": 1, "b": 0}, "includes and excludes; only _id"),
        ({"a": 1, "a.b": 1}, "names both 'a' and 'a.b'"),
        ({"a.b.c": 0, "a": 0}, "names both 'a' and 'a.b.c'"),
        ({"_id.a": 1}, "cannot divide _id"),
        ({"": 1}, "the path ''"),
        ({"a..b": 1}, "the path"),
        ({"a.$": 1}, "the path"),
        ({"$a": 1}, "the path"),
        ({1: 1}, "field names are strings"),
        (["a"], "a selection is a mapping"),
    ],
)
def test_selections_are_checked(selection: Any, message: str) -> None:
    with pytest.raises(UnsupportedQuery, match=message):
        check_selection(selection)


TREE: Document = {
    "_id": 1,
    "b": {"x": 1, "y": {"z": 2}},
    "a": [{"x": 1, "y": 2}, 3, [{"x": 4, "w": 5}, 6], {}],
    "a.x": 7,
    "e": {},
}


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        (None, TREE),
        ({"_id": True}, {"_id": 1}),
        ({"_id": False}, {key: value for key, value in TREE.items() if key != "_id"}),
        ({"a": True, "b": True}, {"_id": 1, "b": TREE["b"], "a": TREE["a"]}),
        ({"b": True, "_id": False}, {"b": TREE["b"]}),
        ({"b.y.z": True}, {"_id": 1, "b": {"y": {"z": 2}}}),
        ({"b.nothing": True}, {"_id": 1, "b": {}}),
        ({"b.x.z": True}, {"_id": 1, "b": {}}),
        ({"nothing": True}, {"_id": 1}),
        ({"a.x": True}, {"_id": 1, "a": [{"x": 1}, [{"x": 4}], {}]}),
        ({"a.0": True}, {"_id": 1, "a": [{}, [{}], {}]}),
        ({"a.x": True, "a.w": True, "_id": False}, {"a": [{"x": 1}, [{"x": 4, "w": 5}], {}]}),
        ({"a": False, "a.x.y": False}, None),
        (
            {"a.x": False, "b": False, "_id": True},
            {"_id": 1, "a": [{"y": 2}, 3, [{"w": 5}, 6], {}], "a.x": 7, "e": {}},
        ),
        (
            {"a": False, "b.y.z": False, "b.x.q": False, "e.f": False, "_id": False},
            {"b": {"x": 1, "y": {}}, "a.x": 7, "e": {}},
        ),
    ],
)
def test_selections_select(selection: dict[str, bool] | None, selected: Document | None) -> None:
    if selected is None:
        with pytest.raises(UnsupportedQuery):
            select(TREE, selection)
        return
    answer = select(TREE, selection)
    assert answer == selected
    assert equal(answer, selected)  # the order of keys, too
    originals = {id(container) for container in containers(TREE)}
    assert not any(id(container) in originals for container in containers(answer))


@given(documents, st.sets(names, min_size=1))
def test_inclusion_and_exclusion_are_complements(document: Document, chosen: set[str]) -> None:
    kept = select(document, dict.fromkeys(chosen, True))
    rest = select(document, dict.fromkeys(chosen, False))
    assert kept.keys().isdisjoint(rest)
    assert equal({key: (kept | rest)[key] for key in document}, document)


@given(documents, st.sets(paths, min_size=1, max_size=2), st.booleans())
def test_selecting_twice_changes_nothing(document: Document, chosen: set[str], keep: bool) -> None:
    selection = dict.fromkeys(sorted(chosen), keep)
    try:
        check_selection(selection)
    except UnsupportedQuery:
        return
    once = select(document, selection)
    assert equal(select(once, selection), once)


# ------------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    ("document", "changes", "changed"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({}, {"b": 1, "a": 2}, {"a": 2, "b": 1}),
        ({}, {"a.c": 1, "a.b": 2}, {"a": {"b": 2, "c": 1}}),
        (
            {},
            {"a.10": 1, "a.9": 2, "a.0x": 3, "a.1x": 4},
            {"a": {"0x": 3, "9": 2, "10": 1, "1x": 4}},
        ),
        ({"a": {"b": 1}}, {"a.b": {"c": [1]}}, {"a": {"b": {"c": [1]}}}),
        ({"a": {"b": 1}}, {"a.c.d.e": 2}, {"a": {"b": 1, "c": {"d": {"e": 2}}}}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"c": 2}}),
        ({"a.b": 1}, {"a.b": 2}, {"a.b": 1, "a": {"b": 2}}),
        ({"a": [1, 2]}, {"a.0": 3}, {"a": [3, 2]}),
        ({"a": [1, 2]}, {"a.2": 3}, {"a": [1, 2, 3]}),
        ({"a": []}, {"a.2": 3}, {"a": [None, None, 3]}),
        ({"a": [{"b": 1}, [2]]}, {"a.0.b": 3, "a.1.0": 4}, {"a": [{"b": 3}, [4]]}),
        ({"a": []}, {"a.1.b.0": 3}, {"a": [None, {"b": {"0": 3}}]}),
        (
            {"a": [0]},
            {"a.10.x": 1, "a.2.x": 2, "a.2.y": 3},
            {"a": [0, None, {"x": 2, "y": 3}, *[None] * 7, {"x": 1}]},
        ),
        ({}, {"a.0": 1}, {"a": {"0": 1}}),
        ({"_id": 1, "a": 1}, {"_id": 1, "a": 2}, {"_id": 1, "a": 2}),
        ({"_id": "x"}, {"_id": "x"}, {"_id": "x"}),
    ],
)
def test_changes_change(document: Document, changes: Document, changed: Document) -> None:
    check_changes(changes)
    change = compile_changes(changes)
    copies = [copy_tree(document), copy_tree(document)]
    for copy in copies:
        change(copy)
        assert equal(copy, changed)
    before = copy_tree(document)
    assert equal(changed_copy(document, changes), changed)
    assert equal(document, before)
    apply_changes(document, changes)
    assert document == changed
    assert equal(document, changed)  # the order of keys, too


@pytest.mark.parametrize(
    ("document", "changes", "message"),
    [
        ({"a": 1}, {"a.b": 1}, "'a.b' cannot be set: at 'a' stands 1"),
        ({"a": None}, {"a.b": 1}, "at 'a' stands None"),
        ({"a": {"b": "x"}}, {"a.b.c.d": 1}, "'a.b.c.d' cannot be set: at 'a.b' stands 'x'"),
        ({"a": [1]}, {"a.0.b": 1}, "'a.0.b' cannot be set: at 'a.0' stands 1"),
        ({"a": [1]}, {"a.b": 1}, "'b' is not an index for the list at 'a'"),
        ({"a": [1]}, {"a.-1": 1}, "'-1' is not an index"),
        ({"a": [1]}, {"a.٣": 1}, "is not an index"),
        ({"a": [1]}, {"a.1500002": 1}, "is not an index"),
        ({"a": [1]}, {"a.99999999999": 1}, "is not an index"),
        ({"_id": 1}, {"_id": 2}, "would change the _id"),
        ({"_id": 1}, {"_id": True}, "would change the _id"),
        ({"_id": 1}, {"_id": 1.0}, "would change the _id"),
        ({}, {"_id": None}, "would change the _id"),
    ],
)
def test_changes_that_a_document_cannot_take(
    document: Document, changes: Document, message: str
) -> None:
    before = copy_tree(document)
    changes = {"0": "before", **changes, "z": "after", "a!": "between"}
    check_changes(changes)
    with pytest.raises(UnsupportedQuery, match=re.escape(message)):
        apply_changes(document, changes)
    assert document == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": 1, "a.b": 1}, "names both 'a' and 'a.b'"),
        ({"a.b.c": 1, "x": 0, "a": 1}, "names both 'a' and 'a.b.c'"),
        ({"_id.a": 1}, "cannot divide _id"),
        ({"a.01": 1}, "'01' may be an index"),
        ({"a.00.b": 1}, "'00' may be an index"),
        ({"": 1}, "the path ''"),
        ({"a.": 1}, "the path"),
        ({"a.$": 1}, "the path"),
        ({"a.$[].b": 1}, "the path"),
        ({"$inc": {"a": 1}}, "the path"),
        ({3: 1}, "field names are strings, not 3"),
    ],
)
def test_changes_that_no_document_can_take(changes: Document, message: str) -> None:
    document = {"z": 1}
    with pytest.raises(UnsupportedQuery, match=re.escape(message)):
        apply_changes(document, changes)
    assert document == {"z": 1}
    for check in (check_changes, compile_changes):
        with pytest.raises(UnsupportedQuery, match=re.escape(message)):
            check(changes)


def test_a_large_value_in_the_way_makes_no_large_message() -> None:
    with pytest.raises(UnsupportedQuery) as caught:
        apply_changes({"a": "x" * 100_000}, {"a.b": 1})
    assert len(str(caught.value)) < 500


def test_changes_are_copied_in() -> None:
    value = {"x": [1]}
    document: Document = {}
    apply_changes(document, {"a": value, "b.c": value})
    copied = changed_copy({}, {"a": value})
    value["x"].append(2)
    assert document == {"a": {"x": [1]}, "b": {"c": {"x": [1]}}}
    assert copied == {"a": {"x": [1]}}
    document["a"]["x"].append(3)
    assert document["b"] == {"c": {"x": [1]}}


@pytest.mark.parametrize("path", ["a", "b.c", "b.0.d"])
def test_compiled_changes_share_nothing_between_documents(path: str) -> None:
    change = compile_changes({path: {"x": [1]}, "z": 1})
    first: Document = {}
    second: Document = {}
    change(first)
    expected = copy_tree(first)
    for container in containers(first):
        container.update(y=2) if isinstance(container, dict) else container.append(2)
    change(second)
    assert second == expected


@given(documents, documents, st.dictionaries(paths, values, max_size=3))
def test_compiled_changes_do_not_remember_a_document(
    first: Document, second: Document, changes: Document
) -> None:
    try:
        change = compile_changes(changes)
    except UnsupportedQuery as refused:
        with pytest.raises(UnsupportedQuery, match=re.escape(str(refused))):
            apply_changes(second, changes)
        return
    with contextlib.suppress(UnsupportedQuery):
        change(first)
    before, alone = copy_tree(second), copy_tree(second)
    try:
        apply_changes(alone, changes)
    except UnsupportedQuery as refused:
        for refusing in (change, lambda document: changed_copy(document, changes)):
            with pytest.raises(UnsupportedQuery, match=re.escape(str(refused))):
                refusing(second)
    else:
        assert equal(changed_copy(second, changes), alone)
        assert equal(second, before)
        change(second)
    assert equal(second, alone)


@given(documents, st.dictionaries(paths, values, max_size=3))
def test_what_was_set_is_found(document: Document, changes: Document) -> None:
    before = copy_tree(document)
    try:
        apply_changes(document, changes)
    except UnsupportedQuery:
        assert equal(document, before)
        return
    for path, value in changes.items():
        assert matches(document, Compare(path, "eq", value))
    again = copy_tree(document)
    apply_changes(again, changes)
    assert equal(again, document)
