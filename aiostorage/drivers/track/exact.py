"""What Track's fields cannot say of a document stands beside them, in the record's metadata.

The fields of a record are read as a document first. Where the result is not the document that was
stored, the metadata has the exact value, together with a digest of what the fields say. As long as
they still say that, the exact value counts; once another program has changed them, they do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from aiostorage._core.document_json import from_tree, to_tree
from aiostorage.errors import EncodingError
from aiostorage.operations import Document

__all__ = ["OURS", "differences", "lenient", "ours_of", "same", "with_differences"]

OURS: Final = "aiostorage"
"""The key of what is ours in the metadata of a record."""

_MISSING: Final = object()


def ours_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return aiostorage's own part of the metadata of a record."""
    ours = metadata.get(OURS)
    return ours if isinstance(ours, dict) else {}


def lenient(tree: Any) -> Any:
    """Return the value of a JSON tree; the tree itself if there is an invalid tag in it."""
    try:
        return from_tree(tree)
    except EncodingError:
        return tree


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal and of the same types; NaN is equal to itself."""
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if type(a) is list:
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is float and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def differences(document: Document, read: Document, sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the differences with which `with_differences` makes `document` of `read`.

    Parameters
    ----------
    document, read
        The document, and what the fields of its record are read as.
    sources
        What the value of a field is read from, where that says more than the value.
    """
    noted: dict[str, Any] = {}
    for name in sorted(document.keys() | read.keys()):
        value, found = document.get(name, _MISSING), read.get(name, _MISSING)
        if same(value, found):
            continue
        noted[name] = {"beside": _digest(name, read, sources)}
        if value is not _MISSING:
            noted[name]["value"] = to_tree(value)
    return noted


def with_differences(read: Document, noted: Any, sources: Mapping[str, Any]) -> Document:
    """Return the document that was stored, from what the fields of its record are read as."""
    if not isinstance(noted, dict) or not noted:
        return read
    document = dict(read)
    for name, entry in noted.items():
        if not isinstance(entry, dict) or entry.get("beside") != _digest(name, read, sources):
            continue  # another program has changed the fields
        if "value" in entry:
            document[name] = lenient(entry["value"])
        else:
            document.pop(name, None)
    return document


def _digest(name: str, read: Document, sources: Mapping[str, Any]) -> str | None:
    if name in sources:
        tree = sources[name]
    elif name in read:
        tree = to_tree(read[name])
    else:
        return None
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
