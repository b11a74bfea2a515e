"""How the state of an algorithm becomes bytes, and again what it was.

The default, `MsgpackCodec`, never executes code and keeps what Python and numpy make a difference
of: tuples and lists, ints of any size, arrays with their dtype. `PickleCodec` writes what Oríon
writes, and holds anything; but to read a pickle is to run whatever its author put there.

The first byte says what follows::

    0x01    msgpack
    0x02    the length of the msgpack in 8 bytes, big-endian; then the msgpack as zlib stream
    0x80    a pickle: every one since protocol 2 starts so
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgpack

from aiostorage._core.normalise import error_at, join_path, type_name
from aiostorage.errors import ConfigurationError, EncodingError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MsgpackCodec", "PickleCodec", "StateCodec", "state_codec"]

_PLAIN: Final = b"\x01"
_ZLIB: Final = b"\x02"
_PICKLE: Final = b"\x80"

# What bytes that nobody wrote can raise on their way through msgpack, zlib, datetime and numpy.
_DAMAGE: Final = (
    *(ValueError, TypeError, OverflowError, RecursionError, struct.error),
    *(msgpack.UnpackException, zlib.error),
)
_WORTH_SQUEEZING: Final = 4096
_MAX_DEPTH: Final = 1000  # only looked at when packing failed: msgpack has the limit, about here

# Of these extension types, some hold a value; the others mark the list whose first item they are
# as something else. That way containers are packed and unpacked in one go, however they nest.
_TUPLE, _SET, _FROZENSET, _ARRAY, _SCALAR = range(1, 6)
_INT, _COMPLEX, _DATETIME, _TIMEDELTA = range(16, 20)
_MOMENT: Final = ">HBBBBBIB"  # year to microsecond, and fold
_SPAN: Final = ">iii"  # days, seconds and microseconds


class StateCodec(Protocol):
    """Turns the state of an algorithm into bytes and back.

    Attributes
    ----------
    name : str
        What the option ``state_codec`` calls it.
    """

    name: str

    def encode(self, state: Any) -> bytes:
        """Turn a state into bytes.

        Parameters
        ----------
        state : Any
            The state.

        Returns
        -------
        bytes
            What `decode` turns back into an equal state.

        Raises
        ------
        EncodingError
            Something in the state cannot be stored; the error names its place if it can.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """Turn the bytes of `encode` back into the state.

        Parameters
        ----------
        data : bytes
            The bytes.

        Returns
        -------
        Any
            The state.

        Raises
        ------
        EncodingError
            The bytes are damaged, another codec's, or need a library that is not installed.
        """
        ...


def state_codec(name: str) -> StateCodec:
    """Find a codec by its name.

    Parameters
    ----------
    name : str
        ``"msgpack"``, or ``"pickle"`` for stores whose every writer is trusted.

    Returns
    -------
    StateCodec
        The codec.

    Raises
    ------
    ConfigurationError
        There is no codec of that name.
    """
    codecs: tuple[StateCodec, ...] = (MsgpackCodec(), PickleCodec())
    for codec in codecs:
        if codec.name == name:
            return codec
    known = ", ".join(codec.name for codec in codecs)
    raise ConfigurationError(f"unknown state codec {name!r}; known are: {known}")


class MsgpackCodec:
    """Exact for data, and safe to decode from anybody.

    Beside what msgpack has (None, bool, int, float, str, bytes, list, dict with any keys), it
    keeps tuple, set, frozenset, ints of any size, complex, datetime, timedelta, and numpy arrays
    and scalars. An aware datetime keeps its offset from UTC, not the name of its zone; an array
    comes back in C order. Instances of subclasses of dict, list, str, int, float and bytes come
    back as the plain type, and so do bytearray and memoryview as bytes. Every reference comes
    back as a copy of its own.
    """

    name: str = "msgpack"

    def encode(self, state: Any) -> bytes:
        """Turn a state into bytes; an `EncodingError` names the place of what cannot be stored."""
        try:
            return _wrap(_pack(state))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _explain(state, error) from error

    def decode(self, data: bytes) -> Any:
        """Turn the bytes of `encode` back into the state, executing nothing of it."""
        if data[:1] == _PICKLE:
            raise EncodingError(
                'the state was written with pickle; state_codec="pickle" reads it, but unpickling '
                "executes code: do so only if you trust everybody who can write to this store"
            )
        try:
            return _unpack(_unwrap(data))
        except EncodingError:
            raise
        except _DAMAGE as error:
            raise EncodingError(f"the state is damaged: {error or type(error).__name__}") from error


