"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "markdown"]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    left
        How many columns, from the left, are text; the others are figures.
    caption
        A sentence below it.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    caption: str = ""


def markdown(table: Table) -> str:
    """Return the table and its caption in Markdown, without the title."""
    rule = ["---" if number < table.left else "---:" for number in range(len(table.headings))]
    lines = ["| " + " | ".join(row) + " |" for row in (table.headings, rule, *table.rows)]
    return "\n".join([*lines, *(["", table.caption] if table.caption else []), ""])
