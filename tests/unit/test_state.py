from __future__ import annotations

import contextlib
import io
import math
import pickle
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostorage._core.state import MsgpackCodec, PickleCodec, StateCodec, state_codec
from aiostorage.errors import ConfigurationError, EncodingError
from tests.unit.subclasses import Blob, Colour, Number, Plain, Point, Ratio, Row, named

CODEC = MsgpackCodec()

offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=8)
    | st.datetimes()
    | st.datetimes(timezones=offsets)
    | st.timedeltas()
    | st.floats().map(np.float64)
    | st.integers(0, 255).map(np.uint8)
)
keys = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
states = st.recursive(
    keys,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.lists(st.floats(), max_size=4).map(np.array)
    ),
    max_leaves=20,
)


def shown(value: Any) -> Any:
    """Show everything there is to a value, so that all that equals shows the same."""
    kind = type(value)
    if isinstance(value, (np.ndarray, np.generic)):
        # Not the bytes of one with fields, for there may be anything between those.
        content = value.tolist() if value.dtype.fields else value.tobytes()
        return kind, repr(value.dtype), value.shape, repr(content)
    if isinstance(value, dict):
        return kind, [(shown(key), shown(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(shown(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return kind, [shown(item) for item in value]
    if isinstance(value, datetime):
        offset = value.utcoffset()
        fold = value.fold if offset is None else 0
        return kind, value.replace(tzinfo=None, fold=0), offset, fold
    return kind, repr(value)


def same(left: Any, right: Any) -> bool:
    return bool(shown(left) == shown(right))


def kept(state: Any) -> Any:
    data = CODEC.encode(state)
    assert type(data) is bytes
    again = CODEC.decode(data)
    assert same(again, state), (again, state)
    return again


def refusal(state: Any) -> EncodingError:
    with pytest.raises(EncodingError) as caught:
        CODEC.encode(state)
    return caught.value


def nested(levels: int, *, kind: type = list, leaf: Any = None) -> Any:
    value = kind([leaf])
    for _ in range(levels - 1):
        value = {"a": value} if kind is dict else kind([value])
    return value


# ------------------------------------------------------------------------------------ plain


@given(states)
def test_states_come_back_as_they_were(state: Any) -> None:
    kept(state)


@pytest.mark.parametrize(
    "state",
    [
        *(None, True, 0, -0.0, 1.0, math.nan, -math.inf, "", b"", [], {}, (), set(), frozenset()),
        *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**1000, -(2**1000)),
        *(127, 128, 2**71, 2**72 - 1, -(2**71)),
        *(1j, complex(-0.0, math.nan), complex(math.inf, -math.inf)),
        *([()], ([],), [[]], ((),), ({1: (2,)},), [{(1, (2, frozenset({3}))): None}]),
        {None: 1, True: 2, 2: 3, 0.5: 4, b"a": 5, "a": 6, 2**70: 7},
        {1j: 1, datetime(2024, 1, 1, tzinfo=UTC): 2, timedelta(1): 3, np.int64(4): 4},
        "lone \ud800 surrogate",
        {"\udfff": "žluť 🐎\0"},
        *(timedelta.min, timedelta.max, timedelta.resolution, -timedelta.resolution),
        *(datetime.min, datetime.max),  # noqa: DTZ901
        datetime(2024, 10, 27, 2, 30, fold=1),  # noqa: DTZ001
        datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(seconds=-1, microseconds=1))),
        random.Random(1).getstate(),
        {"trials": [{"params": {"/x": 0.1}, "results": None}] * 1000},
        [b"x" * 100_000, "y" * 100_000],
    ],
    ids=lambda state: named(state)[:40],
)
def test_each_of_these_comes_back(state: Any) -> None:
    kept(state)
    kept({"nested": [state, (state,)]})


def test_an_aware_datetime_keeps_its_offset_but_not_the_name_of_its_zone() -> None:
    for fold, hours in ((0, 2), (1, 1)):
        value = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Prague"), fold=fold)
        again = CODEC.decode(CODEC.encode(value))
        assert again.tzinfo == timezone(timedelta(hours=hours))
        assert again.timestamp() == value.timestamp()
    assert kept(datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is UTC


@pytest.mark.parametrize(
    ("state", "plain"),
    [
        (OrderedDict(b=1, a=(2,)), {"b": 1, "a": (2,)}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Row([Row([(1,)])]), [[(1,)]]),
        (Colour.RED, "red"),
        ({Colour.RED: 1}, {"red": 1}),
        (Number.ONE, 1),
        (Number.HUGE, 2**70),
        (Ratio(0.5), 0.5),
        (Blob(b"a"), b"a"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
    ],
)
def test_subclasses_become_plain(state: Any, plain: Any) -> None:
    assert same(CODEC.decode(CODEC.encode([state])), [plain])


# ------------------------------------------------------------------------------------ numpy

STRUCTURED = [
    np.dtype([("a", "i1"), ("b", ">f8", (2, 3)), ("c", [("x", "U3"), ("y", "M8[ns]")])]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["u2", "u1"], "offsets": [4, 0], "itemsize": 16}),
]
DTYPES = [
    *"?bBhHiIlLefdFD",
    *(">i2", ">u8", "<f4", ">f8", ">c16", "S3", "U3", ">U3", "V5"),
    *("M8[D]", "M8[25s]", ">M8[us]", "m8[ns]", ">m8[h]"),
    *STRUCTURED,
]


SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (1,) * 12]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_come_back(dtype: Any) -> None:
    for shape in SHAPES:
        array = np.zeros(shape, dtype)
        data = bytearray(array.nbytes)
        data[:: array.itemsize] = b"\1" * len(data[:: array.itemsize])  # true for a bool, too
        if array.dtype.kind not in "UV":
            array = np.ndarray(shape, dtype, bytes(data))
        again = kept(array)
        assert again.flags.owndata, shape
        assert again.flags.writeable, shape
        kept((array, {"x": [array]}))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scalars_come_back(dtype: Any) -> None:
    scalar = np.zeros(1, dtype)[0]
    assert type(kept(scalar)) is type(scalar)
    kept([scalar, (scalar,)])


@pytest.mark.parametrize(
    "value",
    [
        *(np.float64("nan"), np.float32(0.1), np.float16(-0.0), np.uint64(2**64 - 1)),
        *(np.str_(""), np.str_("a\0"), np.str_("ž"), np.bytes_(b""), np.bytes_(b"a\0")),
        *(np.datetime64("NaT", "s"), np.datetime64("2024", "Y"), np.timedelta64(5, "D")),
        *(np.bool_(1), np.complex64(1 + 2j), np.void(b"abc")),
        np.array(["", "žluť"]),
        np.array([(1, 2.5)], dtype=[("ž", "i4"), ("b", "f8")]),
        np.array([np.nan, np.inf, -0.0]),
        np.random.RandomState(1).get_state(),
        np.random.default_rng(1).bit_generator.state,
        np.random.Generator(np.random.MT19937(1)).bit_generator.state,
    ],
    ids=lambda value: named(value)[:40],
)
def test_values_of_numpy_come_back(value: Any) -> None:
    kept(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4).T,
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(12)[::-2],
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=["transposed", "fortran", "strided", "broadcast"],
)
def test_arrays_come_back_in_c_order(array: Any) -> None:
    assert kept(array).flags.c_contiguous


titled = np.dtype({"names": ["a"], "formats": ["i4"], "titles": ["A"]})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([None]), "of Python objects cannot be stored; use a list"),
        (np.zeros(1, [("a", "O")]), "of Python objects cannot be stored"),
        (np.zeros(1, np.longdouble), "cannot be stored; use astype()"),
        (np.longdouble(1), "cannot be stored; use astype()"),
        (np.clongdouble(1), "cannot be stored; use astype()"),
        (np.zeros(1, [("a", np.longdouble)]), "cannot be stored; use astype()"),
        (np.zeros(1, titled), "cannot be stored; use astype()"),
        (np.zeros(1, "V0"), "cannot be stored; use astype()"),
        (np.zeros(1, []), "cannot be stored; use astype()"),
        (
            np.rec.array([(1,)], dtype=[("a", "i4")]),
            "recarray cannot be stored; use numpy.asarray()",
        ),
        (np.ma.masked_array([1], [True]), "MaskedArray cannot be stored; use numpy.asarray()"),
        (np.rec.array([(1,)], dtype=[("a", "i4")])[0], "cannot be stored; use astype()"),
        (np.random.default_rng(1), "Generator cannot be stored; reduce it to plain data"),
        (np.dtype("f8"), "cannot be stored; reduce it"),
    ],
    ids=lambda value: named(value)[:40],
)
def test_other_arrays_are_refused(value: Any, found: str) -> None:
    error = refusal({"rng": (1, value)})
    assert error.path == "rng[1]"
    assert found in str(error)


