"""The rows that an engine writes into a log for a change, as pure functions.

The rules, for a document that is inserted, deleted or changed:

- ``inserted`` and ``deleted`` are always logged, also when a document is renamed.
- A change that sets the state is logged as ``reserved`` if it takes the document (the document
  enters that state, or gets another holder in it), and as ``status`` if the state changes.
- A change that leaves the state as it is, and sets the content or a part of it, is logged as
  ``results``.
- Nothing else is logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from aiostorage._core.ids import new_id
from aiostorage.operations import And, Compare, Document, Logged, Take, Update

__all__ = [
    "MAX_REASON",
    "LogEntry",
    "LoggedChange",
    "LoggedKind",
    "entries_of",
    "is_logged",
    "known_before",
    "log_entries",
    "log_rows",
    "sets_content",
]

LoggedKind: TypeAlias = Literal["inserted", "reserved", "status", "results", "deleted"]

LoggedChange: TypeAlias = "tuple[Document | None, Document | Update | Take | None]"
"""A document before a change, and after it; or the operation that changes it."""

MAX_REASON: Final = 500
"""Characters of a reason that are kept."""


def is_logged(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether a document with such changes may have to be logged."""
    if logged.state in changes or logged.owner in changes or logged.name in changes:
        return True
    return sets_content(logged, changes)


def sets_content(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether changes set the content, or a part of it."""
    content = logged.content
    return content in changes or any(path.startswith(f"{content}.") for path in changes)


class LogEntry(NamedTuple):
    """The content of a row, without its time and its reason.

    Attributes
    ----------
    kind, owner, name, before, after, holder
        As in a row.
    taken
        Whether the number of attempts grows by one.
    """

    kind: LoggedKind
    owner: Any
    name: Any
    before: Any
    after: Any
    holder: Any
    taken: bool


def log_entries(
    logged: Logged,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    content: bool,
) -> list[LogEntry]:
    """Return the log entries of one change: none, one, or two if the name changes.

    Parameters
    ----------
    before, after
        The document; None if it did not exist, or no longer does. Its owner, name, state and holder
        are enough.
    content
        Whether the change sets the content.
    """
    if before is None:
        assert after is not None  # noqa: S101  a change has one of them
        owner, name, old, was = None, None, None, None
    else:
        owner, name, old, was = _keys(before, logged)
    if after is None:
        kind: LoggedKind = "deleted"
        new, holder = None, was
    else:
        new_owner, new_name, new, holder = _keys(after, logged)
        if before is not None and (owner != new_owner or name != new_name):
            return [
                *log_entries(logged, before, None, content=False),
                *log_entries(logged, None, after, content=False),
            ]
        owner, name = new_owner, new_name
        if before is None:
            kind = "inserted"
        elif new == logged.taken and (old != new or was != holder):
            kind = "reserved"
        elif old != new:
            kind = "status"
        elif content:
            kind = "results"
        else:
            return []
        if holder is None:
            holder = was
    if owner is None or name is None:  # another program has stored it
        return []
    taken = kind == "reserved" or (kind == "inserted" and new == logged.taken)
    return [LogEntry(kind, owner, name, old, new, holder, taken)]


def known_before(logged: Logged, update: Update) -> list[Document] | None:
    """Return the one document that an update can match, as far as its condition describes it.

    Return None if that is not enough to write the log, and an empty list if nothing is logged.
    """
    where, changes = update.where, update.changes
    if not is_logged(logged, changes):
        return []
    bound: Document = {}
    for part in where.conditions if isinstance(where, And) else (where,):
        if isinstance(part, Compare) and part.op == "eq" and part.value.__class__ is str:
            bound[part.path] = part.value
    if logged.owner not in bound or logged.name not in bound or logged.state not in bound:
        return None
    held = logged.holder in bound or changes.get(logged.holder) is not None
    return [bound] if held else None


def entries_of(
    logged: Logged, changes: Iterable[LoggedChange]
) -> list[tuple[LogEntry, str | None]]:
    """Return the log entries of changes, in order, each with its reason."""
    found: list[tuple[LogEntry, str | None]] = []
    for before, change in changes:
        if not isinstance(change, Update | Take):
            found += [(entry, None) for entry in log_entries(logged, before, change, content=False)]
            continue
        new, after = change.changes, dict(before or {})
        for field in (logged.owner, logged.name, logged.state, logged.holder):
            if field in new:
                after[field] = new[field]
        reason = None if change.reason is None else change.reason[:MAX_REASON]
        content = sets_content(logged, new)
        for entry in log_entries(logged, before, after, content=content):
            found.append((entry, reason))
    return found


def log_rows(
    logged: Logged,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    content: bool,
    attempt: int,
    time: datetime,
    reason: str | None = None,
) -> Iterator[Document]:
    """Yield the rows of one change, as documents.

    Parameters
    ----------
    before, after, content
        As for `log_entries`.
    attempt
        The number in the last row of the document; 0 without one.
    time
        The store's time.
    """
    for number, entry in enumerate(log_entries(logged, before, after, content=content)):
        yield {
            "_id": new_id(),
            "kind": entry.kind,
            "owner": entry.owner,
            "name": entry.name,
            "before": entry.before,
            "after": entry.after,
            "holder": entry.holder,
            "attempt": (0 if number else attempt) + entry.taken,
            "time": time,
            "reason": None if reason is None else reason[:MAX_REASON],
        }


def _keys(document: Mapping[str, Any], logged: Logged) -> list[Any]:
    """Return the owner, the name, the state and the holder of a document.

    None stands for a missing one, and for a value that is neither text nor an integer.
    """
    keys = []
    for field in (logged.owner, logged.name, logged.state, logged.holder):
        # not `get`: a document that cannot be read as a whole refuses it
        value = document[field] if field in document else None  # noqa: SIM401
        keys.append(value if value.__class__ is str or value.__class__ is int else None)
    return keys
