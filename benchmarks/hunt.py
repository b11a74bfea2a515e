"""``orion hunt``, timed: a script that writes down how long it waited for its storage.

Oríon has a share of its own in every hunt, which no storage makes shorter; the difference between
the whole time and the time in the storage is that share. The file to write to comes first, then
the arguments of ``orion``.
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

LOCK = "acquire_algorithm_lock"


class Watch:
    """Adds up the seconds that the main thread is inside of it, however deep."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._begin = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # heartbeats hold nobody up
            self._depth += 1
            if self._depth == 1:
                self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - self._begin


class TimedLock:
    """A lock whose two ends are timed; what is done under it is not the storage's."""

    def __init__(self, watch: Watch, lock: AbstractContextManager[Any]) -> None:
        self._watch = watch
        self._lock = lock

    def __enter__(self) -> Any:
        with self._watch:
            return self._lock.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with self._watch:
            return self._lock.__exit__(exc_type, exc, traceback)


def timed(watch: Watch, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a storage."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with watch:
            return method(*args, **kwargs)

    @wraps(method)
    def lock(*args: Any, **kwargs: Any) -> TimedLock:
        return TimedLock(watch, method(*args, **kwargs))

    return lock if method.__name__ == LOCK else call


def hunt(report: Path, arguments: list[str]) -> None:
    """Run ``orion``, and write the seconds in the storage to a file."""
    watch = Watch()
    for kind in (AioStorage, Legacy):
        for name in vars(BaseStorageProtocol):
            if not name.startswith("_") and name in vars(kind):
                setattr(kind, name, timed(watch, getattr(kind, name)))
    main(arguments)
    report.write_text(str(watch.seconds))


if __name__ == "__main__":
    hunt(Path(sys.argv[1]), sys.argv[2:])