class PickleCodec:
    """Holds whatever pickle holds, byte for byte as Oríon stores it.

    To decode is to execute code, so use it only where everybody who can write to the store is
    trusted. What `MsgpackCodec` wrote is read too.
    """

    name: str = "pickle"

    def encode(self, state: Any) -> bytes:
        """Answer exactly ``pickle.dumps(state)``, or raise `EncodingError`."""
        try:
            return pickle.dumps(state)
        except Exception as error:  # pickling calls methods of the state, which raise anything
            raise EncodingError(f"the state cannot be pickled: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Unpickle a state, or decode what `MsgpackCodec` wrote; else raise `EncodingError`."""
        if data[:1] in {_PLAIN, _ZLIB}:  # no pickle starts with either
            return MsgpackCodec().decode(data)
        try:
            return pickle.loads(data)  # noqa: S301 -- this codec was asked for
        except Exception as error:  # unpickling calls anything
            raise EncodingError(f"the state cannot be unpickled: {error!r}") from error


# --------------------------------------------------------------------------------- envelope


def _wrap(packed: bytes) -> bytes:
    if len(packed) > _WORTH_SQUEEZING and _squeezable(packed):
        squeezed = zlib.compress(packed, 1)
        if _helps(squeezed, packed):
            return b"".join((_ZLIB, len(packed).to_bytes(8, "big"), squeezed))
    return _PLAIN + packed


def _helps(squeezed: bytes, packed: bytes) -> bool:
    return len(squeezed) < 0.9 * len(packed)


def _squeezable(packed: bytes) -> bool:
    """Guess from samples, since arrays of random floats would take long and gain nothing."""
    if len(packed) < 2**18:
        return True
    starts = range(0, len(packed), len(packed) // 8)
    sample = b"".join(packed[start : start + 4096] for start in starts)
    return _helps(zlib.compress(sample, 1), sample)


def _unwrap(data: bytes) -> bytes | memoryview:
    view = memoryview(data)
    if data[:1] == _PLAIN:
        return view[1:]
    if data[:1] != _ZLIB:
        raise EncodingError(f"these bytes are no algorithm state: they start with {data[:8]!r}")
    length = int.from_bytes(view[1:9], "big")
    # Not even zlib makes more than 1032 bytes of one; and a `max_length` of 0 means no limit.
    if not 0 < length <= 1032 * len(data):
        raise EncodingError(f"the state is damaged: it says to be {length} bytes long")
    inflater = zlib.decompressobj()
    packed = inflater.decompress(view[9:], length + 1)
    if len(packed) != length or not inflater.eof or inflater.unused_data:
        raise EncodingError("the state is damaged: it has another length than it says")
    return packed


# ---------------------------------------------------------------------------------- packing


def _pack(state: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(state, default=_lower, strict_types=True)
    except UnicodeEncodeError:  # a lone surrogate; to allow for them always takes half again
        packed = msgpack.packb(
            state, default=_lower, strict_types=True, unicode_errors="surrogatepass"
        )
    # msgpack unpacks a little less deep than it packs, and it will be too late then.
    check = msgpack.Unpacker(max_buffer_size=len(packed))
    check.feed(packed)
    check.skip()
    return packed


def _lower(value: Any) -> Any:
    """Express in msgpack what is none of its types; msgpack calls this."""
    kind = type(value)
    if kind in _LOWER:
        return _LOWER[kind](value)
    if kind.__module__.partition(".")[0] == "numpy":
        return _lower_numpy(value)
    for base, plain in _BASES:
        if isinstance(value, base):
            return plain(value)
    raise EncodingError(f"{type_name(value)} cannot be stored; {_HINT}")


def _mark(code: int) -> Callable[[Any], list[Any]]:
    mark = msgpack.ExtType(code, b"")
    return lambda items: [mark, *items]


def _lower_int(value: int) -> Any:
    value = int.__int__(value)
    if -(2**63) <= value < 2**64:
        return value
    return msgpack.ExtType(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _lower_datetime(value: datetime) -> Any:
    offset = value.utcoffset()
    data = struct.pack(
        _MOMENT,
        *(value.year, value.month, value.day, value.hour, value.minute, value.second),
        value.microsecond,
        # The offset of an aware one says which of two equal hours it is; a naive one has the fold.
        value.fold if offset is None else 0,
    )
    if offset is not None:
        data += struct.pack(_SPAN, offset.days, offset.seconds, offset.microseconds)
    return msgpack.ExtType(_DATETIME, data)


def _lower_timedelta(value: timedelta) -> Any:
    return msgpack.ExtType(
        _TIMEDELTA, struct.pack(_SPAN, value.days, value.seconds, value.microseconds)
    )


_LOWER: Final[dict[type, Callable[[Any], Any]]] = {
    tuple: _mark(_TUPLE),
    set: _mark(_SET),
    frozenset: _mark(_FROZENSET),
    int: _lower_int,  # the ones that msgpack cannot hold
    complex: lambda value: msgpack.ExtType(_COMPLEX, struct.pack(">dd", value.real, value.imag)),
    datetime: _lower_datetime,
    timedelta: _lower_timedelta,
}
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (dict, dict),
    (list, list),
    (str, str.__str__),
    (int, _lower_int),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
)
_HINT: Final = (
    "reduce it to plain data or, if you trust everybody who can write to the store, use "
    'state_codec="pickle"'
)


def _explain(state: Any, error: Exception) -> EncodingError:
    """Find what could not be packed, by a walk that only packing in vain has to pay for."""
    todo: list[tuple[Any, str, int]] = [(state, "", 0)]
    within: list[int] = []  # the containers around what is looked at
    while todo:
        value, path, depth = todo.pop()
        if steps := _steps(value, path):
            del within[depth:]
            if id(value) in within:
                return error_at(path, f"{type_name(value)} contains itself; {_HINT}")
            if depth >= _MAX_DEPTH:
                return error_at(path, f"nested deeper than {_MAX_DEPTH} levels; flatten it")
            within.append(id(value))
            todo += ((*step, depth + 1) for step in reversed(steps))
        elif type(value) not in _MSGPACK_HAS:
            try:
                _lower(value)
            except EncodingError as refused:
                return error_at(path, str(refused))
    return EncodingError(f"the state cannot be stored: {error}")


def _steps(value: Any, path: str) -> list[tuple[Any, str]]:
    """List what is in a container, keys of dicts too, with the path to each."""
    if isinstance(value, dict):
        places = [(key, item, join_path(path, key)) for key, item in value.items()]
        return [(found, place) for key, item, place in places for found in (key, item)]
    if isinstance(value, list) or type(value) is tuple:
        return [(item, join_path(path, index)) for index, item in enumerate(value)]
    if type(value) in {set, frozenset}:
        return [(item, path) for item in value]
    return []


_MSGPACK_HAS: Final = {
    *(type(None), bool, float, str, bytes, bytearray, memoryview, dict, list),
    *(msgpack.ExtType, msgpack.Timestamp),
}

# -------------------------------------------------------------------------------- unpacking


class _Mark:
    """What marks a list as something else, between its unpacking and that of the list."""

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


class _Hooks:
    """What msgpack calls back; counts the marks, for none may be left over."""

    def __init__(self) -> None:
        self.marks = 0

    def ext(self, code: int, data: bytes) -> Any:
        if code in _LIFT:
            return _LIFT[code](data)
        if code in _MARKS and not data:
            self.marks += 1
            return _MARKS[code]
        raise EncodingError(
            f"the state is damaged, or needs a newer aiostorage: it has type {code}"
        )

    def list(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Mark:
            self.marks -= 1
            return items[0].build(items[1:])
        return items


def _unpack(packed: bytes | memoryview) -> Any:
    hooks = _Hooks()
    state = msgpack.unpackb(
        packed,
        ext_hook=hooks.ext,
        list_hook=hooks.list,
        strict_map_key=False,
        unicode_errors="surrogatepass",
    )
    if hooks.marks:
        raise EncodingError("the state is damaged: it has a mark in the wrong place")
    return state


def _lift_datetime(data: bytes) -> datetime:
    # Not by way of ISO 8601 text: what parses that forgets some fractions of offsets.
    size = struct.calcsize(_MOMENT)
    *fields, fold = struct.unpack(_MOMENT, data[:size])
    value = datetime(*fields).replace(fold=fold)  # noqa: DTZ001 -- naive it may be
    if len(data) == size:
        return value
    return value.replace(tzinfo=timezone(_lift_timedelta(data[size:])))


def _lift_timedelta(data: bytes) -> timedelta:
    return timedelta(*struct.unpack(_SPAN, data))


# ------------------------------------------------------------------------------------ numpy

# What a dtype may read, so that numpy never sees anything but a number, a text or a time. Not the
# long double: its bytes mean different numbers on different machines. Nor a time without its unit:
# numpy is about to drop it.
_DTYPE: Final = re.compile(
    r"[<>|]("
    r"b1|[iu][1248]|f[248]|c8|c16|[SUV][0-9]{1,9}"
    r"|[mM]8\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\]"
    r")"
)


_FIELDS: Final = {"names", "formats", "offsets", "itemsize", "aligned"}


def _numpy() -> Any:
    try:
        import numpy  # noqa: ICN001, PLC0415 -- optional, and slow to import
    except ImportError as error:
        raise EncodingError("the state holds numpy arrays or scalars: install numpy") from error
    return numpy


def _lower_numpy(value: Any) -> Any:
    np = _numpy()
    if type(value) is np.ndarray:
        return _mark(_ARRAY)((_describe(value.dtype), list(value.shape), value.tobytes()))
    # Their dtypes drop zeros at the end, and cannot be empty.
    if type(value) is np.str_:
        return _mark(_SCALAR)(("U", str.__str__(value)))
    if type(value) is np.bytes_:
        return _mark(_SCALAR)(("S", bytes.__bytes__(value)))
    if isinstance(value, np.generic):
        return _mark(_SCALAR)((_describe(value.dtype), value.tobytes()))
    hint = "use numpy.asarray() of it" if isinstance(value, np.ndarray) else _HINT
    raise EncodingError(f"{type_name(value)} cannot be stored; {hint}")


def _describe(dtype: np.dtype[Any]) -> Any:
    """Express a dtype as text; with fields, as the dict that numpy reads; a subarray, as a list."""
    np = _numpy()
    if dtype.hasobject:
        raise EncodingError(f"numpy dtype {dtype} of Python objects cannot be stored; use a list")
    if dtype.itemsize and dtype.subdtype is not None:
        return [_describe(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.itemsize and dtype.fields and dtype.names and dtype.type is np.void:
        fields = [dtype.fields[name] for name in dtype.names]
        if not any(field[2:] for field in fields):  # a title
            return {
                "names": list(dtype.names),
                "formats": [_describe(field[0]) for field in fields],
                "offsets": [field[1] for field in fields],
                "itemsize": dtype.itemsize,
                "aligned": dtype.isalignedstruct,
            }
    # The text of somebody else's dtype, such as bfloat16, would name another one.
    elif dtype.itemsize and _DTYPE.fullmatch(dtype.str) and np.dtype(dtype.str) == dtype:
        return dtype.str
    raise EncodingError(f"numpy dtype {dtype} cannot be stored; use astype() with a simpler one")


def _dtype(described: Any) -> Any:
    np = _numpy()
    if isinstance(described, str) and _DTYPE.fullmatch(described):
        return np.dtype(described)
    if isinstance(described, list):
        base, shape = described
        return np.dtype((_dtype(base), _shape(shape)))
    if isinstance(described, dict) and described.keys() == _FIELDS:
        formats = [_dtype(each) for each in described["formats"]]
        offsets = list(_shape(described["offsets"]))
        if all(isinstance(name, str) for name in described["names"]):
            return np.dtype({**described, "formats": formats, "offsets": offsets})
    raise ValueError(f"{described!r} is no dtype")


def _shape(numbers: Any) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers!r} is no shape")
    return tuple(numbers)


def _lift_array(items: list[Any]) -> Any:
    np = _numpy()
    described, numbers, data = items
    dtype, shape = _dtype(described), _shape(numbers)
    if not dtype.itemsize or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes are no array of {dtype} and shape {shape}")
    # A copy, for the bytes cannot be written to.
    return np.ndarray(shape, dtype, buffer=data).copy()


def _lift_scalar(items: list[Any]) -> Any:
    described, data = items
    if described == "U" and isinstance(data, str):
        return _numpy().str_(data)
    if described == "S" and isinstance(data, bytes):
        return _numpy().bytes_(data)
    return _lift_array([described, [], data])[()]


_MARKS: Final = {
    _TUPLE: _Mark(tuple),
    _SET: _Mark(set),
    _FROZENSET: _Mark(frozenset),
    _ARRAY: _Mark(_lift_array),
    _SCALAR: _Mark(_lift_scalar),
}
_LIFT: Final[dict[int, Callable[[bytes], Any]]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    _DATETIME: _lift_datetime,
    _TIMEDELTA: _lift_timedelta,
}
