"""What nothing refers to any more ends by itself, from a finaliser.

A finaliser runs in any thread, between any two lines, and must neither wait nor take a lock.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["end_in_thread", "warn_unclosed"]


def end_in_thread(end: Callable[[], object]) -> None:
    """Call a function that blocks, or that must not see an event loop, in a thread of its own."""
    with suppress(RuntimeError):  # the interpreter exits, and starts no thread any more
        threading.Thread(target=end, name="aiostorage-closing", daemon=True).start()


def warn_unclosed(driver: Any) -> None:
    """Warn that a storage was not closed."""
    warnings.warn(
        f"the storage {driver.name} at {driver.location!r} was not closed; use `async with`, or "
        "await its aclose()",
        ResourceWarning,
        stacklevel=2,
        source=driver,
    )
