"""The first byte of an encoded state, which says what follows, and compression.

::

    0x01    msgpack
    0x02    the length of the msgpack in 8 bytes, big-endian; then the msgpack as zlib stream
    0x80    a pickle: every one since protocol 2 starts so
"""

from __future__ import annotations

import zlib
from typing import Final

from aiostorage.errors import EncodingError

__all__ = ["MAX_INFLATED", "PICKLE", "PLAIN", "ZLIB", "unwrap", "unwrapped_size", "wrap"]

PLAIN: Final = b"\x01"
ZLIB: Final = b"\x02"
PICKLE: Final = b"\x80"

_MIN_SIZE_TO_COMPRESS: Final = 4096  # bytes
_MIN_SIZE_TO_SAMPLE: Final = 2**18  # bytes
_MAX_COMPRESSED_SHARE: Final = 0.9  # of the original size
_SAFE_RATIO: Final = 16  # what is inflated so much at most costs its writer about as much

MAX_INFLATED: Final = 16 * 2**20
"""Bytes up to which a compressed state is read by default, however small it is in the store."""


def wrap(packed: bytes, max_inflated: int = MAX_INFLATED) -> bytes:
    """Put msgpack into its envelope, compressed if that makes it clearly smaller.

    Not so small, however, that `unwrap` would refuse it.
    """
    if len(packed) > _MIN_SIZE_TO_COMPRESS and _is_compressible(packed):
        compressed = zlib.compress(packed, 1)
        if _is_worthwhile(compressed, packed) and len(packed) <= _limit(compressed, max_inflated):
            return b"".join((ZLIB, len(packed).to_bytes(8, "big"), compressed))
    return PLAIN + packed


def unwrapped_size(data: bytes) -> int:
    """Return the number of bytes that `unwrap` would return, according to the envelope."""
    return int.from_bytes(data[1:9], "big") if data[:1] == ZLIB else len(data)


def unwrap(data: bytes, max_inflated: int = MAX_INFLATED) -> bytes | memoryview:
    """Take msgpack out of its envelope.

    Parameters
    ----------
    max_inflated
        Bytes that compressed msgpack may have; more only if it is 16 times its compressed size at
        most. No more than this is ever decompressed.

    Raises
    ------
    EncodingError
        The bytes have no known first byte, another length than they declare, or too much in them.
    zlib.error
        The compressed bytes are damaged.
    """
    view = memoryview(data)
    if data[:1] == PLAIN:
        return view[1:]
    if data[:1] != ZLIB:
        raise EncodingError(f"these bytes are not an algorithm state: they start with {data[:8]!r}")
    length = int.from_bytes(view[1:9], "big")
    if not length:  # a `max_length` of 0 would mean no limit
        raise EncodingError("the state is damaged: it says to be 0 bytes long")
    if length > (limit := _limit(view[9:], max_inflated)):
        raise EncodingError(
            f"the state has {len(data):,} bytes, and says to become {length:,} when they are "
            f"decompressed; at most {limit:,} are accepted, so that a state cannot fill the "
            "memory. If you trust its writer, open the storage with a larger max_inflated_state"
        )
    decompressor = zlib.decompressobj()
    packed = decompressor.decompress(view[9:], length + 1)
    if len(packed) != length or not decompressor.eof or decompressor.unused_data:
        raise EncodingError("the state is damaged: it has another length than it says")
    return packed


def _limit(compressed: bytes | memoryview, max_inflated: int) -> int:
    """Return the maximum size to which compressed bytes may be decompressed."""
    return max(max_inflated, _SAFE_RATIO * len(compressed))


def _is_compressible(packed: bytes) -> bool:
    """Guess from samples, since compressing arrays of random floats is slow and gains nothing."""
    if len(packed) < _MIN_SIZE_TO_SAMPLE:
        return True
    starts = range(0, len(packed), len(packed) // 8)
    sample = b"".join(packed[start : start + 4096] for start in starts)
    return _is_worthwhile(zlib.compress(sample, 1), sample)


def _is_worthwhile(compressed: bytes, original: bytes) -> bool:
    return len(compressed) < _MAX_COMPRESSED_SHARE * len(original)
