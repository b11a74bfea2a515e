"""MessagePack with extensions for the types that it lacks.

Of the extension types, some hold a value. The others are tags: as the first item of a list, they
say that the list stands for something else. So containers are packed and unpacked in one pass,
however they nest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import msgpack

from aiostorage._core.normalise import error_at, join_path, type_name
from aiostorage._core.state.numpy import pack_array, pack_scalar, unpack_array, unpack_scalar
from aiostorage.errors import EncodingError

__all__ = ["DECODING_ERRORS", "explain", "pack", "unpack"]

DECODING_ERRORS: Final = (
    *(ValueError, TypeError, OverflowError, RecursionError, struct.error),
    *(msgpack.UnpackException, zlib.error),
)
"""The errors that damaged bytes can cause in msgpack, zlib, datetime and numpy."""

_TUPLE, _SET, _FROZENSET, _ARRAY, _SCALAR = range(1, 6)  # tags
_INT, _COMPLEX, _DATETIME, _TIMEDELTA = range(16, 20)  # values
_DATETIME_FORMAT: Final = ">HBBBBBIB"  # year to microsecond, and fold
_TIMEDELTA_FORMAT: Final = ">iii"  # days, seconds and microseconds
_MAX_DEPTH: Final = 1000  # only checked after packing failed: msgpack's own limit is about here
_HINT: Final = (
    "reduce it to plain data or, if you trust everybody who can write to the store, use "
    'state_codec="pickle"'
)

# ---------------------------------------------------------------------------------- packing


def pack(state: Any) -> bytes:
    """Pack a state.

    Raises
    ------
    EncodingError, ValueError, TypeError, OverflowError, RecursionError
        Something in the state cannot be packed; `explain` finds it.
    """
    try:
        packed: bytes = msgpack.packb(state, default=_pack_extension, strict_types=True)
    except UnicodeEncodeError:  # a lone surrogate; allowing for them always takes half again
        packed = msgpack.packb(
            state, default=_pack_extension, strict_types=True, unicode_errors="surrogatepass"
        )
    # msgpack does not unpack quite as deep as it packs, and when reading it is too late.
    check = msgpack.Unpacker(max_buffer_size=len(packed))
    check.feed(packed)
    check.skip()
    return packed


def _pack_extension(value: Any) -> Any:
    """Express in msgpack's types a value that has none of them; msgpack calls this."""
    kind = type(value)
    if kind in _PACKERS:
        return _PACKERS[kind](value)
    if kind.__module__.partition(".")[0] == "numpy":
        return _pack_numpy(value)
    for base, plain in _BASES:
        if isinstance(value, base):
            return plain(value)
    raise EncodingError(f"{type_name(value)} cannot be stored; {_HINT}")


def _pack_numpy(value: Any) -> list[Any]:
    if (array := pack_array(value)) is not None:
        return _tagged(_ARRAY, array)
    if (scalar := pack_scalar(value)) is not None:
        return _tagged(_SCALAR, scalar)
    raise EncodingError(f"{type_name(value)} cannot be stored; {_HINT}")


def _tagged(code: int, items: Iterable[Any]) -> list[Any]:
    return [msgpack.ExtType(code, b""), *items]


def _pack_int(value: int) -> Any:
    value = int.__int__(value)
    if -(2**63) <= value < 2**64:
        return value
    return msgpack.ExtType(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime) -> Any:
    offset = value.utcoffset()
    data = struct.pack(
        _DATETIME_FORMAT,
        *(value.year, value.month, value.day, value.hour, value.minute, value.second),
        value.microsecond,
        # The offset of an aware one says which of two equal hours it is; a naive one has the fold.
        value.fold if offset is None else 0,
    )
    if offset is not None:
        data += struct.pack(_TIMEDELTA_FORMAT, offset.days, offset.seconds, offset.microseconds)
    return msgpack.ExtType(_DATETIME, data)


def _pack_timedelta(value: timedelta) -> Any:
    return msgpack.ExtType(
        _TIMEDELTA, struct.pack(_TIMEDELTA_FORMAT, value.days, value.seconds, value.microseconds)
    )


_PACKERS: Final[dict[type, Callable[[Any], Any]]] = {
    tuple: lambda items: _tagged(_TUPLE, items),
    set: lambda items: _tagged(_SET, items),
    frozenset: lambda items: _tagged(_FROZENSET, items),
    int: _pack_int,  # the ones that msgpack cannot hold
    complex: lambda value: msgpack.ExtType(_COMPLEX, struct.pack(">dd", value.real, value.imag)),
    datetime: _pack_datetime,
    timedelta: _pack_timedelta,
}
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (dict, dict),
    (list, list),
    (str, str.__str__),
    (int, _pack_int),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
)

