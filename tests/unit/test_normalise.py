from __future__ import annotations

import math
import subprocess
import sys
import types
import uuid
from collections import ChainMap, OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from aiostorage._core.normalise import MAX_DEPTH, join_path, normalise, to_utc
from aiostorage.errors import EncodingError
from tests.unit.plain_documents import NOON, nested, same, values
from tests.unit.subclasses import (
    Blob,
    Colour,
    Moment,
    Number,
    OldColour,
    Plain,
    Point,
    Ratio,
    Row,
    named,
)


def containers(value: Any) -> set[int]:
    if isinstance(value, dict):
        return {id(value)}.union(*map(containers, value.values()))
    if isinstance(value, list):
        return {id(value)}.union(*map(containers, value))
    return set()


def refusal(value: Any, path: str = "") -> EncodingError:
    with pytest.raises(EncodingError) as caught:
        normalise(value, path)
    return caught.value


# -------------------------------------------------------------------------------- normalise


@given(values)
def test_what_is_plain_stays_as_it_is(value: Any) -> None:
    fresh = normalise(value)
    assert same(fresh, value)
    assert not containers(fresh) & containers(value)


def test_one_container_in_two_places_becomes_two() -> None:
    inner: list[int] = [1]
    fresh = normalise({"a": inner, "b": inner})
    assert fresh == {"a": [1], "b": [1]}
    assert fresh["a"] is not fresh["b"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[]), {"a": []}),
        (types.MappingProxyType({"a": {"b": 1}}), {"a": {"b": 1}}),
        (ChainMap({"a": 1}), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (Row([Row()]), [[]]),
        (Colour.RED, "red"),
        (OldColour.RED, "red"),
        ({Colour.RED: 1, OldColour.RED: 2}, {"red": 2}),
        (Number.ONE, 1),
        (Ratio(0.5), 0.5),
        (Blob(b"a"), b"a"),
        ("žluť 🐎", "žluť 🐎"),
        ({"žluť": "🐎"}, {"žluť": "🐎"}),
        (datetime(2024, 2, 29, 12, 0, 0, 1), NOON),  # noqa: DTZ001
        (datetime(2024, 2, 29, 12, 0, 0, 1, fold=1), NOON),  # noqa: DTZ001
        (datetime(2024, 2, 29, 13, 30, 0, 1, timezone(timedelta(hours=1.5))), NOON),
        (date(2024, 2, 29), "2024-02-29"),
        (time(1, 2, 3, 4, UTC), "01:02:03.000004+00:00"),
        (PurePosixPath("a/b"), "a/b"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (bytearray(b"a"), b"a"),
        (Moment(2024, 2, 29, 12, 0, 0, 1, UTC), NOON),
        (Moment(2024, 2, 29, 12, 0, 0, 1), NOON),
    ],
)
def test_what_stands_for_something_plain_becomes_that(value: Any, plain: Any) -> None:
    assert same(normalise(value), plain)
    assert same(normalise({"x": [value]}), {"x": [plain]})


NUMPY: list[tuple[Any, Any]] = [
    *((np.dtype(code).type(1), 1) for code in "bBhHiIlLqQ"),
    *((np.dtype(code).type(0.5), 0.5) for code in "efd"),
    (np.float32(0.1), 0.10000000149011612),
    (np.float64("nan"), math.nan),
    (np.bool_(1), True),
    (np.str_("a\0"), "a\0"),
    (np.bytes_(b"a\0"), b"a\0"),
    (np.datetime64("2024-02-29T12:00:00.000001"), NOON),
    (np.datetime64("2024-02-29T12:00:00.000001999"), NOON),
    (np.datetime64("2024-02-29"), NOON.replace(hour=0, microsecond=0)),
    (np.datetime64("NaT", "D"), None),
    (np.datetime64("NaT", "ns"), None),
    (np.array([[1, 2], [3, 4]], "u1"), [[1, 2], [3, 4]]),
    (np.array([1.5], ">f4"), [1.5]),
    (np.array([True]), [True]),
    (np.array(["a", "bc"]), ["a", "bc"]),
    (np.array([b"a"]), [b"a"]),
    (np.array(["2024-02-29", "NaT"], "M8[ns]"), [NOON.replace(hour=0, microsecond=0), None]),
    (np.array("2024-02-29T12:00:00.000001", "M8[us]"), NOON),
    (np.array([1, "a", None, [0.5]], dtype=object), [1, "a", None, [0.5]]),
    (np.array(7), 7),
    (np.array([]), []),
    (np.zeros((2, 0)), [[], []]),
    (np.array([0.0, 1.0])[::-1], [1.0, 0.0]),
    (np.ma.masked_array([1, 2], mask=[False, True]), [1, None]),
]


@pytest.mark.parametrize(("value", "plain"), NUMPY, ids=repr)
def test_numpy_becomes_numbers_and_lists(value: Any, plain: Any) -> None:
    assert same(normalise(value), plain)
    assert same(normalise({"x": [value]}), {"x": [plain]})


def test_a_numpy_str_may_be_a_key() -> None:
    assert same(normalise({np.str_("a"): 1}), {"a": 1})


def endless_array() -> Any:
    array = np.array(None, dtype=object)
    array[()] = array
    return array


