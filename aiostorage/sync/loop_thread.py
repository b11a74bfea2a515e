"""A thread that runs an event loop until it is stopped.

The loop is shut down in an orderly way however it ends: by `LoopThread.stop`, or by the
interpreter's exit.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from aiostorage.errors import StorageClosedError

__all__ = ["LoopCall", "LoopThread"]

EXIT_TIMEOUT: Final = 10.0
"""Seconds that the interpreter's exit waits for one loop to end, at most."""

LAST_CALLS_TIMEOUT: Final = 1.0
"""Seconds that calls under way have to end by themselves once the storage is closed."""


class LoopCall(Protocol):
    """What a loop knows of a call that runs in it."""

    task: asyncio.Task[Any] | None
    """The task that carries it out, once it has started."""
    holds: bool
    """Whether the task holds something that must be released while the storage still works."""

    def abandon(self) -> None:
        """Wake the waiting thread: the task makes no further progress."""
        ...


class LoopThread:
    """An event loop that runs in a thread of its own until it is told to stop.

    Parameters
    ----------
    on_close
        What is awaited in the loop before it ends.

    Attributes
    ----------
    calls : set of LoopCall
        The calls under way.
    failure : BaseException or None
        The error that ended the loop.
    """

    def __init__(self, on_close: Callable[[], Awaitable[object]]) -> None:
        self.calls: set[LoopCall] = set()
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop
        self.thread: threading.Thread = threading.Thread(
            target=self._main, name="aiostorage", daemon=True
        )
        self._on_close = on_close
        self._ready = threading.Event()
        self._end: asyncio.Event
        self.thread.start()
        self._ready.wait()
        if self.failure is not None and not hasattr(self, "_end"):
            raise self.failure
        _threads.add(self)

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001  every later call raises it
            self.failure = error
        finally:
            _threads.discard(self)
            self._ready.set()
            for call in list(self.calls):
                call.abandon()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._ready.set()
        try:
            await self._end.wait()
        finally:  # also when the loop is being shut down
            await self._finish()

    async def _finish(self) -> None:
        # locks and reservations are released while the storage still works
        holders = [call.task for call in list(self.calls) if call.holds and call.task is not None]
        for task in holders:
            task.cancel()
        if holders:
            await asyncio.wait(holders)
        await self._on_close()
        others = [call.task for call in list(self.calls) if call.task is not None]
        if others:
            await asyncio.wait(others, timeout=LAST_CALLS_TIMEOUT)

    def stop(self) -> None:
        """Begin to end, from any thread."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self._end.set)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, for `timeout` seconds at most."""
        self.thread.join(timeout)

    def closed_error(self) -> StorageClosedError:
        """Return the error for a call on a loop that has ended."""
        if self.failure is None:
            return StorageClosedError()
        error = StorageClosedError(f"the event loop of this storage died: {self.failure!r}")
        error.__cause__ = self.failure
        return error


_threads: Final[set[LoopThread]] = set()
_inherited: Final[list[set[LoopThread]]] = []
"""Loops of a parent process. Finalising one would break what the parent waits for."""


def _reset_after_fork() -> None:
    _inherited.append(set(_threads))
    _threads.clear()


def _end_all() -> None:
    """End every loop that is still running: daemon threads would be killed in mid-operation."""
    threads = list(_threads)
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(EXIT_TIMEOUT)


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(_end_all)
