"""The few types that documents may hold, because every engine can store them.

Every document passes through `normalise` on its way in, so that all engines hold the same types
and no caller keeps a reference into a store.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final

from aiostorage.errors import EncodingError

__all__ = [
    "error_at",
    "join_path",
    "normalise",
    "to_utc",
    "type_name",
]

MAX_DEPTH: Final = 100
"""How many levels a document may nest; MongoDB has the same limit."""

_known_keys: Final[dict[object, str]] = {}
"""Keys that can be stored, by themselves: most documents have the same few."""

_MAX_KNOWN_KEYS: Final = 4096
_MAX_KNOWN_KEY: Final = 64
"""How many keys are remembered, and how many characters one of them may have."""

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1

# ----------------------------------------------------------------------------------- places


def join_path(path: str, step: object) -> str:
    """Extend a path by a key of a dict or an index of a list.

    Parameters
    ----------
    path : str
        The path of the container; empty for the outermost.
    step : object
        The key or index. An ambiguous str, such as ``a.b``, is quoted.

    Returns
    -------
    str
        Such as ``params[2].value`` or ``metadata['a.b'].x``.
    """
    if not isinstance(step, str):
        return f"{path}[{reprlib.repr(step)}]"
    if step and step.isprintable() and not any(mark in step for mark in ".[]'\""):
        return f"{path}.{step}" if path else step
    return f"{path}[{step!r}]"


def error_at(path: str, reason: str) -> EncodingError:
    """Return the error that says what is wrong at a place, for the caller to raise.

    Parameters
    ----------
    path : str
        The path of the place; empty for the outermost.
    reason : str
        What was found there, and what to do about it.

    Returns
    -------
    EncodingError
        Its message shortens a long path, as of a value that contains itself; its ``path`` does not.
    """
    shown = path if len(path) <= 200 else f"{path[:100]} ... {path[-60:]}"
    return EncodingError(f"{shown}: {reason}" if shown else reason, path=path)


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module unless it is built in."""
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


