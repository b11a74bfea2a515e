"""Signals that stop workers: the first one gracefully, a second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

__all__ = ["stopped_by_signals"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_listeners: Final[list[Callable[[signal.Signals], None]]] = []
_replaced: Final[dict[signal.Signals, Any]] = {}


@contextmanager
def stopped_by_signals(listener: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `listener` when SIGTERM or SIGINT arrives, until the body ends.

    It is called once, in the main thread, between two bytecode instructions, even if the event loop
    is blocked. From then on the signals have their default effect, which is to end the process at
    once. Several bodies may run at the same time, and all their listeners are called. Outside the
    main thread nothing happens, and signals that are ignored stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _listeners:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and handler is not None:
                _replaced[number] = signal.signal(number, _received)
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
        if not _listeners:
            for number, handler in _replaced.items():
                signal.signal(number, handler)
            _replaced.clear()


def _received(number: int, _frame: FrameType | None) -> None:
    for each in _replaced:
        signal.signal(each, signal.SIG_DFL)
    for listener in _listeners:
        listener(signal.Signals(number))
