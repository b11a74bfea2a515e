"""The ids of the rows of a log, which order them: pure functions, no connection.

An id is a number of 15 hex digits and a random part of 8. The number is the server's time in
milliseconds, times 4096, or more: it is larger than the number of each earlier row of the same
document. So the order of their ids is the order of the changes for the rows of one document, even
if two primaries with different clocks have written them, and nearly so for those of different ones.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Final

__all__ = ["PER_MILLISECOND", "id_of", "milliseconds_of", "new_suffix", "number_at", "number_of"]

PER_MILLISECOND: Final = 4096
"""Numbers for each millisecond."""

_DIGITS: Final = 15
_SUFFIX_BYTES: Final = 4


def new_suffix() -> str:
    """Return the random part of a new id."""
    return secrets.token_hex(_SUFFIX_BYTES)


def id_of(number: int, suffix: str = "") -> str:
    """Return the id with a number; without a random part, a bound that sorts before all of them."""
    return f"{number:0{_DIGITS}x}{suffix}"


def number_of(uid: Any) -> int:
    """Return the number in an id; 0 if another engine has made it."""
    if uid.__class__ is not str or len(uid) != _DIGITS + 2 * _SUFFIX_BYTES:
        return 0
    try:
        return int(uid[:_DIGITS], 16)
    except ValueError:
        return 0


def milliseconds_of(uid: Any) -> int:
    """Return the time in an id, in milliseconds since 1970."""
    return number_of(uid) // PER_MILLISECOND


def number_at(time: datetime) -> int:
    """Return the first number at a time."""
    return int(time.timestamp() * 1000) * PER_MILLISECOND
