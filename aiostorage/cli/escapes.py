"""Texts of a store without characters that control a terminal."""

from __future__ import annotations

import logging
import unicodedata
from typing import Final

__all__ = ["EscapingFormatter", "escape_log", "printable"]

_ESCAPED: Final = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
"""The Unicode categories of controls, of invisible characters, and of other ends of lines."""

_JOINERS: Final = "\u200c\u200d"
"""Invisible characters of scripts and emoji; they control nothing."""


def printable(value: object, keep: str = "") -> str:
    r"""Return a text on one line, its control characters written as Python writes them.

    Parameters
    ----------
    value
        What is to be printed; anything but a str is converted.
    keep
        Control characters that stay.

    Examples
    --------
    >>> print(printable("a\x1b[2J\nb"))
    a\x1b[2J\nb
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) in _ESCAPED and character not in _JOINERS:
        return character.encode("unicode_escape").decode()
    return character


def escape_log() -> None:
    """Escape control characters in the log, where the program has not configured another one."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(EscapingFormatter())


class EscapingFormatter(logging.Formatter):
    """Formats records of a log without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record; only its ends of lines stay."""
        return printable(super().format(record), keep="\n")
