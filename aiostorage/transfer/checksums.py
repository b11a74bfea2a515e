"""Hashes of documents that are the same on every engine, and for every order of the documents.

Pure functions. Two documents have the same hash if every engine stores them as equal: the order of
keys does not matter, nor whether a declared field is None or missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

from aiostorage._core.documents import truncated
from aiostorage._core.layout import LAYOUT
from aiostorage.operations import Document

__all__ = ["Checksum", "content_of", "digest_of", "same_document"]

_DECLARED: Final = {c.name: frozenset(f.name for f in c.fields) for c in LAYOUT.collections}
_MODULUS: Final = 2**256
_PLACES: Final[Mapping[str, frozenset[str]]] = {
    "experiments": frozenset({"_id", "version"}),
    "trials": frozenset({"_id", "experiment"}),
    "algo": frozenset({"_id", "experiment"}),
    "benchmarks": frozenset({"_id"}),
}
"""The fields that may differ in a copy: they only identify a record in its store."""


def digest_of(collection: str, document: Document, resolution: timedelta) -> int:
    """Return the hash of a document as an engine with this resolution stores it."""
    declared = _DECLARED[collection]
    kept = {
        name: value
        for name, value in truncated(document, resolution).items()
        if value is not None or name not in declared
    }
    named = f"{collection}\0{_ENCODER.encode(kept)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(named).digest())


def _tagged(value: Any) -> dict[str, str]:
    """Return an object for a value that JSON lacks; no key in a store contains a NUL."""
    if isinstance(value, bytes):
        return {"\0bytes": value.hex()}
    return {f"\0{type(value).__name__}": str(value)}


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, default=_tagged
)


def content_of(collection: str, document: Document) -> Document:
    """Return a document without the fields that only identify it in its store."""
    gone = _PLACES[collection]
    content = {name: value for name, value in document.items() if name not in gone}
    refers = content.get("refers")
    if collection == "experiments" and isinstance(refers, dict):
        content["refers"] = {n: v for n, v in refers.items() if n not in ("root_id", "parent_id")}
    return content


def same_document(collection: str, one: Document, other: Document, resolution: timedelta) -> bool:
    """Return whether an engine with this resolution stores two documents as equal."""
    return digest_of(collection, one, resolution) == digest_of(collection, other, resolution)


class Checksum:
    """A hash of a set of documents, which may be added in any order.

    Parameters
    ----------
    resolution
        How finely times are compared.
    """

    def __init__(self, resolution: timedelta) -> None:
        self._resolution = resolution
        self._sum = 0
        self.count: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and self.text == other.text

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it changes

    def add(self, collection: str, documents: Iterable[Document]) -> None:
        """Add documents."""
        for document in documents:
            self._sum += digest_of(collection, document, self._resolution)
            self.count += 1
        self._sum %= _MODULUS

    @property
    def text(self) -> str:
        """The hash with the number of documents, as text."""
        return f"{self.count}:{self._sum:064x}"
