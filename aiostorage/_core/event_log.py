"""What is logged: one event per line, with its fields in addition to the text.

A subject has a logger of its own below ``aiostorage``. A field of an event is an attribute of the
log record, whose name begins with ``aiostorage_``; so is the name of the event.
"""

from __future__ import annotations

import logging
from typing import Any, Final

__all__ = ["EventLog"]

PREFIX: Final = "aiostorage_"
"""Prefix of attributes, so that they do not collide with those of the log record itself."""


class EventLog:
    """The events of one subject.

    Parameters
    ----------
    subject
        What they are about; the last part of the logger's name.
    """

    def __init__(self, subject: str) -> None:
        self._logger = logging.getLogger(f"aiostorage.{subject}")

    def debug(self, event: str, text: str, /, **fields: Any) -> None:
        """Log what explains how aiostorage came to do something; see `warning`."""
        self._log(logging.DEBUG, event, text, fields)

    def info(self, event: str, text: str, /, **fields: Any) -> None:
        """Log what is worth knowing and needs no action; see `warning`."""
        self._log(logging.INFO, event, text, fields)

    def warning(self, event: str, text: str, /, **fields: Any) -> None:
        """Log what an operator should look at.

        Parameters
        ----------
        event
            Its name.
        text
            For people; fields stand in it as ``%(name)s``.
        fields
            What belongs to it. An error is two fields, its text and its type.
        """
        self._log(logging.WARNING, event, text, fields)

    def exception(self, event: str, text: str, /, **fields: Any) -> None:
        """Log what should not have happened, with the traceback of the present exception."""
        self._log(logging.ERROR, event, text, fields, exc_info=True)

    def _log(
        self, level: int, event: str, text: str, fields: dict[str, Any], *, exc_info: bool = False
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        shown = {name: _plain(value) for name, value in fields.items()}
        attributes = {f"{PREFIX}{name}": value for name, value in shown.items()}
        for name, value in fields.items():
            if isinstance(value, BaseException):
                attributes[f"{PREFIX}{name}_type"] = type(value).__name__
        attributes[f"{PREFIX}event"] = event
        # the caller of the method that called this
        arguments = (shown,) if shown else ()
        self._logger.log(level, text, *arguments, exc_info=exc_info, extra=attributes, stacklevel=3)


def _plain(value: Any) -> str | int | float | bool | None:
    """Return a form that every formatter can write: one line of text, or a plain value."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return " ".join(str(value).split("\n")) if "\n" in str(value) else str(value)