def test_arrays_need_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [np.arange(3), np.float64(1), np.str_("a"), np.bytes_(b"a")]
    data = [CODEC.encode(state) for state in states]
    monkeypatch.setitem(sys.modules, "numpy", None)
    for each in data:
        with pytest.raises(EncodingError, match="install numpy"):
            CODEC.decode(each)
    assert CODEC.decode(CODEC.encode({"a": (1, 2)})) == {"a": (1, 2)}


# ----------------------------------------------------------------------------------- errors


class Thing:
    def __repr__(self) -> str:
        return "Thing"


@pytest.mark.parametrize(
    ("state", "path", "found"),
    [
        (Thing(), "", "Thing cannot be stored; reduce it to plain data"),
        ({"a": [1, (2, Thing())]}, "a[1][1]", 'state_codec="pickle"'),
        ({"a.b": {1: {"x": Thing()}}}, "['a.b'][1].x", "Thing"),
        ({"a": {(1, Thing()): 1}}, "a[(1, Thing)][1]", "Thing"),
        ({"a": {Thing(): 1}}, "a[Thing]", "Thing"),
        ({"a": {1, Thing()}}, "a", "Thing"),
        ({"a": frozenset({Thing()})}, "a", "Thing"),
        ({"a": OrderedDict(b=Row([Thing()]))}, "a.b[0]", "Thing"),
        ([1, Thing(), Thing()], "[1]", "Thing"),
        ({"ok": {}, "none": [], "x": Plain.THING}, "x", "Plain"),
        ([Point(1, 2)], "[0]", "Point"),
        ([date(2024, 1, 1)], "[0]", "datetime.date"),
        ([Decimal(1)], "[0]", "decimal.Decimal"),
        ([lambda: 1], "[0]", "function"),
        ([iter([])], "[0]", "list_iterator"),
        ([random.Random(1)], "[0]", "random.Random"),
    ],
    ids=lambda value: named(value)[:40],
)
def test_what_cannot_be_stored_is_refused_at_its_place(state: Any, path: str, found: str) -> None:
    error = refusal(state)
    assert error.path == path
    assert str(error).startswith(f"{path}: " if path else "test_state.Thing cannot")
    assert found in str(error)