# -------------------------------------------------------------------------------- unpacking


class _Tag:
    """The tag of a list, from when it is unpacked itself until its list is."""

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


class _Hooks:
    """The callbacks of msgpack; they count the tags that no list has used yet."""

    def __init__(self) -> None:
        self.unused_tags = 0

    def ext(self, code: int, data: bytes) -> Any:
        if code in _UNPACKERS:
            return _UNPACKERS[code](data)
        if code in _TAGS and not data:
            self.unused_tags += 1
            return _TAGS[code]
        raise EncodingError(
            f"the state is damaged, or needs a newer aiostorage: it has type {code}"
        )

    def list(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Tag:
            self.unused_tags -= 1
            return items[0].build(items[1:])
        return items


def unpack(packed: bytes | memoryview) -> Any:
    """Unpack a state that `pack` packed.

    Raises
    ------
    EncodingError
        An extension is unknown or in the wrong place, or needs numpy, which is not installed.
    ValueError, TypeError, OverflowError, RecursionError, struct.error, msgpack.UnpackException
        The bytes are damaged.
    """
    hooks = _Hooks()
    state = msgpack.unpackb(
        packed,
        ext_hook=hooks.ext,
        list_hook=hooks.list,
        strict_map_key=False,
        unicode_errors="surrogatepass",
    )
    if hooks.unused_tags:
        raise EncodingError("the state is damaged: it has a tag in the wrong place")
    return state


def _unpack_datetime(data: bytes) -> datetime:
    # Not by way of ISO 8601 text: its parser loses some fractions of offsets.
    size = struct.calcsize(_DATETIME_FORMAT)
    *fields, fold = struct.unpack(_DATETIME_FORMAT, data[:size])
    value = datetime(*fields).replace(fold=fold)  # noqa: DTZ001 -- it may be naive
    if len(data) == size:
        return value
    return value.replace(tzinfo=timezone(_unpack_timedelta(data[size:])))


def _unpack_timedelta(data: bytes) -> timedelta:
    return timedelta(*struct.unpack(_TIMEDELTA_FORMAT, data))


_TAGS: Final = {
    _TUPLE: _Tag(tuple),
    _SET: _Tag(set),
    _FROZENSET: _Tag(frozenset),
    _ARRAY: _Tag(unpack_array),
    _SCALAR: _Tag(unpack_scalar),
}
_UNPACKERS: Final[dict[int, Callable[[bytes], Any]]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    _DATETIME: _unpack_datetime,
    _TIMEDELTA: _unpack_timedelta,
}

# ------------------------------------------------------------------------------- explaining


def explain(state: Any, error: Exception) -> EncodingError:
    """Find what could not be packed, by a walk that only a failed packing has to pay for.

    Parameters
    ----------
    state : Any
        The state.
    error : Exception
        The error of `pack`.

    Returns
    -------
    EncodingError
        Names the place and the reason; only the reason of `error`, if no place is found.
    """
    pending: list[tuple[Any, str, int]] = [(state, "", 0)]
    ancestors: list[int] = []  # the ids of the containers around the current value
    while pending:
        value, path, depth = pending.pop()
        if children := _children(value, path):
            del ancestors[depth:]
            if id(value) in ancestors:
                return error_at(path, f"{type_name(value)} contains itself; {_HINT}")
            if depth >= _MAX_DEPTH:
                return error_at(path, f"nested deeper than {_MAX_DEPTH} levels; flatten it")
            ancestors.append(id(value))
            pending += ((*child, depth + 1) for child in reversed(children))
        elif type(value) not in _NATIVE_TYPES:
            try:
                _pack_extension(value)
            except EncodingError as refused:
                return error_at(path, str(refused))
    return EncodingError(f"the state cannot be stored: {error}")


def _children(value: Any, path: str) -> list[tuple[Any, str]]:
    """List what is in a container, keys of dicts too, with the path to each."""
    if isinstance(value, dict):
        places = [(key, item, join_path(path, key)) for key, item in value.items()]
        return [(found, place) for key, item, place in places for found in (key, item)]
    if isinstance(value, list) or type(value) is tuple:
        return [(item, join_path(path, index)) for index, item in enumerate(value)]
    if type(value) in {set, frozenset}:
        return [(item, path) for item in value]
    return []


_NATIVE_TYPES: Final = {
    *(type(None), bool, float, str, bytes, bytearray, memoryview, dict, list),
    *(msgpack.ExtType, msgpack.Timestamp),
}
