"""Signals that end a command as Ctrl-C does: what it has begun is cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["as_ctrl_c"]

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """Treat SIGTERM and SIGHUP as Ctrl-C until the body ends; give those that have arrived."""
    arrived: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        handler = signal.getsignal(signal.SIGINT)  # that of asyncio cancels the main task
        if not callable(handler):  # a shell that starts a program in the background ignores it
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    wanted = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in wanted:
        signal.signal(number, end)
    try:
        yield arrived
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)
