"""PyMongo's blocking objects with the methods of asynchronous ones, for a thread that may block.

Several commands that follow each other can so be written once, as a coroutine function, and run in
one thread, without a way back to the event loop after each command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

__all__ = ["BlockingDatabase", "run_at_once"]

T = TypeVar("T")


class _Blocking:
    """An object whose methods do their work when they are called; then they can be awaited."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._target, name)

        async def call(*args: Any, **options: Any) -> Any:
            return method(*args, **options)

        setattr(self, name, call)
        return call


class _BlockingCollection(_Blocking):
    """A collection; what returns a cursor is not awaited, as in motor."""

    def find(self, *args: Any, **options: Any) -> _Blocking:
        return _Blocking(self._target.find(*args, **options))

    def aggregate(self, *args: Any, **options: Any) -> _Blocking:
        return _Blocking(self._target.aggregate(*args, **options))


class BlockingDatabase(_Blocking):
    """A database of PyMongo's `pymongo.MongoClient`."""

    def get_collection(self, name: str, **options: Any) -> _BlockingCollection:
        """Return a collection."""
        return _BlockingCollection(self._target.get_collection(name, **options))


def run_at_once(work: Awaitable[T]) -> T:
    """Await work that waits for blocking calls only; return its result.

    Raises
    ------
    RuntimeError
        It waits for something else.
    """
    steps: Generator[Any, None, T] = work.__await__()
    try:
        while True:
            waits_for = next(steps)
            if waits_for is not None:  # None lets others have their turn: `asyncio.sleep(0)`
                steps.close()
                raise RuntimeError(f"work in a thread waits for {waits_for!r}")
    except StopIteration as end:
        result: T = end.value
        return result
