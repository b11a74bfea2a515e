"""The log of changes as SQL: pure functions, no connection.

The rows of all jobs of a transaction are collected, and inserted together at its end: one statement
does that in a fraction of the time. `aiostorage._core.log_rows` says what they contain.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiostorage._core.log_rows import MAX_REASON, is_logged, log_entries, sets_content
from aiostorage.drivers.sqlite.schema_sql import quoted
from aiostorage.operations import And, Compare, Document, Logged, Take, Update

__all__ = ["LogRow", "LogSql"]

LogRow = tuple[Any, ...]
"""A row but for its number, its ``_id`` and its attempt: as `LogSql.numbered` wants it."""

_COLUMNS: Final = "kind, owner, name, before, after, holder, time, reason"


class LogSql:
    """The log of one table.

    Parameters
    ----------
    table
        The name of the table.
    logged
        What is logged of it.
    """

    def __init__(self, table: str, logged: Logged) -> None:
        self.logged = logged
        self.fields = (logged.owner, logged.name, logged.state, logged.holder)
        log = quoted(logged.log)
        self._select = f"SELECT {', '.join(map(quoted, self.fields))} FROM {quoted(table)}"
        self.last = f"SELECT ifnull(max(seq), 0) FROM {log}"
        """The statement that finds the number of the last row."""
        attempt = (
            f"SELECT attempt FROM {log} WHERE owner = ? AND name = ? ORDER BY seq DESC LIMIT 1"
        )
        self.insert = (
            f"INSERT INTO {log} ({_COLUMNS}, seq, _id, attempt, doc) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ifnull(({attempt}), 0) + ?, '{{}}')"
        )
        """The statement that inserts a row that `numbered` has completed."""

    def select(self, where: str) -> str:
        """Return the statement that finds what `changed` has to know of each document."""
        return f"{self._select} WHERE {where} ORDER BY seq"

    def known(self, update: Update) -> Document | None:
        """Return what an update's condition says of the only document that it can match.

        None if that is not enough to know what is logged.
        """
        where, one = update.where, self.logged
        bound: Document = {}
        for part in where.conditions if isinstance(where, And) else (where,):
            if isinstance(part, Compare) and part.op == "eq" and part.value.__class__ is str:
                bound[part.path] = part.value
        named = one.owner in bound and one.name in bound and one.state in bound
        held = one.holder in bound or update.changes.get(one.holder) is not None
        return bound if named and held else None

    def is_logged(self, change: Update | Take) -> bool:
        """Return whether such a change can have to be logged."""
        return is_logged(self.logged, change.changes)

    def changed(self, before: Document, change: Update | Take, time: str) -> Iterator[LogRow]:
        """Yield the rows of one document that is updated or taken."""
        changes = change.changes
        after = {
            name: changes[name] if name in changes else before.get(name) for name in self.fields
        }
        reason = None if change.reason is None else change.reason[:MAX_REASON]
        return self._rows(before, after, time, reason, content=sets_content(self.logged, changes))

    def inserted(self, document: Document, time: str) -> Iterator[LogRow]:
        """Yield the row of a document that is inserted."""
        return self._rows(None, document, time)

    def deleted(self, document: Document, time: str) -> Iterator[LogRow]:
        """Yield the row of a document that is deleted."""
        return self._rows(document, None, time)

    def _rows(
        self,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        time: str,
        reason: str | None = None,
        *,
        content: bool = False,
    ) -> Iterator[LogRow]:
        for kind, owner, name, old, new, holder, taken in log_entries(
            self.logged, before, after, content=content
        ):
            yield kind, owner, name, old, new, holder, time, reason, taken

    @staticmethod
    def numbered(rows: Sequence[LogRow], last: int) -> Iterator[tuple[Any, ...]]:
        """Yield the parameters of `insert` for rows that come behind number `last`.

        An ``_id`` begins with the number, so that the index of them grows at its end.
        """
        for number, row in enumerate(rows, last + 1):
            uid = f"{number:016x}{random.getrandbits(32):08x}"
            yield (*row[:-1], number, uid, row[1], row[2], row[-1])
