"""The last rows of documents that are or were taken, as far as this process has written them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiostorage.drivers.mongodb.logged_change import LastRow, Name
from aiostorage.operations import Document

__all__ = ["KnownRows"]

MAX_ROWS: Final = 4096
"""Rows that are kept; those that were written first are forgotten."""


class KnownRows:
    """Rows by their documents. Others may have written later ones, which is to be checked."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Name], LastRow] = {}

    def add(self, log: str, rows: Iterable[Document]) -> None:
        """Keep rows that have been written: of each document that is or was taken, the last one."""
        kept = self._rows
        for row in rows:
            if row["holder"] is None:
                continue
            key = log, (row["owner"], row["name"])
            kept.pop(key, None)  # so that it is the youngest one now
            kept[key] = LastRow.of(row)
        while len(kept) > MAX_ROWS:
            del kept[next(iter(kept))]

    def last(self, log: str, name: Name) -> LastRow | None:
        """Return the last row of a document; None if this process has written none."""
        return self._rows.get((log, name))

    def discard(self, log: str, names: Iterable[Name]) -> None:
        """Discard the rows of documents."""
        for name in names:
            self._rows.pop((log, name), None)