@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("empty", [False, True])
def test_whatever_is_written_can_be_read(kind: Any, *, empty: bool) -> None:
    deepest = 0
    for levels in (1, 100, 500, 510, 511, 512, *range(1015, 1030), 2000):
        state = nested(levels, kind=list if kind is dict else kind, leaf=[] if empty else 1)
        if kind is dict:
            state = {"a": state}
        try:
            data = CODEC.encode(state)
        except EncodingError:
            continue
        deepest = levels
        CODEC.decode(data)
    assert deepest >= 500


def test_too_deep_is_refused() -> None:
    error = refusal({"x": nested(100_000)})
    assert "x[0][0]" in str(error)
    assert "nested deeper than 1000 levels" in str(error)
    assert len(str(error)) < 300


def test_deep_states_do_not_overflow_small_stacks() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            state: Any = nested(400, kind=tuple, leaf=np.zeros(3))
            CODEC.decode(CODEC.encode(state))
            refusal(nested(100_000, kind=tuple))
        except BaseException as error:  # noqa: BLE001 -- for the other thread
            failures.append(error)

    before = threading.stack_size(2**20)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert not failures


def test_a_state_in_itself_is_refused() -> None:
    state: dict[str, Any] = {"a": [1, {}]}
    state["a"][1]["b"] = state["a"]
    error = refusal(state)
    assert error.path == "a[1].b"
    assert "list contains itself" in str(error)


