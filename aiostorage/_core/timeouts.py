"""Time that clean-up may take."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from aiostorage.errors import AioStorageError

__all__ = ["tidy_up"]

log = logging.getLogger("aiostorage")


async def tidy_up(seconds: float, action: Callable[[], Awaitable[object]], what: str) -> None:
    """Do what has to be done although something failed or was cancelled.

    Cancellation does not reach `action`, the time does: after so many seconds it is given up. Its
    errors are logged, not raised, for the caller has something more important to report.
    """
    with anyio.move_on_after(seconds, shield=True) as scope:
        try:
            await action()
        except AioStorageError as error:
            log.warning("%s failed: %s", what, error)
    if scope.cancelled_caught:
        log.warning("%s did not end within %.3g s", what, seconds)
