"""The rows of a log: what an engine notes of a change, as pure functions.

The rules, for a document that is inserted, deleted or changed:

- ``inserted`` and ``deleted`` are logged always, also where a document gets another name.
- A change that sets the state is logged as ``reserved`` if the document is taken by it (it gets
  into that state, or gets another holder in it), and as ``status`` if the state is another one.
- One that leaves the state as it is, and sets the content or a part of it, is logged as
  ``results``.
- Nothing else is logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from aiostorage._core.ids import new_id
from aiostorage.operations import Document, Logged

__all__ = ["MAX_REASON", "LoggedKind", "changed_kind", "is_logged", "log_rows", "sets_content"]

LoggedKind: TypeAlias = Literal["inserted", "reserved", "status", "results", "deleted"]

MAX_REASON: Final = 500
"""Characters of a reason that are kept."""


def is_logged(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether such changes of a document can have to be logged."""
    if logged.state in changes or logged.owner in changes or logged.name in changes:
        return True
    return sets_content(logged, changes)


def sets_content(logged: Logged, changes: Mapping[str, Any]) -> bool:
    """Return whether changes set the content, or a part of it."""
    content = logged.content
    return content in changes or any(path.startswith(f"{content}.") for path in changes)


def changed_kind(
    logged: Logged, before: Mapping[str, Any], after: Mapping[str, Any], *, content: bool
) -> LoggedKind | None:
    """Return what a change of a document is logged as; None if it is not.

    Parameters
    ----------
    before, after
        The document, or at least its state and its holder.
    content
        Whether the change sets the content.
    """
    old, new = _key(before, logged.state), _key(after, logged.state)
    if new == logged.taken and (
        old != new or _key(before, logged.holder) != _key(after, logged.holder)
    ):
        return "reserved"
    if old != new:
        return "status"
    return "results" if content else None


def log_rows(
    logged: Logged,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    content: bool,
    attempt: int,
    time: datetime | None,
    reason: str | None = None,
) -> Iterator[Document]:
    """Yield the rows of one change: none, one, or two if the document gets another name.

    Parameters
    ----------
    before, after
        The document; None where there was none, or is none any more. Its owner, name, state and
        holder are enough.
    content
        Whether the change sets the content.
    attempt
        The number in the last row of the document; 0 without one.
    time
        The store's time; None if the engine fills it in.
    """
    if before is not None and after is not None:
        if any(_key(before, f) != _key(after, f) for f in (logged.owner, logged.name)):
            yield from log_rows(
                logged, before, None, content=False, attempt=attempt, time=time, reason=reason
            )
            yield from log_rows(
                logged, None, after, content=False, attempt=0, time=time, reason=reason
            )
            return
        kind = changed_kind(logged, before, after, content=content)
        if kind is None:
            return
    else:
        kind = "inserted" if before is None else "deleted"
    document = (before if after is None else after) or {}
    owner, name = _key(document, logged.owner), _key(document, logged.name)
    if owner is None or name is None:  # another program has stored it
        return
    old = None if before is None else _key(before, logged.state)
    new = None if after is None else _key(after, logged.state)
    taken = kind == "reserved" or (kind == "inserted" and new == logged.taken)
    holder = None if after is None else _key(after, logged.holder)
    if holder is None and before is not None:
        holder = _key(before, logged.holder)
    yield {
        "_id": new_id(),
        "kind": kind,
        "owner": owner,
        "name": name,
        "before": old,
        "after": new,
        "holder": holder,
        "attempt": attempt + taken,
        "time": time,
        "reason": None if reason is None else reason[:MAX_REASON],
    }


def _key(document: Mapping[str, Any], field: str) -> Any:
    """Return a key of a document; None for what another program has stored in its place."""
    # not `get`: a document that cannot be read as a whole refuses it
    value = document[field] if field in document else None  # noqa: SIM401
    return value if value.__class__ in (str, int) else None