REFUSED: list[tuple[Any, str, str]] = [
    ((1, 2), "tuple", "use a list"),
    (Point(1, 2), "Point", "use a list"),
    (range(3), "range", "use a list"),
    ({1}, "set", "use a sorted list"),
    (frozenset({1}), "frozenset", "use a sorted list"),
    (1j, "complex", "use a list of two floats"),
    (Decimal(1), "decimal.Decimal", "use a float"),
    (Fraction(1), "fractions.Fraction", "use a float"),
    (2**63, "int of 64 bits", "use a float or a str"),
    (-(2**63) - 1, "int of 64 bits", "use a float or a str"),
    (PurePosixPath("a\udcff"), r"lone surrogate", "use bytes"),
    ("a\ud800", r"lone surrogate '\ud800' at index 1", "use bytes"),
    (memoryview(b"a"), "memoryview", "use bytes"),
    (timedelta(1), "datetime.timedelta", "use its total_seconds()"),
    (Plain.THING, "Plain", "use its value"),
    (object(), "object", "use dict, list, str"),
    (int, "type", "use dict, list, str"),
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "outside the years", "use None"),
    (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "outside the years", "use None"),
    (np.complex64(1), "numpy.complex64", "use a list of two floats"),
    (np.complex128(1), "numpy.complex128", "use a list of two floats"),
    (np.longdouble(1), "numpy.longdouble", "use numpy.float64"),
    (np.timedelta64(1, "ns"), "timedelta64", "use seconds"),
    (np.zeros(1, [("a", "i4")]), "numpy.ndarray of dtype", "use a dict"),
    (np.datetime64(10**6, "Y"), "outside the years", "use None"),
    (np.random.default_rng(), "Generator", "use dict, list, str"),
    (np.dtype("f8"), "Float64DType", "use dict, list, str"),
]


@pytest.mark.parametrize(
    ("value", "found", "instead"), REFUSED, ids=lambda value: named(value)[:40]
)
def test_what_cannot_be_stored_is_refused_at_its_place(
    value: Any, found: str, instead: str
) -> None:
    error = refusal(value)
    assert error.path == ""
    assert found in str(error)
    assert instead in str(error)
    error = refusal({"params": [{}, {}, {"name": "x", "value": value}]})
    assert error.path == "params[2].value"
    assert str(error).startswith("params[2].value: ")
    assert found in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"metadata": {"a.b": {"x": ()}}}, "metadata['a.b'].x"),
        ({"a.b": ()}, "['a.b']"),
        ({"/lr": ()}, "/lr"),
        ({"": ()}, "['']"),
        ({"a[0]": ()}, "['a[0]']"),
        ({"it's": ()}, '["it\'s"]'),
        ({"\n": ()}, r"['\n']"),
        ([0, [()]], "[1][0]"),
        ({"metadata": {1: "x"}}, "metadata[1]"),
        ({"metadata": {None: "x"}}, "metadata[None]"),
        ({"metadata": {("a", "b"): "x"}}, "metadata[('a', 'b')]"),
        ({"metadata": {b"a": "x"}}, "metadata[b'a']"),
        ({"metadata": {"\ud800": "x"}}, r"metadata['\ud800']"),
        ({"x": UserDict(y=())}, "x.y"),
        ({"x": Row([1, ()])}, "x[1]"),
        ({"x": np.array([1, ()], dtype=object)}, "x[1]"),
        ({"x": np.array([[1, 2**63]], "u8")}, "x[0][1]"),
        ({"x": np.array([[0, 10**6]], "M8[Y]")}, "x[0][1]"),
    ],
)
def test_paths(value: Any, path: str) -> None:
    assert refusal(value).path == path


def test_the_path_starts_where_the_caller_says() -> None:
    assert refusal({"a": ()}, "changes['x.y']").path == "changes['x.y'].a"
    assert refusal((), "results").path == "results"


@pytest.mark.parametrize("key", [1, None, (), b"a", 0.5, True])
def test_a_key_that_is_no_str_is_refused(key: Any) -> None:
    assert "use a str" in str(refusal({"a": {key: 1}}))


def test_depth_is_limited() -> None:
    deepest = nested(MAX_DEPTH)
    assert same(normalise(deepest), deepest)
    error = refusal(nested(MAX_DEPTH + 1))
    assert "nested deeper than 100 levels" in str(error)


@pytest.mark.parametrize("make", [dict, list, UserDict, endless_array])
def test_a_value_in_itself_is_refused(make: Callable[[], Any]) -> None:
    value = make()
    if isinstance(value, list):
        value.append(value)
    elif not isinstance(value, np.ndarray):
        value["a" * 20] = value
    error = refusal(value)
    assert "in itself" in str(error)
    assert len(str(error)) < 300


def test_a_moment_that_is_none() -> None:
    class Never(datetime):  # as pandas.NaT is
        def utcoffset(self) -> None:
            return None

        def replace(self, *args: Any, **kwargs: Any) -> Any:
            return self

        @property
        def year(self) -> Any:
            return math.nan

    assert "is not a moment; use None" in str(refusal(Never(2024, 1, 1)))


def test_to_utc() -> None:
    assert to_utc(NOON) is NOON
    assert same(to_utc(datetime(2024, 2, 29, 12, 0, 0, 1)), NOON)  # noqa: DTZ001
    with pytest.raises(EncodingError, match="outside the years"):
        to_utc(datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))


def test_join_path() -> None:
    assert join_path(join_path(join_path("", "params"), 2), "value") == "params[2].value"


def test_numpy_is_not_imported() -> None:
    code = (
        "import sys, aiostorage._core.normalise as module, aiostorage._core.state as state;"
        "module.normalise({'a': [1, 0.5]}); state.MsgpackCodec().encode({'a': (1, 2**70)});"
        "sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_nul_in_a_key_is_refused_each_time() -> None:
    for _ in range(2):
        assert "contains a NUL" in str(refusal({"a": {"b\0c": 1}}))


def test_any_number_of_keys_is_checked() -> None:
    for number in range(5000):
        key = f"{number}é"
        assert normalise({key: 1}) == {key: 1}
    long = "k" * 1000
    assert normalise({long: 1}) == {long: 1}
    assert "lone surrogate" in str(refusal({"\ud800": 1}))
