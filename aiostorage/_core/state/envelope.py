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

__all__ = ["PICKLE", "PLAIN", "ZLIB", "unwrap", "wrap"]

PLAIN: Final = b"\x01"
ZLIB: Final = b"\x02"
PICKLE: Final = b"\x80"

_MIN_SIZE_TO_COMPRESS: Final = 4096  # bytes
_MIN_SIZE_TO_SAMPLE: Final = 2**18  # bytes
_MAX_COMPRESSED_SHARE: Final = 0.9  # of the original size
_MAX_ZLIB_RATIO: Final = 1032  # zlib makes at most this many bytes of one


def wrap(packed: bytes) -> bytes:
    """Put msgpack into its envelope, compressed if that makes it clearly smaller."""
    if len(packed) > _MIN_SIZE_TO_COMPRESS and _is_compressible(packed):
        compressed = zlib.compress(packed, 1)
        if _is_worthwhile(compressed, packed):
            return b"".join((ZLIB, len(packed).to_bytes(8, "big"), compressed))
    return PLAIN + packed


def unwrap(data: bytes) -> bytes | memoryview:
    """Take msgpack out of its envelope.

    Raises
    ------
    EncodingError
        The bytes have no known first byte, or another length than they declare.
    zlib.error
        The compressed bytes are damaged.
    """
    view = memoryview(data)
    if data[:1] == PLAIN:
        return view[1:]
    if data[:1] != ZLIB:
        raise EncodingError(f"these bytes are no algorithm state: they start with {data[:8]!r}")
    length = int.from_bytes(view[1:9], "big")
    # The length must not be 0, because a `max_length` of 0 means no limit.
    if not 0 < length <= _MAX_ZLIB_RATIO * len(data):
        raise EncodingError(f"the state is damaged: it says to be {length} bytes long")
    decompressor = zlib.decompressobj()
    packed = decompressor.decompress(view[9:], length + 1)
    if len(packed) != length or not decompressor.eof or decompressor.unused_data:
        raise EncodingError("the state is damaged: it has another length than it says")
    return packed


def _is_compressible(packed: bytes) -> bool:
    """Guess from samples, since compressing arrays of random floats is slow and gains nothing."""
    if len(packed) < _MIN_SIZE_TO_SAMPLE:
        return True
    starts = range(0, len(packed), len(packed) // 8)
    sample = b"".join(packed[start : start + 4096] for start in starts)
    return _is_worthwhile(zlib.compress(sample, 1), sample)


def _is_worthwhile(compressed: bytes, original: bytes) -> bool:
    return len(compressed) < _MAX_COMPRESSED_SHARE * len(original)
