"""The log of changes as SQL: pure functions, no connection.

`aiostorage._core.log_rows` says what a row contains. The rows of an update or a deletion are
selected from the documents that match, before these are changed, by one statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from aiostorage._core.log_rows import MAX_REASON, is_logged, log_rows, sets_content
from aiostorage.drivers.sqlite.schema_sql import quoted, text_literal
from aiostorage.operations import Document, Logged

__all__ = ["LogSql"]

Sql = tuple[str, list[Any]]

_COLUMNS: Final = (
    '"_id", "kind", "owner", "name", "before", "after", "holder", "attempt", "time", "reason", doc'
)
_NEW_ID: Final = "lower(hex(randomblob(12)))"


class LogSql:
    """The statements that log the changes of one table.

    Parameters
    ----------
    table
        The name of the table.
    logged
        What is logged of it.
    """

    def __init__(self, table: str, logged: Logged) -> None:
        self.logged = logged
        log = quoted(logged.log)
        self._insert = f"INSERT INTO {log} ({_COLUMNS})"
        self._names = f"{quoted(logged.owner)} AS owner, {quoted(logged.name)} AS name"
        self._before = f"{quoted(logged.state)} AS before, {quoted(logged.holder)} AS old"
        self._taken = text_literal(logged.taken)
        self._table = quoted(table)
        last = f"SELECT attempt FROM {log} AS l WHERE l.owner = {{}} AND l.name = {{}}"
        self._last = f"ifnull(({last} ORDER BY l.seq DESC LIMIT 1), 0)"
        self._row = (
            f"{self._insert} VALUES ({_NEW_ID}, ?, ?, ?, ?, ?, ?, "
            f"{self._last.format('?', '?')} + ?, ?, ?, '{{}}')"
        )
        self.undo: str = f"DELETE FROM {log} WHERE seq > (SELECT max(seq) FROM {log}) - ?"
        """Deletes the last rows, as many as its parameter says."""

    def document(
        self,
        before: Document | None,
        after: Document,
        time: str,
        reason: str | None = None,
        *,
        content: bool = False,
    ) -> list[Sql]:
        """Return the statements that log one document, as `aiostorage._core.log_rows` says."""
        return [
            (
                self._row,
                [
                    row["kind"],
                    row["owner"],
                    row["name"],
                    row["before"],
                    row["after"],
                    row["holder"],
                    row["owner"],
                    row["name"],
                    row["attempt"],
                    time,
                    row["reason"],
                ],
            )
            for row in log_rows(
                self.logged, before, after, content=content, attempt=0, time=None, reason=reason
            )
        ]

    def deletion(self, where: str, params: list[Any], time: str, reason: str | None = None) -> Sql:
        """Return the statement that logs the deletion of all documents that match."""
        sql = (
            f"{self._insert} SELECT {_NEW_ID}, 'deleted', owner, name, before, NULL, old, "
            f"{self._last.format('d.owner', 'd.name')}, ?, ?, '{{}}' FROM "
            f"(SELECT seq, {self._names}, {self._before} FROM {self._table} WHERE {where}) AS d "
            "ORDER BY seq"
        )
        return sql, [time, reason, *params]

    def update(
        self,
        changes: Mapping[str, Any],
        where: str,
        params: list[Any],
        time: str,
        reason: str | None,
    ) -> list[Sql]:
        """Return the statements that log an update of all documents that match."""
        one = self.logged
        if not is_logged(one, changes):
            return []
        reason = None if reason is None else reason[:MAX_REASON]
        if one.owner in changes or one.name in changes:
            return [
                self.deletion(where, params, time, reason),
                self._renamed(changes, where, params, time, reason),
            ]
        new = [changes[name] for name in (one.state, one.holder) if name in changes]
        shape = one.state in changes, one.holder in changes, sets_content(one, changes)
        return [(self._update(*shape, where), [time, reason, *new, *params])]

    @lru_cache(maxsize=256)  # noqa: B019  as many as there are tables, which live as long
    def _update(self, state: bool, holder: bool, content: bool, where: str) -> str:
        one = self.logged
        after = "?" if state else quoted(one.state)
        new = "?" if holder else quoted(one.holder)
        condition = "" if content else "WHERE taken OR before IS NOT after "
        return (
            f"{self._insert} SELECT {_NEW_ID}, "
            "CASE WHEN taken THEN 'reserved' WHEN before IS NOT after THEN 'status' "
            "ELSE 'results' END, owner, name, before, after, ifnull(new, old), "
            f"{self._last.format('d.owner', 'd.name')} + taken, ?, ?, '{{}}' FROM "
            f"(SELECT *, after IS {self._taken} AND (before IS NOT after OR old IS NOT new) "
            f"AS taken FROM (SELECT seq, {self._names}, {self._before}, {after} AS after, "
            f"{new} AS new FROM {self._table} WHERE {where})) AS d {condition}ORDER BY seq"
        )

    def _renamed(
        self,
        changes: Mapping[str, Any],
        where: str,
        params: list[Any],
        time: str,
        reason: str | None,
    ) -> Sql:
        """Return the statement that logs documents as inserted under another name."""
        one = self.logged
        columns, values = [], []
        for field, name in (
            (one.owner, "owner"),
            (one.name, "name"),
            (one.state, "after"),
            (one.holder, "holder"),
        ):
            columns.append(f"{'?' if field in changes else quoted(field)} AS {name}")
            values += [changes[field]] if field in changes else []
        sql = (
            f"{self._insert} SELECT {_NEW_ID}, 'inserted', owner, name, NULL, after, holder, "
            f"after IS {self._taken}, ?, ?, '{{}}' FROM "
            f"(SELECT seq, {', '.join(columns)} FROM {self._table} WHERE {where}) ORDER BY seq"
        )
        return sql, [time, reason, *values, *params]
