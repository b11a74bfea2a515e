"""Few resumptions in each turn of an event loop, so that those of many tasks do not hold it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, TypeVar

__all__ = ["TaskResumer", "few_at_once", "resolve"]

T = TypeVar("T")

MAX_RESUMED: Final = 16
"""Tasks that are resumed in one turn of the event loop, at most."""


class TaskResumer:
    """Resumes tasks that wait for a future, in order, a few in each turn of the event loop.

    It belongs to the loop in which it is made.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], object]] = deque()
        self._resuming = False

    def resume(self, calls: Iterable[Callable[[], object]]) -> None:
        """Make calls, soon, each of which sets the result of a future and so resumes one task."""
        self._waiting.extend(calls)
        if self._waiting and not self._resuming:
            self._resume_some()

    def _resume_some(self) -> None:
        for _ in range(min(MAX_RESUMED, len(self._waiting))):
            self._waiting.popleft()()
        self._resuming = bool(self._waiting)
        if self._resuming:
            self._loop.call_soon(self._resume_some)


async def few_at_once(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, each of which resumes one task, a few in each turn of the event loop."""
    for number, item in enumerate(items, 1):
        yield item
        if number % MAX_RESUMED == 0:
            await asyncio.sleep(0)


def resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None = None) -> None:
    """Set the result or the exception of a future, unless its waiter was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # no future takes it
        future.set_exception(RuntimeError(repr(error)))
    else:
        future.set_exception(error)
