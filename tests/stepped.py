"""A time of day that is set while the library runs, in this process alone."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from aiostorage._core.in_memory.steady_clock import SteadyClock
from aiostorage.drivers.sqlite.clock import StoreClock

__all__ = ["Patch", "step"]

Patch = Callable[[object, str, object], None]
"""`setattr`, or that of pytest's `monkeypatch`."""


class _AnyTime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


def step(by: Callable[[], timedelta], patch: Patch = setattr) -> None:
    """Have all of the library, and `time.time`, see a time that is `by` ahead."""

    class Stepped(datetime, metaclass=_AnyTime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by()

    real = time.time
    patch(time, "time", lambda: real() + by().total_seconds())
    for module in _that_ask_for_it():
        patch(module, "datetime", Stepped)
    for clock in (SteadyClock, StoreClock):
        patch(clock, "wall", staticmethod(lambda: Stepped.now(UTC)))


def _that_ask_for_it() -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "aiostorage"
        and getattr(module, "datetime", None) is datetime
        and "datetime.now(" in inspect.getsource(module)
    ]
