"""The log of changes of an engine whose tables are in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from aiostorage._core.change_log.log_rows import log_rows
from aiostorage._core.change_log.numbered_log import (
    BEGINNING,
    ID_SUFFIXES,
    cursor_behind,
    log_page,
    parsed_cursor,
    raise_expired,
)
from aiostorage._core.in_memory.steady_clock import SteadyMoment
from aiostorage._core.in_memory.table import DocumentTable
from aiostorage._core.queries.projection import copy_tree
from aiostorage.operations import Document, Logged, LogPage

__all__ = ["Pair", "add_to_log", "read_table_log"]

Pair: TypeAlias = tuple["Document | None", "Document | None"]
"""A document before and after a change; None if it did not exist, or no longer does."""


def add_to_log(
    tables: Mapping[str, DocumentTable],
    logged: Logged,
    pairs: Sequence[Pair],
    now: SteadyMoment,
    undo: list[Any],
    *,
    content: bool = False,
    reason: str | None = None,
) -> None:
    """Add the rows of changes that have just been made.

    Parameters
    ----------
    pairs
        The documents that were changed.
    undo
        Gets the functions that remove the rows again.
    content, reason
        As for `aiostorage._core.change_log.log_rows.log_rows`.
    """
    rows = tables[logged.log]

    def make_id() -> str:
        return f"{rows.last + 1:016x}{ID_SUFFIXES.getrandbits(32):08x}"

    for before, after in pairs:
        one = before if before is not None else after
        assert one is not None  # noqa: S101  a change has one of them
        last = rows.newest(one.get(logged.owner), one.get(logged.name))
        attempt = 0 if last is None else last["attempt"]
        for row in log_rows(
            logged,
            before,
            after,
            content=content,
            attempt=attempt,
            time=now.wall,
            reason=reason,
            make_id=make_id,
        ):
            rows.insert(row, undo)


def read_table_log(table: DocumentTable, owner: Any, after: str | None, limit: int) -> LogPage:
    """Return a page of a log; see `aiostorage.protocols.LoggingDriver.read_log`."""
    documents = table.documents
    end = (table.last, documents[table.last]["_id"]) if documents else None
    if after is None:
        return LogPage((), cursor_behind(*end) if end else BEGINNING)
    number = 0
    if after:
        number, uid = parsed_cursor(after)
        first = next(iter(documents), 1)
        row = documents.get(number)
        there = row is not None and cursor_behind(number, row["_id"]) == after
        if not (there or (number == 0 and not uid and first == 1)):
            raise_expired(after)
    behind = (
        (seq, documents[seq])
        for seq in range(max(number + 1, next(iter(documents), 1)), table.last + 1)
        if seq in documents
    )
    ours = ((seq, row) for seq, row in behind if owner is None or row["owner"] == owner)
    found = [(seq, copy_tree(row)) for seq, row in islice(ours, limit)]
    return log_page(found, limit, after or BEGINNING, end)
