"""Event loops that run in threads of their own, and the facades that use them.

Facades whose engine has one client for an event loop share a loop, and with it the client. A
facade's use of a loop ends in an orderly way however it ends: by `LoopUse.stop`, with the loop, or
by the interpreter's exit. A loop ends with its last use.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from aiostorage._core.process.exits import also_in_child, at_exit
from aiostorage._core.process.facade_loop import FACADE_LOOP, WaitingCalls
from aiostorage.errors import StorageClosedError

__all__ = ["LoopCall", "LoopThread", "LoopUse", "use_loop"]

EXIT_TIMEOUT: Final = 10.0
"""Seconds that the interpreter's exit waits for one loop to end, at most."""

LAST_CALLS_TIMEOUT: Final = 1.0
"""Seconds that running calls have to end on their own once the storage is closed."""


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
    """An event loop that runs in a thread of its own until its last use has ended.

    Attributes
    ----------
    uses : set of LoopUse
        Those that use it, or are about to.
    waiting : WaitingCalls
        The calls for whose end a thread waits.
    ending : bool
        Whether it takes no further use.
    failure : BaseException or None
        The error that ended the loop.
    """

    def __init__(self) -> None:
        self.uses: set[LoopUse] = set()
        self.waiting: WaitingCalls = WaitingCalls()
        self.ending: bool = False
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop
        self.thread: threading.Thread = threading.Thread(
            target=self._main, name="aiostorage", daemon=True
        )
        self._ready = threading.Event()
        self._unused: asyncio.Event
        self.thread.start()
        self._ready.wait()
        if self.failure is not None and not hasattr(self, "_unused"):
            raise self.failure
        _threads.add(self)
        also_in_child()

    def _main(self) -> None:
        FACADE_LOOP.waiting = self.waiting
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001  every later call raises it
            self.failure = error
        finally:
            self.ending = True
            _threads.discard(self)
            self._ready.set()
            for use in list(self.uses):
                use.abandon()

    async def _serve(self) -> None:
        self._unused = asyncio.Event()
        self._ready.set()
        await self._unused.wait()

    def leave(self, use: LoopUse) -> None:
        """End a use, in the loop; with the last one the loop ends."""
        self.uses.discard(use)
        self._end_if_unused()

    def stop(self) -> None:
        """Begin to end all uses, from any thread."""
        for use in list(self.uses):
            use.stop()
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self._end_if_unused)

    def _end_if_unused(self) -> None:
        if not self.uses:  # one that comes from now on finds the loop ending
            self.ending = True
            self._unused.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, for `timeout` seconds at most."""
        self.thread.join(timeout)


class LoopUse:
    """A facade's use of a loop.

    Parameters
    ----------
    on_close
        What is awaited in the loop before the use ends.

    Attributes
    ----------
    calls : set of LoopCall
        The calls under way.
    waiting : WaitingCalls
        See `LoopThread`.
    failure : BaseException or None
        The error of `on_close`.
    """

    def __init__(self, thread: LoopThread, on_close: Callable[[], Awaitable[object]]) -> None:
        self.calls: set[LoopCall] = set()
        self.waiting: WaitingCalls = thread.waiting
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop = thread.loop
        self.thread: threading.Thread = thread.thread
        self._loop_thread = thread
        self._on_close = on_close
        # bare locks: Ctrl-C in the lines of an `Event` leaves that locked, and the loop waits
        self._begun, self._ended = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._ended.acquire()
        self._over = False
        self._end: asyncio.Event
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> bool:
        """Begin; return False if the loop is ending."""
        try:
            self._loop_thread.uses.add(self)  # before the loop is asked, which may end meanwhile
            try:
                self.loop.call_soon_threadsafe(self._begin)
            except RuntimeError:  # it has ended
                return False
            self._begun.acquire()
        except BaseException:  # Ctrl-C
            self._on_close = _nothing
            self.stop()
            raise
        return self._task is not None

    def _begin(self) -> None:
        if self._loop_thread.ending:
            self._loop_thread.uses.discard(self)
        else:
            self._end = asyncio.Event()
            self._task = self.loop.create_task(self._serve())
        with suppress(RuntimeError):  # the caller was interrupted, and does not wait
            self._begun.release()

    async def _serve(self) -> None:
        try:
            await self._end.wait()
        finally:  # also when the loop is being shut down
            try:
                await self._finish()
            except Exception as error:  # noqa: BLE001  `Portal.close` raises it
                self.failure = error
            finally:
                self._loop_thread.leave(self)
                self.abandon()

    async def _finish(self) -> None:
        # locks and reservations are released while the storage still works
        holders = [call.task for call in list(self.calls) if call.holds and call.task is not None]
        for task in holders:
            task.cancel()
        if holders:
            await asyncio.wait(holders)
        try:
            await self._on_close()
        finally:
            others = [call.task for call in list(self.calls) if call.task is not None]
            if others:
                _, late = await asyncio.wait(others, timeout=LAST_CALLS_TIMEOUT)
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late)

    def abandon(self) -> None:
        """Wake all who wait for it: nothing of it makes any further progress."""
        if self._over:
            return
        self._over = True
        for call in list(self.calls):
            call.abandon()
        with suppress(RuntimeError):  # it has begun
            self._begun.release()
        self._ended.release()

    def stop(self) -> None:
        """Begin to end, from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._task is None:
            self._loop_thread.leave(self)
        else:
            self._end.set()

    def join(self) -> None:
        """Wait until it has ended, and with it the loop if this was its last use."""
        with self._ended:
            pass
        if self._loop_thread.ending:
            self._loop_thread.join()

    def closed_error(self) -> StorageClosedError:
        """Return the error for a call after the end."""
        failure = self.failure or self._loop_thread.failure
        if failure is None:
            return StorageClosedError()
        error = StorageClosedError(f"the event loop of this storage died: {failure!r}")
        error.__cause__ = failure
        return error


def use_loop(key: Hashable | None, on_close: Callable[[], Awaitable[object]]) -> LoopUse:
    """Begin to use the loop of all that have the same `key`, or with None a loop of its own."""
    while True:
        use = LoopUse(_loop_of(key), on_close)
        if use.begin():
            return use


def _loop_of(key: Hashable | None) -> LoopThread:
    if key is None:
        return LoopThread()
    with _shared.lock:
        thread = _shared.loops.get(key)
        if thread is None or thread.ending:
            thread = _shared.loops[key] = LoopThread()
        return thread


async def _nothing() -> None:
    """Close nothing: the facade has not got what it would close."""


class _Shared:
    """The loops that facades share, by their key."""

    def __init__(self) -> None:
        self.loops: WeakValueDictionary[Hashable, LoopThread] = WeakValueDictionary()
        # a signal handler may open a storage, too; the threads of the loops never take it
        self.lock = threading.RLock()


_shared = _Shared()
_threads: Final[set[LoopThread]] = set()
_inherited: Final[list[set[LoopThread]]] = []
"""Loops of a parent process. Finalising one would break what the parent waits for."""


def _reset_after_fork() -> None:
    global _shared  # noqa: PLW0603  its lock may be held by a thread that is not here
    _shared = _Shared()
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
at_exit("loops", _end_all)