class _NotStorable(Exception):
    """Something in a value cannot be stored; `steps` collects the path to it, innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[object] = []


# -------------------------------------------------------------------------------- normalise


def normalise(value: Any, path: str = "") -> Any:
    """Copy a value into the types that every engine can hold.

    Parameters
    ----------
    value : Any
        A tree of dicts (any mapping with str keys will do), lists, str, bytes, bool, int, float,
        None and datetimes. Numpy scalars and arrays become the numbers and lists they hold; dates,
        times, paths and UUIDs their text, which is that of `str`; a bytearray bytes.
    path : str, optional
        The path of the value, for the error.

    Returns
    -------
    Any
        A fresh tree of plain dict, list, str, bytes, bool, int of 64 bits, float, None and
        datetime in UTC that shares no container with `value`.

    Raises
    ------
    EncodingError
        Something in the value cannot be stored without changing it; the error names its place.
    """
    try:
        return _CONVERTERS.get(type(value), _convert_other)(value, MAX_DEPTH)
    except _NotStorable as error:
        for step in reversed(error.steps):
            path = join_path(path, step)
        reason = error.reason
    raise error_at(path, reason)


def to_utc(value: datetime) -> datetime:
    """Express a datetime in UTC; a naive one is taken to be in UTC already.

    Parameters
    ----------
    value : datetime
        Any datetime.

    Returns
    -------
    datetime
        The same moment as a plain datetime whose ``tzinfo`` is `datetime.UTC`.

    Raises
    ------
    EncodingError
        In UTC, the moment is outside the years 1 to 9999.
    """
    try:
        return _convert_datetime(value)
    except _NotStorable as error:
        raise EncodingError(error.reason) from None


def _convert_datetime(value: datetime, _depth_left: int = 0) -> datetime:
    if value.tzinfo is UTC and type(value) is datetime:
        return value
    try:
        if value.utcoffset() is None:
            value = value.replace(tzinfo=UTC, fold=0)
        else:
            value = value.astimezone(UTC)
        if type(value) is not datetime:  # pandas.Timestamp is one, and so is its NaT
            value = datetime(
                *(value.year, value.month, value.day, value.hour, value.minute, value.second),
                microsecond=value.microsecond,
                tzinfo=UTC,
            )
    except OverflowError:
        raise _NotStorable(f"{value!r} is outside the years 1 to 9999 in UTC; use None") from None
    except (TypeError, ValueError):
        raise _NotStorable(f"{type_name(value)} {value!r} is not a moment; use None") from None
    return value


# The next four functions are the hottest of the library. They dispatch on the exact type, avoid the
# call for values that need no conversion, and find the path of an error only when there is one.


def _normalise_dict(value: Mapping[Any, Any], depth_left: int) -> dict[str, Any]:
    if not depth_left:
        raise _NotStorable(_TOO_DEEP)
    depth_left -= 1
    fresh: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            try:
                plain = _known_keys[key]
            except KeyError:
                plain = _normalise_key(key)
            kind = type(item)
            if kind in _ATOMS or (kind is str and item.isascii()):
                fresh[plain] = item
            else:
                fresh[plain] = _CONVERTERS.get(kind, _convert_other)(item, depth_left)
    except _NotStorable as error:
        error.steps.append(key)
        raise
    return fresh


def _normalise_list(value: list[Any], depth_left: int) -> list[Any]:
    if not depth_left:
        raise _NotStorable(_TOO_DEEP)
    depth_left -= 1
    fresh: list[Any] = []
    append = fresh.append
    try:
        for item in value:
            kind = type(item)
            append(
                item if kind in _ATOMS else _CONVERTERS.get(kind, _convert_other)(item, depth_left)
            )
    except _NotStorable as error:
        error.steps.append(len(fresh))
        raise
    return fresh


def _check_int(value: int, _depth_left: int) -> int:
    if _INT_MIN <= value <= _INT_MAX:
        return value
    raise _NotStorable(
        f"int of {value.bit_length()} bits does not fit into 64 with its sign; use a float or a str"
    )


def _check_str(value: str, _depth_left: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = f"str with the lone surrogate {value[error.start]!r} at index {error.start}"
            raise _NotStorable(f"{found} is not Unicode text; use bytes") from None
    return value


def _normalise_key(key: object) -> str:
    if not isinstance(key, str):
        raise _NotStorable(f"{type_name(key)} as the key of a dict cannot be stored; use a str")
    plain = _check_str(str.__str__(key), 0)
    if "\0" in plain:
        raise _NotStorable(f"the key {plain!r:.60} contains a NUL; use a key without one")
    if len(plain) <= _MAX_KNOWN_KEY:
        if len(_known_keys) >= _MAX_KNOWN_KEYS:
            _known_keys.clear()
        _known_keys[plain] = plain
    return plain


def _convert_other(value: Any, depth_left: int) -> Any:
    """Convert a value whose exact type has no converter."""
    for base, plain in _BASES:
        if isinstance(value, base):
            return _CONVERTERS[base](plain(value), depth_left)
    if isinstance(value, datetime):
        return _convert_datetime(value)
    if isinstance(value, list):
        return _normalise_list(value, depth_left)
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype"):
        return _convert_numpy(value, depth_left)
    if isinstance(value, Mapping):
        return _normalise_dict(value, depth_left)
    # The ids of trials are made of the text of `str`, so these keep the id that Oríon gives them.
    if isinstance(value, (date, time)) or _is_path_or_uuid(value):
        return _check_str(str(value), depth_left)
    if isinstance(value, bytearray):
        return bytes(value)
    hints = (_HINTS[base.__name__] for base in type(value).__mro__ if base.__name__ in _HINTS)
    raise _NotStorable(
        f"{type_name(value)}{_shown(value)} cannot be stored; use {next(hints, _STORABLE)}"
    )


def _is_path_or_uuid(value: Any) -> bool:
    """Tell without importing their modules: who has such a value has imported them."""
    for module, name in (("pathlib", "PurePath"), ("uuid", "UUID")):
        imported = sys.modules.get(module)
        if imported is not None and isinstance(value, getattr(imported, name)):
            return True
    return False


def _shown(value: Any) -> str:
    """Return a short form of a value, to find it by."""
    try:
        return f" {reprlib.repr(value)}"
    except Exception:  # noqa: BLE001  an int of too many digits in it, or its own __repr__
        return ""


def _convert_numpy(value: Any, depth_left: int) -> Any:
    """Convert numpy's scalars and arrays by their own methods, so that numpy stays optional."""
    dtype = value.dtype
    kind = dtype.kind
    if kind == "M":
        return _normalise_list(list(value), depth_left) if value.shape else _convert_moment(value)
    if kind == "O":
        # Counts as a level, because an array without dimensions may contain itself.
        if not depth_left:
            raise _NotStorable(_TOO_DEEP)
        depth_left -= 1
    elif kind not in "biufSUT" or (kind == "f" and dtype.itemsize > 8):
        hint = _NUMPY_HINTS.get(kind, _STORABLE)
        raise _NotStorable(f"{type_name(value)} of dtype {dtype} cannot be stored; use {hint}")
    plain = value.tolist()
    return _CONVERTERS.get(type(plain), _convert_other)(plain, depth_left)


def _convert_moment(value: Any) -> datetime | None:
    """Convert one datetime64; what is finer than microseconds is truncated."""
    plain = value.tolist()
    if isinstance(plain, int) and value.dtype.str.endswith(("ns]", "ps]", "fs]", "as]")):
        plain = value.astype("datetime64[us]").tolist()
    if plain is None:
        return None
    if isinstance(plain, datetime):
        return _convert_datetime(plain)
    if isinstance(plain, date):
        return datetime(plain.year, plain.month, plain.day, tzinfo=UTC)
    raise _NotStorable(f"{value!r} is outside the years 1 to 9999; use None")


_ATOMS: Final = frozenset({type(None), bool, float, bytes})
_CONVERTERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    **dict.fromkeys(_ATOMS, lambda value, _depth_left: value),
    dict: _normalise_dict,
    list: _normalise_list,
    str: _check_str,
    int: _check_int,
    datetime: _convert_datetime,
}
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (float, float.__float__),
    (str, str.__str__),  # str() would call the __str__ of an Enum
    (int, int.__int__),
    (bytes, bytes.__bytes__),
)
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels, or in itself; flatten it"
_STORABLE: Final = "dict, list, str, bytes, bool, int, float, None or datetime"
_HINTS: Final = {  # by the name of a base class, to import none of them
    **dict.fromkeys(("tuple", "range"), "a list"),
    **dict.fromkeys(("set", "frozenset"), "a sorted list"),
    "memoryview": "bytes",
    **dict.fromkeys(("Decimal", "Fraction"), "a float, or a str if it must stay exact"),
    "complex": "a list of two floats",
    "timedelta": "its total_seconds()",
    "Enum": "its value",
}
_NUMPY_HINTS: Final = {
    "c": "a list of two floats",
    "f": "numpy.float64",
    "m": "seconds as a float",
    "V": "a dict of its fields",
}