# --------------------------------------------------------------------------------- envelope


def test_small_states_are_not_compressed() -> None:
    assert CODEC.encode(1) == b"\x01\x01"
    assert CODEC.encode("x" * 4000)[0] == 1


@pytest.mark.parametrize("size", [5000, 300_000, 5_000_000])
def test_large_states_are_compressed_when_it_helps(size: int) -> None:
    state = {"a": "x" * size}
    data = CODEC.encode(state)
    assert data[0] == 2
    assert len(data) < size / 50
    assert CODEC.decode(data) == state
    noise = random.Random(1).randbytes(size)
    assert CODEC.encode(noise)[0] == 1
    assert CODEC.decode(CODEC.encode(noise)) == noise


def zipped(packed: bytes, length: int | None = None) -> bytes:
    return (
        b"\x02"
        + (len(packed) if length is None else length).to_bytes(8, "big")
        + zlib.compress(packed)
    )


PACKED = msgpack.packb(["x" * 100] * 100)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x00", b"\x03\x01", b"\xff", b"{}", b"\x01", b"\x02", b"\x02\0\0\0", b"\x01\xc1"),
        *(b"\x01\x01\x01", b"\x01\x91", b"\x01\xa1\xff" + b"\x01", b"\x01\xdd\xff\xff\xff\xff"),
        *(
            b"\x01\xdf\xff\xff\xff\xff",
            b"\x01\xc6\xff\xff\xff\xff",
            b"\x01\xc9\xff\xff\xff\xff\x01",
        ),
        *(zipped(PACKED, 0), zipped(PACKED, 2**63), zipped(PACKED, 2**32)),
        *(zipped(PACKED, len(PACKED) - 1), zipped(PACKED, len(PACKED) + 1)),
        *(zipped(PACKED)[:-1], zipped(PACKED) + b"x", zipped(PACKED[:-1]), zipped(b"")),
        zipped(bytes(50_000_000), 1000),
        b"\x02" + (100).to_bytes(8, "big") + b"nonsense",
    ],
    ids=lambda data: named(data)[:30],
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        CODEC.decode(data)


def bomb(size: int) -> bytes:
    """Return an encoded state of that many bytes that is very small."""
    return zipped(b"\xdd" + (size - 5).to_bytes(4, "big") + b"\xc0" * (size - 5))


def test_a_small_state_does_not_fill_the_memory() -> None:
    data = bomb(40_000_000)
    assert len(data) < 50_000
    tracemalloc.start()
    try:
        for codec in (CODEC, PickleCodec()):
            with pytest.raises(EncodingError, match=r"40,000,000 when .* max_inflated_state"):
                codec.decode(data)
            with pytest.raises(EncodingError, match="another length than it says"):
                codec.decode(data[:1] + (1000).to_bytes(8, "big") + data[9:])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_bound_can_be_moved() -> None:
    data = bomb(10_000)
    for kind in (MsgpackCodec, PickleCodec):
        assert kind(max_inflated=10_000).decode(data) == [None] * 9995
        with pytest.raises(EncodingError, match="max_inflated_state"):
            kind(max_inflated=9_999).decode(data)


def test_nothing_is_compressed_that_would_not_be_read() -> None:
    codec = MsgpackCodec(max_inflated=10_000)
    zeros, words = bytes(20_000), [str(n) for n in range(20_000)]
    assert codec.encode(zeros)[0] == 1
    assert codec.encode(words)[0] == 2  # larger than the bound, but not much smaller in the store
    assert codec.encode(zeros[:9000])[0] == 2
    for state in (zeros, words, zeros[:9000]):
        assert codec.decode(codec.encode(state)) == state


def ext(code: int, data: bytes = b"") -> msgpack.ExtType:
    return msgpack.ExtType(code, data)


def array(*items: Any, code: int = 4) -> list[Any]:
    return [ext(code), *items]


