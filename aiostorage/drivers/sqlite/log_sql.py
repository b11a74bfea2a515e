"""The log of changes as SQL: pure functions, no connection.

The rows of all jobs of a transaction are collected, and one statement inserts them at its end,
which takes a fraction of the time. `aiostorage._core.log_rows` says what they contain.

The rows of a document are found by their subject, the number of the document in its own table.
Documents that change at the same time mostly have neighbouring numbers, while their names are
scattered: with an index of names, each row would change another page of the file. Only the rows of
deletions have their names in an index, since there the document's own row is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final, TypeAlias

from aiostorage._core.log_rows import NO_REASON, UNKNOWN
from aiostorage._core.matching import conjuncts
from aiostorage.drivers.sqlite.schema_sql import create_statements, partial_where, quoted
from aiostorage.operations import Collection, Compare, Condition, Index, Logged

__all__ = ["HAS_SUBJECTS", "LogSql", "log_statements"]

_Arrange: TypeAlias = Callable[[Sequence[Any]], tuple[Any, ...]]
"""Takes values out of a row, or puts those of an entry in order."""

_SUBJECT: Final = "subject INTEGER"
"""A column beside those of the documents: the number of the row that was changed."""

_DELETED: Final = Compare("kind", "in", ("deleted",))
_INDEXES: Final = (Index(("subject",)), Index(("owner", "name"), where=_DELETED))

_ENTRY: Final = (
    *("kind", "owner", "name", "before", "after", "holder", "begun", "reason", "subject"),
    *("time", "random", "number"),
)
"""The values of an entry, in order."""

HAS_SUBJECTS: Final = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'subject'"
"""Finds a row if the table of a log has the column for subjects; its parameter is the name."""


def log_statements(collection: Collection) -> list[str]:
    """Return the statements that create the table of a log, and its indexes."""
    return create_statements(replace(collection, indexes=_INDEXES), (_SUBJECT,))


def _by_place(sql: str) -> tuple[str, _Arrange]:
    """Return a statement with its parameters in order, and what arranges the values of an entry.

    Python's sqlite3 takes named parameters only from a mapping, which takes longer to make.
    """
    order = [_ENTRY.index(name) for name in re.findall(r":(\w+)", sql)]
    return re.sub(r":\w+", "?", sql), itemgetter(*order)


class LogSql:
    """The log of one table.

    Parameters
    ----------
    table
        The name of the table.
    logged
        The declaration of its log.
    columns
        The columns of the rows that are found to be taken; the first is ``seq``.
    """

    def __init__(self, table: str, logged: Logged, columns: Sequence[str]) -> None:
        self.logged = logged
        fields = (logged.owner, logged.name, logged.state, logged.holder)
        self.of_row: _Arrange = itemgetter(*map(columns.index, fields))
        """Returns the keys of the document in such a row."""
        log, self._table = quoted(logged.log), quoted(table)
        self._select = f"SELECT seq, {', '.join(map(quoted, fields))} FROM {self._table}"
        self.last: str = f"SELECT ifnull(max(seq), 0) FROM {log}"
        """The statement that finds the number of the last row."""
        own = self._own(":owner", ":name")
        subject = f"CASE :subject WHEN {UNKNOWN} THEN ({own}) ELSE :subject END"
        same = "owner = :owner AND name = :name"
        deleted = f"FROM {log} WHERE {partial_where(_DELETED)} AND {same}"
        earlier = f"FROM {log} WHERE subject = {subject} AND {same}"
        newest = "ORDER BY seq DESC LIMIT 1"
        attempt = (
            f"CASE :kind WHEN 'inserted' THEN (SELECT attempt {deleted} {newest}) "
            f"ELSE (SELECT attempt {earlier} {newest}) END"
        )
        self.insert: str
        self.arranged: _Arrange
        self.insert, self.arranged = _by_place(
            f"INSERT INTO {log} (kind, owner, name, before, after, holder, attempt, reason, "
            "subject, time, seq, _id, doc) VALUES (:kind, :owner, :name, :before, :after, :holder, "
            f"ifnull({attempt}, 0) + :begun, nullif(:reason, {NO_REASON}), {subject}, :time, "
            ":number, printf('%016x%08x', :number, :random), '{}')"
        )
        """The statement that inserts a row, and what makes its parameters of an entry.

        An entry has the values in `_ENTRY`: those that `aiostorage._core.log_rows.entries_of`
        makes, with the time as text and a random number of 32 bits. An ``_id`` begins with the
        number of the row, so that the index of it grows at its end.
        """
        self._subjects = (
            f"subject IN (SELECT subject FROM {log} WHERE {partial_where(_DELETED)} "
            f"AND owner = ? AND name = ? UNION ALL {self._own('?', '?')})"
        )

    def numbered(self, collection: Collection) -> list[str]:
        """Return the statements that give subjects to a log that was made without them."""
        log = quoted(collection.name)
        own = self._own(f"{log}.owner", f"{log}.name")
        return [
            f"ALTER TABLE {log} ADD COLUMN {_SUBJECT}",
            f"UPDATE {log} SET subject = ({own})",
            f"DROP INDEX IF EXISTS {quoted(f'{collection.name}_owner_name')}",
            *log_statements(collection)[-len(_INDEXES) :],
        ]

    def _own(self, owner: str, name: str) -> str:
        """Return the query for the number of the document with an owner and a name."""
        return (
            f"SELECT seq FROM {self._table} WHERE {quoted(self.logged.owner)} = {owner} "
            f"AND {quoted(self.logged.name)} = {name}"
        )

    def select(self, where: str) -> str:
        """Return the statement that finds the number and the keys of documents that match."""
        return f"{self._select} WHERE {where} ORDER BY seq"

    def of_one(self, condition: Condition) -> tuple[str, list[Any]] | None:
        """Return what finds the rows of one document by an index, if a condition names one."""
        bound = {
            part.path: part.value
            for part in conjuncts(condition)
            if isinstance(part, Compare) and part.op == "eq"
        }
        if not {str, int}.issuperset(map(type, map(bound.get, ("owner", "name")))):
            return None
        return self._subjects, [bound["owner"], bound["name"]] * 2
