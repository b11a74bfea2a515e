"""The thread in which Optuna's own code runs while objectives are evaluated in an event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

__all__ = ["StudyThread"]

T = TypeVar("T")

HOLD: Final = 0.002
"""Seconds that a result waits for others, at most, so that one call wakes the loop for all."""


class StudyThread:
    """Runs functions one after the other.

    Parameters
    ----------
    delivered
        Called in the event loop when functions have been run.
    """

    def __init__(self, delivered: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._delivered = delivered
        self._waiting: queue.SimpleQueue[Callable[[], Callable[[], None]] | None]
        self._waiting = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="aiostorage-optuna", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function in the thread, and return what it returns."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> Callable[[], None]:
            if future.cancelled():
                return _nothing
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  it is raised in the loop
                return partial(_settle, future, None, error)
            return partial(_settle, future, result, None)

        self._waiting.put(run)
        return await future

    def call_from_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function in the thread, and return what it returns; from any other thread."""
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        future: Future[T] = Future()

        def run() -> Callable[[], None]:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  it is raised in the other thread
                future.set_exception(error)
            return _nothing

        self._waiting.put(run)
        return future.result()

    def stop(self) -> None:
        """End the thread when it has run what waits."""
        self._waiting.put(None)

    def _run(self) -> None:
        ended = False
        while not ended:
            work = self._waiting.get()
            settle: list[Callable[[], None]] = []
            since = time.monotonic()
            while True:
                if work is None:
                    ended = True
                    break
                settle.append(work())
                if time.monotonic() - since > HOLD:
                    break
                try:
                    work = self._waiting.get_nowait()
                except queue.Empty:
                    break
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._deliver, settle)

    def _deliver(self, settle: list[Callable[[], None]]) -> None:
        for one in settle:
            one()
        self._delivered()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # no future takes it
        future.set_exception(RuntimeError(repr(error)))
    else:
        future.set_exception(error)


def _nothing() -> None:
    """Settle nothing."""
