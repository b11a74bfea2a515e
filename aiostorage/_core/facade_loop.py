"""Whether the event loop of this thread is that of a facade, and how many callers wait for it.

In such a loop nothing runs but aiostorage. While no more than one caller waits, an engine may do in
its thread what takes less time than the way to another thread and back.
"""

from __future__ import annotations

import threading
from collections.abc import Sized
from typing import Final

__all__ = ["FACADE_LOOP"]


class _FacadeLoop(threading.local):
    """What a thread knows of its event loop.

    Attributes
    ----------
    waiting
        The calls for whose end another thread waits; None if the loop is none of a facade.
    """

    waiting: Sized | None = None


FACADE_LOOP: Final = _FacadeLoop()
