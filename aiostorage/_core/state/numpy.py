"""numpy arrays, scalars and dtypes as plain data that msgpack can hold, and back.

numpy is optional, and imported only when a state needs it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from aiostorage._core.normalise import type_name
from aiostorage.errors import EncodingError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["pack_array", "pack_scalar", "unpack_array", "unpack_scalar"]

# The dtypes that are read, so that numpy never parses anything but a number, a text or a time. Not
# the long double: its bytes mean different numbers on different machines. Nor a time without its
# unit: numpy is about to drop it.
_DTYPE: Final = re.compile(
    r"[<>|]("
    r"b1|[iu][1248]|f[248]|c8|c16|[SUV][0-9]{1,9}"
    r"|[mM]8\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\]"
    r")"
)
_FIELDS: Final = {"names", "formats", "offsets", "itemsize", "aligned"}


def _import_numpy() -> Any:
    try:
        import numpy  # noqa: ICN001, PLC0415 -- optional, and slow to import
    except ImportError as error:
        raise EncodingError("the state holds numpy arrays or scalars: install numpy") from error
    return numpy


# ----------------------------------------------------------------------------------- packing


def pack_array(value: Any) -> tuple[Any, list[int], bytes] | None:
    """Express an array as its dtype, its shape and its bytes in C order.

    Parameters
    ----------
    value : Any
        An object of numpy's.

    Returns
    -------
    tuple or None
        The arguments of `unpack_array`; None if `value` is not an array.

    Raises
    ------
    EncodingError
        The array has a dtype that cannot be stored, or is of a subclass of ``ndarray``.
    """
    np = _import_numpy()
    if type(value) is np.ndarray:
        return _pack_dtype(value.dtype), list(value.shape), value.tobytes()
    if isinstance(value, np.ndarray):
        raise EncodingError(f"{type_name(value)} cannot be stored; use numpy.asarray() of it")
    return None


def pack_scalar(value: Any) -> tuple[Any, Any] | None:
    """Express a scalar as its dtype and its bytes; a text, as its kind and its value.

    Parameters
    ----------
    value : Any
        An object of numpy's.

    Returns
    -------
    tuple or None
        The arguments of `unpack_scalar`; None if `value` is not a scalar.

    Raises
    ------
    EncodingError
        The scalar has a dtype that cannot be stored.
    """
    np = _import_numpy()
    # The dtypes of texts drop zeros at the end, and cannot be empty.
    if type(value) is np.str_:
        return "U", str.__str__(value)
    if type(value) is np.bytes_:
        return "S", bytes.__bytes__(value)
    if isinstance(value, np.generic):
        return _pack_dtype(value.dtype), value.tobytes()
    return None


def _pack_dtype(dtype: np.dtype[Any]) -> Any:
    """Express a dtype as text; with fields, as the dict that numpy reads; a subarray, as a list."""
    np = _import_numpy()
    if dtype.hasobject:
        raise EncodingError(f"numpy dtype {dtype} of Python objects cannot be stored; use a list")
    if dtype.itemsize and dtype.subdtype is not None:
        return [_pack_dtype(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.itemsize and dtype.fields and dtype.names and dtype.type is np.void:
        fields = [dtype.fields[name] for name in dtype.names]
        if not any(field[2:] for field in fields):  # a title
            return {
                "names": list(dtype.names),
                "formats": [_pack_dtype(field[0]) for field in fields],
                "offsets": [field[1] for field in fields],
                "itemsize": dtype.itemsize,
                "aligned": dtype.isalignedstruct,
            }
    # The text of another library's dtype, such as bfloat16, would name another one.
    elif dtype.itemsize and _DTYPE.fullmatch(dtype.str) and np.dtype(dtype.str) == dtype:
        return dtype.str
    raise EncodingError(f"numpy dtype {dtype} cannot be stored; use astype() with a simpler one")


# --------------------------------------------------------------------------------- unpacking


def unpack_array(items: list[Any]) -> Any:
    """Make an array from the three items of `pack_array`.

    Raises
    ------
    ValueError, TypeError, OverflowError
        The items do not make an array.
    EncodingError
        numpy is not installed.
    """
    np = _import_numpy()
    packed_dtype, packed_shape, data = items
    dtype, shape = _unpack_dtype(packed_dtype), _unpack_shape(packed_shape)
    if not dtype.itemsize or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes are not an array of {dtype} and shape {shape}")
    # A copy, because the bytes cannot be written to.
    return np.ndarray(shape, dtype, buffer=data).copy()


def unpack_scalar(items: list[Any]) -> Any:
    """Make a scalar from the two items of `pack_scalar`.

    Raises
    ------
    ValueError, TypeError, OverflowError
        The items do not make a scalar.
    EncodingError
        numpy is not installed.
    """
    packed_dtype, data = items
    if packed_dtype == "U" and isinstance(data, str):
        return _import_numpy().str_(data)
    if packed_dtype == "S" and isinstance(data, bytes):
        return _import_numpy().bytes_(data)
    return unpack_array([packed_dtype, [], data])[()]


def _unpack_dtype(packed: Any) -> Any:
    np = _import_numpy()
    if isinstance(packed, str) and _DTYPE.fullmatch(packed):
        return np.dtype(packed)
    if isinstance(packed, list):
        base, shape = packed
        return np.dtype((_unpack_dtype(base), _unpack_shape(shape)))
    if isinstance(packed, dict) and packed.keys() == _FIELDS:
        formats = [_unpack_dtype(each) for each in packed["formats"]]
        offsets = list(_unpack_shape(packed["offsets"]))
        if all(isinstance(name, str) for name in packed["names"]):
            return np.dtype({**packed, "formats": formats, "offsets": offsets})
    raise ValueError(f"{packed!r} is not a dtype")


def _unpack_shape(numbers: Any) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers!r} is not a shape")
    return tuple(numbers)
