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

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from aiostorage._core.ids import new_id
from aiostorage.operations import And, Compare, Document, Logged, Take, Update

__all__ = [
    "MAX_REASON",
    "NO_REASON",
    "UNKNOWN",
    "Change",
    "Keys",
    "LoggedChange",
    "LoggedKind",
    "entries_of",
    "is_logged",
    "keys_of",
    "known_before",
    "log_entries",
    "log_rows",
    "readable_keys",
    "sets_content",
]

LoggedKind: TypeAlias = Literal["inserted", "reserved", "status", "results", "deleted"]

Keys: TypeAlias = "tuple[Any, Any, Any, Any]"
"""The owner, the name, the state and the holder of a document: keys, or None."""

Change: TypeAlias = "tuple[LoggedKind, Any, Any, Any, Any, Any, int]"
"""The kind, the owner and the name, the state before and after, the holder, and 1 if it is taken.

The last value is added to the number of attempts.
"""

LoggedChange: TypeAlias = "tuple[int, Keys | None, Keys | Update | Take | None]"
"""A subject, the document before the change, and the document after it or the operation.

None stands for a document that did not exist, or no longer does. The subject is a number by which
the engine knows the document.
"""

UNKNOWN: Final = 0
"""The subject where only the owner and the name of the document are known."""

NO_REASON: Final = 0
"""Stands for a reason that is None: Python's sqlite3 takes longer to pass a None."""

MAX_REASON: Final = 500
"""Characters of a reason that are kept."""

_BY_FIELDS: Final = (Update, Take)
_KEYS: Final = frozenset({str, int})
_PLAIN: Final = _KEYS | {type(None)}


