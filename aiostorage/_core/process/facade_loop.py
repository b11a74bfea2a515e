"""Whether the event loop of this thread is that of a facade, and how many callers wait for it.

In such a loop nothing runs but aiostorage. While no more than one caller waits, an engine may do in
its thread what takes less time than the way to another thread and back.
"""

from __future__ import annotations

import math
import threading
from typing import Final

__all__ = ["FACADE_LOOP", "WaitingCalls"]


class WaitingCalls(set[object]):
    """The calls in the loop of a facade for whose end another thread waits.

    Attributes
    ----------
    crowded
        When there were last several of them, by `time.monotonic`.
    interrupted
        Whether one is to be cancelled as soon as the loop turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crowded: float = -math.inf
        self.interrupted: bool = False


class _FacadeLoop(threading.local):
    """What a thread knows of its event loop.

    Attributes
    ----------
    waiting
        The calls that threads wait for; None if the loop is none of a facade.
    """

    waiting: WaitingCalls | None = None


FACADE_LOOP: Final = _FacadeLoop()
