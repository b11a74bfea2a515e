"""One change that is to be logged, and the rows of several: pure functions, no connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from aiostorage._core.change_log.log_rows import is_logged, log_rows, sets_content
from aiostorage.drivers.mongodb.log_ids import id_of, new_suffix, number_at, number_of
from aiostorage.operations import (
    Condition,
    Delete,
    Document,
    Insert,
    Logged,
    Operation,
    Take,
    Update,
)

__all__ = [
    "NO_ROW",
    "Doubt",
    "LastRow",
    "LoggedChange",
    "Name",
    "changed_fields",
    "is_logged_write",
    "name_of",
    "named_fields",
    "presumed_rows",
    "rows_of_changes",
]

Name: TypeAlias = tuple[Any, Any]
"""The owner and the name of a document."""


@dataclass(frozen=True, slots=True)
class LastRow:
    """The last row of a document."""

    uid: Any
    attempt: int
    after: Any
    holder: Any

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LastRow:
        """Return a row without the fields that are not needed."""
        return cls(row["_id"], row.get("attempt", 0), row.get("after"), row.get("holder"))


NO_ROW = LastRow(None, 0, None, None)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A write whose outcome is unknown, on a server without transactions.

    Attributes
    ----------
    where
        The condition that finds the documents.
    inserted
        Whether the write inserts them.
    deleted
        The documents, if the write deletes them.
    """

    collection: str
    where: Condition
    inserted: bool = False
    deleted: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A document before and after a change.

    Attributes
    ----------
    before, after
        The document, or at least the fields that are logged; None if it does not exist then.
    last
        Its last row before the change, `NO_ROW` if it has none; None if that is not known yet.
    time
        The server's time; None if it is not known yet.
    content, reason
        As for `aiostorage._core.change_log.log_rows.log_rows`.
    presumed
        What is probably its last row, if that is not known; None if nothing tells.
    """

    logged: Logged
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    last: LastRow | None = None
    time: datetime | None = None
    content: bool = False
    reason: str | None = None
    presumed: LastRow | None = None

    @property
    def name(self) -> Name:
        """The document that was changed."""
        return name_of(self.logged, self.before if self.before is not None else self.after)


def name_of(logged: Logged, document: Mapping[str, Any] | None) -> Name:
    """Return the owner and the name of a document."""
    owner, name = ((document or {}).get(field) for field in (logged.owner, logged.name))
    # another program may have stored anything
    return _key(owner), _key(name)


def named_fields(logged: Logged) -> dict[str, bool]:
    """Return the selection of the fields of a document that a log needs."""
    names = (logged.owner, logged.name, logged.state, logged.holder)
    return {"_id": True, **dict.fromkeys(names, True)}


def is_logged_write(logged: Logged | None, operation: Operation[Any]) -> bool:
    """Return whether the changes of an operation may have to be logged."""
    if logged is None:
        return False
    match operation:
        case Insert() | Delete():
            return True
        case Update(changes=changes) | Take(changes=changes):
            return is_logged(logged, changes)
        case _:
            return False


def changed_fields(
    logged: Logged, before: Mapping[str, Any], operation: Update | Take
) -> LoggedChange:
    """Return a change with the same fields in the document before it and after it."""
    set_here = {k: v for k, v in operation.changes.items() if k in named_fields(logged)}
    content = sets_content(logged, operation.changes)
    return LoggedChange(
        logged, before, {**before, **set_here}, content=content, reason=operation.reason
    )


def rows_of_changes(
    changes: Iterable[LoggedChange], last: Mapping[Name, LastRow], now: datetime
) -> list[Document]:
    """Return the rows of changes that are made together, in their order.

    Parameters
    ----------
    last
        The last rows of documents whose change lacks it.
    now
        The time for changes that have none.
    """
    rows: list[Document] = []
    newest: dict[Name, LastRow] = {}
    number = 0
    for change in changes:
        known = newest.get(change.name) or change.last or last.get(change.name, NO_ROW)
        time = change.time or now
        for row in log_rows(
            change.logged,
            change.before,
            change.after,
            content=change.content,
            attempt=known.attempt,
            time=time,
            reason=change.reason,
        ):
            name = row["owner"], row["name"]
            earlier = newest.get(name) or last.get(name) or known
            number = max(number + 1, number_at(time), number_of(earlier.uid) + 1)
            rows.append({**row, "_id": id_of(number, new_suffix())})
            newest[name] = LastRow.of(rows[-1])
    return rows


def presumed_rows(changes: Sequence[LoggedChange]) -> list[tuple[Document, LastRow]] | None:
    """Return the rows of changes whose last rows are presumed, each with that last row.

    None if something else has to be found out first.
    """
    found: list[tuple[Document, LastRow]] = []
    names: set[Name] = set()
    for change in changes:
        if change.last is not None or change.presumed is None or change.time is None:
            return None
        rows = rows_of_changes([replace(change, last=change.presumed)], {}, change.time)
        if change.name in names or any((row["owner"], row["name"]) != change.name for row in rows):
            return None
        names.add(change.name)
        found += [(row, change.presumed) for row in rows]
    return found


def _key(value: Any) -> Any:
    return value if value.__class__ in (str, int) else None
