"""The reason of a change of a trial, as text for its history."""

from __future__ import annotations

import asyncio
from typing import Final

from aiostorage.errors import BackendError

__all__ = ["leaves_of", "reason_of", "text_of"]

MAX_LENGTH: Final = 300


def reason_of(error: BaseException) -> str:
    r"""Return the type and the first line of an error; of a group, those of its first error.

    In a group, errors of the store are ignored if there are others: those ended the evaluation.

    >>> reason_of(ValueError("loss is infinite\nat step 3"))
    'ValueError: loss is infinite'
    """
    leaves = leaves_of(error)
    own = [leaf for leaf in leaves if not isinstance(leaf, BackendError | asyncio.CancelledError)]
    one = (own or leaves)[0]
    if isinstance(one, asyncio.CancelledError):
        return "cancelled"
    lines = text_of(one).splitlines()
    text = f"{type(one).__name__}: {lines[0]}" if lines else type(one).__name__
    # what no engine can store is escaped: the status is more important than the reason
    return text[:MAX_LENGTH].encode("utf-8", "backslashreplace").decode()[:MAX_LENGTH]


def text_of(error: BaseException) -> str:
    """Return the message of an error; an empty text if it has none, or cannot make it."""
    try:
        return str(error).strip()
    except Exception:  # noqa: BLE001  whoever wrote it, its worker has to end its trial
        return ""


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, of whatever depth; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]
