"""What takes long is said in the log, so that nobody waits without knowing for what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["SLOW_AFTER", "said_when_slow"]

log = logging.getLogger("aiostorage")

SLOW_AFTER: Final = 1.0
"""Seconds after which it is said what a connection waits for."""


@contextmanager
def said_when_slow(text: Callable[[], str]) -> Iterator[None]:
    """Log one warning, unless the body ends within a second."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(SLOW_AFTER, lambda: log.warning("%s", text()))
    try:
        yield
    finally:
        timer.cancel()
