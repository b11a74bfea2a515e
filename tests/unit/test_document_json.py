from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiostorage._core.document_json import dump_document, load_document
from aiostorage._core.normalise import MAX_DEPTH
from aiostorage.errors import EncodingError
from tests.unit.plain_documents import NOON, documents, nested, same


def no_constants(name: str) -> NoReturn:
    raise AssertionError(name)


@given(documents)
@example({})
@example({"$date": "2024-01-01"})
@example({"a": {"$date": NOON}})
@example({"a": {"$escape": {"$escape": {"$float": math.nan}}}})
@example({"a": {"$escape": 1}, "b": NOON})
@example({"a": {"$date": "2024-01-01", "x": NOON}, "b": NOON})
@example({"a": {"$gt": 1}, "b": math.inf})
@example({"a": -0.0, "b": 1.0, "c": 1, "d": 5e-324, "e": 1e22, "f": 2**63 - 1, "g": -(2**63)})
@example({"a.b": {"": "\0", "\0": '{"$date":"x"}'}, "x": '"$escape"'})
@example({"a": b"", "b": b"\0\xff", "c": datetime.min.replace(tzinfo=UTC)})
def test_json_text_holds_documents_exactly(document: dict[str, Any]) -> None:
    text = dump_document(document)
    assert same(load_document(text), document)
    assert isinstance(json.loads(text, parse_constant=no_constants), dict)


@given(documents)
def test_sqlite_can_read_the_text(document: dict[str, Any]) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        [[valid, again]] = connection.execute(
            "SELECT json_valid(doc), json(doc) FROM (SELECT ? AS doc)", [dump_document(document)]
        )
    finally:
        connection.close()
    assert valid == 1
    assert same(load_document(again), document)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NOON, '{"$date":"2024-02-29T12:00:00.000001+00:00"}'),
        (NOON.replace(microsecond=0), '{"$date":"2024-02-29T12:00:00.000000+00:00"}'),
        (b"\0\1\2", '{"$bytes":"AAEC"}'),
        (math.nan, '{"$float":"nan"}'),
        (-math.inf, '{"$float":"-inf"}'),
        ({"$date": 1}, '{"$escape":{"$date":1}}'),
        ({"$escape": {}}, '{"$escape":{"$escape":{}}}'),
        ({"$date": 1, "x": 1}, '{"$date":1,"x":1}'),
        ({"$gt": 1}, '{"$gt":1}'),
        ([1, 1.0, -0.0, 1e22], "[1,1.0,-0.0,1e+22]"),
        ("žluť 🐎\0", '"žluť 🐎\\u0000"'),
        ([None, True, {}], "[null,true,{}]"),
    ],
)
def test_the_text_is_what_is_documented(value: Any, text: str) -> None:
    assert dump_document({"x": value}) == f'{{"x":{text}}}'
    assert same(load_document(f'{{"x":{text}}}'), {"x": value})


def test_a_person_may_edit_the_text() -> None:
    text = '{ "at" : { "$date" : "2024-02-29T13:00:00.000001+01:00" }, "$escape": 1 }'
    assert same(load_document(text), {"at": NOON, "$escape": 1})
    text = '{ "x" : { "$escape" : { "$date" : 1 } }, "at": {"$date": "2024-02-29 12:00:00.000001"}}'
    assert same(load_document(text), {"x": {"$date": 1}, "at": NOON})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "1", "null", '"a"', "{} {}", '{"a":NaN}', '{"a":-Infinity}', "nonsense"),
        *('{"$date":1}', '{"a":{"$date":"yesterday"}}', '{"a":{"$date":null}}'),
        '{"a":{"$date":"0001-01-01T00:00:00+01:00"}}',
        *('{"a":{"$bytes":"A"}}', '{"a":{"$bytes":"é"}}', '{"a":{"$bytes":[]}}'),
        *('{"a":{"$float":"1"}}', '{"a":{"$float":[]}}', '{"a":{"$escape":[]}}'),
        '{"a":{"$escape":{"b":{"$float":0}}}}',
        *('{"a":' + "[" * 100_000, '{"a":' + "1" * 5000 + "}"),
    ],
    ids=lambda text: text[:40],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        load_document(text)


numbers = st.one_of(
    st.integers(),
    st.integers(-3, 3).flatmap(
        lambda near: st.sampled_from([2**53, 2**63, 2**64]).map(near.__add__)
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: math.ldexp(x, -500)),
)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), numbers, st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text().map("k{}".format), inner),
    ),
    st.booleans(),
)
@example(2**64, False)
@example(-(2**63) - 1, False)
@example(10**400, False)
@example("\ud800", True)
@example([-0.0, 5e-324, 1.7976931348623157e308, 1e16, 123456789012345680.0], False)
def test_text_is_read_as_by_the_standard_library(value: Any, ensure_ascii: bool) -> None:
    text = json.dumps({"x": value}, ensure_ascii=ensure_ascii)
    assert same(load_document(text), json.loads(text))


@pytest.mark.parametrize(
    "number", ["-0", "-0.0", "1E5", "1e400", "-1e400", "2e-324", "0.1e1", "1e-400", "1" * 19 + ".5"]
)
def test_a_number_is_read_as_by_the_standard_library(number: str) -> None:
    text = f'{{"x":{number}}}'
    assert same(load_document(text), json.loads(text))


def test_the_last_of_equal_keys_counts() -> None:
    assert load_document('{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_looks_like_a_null_is_not_one(value: float) -> None:
    for document in (
        {"a": None, "b": value},
        {"a": "null", "b": [value]},
        {"null": value, "b": None, "c": [None, {"d": value}]},
        {"a": [None], "b": value, "c": "x"},
    ):
        assert same(load_document(dump_document(document)), document)


@given(documents, st.data())
def test_damaged_text_gives_one_error(document: dict[str, Any], data: st.DataObject) -> None:
    text = dump_document(document)
    cut = data.draw(st.integers(0, len(text)))
    with contextlib.suppress(EncodingError):
        load_document(text[:cut] + data.draw(st.text(max_size=3)) + text[cut + 1 :])


def test_only_normalised_documents_are_written() -> None:
    with pytest.raises(TypeError, match="object in a document that is not normalised"):
        dump_document({"a": object()})


def test_the_deepest_document_can_be_written() -> None:
    deepest = nested(MAX_DEPTH)
    assert same(load_document(dump_document({"a": deepest})), {"a": deepest})
