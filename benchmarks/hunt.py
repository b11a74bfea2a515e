"""``orion hunt``, timed: a script that writes to a file how long it waited for its storage.

The difference between the whole time and the time in the storage is Oríon's own, which no storage
can shorten. The first argument is the file to write to; the others are those of ``orion``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any

from orion.core.cli import main
from orion.storage.base import BaseStorageProtocol
from orion.storage.legacy import Legacy

from aiostorage.orion import AioStorage

LOCK_METHOD = "acquire_algorithm_lock"


class StorageStopwatch:
    """Adds up the seconds that the main thread is inside of it, at any depth."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._begin = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no caller waits for heartbeats
            self._depth += 1
            if self._depth == 1:
                self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - self._begin


class TimedLock:
    """A lock whose acquisition and release are timed, but not the work under it."""

    def __init__(self, stopwatch: StorageStopwatch, lock: AbstractContextManager[Any]) -> None:
        self._stopwatch = stopwatch
        self._lock = lock

    def __enter__(self) -> Any:
        with self._stopwatch:
            return self._lock.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with self._stopwatch:
            return self._lock.__exit__(exc_type, exc, traceback)


def timed(stopwatch: StorageStopwatch, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a storage."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with stopwatch:
            return method(*args, **kwargs)

    @wraps(method)
    def lock(*args: Any, **kwargs: Any) -> TimedLock:
        return TimedLock(stopwatch, method(*args, **kwargs))

    return lock if method.__name__ == LOCK_METHOD else call


def hunt(report: Path, arguments: list[str]) -> None:
    """Run ``orion``, and write the seconds in the storage to a file."""
    stopwatch = StorageStopwatch()
    for kind in (AioStorage, Legacy):
        for name in vars(BaseStorageProtocol):
            if not name.startswith("_") and name in vars(kind):
                setattr(kind, name, timed(stopwatch, getattr(kind, name)))
    main(arguments)
    report.write_text(str(stopwatch.seconds))


if __name__ == "__main__":
    hunt(Path(sys.argv[1]), sys.argv[2:])
