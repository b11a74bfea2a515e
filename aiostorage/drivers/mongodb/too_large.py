"""Which document MongoDB refused for its size, and what in it is large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import bson
from bson.errors import BSONError

from aiostorage._core.normalise import join_path
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.errors import EncodingError
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Insert,
    InsertNext,
    Operation,
    Take,
    Update,
)

__all__ = ["with_place"]

MAX_DOCUMENT_BYTES: Final = 16 * 2**20
"""Bytes that a document may have."""

_SIGNS: Final = ("too large", "larger than")
"""What the errors about a size say."""


def with_place(
    error: EncodingError,
    operations: Sequence[Operation[Any]],
    schemas: Mapping[str, CollectionSchema],
) -> EncodingError:
    """Return an error that says which document is too large, and what in it.

    Parameters
    ----------
    error
        What was raised; returned if it is about something else.
    operations
        What was to be carried out.
    """
    if error.path or not any(sign in str(error) for sign in _SIGNS):
        return error
    parts = [part for operation in operations for part in _parts(operation, schemas)]
    if not parts:
        return error
    size, name, values = max(
        ((_size(values), name, values) for name, values in parts), key=lambda part: part[0]
    )
    path, part = _largest(values, size)
    whole = f" ({size:,})" if size > MAX_DOCUMENT_BYTES else ""
    return EncodingError(
        f"{name} would have more{whole} than the {MAX_DOCUMENT_BYTES:,} bytes that MongoDB allows; "
        f"the largest part of what is written is {path}, with {part:,} bytes: keep large things "
        "elsewhere",
        path=path,
    )


def _parts(
    operation: Operation[Any], schemas: Mapping[str, CollectionSchema]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what an operation writes or compares with, each with a name."""
    schema = schemas.get(operation.collection)
    keys = schema.unique[-1] if schema is not None else ("_id",)
    if isinstance(operation, Insert | InsertNext):
        for document in operation.documents:
            yield _name(operation.collection, document, keys), document
    elif isinstance(operation, Update | Take):
        found = dict(_equalities(operation.where))
        yield _name(operation.collection, found, (*keys, "_id")), operation.changes
    elif (where := getattr(operation, "where", None)) is not None:
        yield f"the condition on {operation.collection}", dict(_equalities(where))


def _name(collection: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return a name of a document for people: the fields that no other document has."""
    shown = ", ".join(f"{key} {values[key]!r:.80}" for key in keys if key in values)
    return f"a document in {collection}{f' ({shown})' if shown else ''}"


def _equalities(condition: Condition) -> Iterator[tuple[str, Any]]:
    if isinstance(condition, And):
        for one in condition.conditions:
            yield from _equalities(one)
    elif isinstance(condition, Compare) and condition.op == "eq":
        yield condition.path, condition.value


def _largest(values: Mapping[str, Any], size: int) -> tuple[str, int]:
    """Return the path of the part that most of the size comes from, and its own size."""
    path, found = "", values
    items: Any = values.items()
    while items:
        key, value, part = max(
            ((key, value, _size({"": value})) for key, value in items), key=lambda item: item[2]
        )
        if path and 2 * part < size:
            break
        path = join_path(path, key) if path or "." not in str(key) else str(key)
        found, size = value, part
        if isinstance(found, Mapping):
            items = found.items()
        else:
            items = enumerate(found) if isinstance(found, list) and found else None
    return path, size


def _size(values: Mapping[str, Any]) -> int:
    """Return the bytes of a document, without what has no size by itself, as the store's time."""
    size = 0
    for name, value in values.items():
        with suppress(BSONError, OverflowError):
            size += len(bson.encode({name: value}))
    return size
