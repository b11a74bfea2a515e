"""Whether the event loop of this thread is that of a facade, and how many callers it has.

In such a loop nothing runs but aiostorage. While no more than one caller waits for it, an engine
may do in its thread what takes less time than the way to another thread and back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["begin_facade_loop", "has_one_caller"]


class _OfThread(threading.local):
    callers: Callable[[], int] | None = None


_of_thread = _OfThread()


def begin_facade_loop(callers: Callable[[], int]) -> None:
    """Note that the event loop of this thread is that of a facade.

    Parameters
    ----------
    callers
        Returns how many threads wait for a call in it.
    """
    _of_thread.callers = callers


def has_one_caller() -> bool:
    """Return whether this is the thread of such a loop, and at most one caller waits for it."""
    callers = _of_thread.callers
    return callers is not None and callers() <= 1