FIELDS = {"names": ["a"], "formats": ["<f8"], "offsets": [0], "itemsize": 8, "aligned": False}
WRONG: list[dict[str, Any]] = [
    *({"names": [1]}, {"names": ["a", "a"]}, {"names": 1}, {"formats": ["|O"]}, {"formats": []}),
    *({"offsets": [-1]}, {"offsets": [4]}, {"offsets": [2**40]}, {"offsets": None}),
    *({"itemsize": 2**40}, {"itemsize": "x"}, {"itemsize": 4}, {"itemsize": None}),
    *({"titles": ["b"]}, {"aligned": None, "names": [b"a"]}),
]


@pytest.mark.parametrize(
    "content",
    [
        # a mark where none belongs, or that says more than it may
        *(ext(1), [1, ext(1)], {"a": ext(2)}, {ext(3): 1}, [ext(1), ext(1)], [ext(1, b"x")]),
        *([ext(2), []], [ext(3), {}], {"a": [ext(2), [ext(2)]]}, [ext(99)], ext(99)),
        *(
            ext(17, b"1234"),
            ext(18, b""),
            ext(18, bytes(12)),
            ext(18, b"\x07\xe8\x01\x01" + bytes(9)),
        ),
        *(ext(18, b"\x07\xe8\x01\x01" + bytes(7) + b"\x02"), ext(19, b"1"), ext(19, b"\x7f" * 12)),
        ext(18, b"\x07\xe8\x01\x01" + bytes(8) + b"\0\0\0\x01" * 3),
        # arrays that are none
        *(array(), array("<f8"), array("<f8", [1]), array("<f8", [1], b"1234567")),
        *(array("<f8", [1], "12345678"), array("<f8", [-1, -1], bytes(8)), array("<f8", 1, b"")),
        *(array("<f8", [1.0], bytes(8)), array("<f8", [True], bytes(8)), array("<f8", None, b"")),
        *(array("<f8", ["1"], bytes(8)), array("<f8", [1] * 100, bytes(8)), array("<f8", [1], 8)),
        *(array("<f8", [0, 2**63], b""), array("<f8", [2**62, 0, 2**62], b"")),
        *(
            array("|V0", [2**60], b""),
            array("|S0", [3], b""),
            array({}, [1], b""),
            array([], [], b""),
        ),
        # dtypes that are none of ours
        *(array(text, [1], bytes(8)) for text in ("|O", "O", "object", "f8", "<f8,<f8", "(2,)f8")),
        *(array(text, [1], bytes(16)) for text in ("<f16", "<g", "|O8", "<V99999999999", "<i3")),
        *(
            array(text, [1], bytes(8))
            for text in ("<M8", "<M8[0s]", "<M8[s/2]", "<M8[x]", "<f8\n", "", "<")
        ),
        *(
            array(other, [1], bytes(8))
            for other in (None, 1, b"<f8", ["<f8"], ["<f8", 2], ["|O", []])
        ),
        *(array(["<f8", [2**40, 2**40]], [1], bytes(8)), array(["<f8", [-1]], [1], bytes(8))),
        *(array({**FIELDS, **wrong}, [1], bytes(8)) for wrong in WRONG),
        *(array("U", b"a", code=5), array("S", "a", code=5), array("U", code=5)),
        *(array("<f8", b"1", code=5), array("|O", bytes(8), code=5), array(code=5)),
    ],
    ids=lambda content: named(content)[:150],
)
def test_damaged_content_is_refused(content: Any) -> None:
    with pytest.raises(EncodingError):
        CODEC.decode(b"\x01" + msgpack.packb(content))


SAMPLE = {
    "rng": random.Random(1).getstate()[1][:5],
    "sets": [{1, 2}, frozenset({"a"}), ()],
    (1, 2): [1j, 2**70, datetime(2024, 1, 1, tzinfo=UTC), timedelta(1), None, math.nan],
    "arrays": [np.arange(6.0).reshape(2, 3), np.zeros(2, STRUCTURED[0]), np.array(["M8", "a"])],
    "scalars": [np.float32(1), np.str_("x"), np.bytes_(b"x"), np.datetime64("2024", "Y")],
}


def test_every_truncation_is_refused() -> None:
    for data in (CODEC.encode(SAMPLE), CODEC.encode([SAMPLE] * 20)):
        for length in range(len(data)):
            with pytest.raises(EncodingError):
                CODEC.decode(data[:length])


