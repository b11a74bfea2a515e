"""How long the history of trials is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

from aiostorage._core.kinds import shown
from aiostorage.errors import ConfigurationError

__all__ = ["DEFAULT_HISTORY", "HistoryLimit"]

DEFAULT_HISTORY: Final = "30d"

MAX_ROWS: Final = 2**53

_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class HistoryLimit:
    """A limit of the history, as a user has written it.

    Attributes
    ----------
    text
        Its text, such as ``30d``, ``10000`` or ``off``.
    age
        The maximum age of a change that is kept; None for no limit.
    rows
        The maximum number of changes that are kept; None for no limit.
    """

    text: str
    age: timedelta | None = None
    rows: int | None = None

    @property
    def is_off(self) -> bool:
        """Whether there is no history."""
        return self.age is None and self.rows is None

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the limit that a value means.

        Raises
        ------
        ConfigurationError
            The value does not mean a limit.
        """
        if value is False or value == "off":
            return cls("off")
        if isinstance(value, str):
            if span := _SPAN.fullmatch(value):
                try:
                    return cls(value, age=timedelta(**{_UNITS[span[2]]: int(span[1])}))
                except OverflowError:
                    pass
            if value.isascii() and value.isdecimal() and len(value) < 17:
                value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ROWS:
            return cls(str(value), rows=value)
        raise ConfigurationError(
            'history is a time such as "30d" (s, m, h, d or w), a number of changes such as '
            f'10000, or "off", not {shown(value)}'
        )
