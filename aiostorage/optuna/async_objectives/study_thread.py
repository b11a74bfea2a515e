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

from optuna.exceptions import UpdateFinishedTrialError

from aiostorage.optuna.async_objectives.loop_turns import TaskResumer, resolve

__all__ = ["StudyThread"]

T = TypeVar("T")

MAX_RESULT_DELAY: Final = 0.001
"""Seconds that a result waits for others, at most, so that one call wakes the loop for all."""

TAKE_TIMEOUT: Final = 0.1
"""Seconds that the thread waits for the loop to take results, at most: it may be blocked."""


class StudyThread:
    """Runs functions one after the other.

    It waits until the event loop has taken the results of some before it runs more. A thread that
    computes on and on would let the loop have the interpreter every few milliseconds only, for one
    turn at a time.

    Parameters
    ----------
    resumer
        Resumes the tasks that wait for a result.
    delivered
        Called in the event loop when functions have been run.
    """

    def __init__(self, resumer: TaskResumer, delivered: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._resumer = resumer
        self._delivered = delivered
        self._taken = threading.Event()
        self._waiting: queue.SimpleQueue[Callable[[], Callable[[], None]] | None]
        self._waiting = queue.SimpleQueue()
        self._stopped = False
        self._lock = threading.Lock()
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
                return partial(resolve, future, None, error)
            return partial(resolve, future, result)

        self._put(run)
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

        self._put(run)
        return future.result()

    def _put(self, run: Callable[[], Callable[[], None]]) -> None:
        with self._lock:
            if self._stopped:
                raise UpdateFinishedTrialError(
                    "the optimization has ended: this trial does not run here any more"
                )
            self._waiting.put(run)

    def stop(self) -> None:
        """End the thread when it has run what waits; from then on, calls are refused."""
        with self._lock:
            self._stopped = True
            self._waiting.put(None)

    def _run(self) -> None:
        ended = False
        while not ended:
            work = self._waiting.get()
            results: list[Callable[[], None]] = []
            since = time.monotonic()
            while True:
                if work is None:
                    ended = True
                    break
                results.append(work())
                if time.monotonic() - since > MAX_RESULT_DELAY:
                    break
                try:
                    work = self._waiting.get_nowait()
                except queue.Empty:
                    break
            self._taken.clear()
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take, results)
                if not self._waiting.empty():
                    self._taken.wait(TAKE_TIMEOUT)

    def _take(self, results: list[Callable[[], None]]) -> None:
        self._taken.set()
        self._resumer.resume(results)
        self._delivered()


def _nothing() -> None:
    """Set no result: the caller does not wait any more, or has it already."""
