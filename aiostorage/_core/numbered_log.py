"""Cursors of a log whose rows an engine numbers without gaps, in the order of their insertion.

A cursor names the last row that was read by its number and the end of its ``_id``, so that a row
of another store, or of an older copy of this one, is not mistaken for it. Rows are deleted from
the beginning, and the last one never is. So as long as a row exists, all rows behind it do, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NoReturn

from aiostorage.errors import CursorExpired
from aiostorage.operations import Document, LogPage

__all__ = ["BEGINNING", "MARKS", "cursor_behind", "log_page", "parsed_cursor", "raise_expired"]

BEGINNING: Final = "0-"
"""The cursor of a log that has never had a row."""

ID_LENGTH: Final = 8
"""Characters of an ``_id`` in a cursor."""


MARKS: Final = Random()  # noqa: S311  no secret
"""Makes the random ends of ids. Many programs seed the generator that all share, and alike."""


def cursor_behind(number: int, uid: Any) -> str:
    """Return the cursor behind a row."""
    return f"{number}-{str(uid)[-ID_LENGTH:]}"


def parsed_cursor(cursor: str) -> tuple[int, str]:
    """Return the number of the row that a cursor names, and the end of its ``_id``.

    Raises
    ------
    CursorExpired
        The text is not a cursor of such a log.
    """
    number, dash, uid = cursor.partition("-")
    if not dash or not number.isascii() or not number.isdecimal() or len(number) > 18:
        raise CursorExpired(f"{cursor[:40]!r} is not a cursor of this store")
    return int(number), uid


def log_page(
    found: Sequence[tuple[int, Document]], limit: int, cursor: str, last: tuple[int, Any] | None
) -> LogPage:
    """Return a page.

    Parameters
    ----------
    found
        The rows behind the cursor with their numbers, at most `limit` of them.
    cursor
        The cursor that was given.
    last
        The number and the ``_id`` of the last row of all, as it was when the rows were found.
    """
    rows = tuple((cursor_behind(number, row["_id"]), row) for number, row in found)
    if len(rows) == limit:
        return LogPage(rows, rows[-1][0])
    return LogPage(rows, cursor_behind(*last) if last else cursor)


def raise_expired(cursor: str) -> NoReturn:
    """Raise `CursorExpired` for a cursor whose row is gone."""
    raise CursorExpired(
        f"the changes behind the cursor {cursor[:40]!r} are no longer kept, or it is the cursor "
        "of another store; read the trials again, and continue with a new cursor"
    )
