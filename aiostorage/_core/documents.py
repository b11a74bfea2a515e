"""What goes to an engine: conditions, documents and changes, checked against the layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from aiostorage._core.ids import new_id
from aiostorage._core.layout import LAYOUT
from aiostorage._core.normalise import normalise
from aiostorage._core.queries.changes import check_changes
from aiostorage._core.queries.projection import check_selection
from aiostorage._core.queries.query import parse
from aiostorage._core.record_checks import check_record, needed_items
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import And, Collection, Compare, Condition, Document, Update

__all__ = [
    "both",
    "changes_of",
    "document_of",
    "equal",
    "query_of",
    "truncated",
    "update_of",
]

_COLLECTIONS: dict[str, Collection] = {c.name: c for c in LAYOUT.collections}


def equal(**fields: Any) -> And:
    """Return the condition that fields equal values."""
    return And(tuple(Compare(name, "eq", value) for name, value in fields.items()))


def both(first: And, second: Condition) -> And:
    """Return the condition that both hold, flat, so that engines see the equalities in it."""
    more = second.conditions if isinstance(second, And) else (second,)
    return And((*first.conditions, *more)) if more else first


def query_of(
    query: Mapping[str, Any] | None, selection: Mapping[str, Any] | None = None
) -> tuple[Condition, dict[str, bool] | None]:
    """Return a caller's query and selection, checked and parsed."""
    return parse(query), check_selection(selection)


def document_of(collection: str, value: Mapping[str, Any]) -> Document:
    """Return the document to insert: a normalised copy that has an ``_id`` and fits the layout.

    Raises
    ------
    EncodingError
        Something in it cannot be stored, or could not be read again.
    ValueError
        The status of a trial is not the value of a `TrialStatus`.
    """
    document = cast(Document, normalise(value))
    if document.get("_id") is None:
        document["_id"] = new_id()
    for field in _COLLECTIONS[collection].fields:
        if field.required and document.get(field.name) is None:
            of_trial = collection == "trials" and field.name == "experiment"
            hint = ": Trial(experiment=experiment.id, …)" if of_trial else ""
            raise EncodingError(
                f"a record of {collection} needs {field.name!r}{hint}", path=field.name
            )
    check_record(collection, document)
    _check_fields(collection, document)
    return document


def update_of(collection: str, where: And, changes: Mapping[str, Any]) -> Update:
    """Return the update that sets what a caller wants to set.

    An ``_id`` cannot change. If it is among the changes, as in a whole stored record, only the
    document with that ``_id`` matches. Where a part of a trial's params or results is set, only a
    trial that has that item does.
    """
    normal = changes_of(collection, changes)
    where = both(where, And(needed_items(collection, normal)))
    if "_id" in normal:
        where = both(where, equal(_id=normal.pop("_id")))
    return Update(collection, where, normal)


def changes_of(collection: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes of an update: a normalised copy that fits the layout.

    Raises
    ------
    EncodingError
        Something in it cannot be stored, or could not be read again.
    ValueError
        The status of a trial is not the value of a `TrialStatus`.
    """
    normal = cast(dict[str, Any], normalise(changes))
    check_record(collection, normal)
    for field in _COLLECTIONS[collection].fields:
        if field.required and field.name in normal and normal[field.name] is None:
            raise EncodingError(f"{collection}.{field.name} cannot be None", path=field.name)
    check_changes(normal)
    _check_fields(collection, normal)
    return normal


def truncated(document: Document, resolution: timedelta) -> Document:
    """Return a document with times as finely as an engine of that resolution keeps them."""
    step = resolution // timedelta(microseconds=1)
    return document if step <= 1 else cast(Document, _truncated(document, step))


def _truncated(value: Any, step: int) -> Any:
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // step * step)
    if isinstance(value, dict):
        return {key: _truncated(item, step) for key, item in value.items()}
    return [_truncated(item, step) for item in value] if isinstance(value, list) else value


_KINDS: dict[str, Callable[[Any], bool]] = {
    "key": lambda v: type(v) in (str, int),
    "time": lambda v: isinstance(v, datetime),
    "bytes": lambda v: isinstance(v, bytes),
}
_NAMES = {"key": "a str or an int", "time": "a datetime", "bytes": "bytes"}


def _check_fields(collection: str, values: Mapping[str, Any]) -> None:
    if "_id" in values and not _KINDS["key"](values["_id"]):
        raise EncodingError(f"an _id is a str or an int, not {values['_id']!r:.60}", path="_id")
    for field in _COLLECTIONS[collection].fields:
        value = values.get(field.name)
        if value is not None and not _KINDS[field.kind](value):
            raise EncodingError(
                f"{collection}.{field.name} is {_NAMES[field.kind]}, not {value!r:.60}",
                path=field.name,
            )
    for path in values:
        root, dot, _ = path.partition(".")
        if dot and any(field.name == root for field in _COLLECTIONS[collection].fields):
            raise UnsupportedQuery(f"{collection}.{root} has no parts to set: {path!r}")
