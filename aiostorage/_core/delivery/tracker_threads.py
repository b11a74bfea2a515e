"""The threads in which a tracker's calls block."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from aiostorage.errors import TrackerError, TrackerUnavailable

__all__ = ["TrackerThreads", "in_words"]

T = TypeVar("T")


class TrackerThreads:
    """Threads that start when they are needed, and that the interpreter's exit does not wait for.

    Parameters
    ----------
    count
        How many calls are made at the same time, at most.
    """

    def __init__(self, count: int) -> None:
        self._count = max(count, 1)
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._running: dict[Hashable, Future[Any]] = {}

    async def call(
        self, what: Hashable, function: Callable[..., T], *arguments: Any, limit: float
    ) -> T:
        """Call a function that blocks, in one of the threads.

        Parameters
        ----------
        what
            Names the call, for `is_under_way`.
        limit
            Seconds to wait for it. A call that takes longer, or whose caller is cancelled, goes on
            in its thread.

        Raises
        ------
        TrackerUnavailable
            It takes longer.
        TrackerError
            It raised what must not get into an event loop, such as `SystemExit`.
        """
        future: Future[T] = Future()
        self._running[what] = future
        future.add_done_callback(lambda _: self._forget(what, future))
        waiting = asyncio.wrap_future(future)
        self._calls.put((future, lambda: function(*arguments)))
        if len(self._threads) < min(self._count, len(self._running)):
            self._start()
        try:
            await asyncio.wait([waiting], timeout=limit)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()  # which cancels a call that has not begun, and nothing else
        raise TrackerUnavailable(f"no answer within {limit:g} s")

    def is_under_way(self, what: Hashable) -> bool:
        """Return whether a call of that name has begun and not ended."""
        return what in self._running

    @property
    def busy(self) -> bool:
        """Whether any call has begun and not ended."""
        return bool(self._running)

    def end(self) -> None:
        """Let the threads end, each after the call that it may be making."""
        for _ in self._threads:
            self._calls.put(None)
        self._threads.clear()

    def _forget(self, what: Hashable, future: Future[Any]) -> None:
        if self._running.get(what) is future:
            del self._running[what]

    def _start(self) -> None:
        thread = threading.Thread(
            target=_serve, args=(self._calls,), name="aiostorage-tracker", daemon=True
        )
        self._threads.append(thread)
        thread.start()


def _serve(calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (call := calls.get()) is not None:
        future, function = call
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  the caller gets it
            future.set_exception(_harmless(error))
        else:
            future.set_result(result)
        del call, future, function  # a thread that waits keeps nothing alive


def _harmless(error: BaseException) -> Exception:
    """Return the error, or a `TrackerError` for one that would end or confuse an event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | CancelledError):
        return error
    instead = TrackerError(in_words(error))
    instead.__cause__ = error
    return instead


def in_words(error: BaseException) -> str:
    """Return the type and the text of an error, if it has a text."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  an error of another library, which may raise again
        text = ""
    return f"{name}: {text}" if text else name