@given(st.binary(max_size=64), st.sampled_from([b"", b"\x01", b"\x02", b"\x02\0\0\0\0\0\0\0\x40"]))
def test_random_bytes_give_one_error(data: bytes, head: bytes) -> None:
    with contextlib.suppress(EncodingError):
        CODEC.decode(head + data)


@given(
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([1, 20]),
)
def test_flipped_bytes_give_one_error(flips: list[tuple[int, int]], times: int) -> None:
    data = bytearray(CODEC.encode([SAMPLE] * times))
    for place, byte in flips:
        data[1 + place % (len(data) - 1)] = byte
    with contextlib.suppress(EncodingError):
        CODEC.decode(bytes(data))


def test_flipped_bytes_everywhere_give_one_error() -> None:
    good = CODEC.encode(SAMPLE)
    for place in range(1, len(good)):
        for byte in (0, 1, 0x7F, 0x80, 0x91, 0xC1, 0xC7, 0xD4, 0xDD, 0xFF, good[place] ^ 1):
            with contextlib.suppress(EncodingError):
                CODEC.decode(good[:place] + bytes([byte]) + good[place + 1 :])


# ----------------------------------------------------------------------------------- pickle


def test_pickle_is_exactly_pickle() -> None:
    codec = PickleCodec()
    assert codec.encode(SAMPLE) == pickle.dumps(SAMPLE)
    assert same(codec.decode(pickle.dumps(SAMPLE)), SAMPLE)
    assert codec.decode(codec.encode(Point(1, 2))) == Point(1, 2)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert codec.decode(pickle.dumps({"a": (1, 2)}, protocol)) == {"a": (1, 2)}


@pytest.mark.parametrize("state", [SAMPLE, [SAMPLE] * 20])
def test_pickle_reads_msgpack(state: Any) -> None:
    assert same(PickleCodec().decode(CODEC.encode(state)), state)


@pytest.mark.parametrize("data", [pickle.dumps(SAMPLE), b"\x80", b"\x80\x02nonsense"])
def test_msgpack_does_not_read_pickle(data: bytes) -> None:
    with pytest.raises(EncodingError, match="written with pickle") as caught:
        CODEC.decode(data)
    assert 'state_codec="pickle"' in str(caught.value)
    assert "executes code" in str(caught.value)
    assert "trust" in str(caught.value)


def test_what_cannot_be_pickled_is_refused() -> None:
    for state in (lambda: 1, io.BytesIO().getbuffer(), nested(100_000)):
        with pytest.raises(EncodingError, match="cannot be pickled"):
            PickleCodec().encode(state)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"x", pickle.dumps(SAMPLE)[:-1], b"cno_such_module\nx\n.", b"\x01\xc1", b"\x02"],
)
def test_what_cannot_be_unpickled_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        PickleCodec().decode(data)


# -------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(("name", "kind"), [("msgpack", MsgpackCodec), ("pickle", PickleCodec)])
def test_codecs_have_names(name: str, kind: type) -> None:
    codec: StateCodec = state_codec(name)
    assert type(codec) is kind
    assert codec.name == name


def test_an_unknown_codec_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match="'json'; known are: msgpack, pickle"):
        state_codec("json")


def test_the_python_fallback_of_msgpack_will_do() -> None:
    code = (
        "import msgpack, pathlib, sys; from aiostorage._core.state import MsgpackCodec as Codec;"
        "assert msgpack.Packer.__module__ == 'msgpack.fallback';"
        "data = sys.stdin.buffer.read(); state = Codec().decode(data);"
        "assert Codec().encode(state) == data; assert Codec().encode('\\ud800')"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        input=CODEC.encode({"a": (1, [2**70, np.arange(3)]), (1, 2): None}),
        env={"MSGPACK_PUREPYTHON": "1", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )


def test_floats_are_not_narrowed() -> None:
    assert struct.pack(">d", 0.1) in CODEC.encode(0.1)


def test_what_msgpack_itself_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def packb(*_: Any, **__: Any) -> bytes:
        raise ValueError("bytes is too large")

    monkeypatch.setattr(msgpack, "packb", packb)
    assert str(refusal({"a": 1})) == "the state cannot be stored: bytes is too large"
