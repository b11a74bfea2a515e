"""The log of changes as SQL: pure functions, no connection.

The rows of all jobs of a transaction are collected, and one statement inserts them at its end,
which takes a fraction of the time. `aiostorage._core.log_rows` says what they contain.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from aiostorage.drivers.sqlite.schema_sql import quoted
from aiostorage.operations import Logged

__all__ = ["LogSql"]

_COLUMNS: Final = "kind, owner, name, before, after, holder, time, reason"


class LogSql:
    """The log of one table.

    Parameters
    ----------
    table
        The name of the table.
    logged
        The declaration of its log.
    columns
        The columns of the rows that are found to be taken.
    """

    def __init__(self, table: str, logged: Logged, columns: list[str]) -> None:
        self.logged = logged
        self.fields = (logged.owner, logged.name, logged.state, logged.holder)
        self.of_row = itemgetter(*map(columns.index, self.fields))
        """Returns the values of `fields` in such a row."""
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
        """The statement that inserts a row.

        Its parameters are the fields up to the reason, the number and the ``_id``; then the owner
        and the name once more, and the number to add to the last attempt.
        """

    def select(self, where: str) -> str:
        """Return the statement that selects `fields` of each document that matches."""
        return f"{self._select} WHERE {where} ORDER BY seq"