def is_logged(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether a document with such changes may have to be logged."""
    if logged.state in changes or logged.owner in changes or logged.name in changes:
        return True
    return sets_content(logged, changes)


def sets_content(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether changes set the content, or a part of it."""
    if logged.content in changes:
        return True
    part = f"{logged.content}."
    for path in changes:  # noqa: SIM110  a generator takes twice as long, for each heartbeat
        if path.startswith(part):
            return True
    return False


def log_entries(
    logged: Logged,
    before: Keys | None,
    after: Keys | None,
    *,
    content: bool = False,
) -> list[Change]:
    """Return what is logged of one change: none, one, or two if the name changes.

    Parameters
    ----------
    before, after
        The document; None if it did not exist, or no longer does.
    content
        Whether the change sets the content.
    """
    if before is None:
        assert after is not None  # noqa: S101  a change has one of them
        owner, name, new, holder = after
        if owner is None or name is None:  # another program has stored it
            return []
        return [("inserted", owner, name, None, new, holder, int(new == logged.taken))]
    owner, name, old, was = before
    if after is None:
        gone = owner is None or name is None
        return [] if gone else [("deleted", owner, name, old, None, was, 0)]
    if owner != after[0] or name != after[1]:
        return [*log_entries(logged, before, None), *log_entries(logged, None, after)]
    new, holder = after[2], after[3]
    if new == logged.taken and (old != new or was != holder):
        kind: LoggedKind = "reserved"
    elif old != new:
        kind = "status"
    elif content:
        kind = "results"
    else:
        return []
    if owner is None or name is None:
        return []
    if holder is None:
        holder = was
    return [(kind, owner, name, old, new, holder, int(kind == "reserved"))]


def known_before(logged: Logged, update: Update) -> list[Keys] | None:
    """Return what the condition of an update says of the only document that it can match.

    Return None if that is not enough to write the log, and an empty list if nothing is logged.
    """
    where, changes = update.where, update.changes
    if not is_logged(logged, changes):
        return []
    if _renames(logged, update):
        return None
    bound: dict[str, Any] = {}
    for part in where.conditions if isinstance(where, And) else (where,):
        if isinstance(part, Compare) and part.op == "eq" and part.value.__class__ in _KEYS:
            bound[part.path] = part.value
    owner, name, state = (bound.get(logged.owner), bound.get(logged.name), bound.get(logged.state))
    if owner is None or name is None or state is None:
        return None
    holder = bound.get(logged.holder)
    if holder is None and changes.get(logged.holder) is None:
        return None
    return [(owner, name, state, holder)]


def entries_of(
    logged: Logged, changes: Sequence[LoggedChange], number: int, *more: Any
) -> Iterator[tuple[Any, ...]]:
    """Yield the log entries of changes, in order.

    An entry is one tuple: the values of a `Change`, the reason or `NO_REASON`, the subject, the
    values of `more`, and the number of the entry. They are made one by one, so that a busy store
    does not keep many of them for Python's garbage collector.

    Parameters
    ----------
    number
        That of the first entry.
    """
    owner, name, state, holder = logged.owner, logged.name, logged.state, logged.holder
    for subject, earlier, change in _with_subjects(logged, changes):
        before = None if earlier is None else readable_keys(earlier)
        if isinstance(change, _BY_FIELDS):
            assert before is not None  # noqa: S101  what is changed is there
            new, reason = change.changes, change.reason
            after: Keys | None = (
                new.get(owner, before[0]),
                new.get(name, before[1]),
                new.get(state, before[2]),
                new.get(holder, before[3]),
            )
            content = sets_content(logged, new)
        else:
            after, content, reason = change, False, None
        why = NO_REASON if reason is None else reason[:MAX_REASON]
        for entry in log_entries(logged, before, after, content=content):
            yield *entry, why, subject, *more, number
            number += 1


def _with_subjects(logged: Logged, changes: Sequence[LoggedChange]) -> Sequence[LoggedChange]:
    """Return changes with the subjects of documents that are deleted or renamed by later ones."""
    for _, _, change in changes:
        if change is None or (change.__class__ is Update and _renames(logged, change)):
            break
    else:
        return changes
    gone: dict[tuple[Any, ...], int] = {}
    found: list[LoggedChange] = []
    for subject, before, change in reversed(changes):
        known = subject
        if before is not None and subject == UNKNOWN:
            known = gone.get(before[:2], UNKNOWN)
        elif before is not None and (change is None or isinstance(change, Update)):
            gone[before[:2]] = subject
        found.append((known, before, change))
    return found[::-1]


def _renames(logged: Logged, update: Update) -> bool:
    return logged.owner in update.changes or logged.name in update.changes


def log_rows(
    logged: Logged,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    content: bool,
    attempt: int,
    time: datetime,
    reason: str | None = None,
    make_id: Callable[[], str] = new_id,
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
    make_id
        Returns the ``_id`` of the next row.
    """
    old_keys = None if before is None else keys_of(before, logged)
    new_keys = None if after is None else keys_of(after, logged)
    entries = log_entries(logged, old_keys, new_keys, content=content)
    for number, (kind, owner, name, old, new, holder, taken) in enumerate(entries):
        yield {
            "_id": make_id(),
            "kind": kind,
            "owner": owner,
            "name": name,
            "before": old,
            "after": new,
            "holder": holder,
            "attempt": (0 if number else attempt) + taken,
            "time": time,
            "reason": None if reason is None else reason[:MAX_REASON],
        }


def keys_of(document: Mapping[str, Any], logged: Logged) -> Keys:
    """Return the keys of a document; None for a missing one."""
    if document.__class__ is dict:
        get = document.get
        return readable_keys(
            (get(logged.owner), get(logged.name), get(logged.state), get(logged.holder))
        )
    fields = logged.owner, logged.name, logged.state, logged.holder
    # one that cannot be read as a whole refuses `get`
    found = [document[field] if field in document else None for field in fields]  # noqa: SIM401
    return readable_keys(found)


def readable_keys(found: Sequence[Any]) -> Keys:
    """Return keys, with None for a value that is neither text nor an integer."""
    owner, name, state, holder = found
    if not _PLAIN.issuperset(map(type, found)):
        owner, name, state, holder = (key if type(key) in _PLAIN else None for key in found)
    return owner, name, state, holder
