"""What takes long is logged, so that the user knows what the program waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiostorage._core.event_log import EventLog
from aiostorage.protocols import Driver

__all__ = ["said_when_slow"]

events: Final = EventLog("connection")

SLOW_AFTER: Final = 1.0
"""Seconds after which it is said what a connection waits for."""


@contextmanager
def said_when_slow(driver: Driver, origin: str | None = None) -> Iterator[None]:
    """Log one warning that names the store, unless the body ends within a second.

    Parameters
    ----------
    driver
        Its engine.
    origin
        Who has named the store, if that was not the caller.
    """

    def say() -> None:
        there = "" if origin is None else f" ({origin})"
        events.warning(
            "slow_connection",
            "still waiting for %(engine)s at %(store)s after %(seconds)g s%(origin)s",
            engine=driver.name,
            store=driver.location,
            seconds=SLOW_AFTER,
            origin=there,
        )

    timer = asyncio.get_running_loop().call_later(SLOW_AFTER, say)
    try:
        yield
    finally:
        timer.cancel()
