"""The codecs that turn the state of an algorithm into bytes and back.

The default, `MsgpackCodec`, never executes code and keeps the distinctions that Python and numpy
make: tuples and lists, ints of any size, arrays with their dtype. `PickleCodec` writes what Oríon
writes, and holds any object; but reading a pickle runs whatever code its author put there.

The first byte of the result says how it was encoded; see `aiostorage._core.state.envelope`.
"""

from __future__ import annotations

from typing import Any, Protocol

from aiostorage._core.state.envelope import MAX_INFLATED, PICKLE, PLAIN, ZLIB, unwrap, wrap
from aiostorage.errors import ConfigurationError, EncodingError

__all__ = ["MsgpackCodec", "PickleCodec", "StateCodec", "state_codec"]


class StateCodec(Protocol):
    """Turns the state of an algorithm into bytes and back.

    Attributes
    ----------
    name : str
        The value of the option ``state_codec`` that selects this codec.
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
            Bytes that `decode` turns back into an equal state.

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


def state_codec(name: str, max_inflated: int = MAX_INFLATED) -> StateCodec:
    """Return the codec of a name.

    Parameters
    ----------
    name : str
        ``"msgpack"``, or ``"pickle"`` for stores whose every writer is trusted.
    max_inflated : int
        Bytes that a compressed state may have when it is decompressed; more only if it is 16 times
        its size in the store at most.

    Returns
    -------
    StateCodec
        The codec.

    Raises
    ------
    ConfigurationError
        There is no codec of that name.
    """
    codecs: tuple[StateCodec, ...] = (MsgpackCodec(max_inflated), PickleCodec(max_inflated))
    for codec in codecs:
        if codec.name == name:
            return codec
    known = ", ".join(codec.name for codec in codecs)
    raise ConfigurationError(f"unknown state codec {name!r}; known are: {known}")


class MsgpackCodec:
    """Exact for data, and safe to decode, whatever the source of the bytes.

    In addition to the types of msgpack (None, bool, int, float, str, bytes, list, dict with any
    keys), it keeps tuple, set, frozenset, ints of any size, complex, datetime, timedelta, and numpy
    arrays and scalars. An aware datetime keeps its offset from UTC, not the name of its zone; an
    array comes back in C order. Instances of subclasses of dict, list, str, int, float and bytes
    come back as the plain type, and bytearray and memoryview come back as bytes. Each reference to
    a shared object comes back as a copy of its own.
    """

    name: str = "msgpack"

    def __init__(self, max_inflated: int = MAX_INFLATED) -> None:
        self._max_inflated = max_inflated

    def encode(self, state: Any) -> bytes:
        """Turn a state into bytes; an `EncodingError` names the place of what cannot be stored."""
        from aiostorage._core.state.msgpack import explain, pack  # noqa: PLC0415  see below

        try:
            return wrap(pack(state), self._max_inflated)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise explain(state, error) from error

    def decode(self, data: bytes) -> Any:
        """Turn the bytes of `encode` back into the state, without executing code from them."""
        if data[:1] == PICKLE:
            raise EncodingError(
                'the state was written with pickle; state_codec="pickle" reads it, but unpickling '
                "executes code: do so only if you trust everybody who can write to this store"
            )
        # not every process has to do with states, and msgpack takes time to import
        from aiostorage._core.state.msgpack import DECODING_ERRORS, unpack  # noqa: PLC0415

        try:
            return unpack(unwrap(data, self._max_inflated))
        except EncodingError:
            raise
        except DECODING_ERRORS as error:
            raise EncodingError(f"the state is damaged: {error or type(error).__name__}") from error


class PickleCodec:
    """Holds whatever pickle holds, byte for byte as Oríon stores it.

    Decoding executes code, so use it only where every writer to the store is trusted. It also reads
    what `MsgpackCodec` wrote.
    """

    name: str = "pickle"

    def __init__(self, max_inflated: int = MAX_INFLATED) -> None:
        self._msgpack = MsgpackCodec(max_inflated)

    def encode(self, state: Any) -> bytes:
        """Return exactly ``pickle.dumps(state)``, or raise `EncodingError`."""
        import pickle  # noqa: PLC0415  as msgpack

        try:
            return pickle.dumps(state)
        except Exception as error:  # pickling calls methods of the state, which raise anything
            raise EncodingError(f"the state cannot be pickled: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Unpickle a state, or decode what `MsgpackCodec` wrote; else raise `EncodingError`."""
        if data[:1] in {PLAIN, ZLIB}:  # no pickle starts with either
            return self._msgpack.decode(data)
        import pickle  # noqa: PLC0415  as msgpack

        try:
            return pickle.loads(data)  # noqa: S301 -- this codec was asked for
        except Exception as error:  # unpickling calls anything
            raise EncodingError(f"the state cannot be unpickled: {error!r}") from error
