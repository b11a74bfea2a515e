"""What a file is that is not what it was taken for, by how it begins."""

from __future__ import annotations

from typing import Final

__all__ = ["HEAD_BYTES", "SQLITE", "kind_of"]

HEAD_BYTES: Final = 4096
"""Bytes of the beginning of a file that are enough."""

SQLITE: Final = b"SQLite format 3\0"
"""What a SQLite database begins with."""

_KINDS: Final[tuple[tuple[bytes, str], ...]] = (
    (SQLITE, "a SQLite database"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF-", "a PDF"),
    (b"\x7fELF", "a program"),
    *((b"\x80" + bytes([protocol]), "a pickle") for protocol in range(2, 6)),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


def kind_of(head: bytes) -> str:
    """Return the kind of a file by its first `HEAD_BYTES` bytes, as a noun with its article."""
    if not head:
        return "an empty file"
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if not any(head):
        return "a file of zero bytes, perhaps what a crash has left of another one"
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character that is cut off
            return "a binary file of an unknown kind"
        text = head[: error.start].decode("utf-8-sig")
    if any(ord(c) < 32 and not c.isspace() for c in text):
        return "a binary file of an unknown kind"
    if text.lstrip().startswith(("[", "{")) and '"dtype"' in text:
        return "a Track file"
    return "a text file"
