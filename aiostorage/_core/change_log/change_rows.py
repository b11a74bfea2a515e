"""Rows of the history as changes of trials. Another program may have written what is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, get_args

from aiostorage._core.change_log.log_rows import LoggedKind
from aiostorage._core.kinds import shown
from aiostorage.errors import EncodingError
from aiostorage.operations import Document, StoreTime, UnreadableDocument
from aiostorage.trial_change import TrialChange

__all__ = ["BREAK", "break_row", "change_of", "fault_in_row", "trial_in_row"]

BREAK: Final = "break"
"""The kind of a row that says that changes in front of it are not kept, or were not logged."""

_MISSING: Final = object()

_KINDS: Final = frozenset(get_args(LoggedKind))
_TEXT: Final = frozenset({str, type(None)})
_KEY: Final = frozenset({str, int, type(None)})


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_key_or_none(value: Any) -> bool:
    return value is None or _is_key(value)


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "kind": _KINDS.__contains__,
    "owner": _is_key,
    "name": lambda value: isinstance(value, str),
    "before": _is_key_or_none,
    "after": _is_key_or_none,
    "holder": _is_key_or_none,
    "attempt": lambda value: type(value) is int and value >= 0,
    "time": lambda value: isinstance(value, datetime),
    "reason": lambda value: value is None or isinstance(value, str),
}
_OPTIONAL: Final = frozenset({"before", "after", "holder", "reason"})


def break_row(uid: str) -> Document:
    """Return a row that stands where changes are missing."""
    return {"_id": uid, "kind": BREAK, "owner": "", "name": "", "attempt": 0, "time": StoreTime()}


def fault_in_row(row: Document) -> str | None:
    """Return why a row tells of no change; None if it does, or says that some are missing."""
    if isinstance(row, UnreadableDocument):
        return row.reason
    if row.get("kind") == BREAK:
        return None
    for name, is_right in _CHECKS.items():
        value = row.get(name, None if name in _OPTIONAL else _MISSING)
        if value is _MISSING:
            return f"it has no {name}"
        if value.__class__ in (dict, list) or not is_right(value):
            return f"its {name} is {shown(value)}"
    return None


def _is_plainly_right(row: Document) -> bool:
    """Return whether a row is as the engines write it, which takes less time than each check."""
    get = row.get
    return (
        row.__class__ is dict
        and get("kind").__class__ is str
        and get("kind") in _KINDS
        and get("owner").__class__ in (str, int)
        and get("name").__class__ is str
        and get("before").__class__ in _KEY
        and get("after").__class__ in _KEY
        and get("holder").__class__ in _KEY
        and get("attempt").__class__ is int
        and get("attempt", -1) >= 0
        and get("time").__class__ is datetime
        and get("reason").__class__ in _TEXT
    )


def trial_in_row(row: Document) -> str:
    """Return the trial that a row is about, for people; the row may be unreadable."""
    name, owner = (shown(dict.get(row, field)) for field in ("name", "owner"))
    return f"trial {name} of experiment {owner}"


def change_of(row: Document, cursor: str) -> TrialChange:
    """Return the change that a row tells of.

    Raises
    ------
    EncodingError
        It tells of none.
    """
    if not _is_plainly_right(row) and (fault := fault_in_row(row)) is not None:
        raise EncodingError(
            f"row {dict.get(row, '_id')!r:.40} of trial_changes, which is about "
            f"{trial_in_row(row)}, cannot be read: {fault}. Another program wrote it"
        )
    return TrialChange(
        kind=row["kind"],
        experiment=row["owner"],
        trial=row["name"],
        before=row.get("before"),
        after=row.get("after"),
        worker=row.get("holder"),
        attempt=row["attempt"],
        time=row["time"],
        reason=row.get("reason"),
        cursor=cursor,
    )
