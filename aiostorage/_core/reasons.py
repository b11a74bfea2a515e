"""Why a trial has changed, in words for its history."""

from __future__ import annotations

import asyncio
from typing import Final

from aiostorage.errors import BackendError

__all__ = ["reason_of"]

MAX_LENGTH: Final = 300


def reason_of(error: BaseException) -> str:
    r"""Return the type and the first line of an error; of a group, those of its first error.

    Of errors of the store among others, which did not end the evaluation, the others count.

    >>> reason_of(ValueError("loss is infinite\nat step 3"))
    'ValueError: loss is infinite'
    """
    leaves = _leaves(error)
    own = [leaf for leaf in leaves if not isinstance(leaf, BackendError | asyncio.CancelledError)]
    one = (own or leaves)[0]
    if isinstance(one, asyncio.CancelledError):
        return "cancelled"
    lines = str(one).strip().splitlines()
    name = type(one).__name__
    return f"{name}: {lines[0]}"[:MAX_LENGTH] if lines else name


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
