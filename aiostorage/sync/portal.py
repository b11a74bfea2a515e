"""An event loop in a thread of its own, for callers that have none.

The loop lives as long as the portal, since engines bind connections and tasks to it. It is left in
an orderly way, whoever ends it: `Portal.close`, the garbage collector, or the interpreter's exit.
Nobody waits for a loop that is gone.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from aiostorage.errors import RunningLoopError, StorageClosedError

__all__ = ["Portal"]

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds that the interpreter's exit waits for a loop, at most."""

LAST_CALLS: Final = 1.0
"""Seconds that calls under way get to end by themselves when the storage has been closed."""


class Portal:
    """Runs coroutines in its event loop; any number of threads may call.

    The loop starts with the first call, and anew in a forked child.

    Parameters
    ----------
    on_close
        What is awaited in the loop before it ends.
    """

    def __init__(self, on_close: Callable[[], Awaitable[object]]) -> None:
        self._on_close = on_close
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may close what is just being opened
        self._thread: _LoopThread | None = None
        self._finalizer: weakref.finalize[..., Portal] | None = None
        _portals.add(self)

    def forget(self) -> None:
        """Begin anew, in a child process, where the thread of the loop is not there any more."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._lock, self._thread, self._finalizer = threading.RLock(), None, None

    @property
    def thread(self) -> _LoopThread | None:
        """The thread of the loop, if it was started."""
        return self._thread

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)`` in the loop and answer its result.

        When the calling thread is interrupted (Ctrl-C), what runs is cancelled and has cleaned up
        before the interruption goes on.

        Raises
        ------
        StorageClosedError
            The portal is closed, or was while this ran.
        RunningLoopError
            The calling thread is the loop's own.
        """

        async def awaited() -> T:
            return await function(*args, **kwargs)

        return _Run(self._running(), awaited).result()

    def context(self, manager: AbstractAsyncContextManager[T]) -> _Context[T]:
        """Answer an async context manager as a plain one, whose two ends run in one task."""
        return _Context(self, manager)

    def close(self) -> None:
        """End the loop for good; what it waits for is cancelled. A second call does nothing."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        if thread.is_current():
            raise RunningLoopError("a facade cannot be closed from within its own event loop")
        if self._finalizer is not None:
            self._finalizer.detach()
        thread.stop()
        thread.join()
        failure, thread.failure = thread.failure, None
        if isinstance(failure, Exception):
            raise failure

    def _running(self) -> _LoopThread:
        thread = self._thread
        if thread is None or self._closed:
            with self._lock:
                if self._closed:
                    raise StorageClosedError
                thread = self._thread
                if thread is None:
                    thread = self._thread = _LoopThread(self._on_close)
                    self._finalizer = weakref.finalize(self, thread.stop)
                    self._finalizer.atexit = False  # see `_end_all`
        return thread

    def begin(self, function: Callable[[], Coroutine[Any, Any, T]], *, holds: bool) -> _Run[T]:
        """Prepare to run a coroutine; `_Run.wait` starts it."""
        return _Run(self._running(), function, holds=holds)


class _LoopThread:
    """An event loop that runs in a thread until it is told to stop."""

    def __init__(self, on_close: Callable[[], Awaitable[object]]) -> None:
        self.runs: set[_Run[Any]] = set()
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop
        self._on_close = on_close
        self._ready = threading.Event()
        self._end: asyncio.Event
        self._thread = threading.Thread(target=self._main, name="aiostorage", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self.failure is not None and not hasattr(self, "_end"):
            raise self.failure
        _threads.add(self)

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001  whoever calls next is told
            self.failure = error
        finally:
            _threads.discard(self)
            self._ready.set()
            for run in list(self.runs):
                run.abandon()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._ready.set()
        try:
            await self._end.wait()
        finally:  # also when the loop is being taken down
            await self._finish()

    async def _finish(self) -> None:
        # what is held is put back while the storage still works
        holders = [run.task for run in list(self.runs) if run.holds and run.task is not None]
        for task in holders:
            task.cancel()
        if holders:
            await asyncio.wait(holders)
        await self._on_close()
        others = [run.task for run in list(self.runs) if run.task is not None]
        if others:
            await asyncio.wait(others, timeout=LAST_CALLS)

    def is_current(self) -> bool:
        """Tell whether the calling thread is this one."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Begin to end, from any thread."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self._end.set)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def gone(self) -> StorageClosedError:
        """Answer the error of those who want something of a loop that has ended."""
        if self.failure is None:
            return StorageClosedError()
        error = StorageClosedError(f"the event loop of this storage died: {self.failure!r}")
        error.__cause__ = self.failure
        return error


class _Run(Generic[T]):
    """A task in another thread's loop, and the thread that waits for it."""

    def __init__(
        self,
        thread: _LoopThread,
        function: Callable[[], Coroutine[Any, Any, T]],
        *,
        holds: bool = False,
    ) -> None:
        if thread.is_current():
            raise RunningLoopError(
                "a facade was called from within its own event loop, which would wait for itself"
            )
        self.holds = holds
        self.task: asyncio.Task[T] | None = None
        self.done = self.ready = False
        self._thread = thread
        self._function = function
        # a bare lock, for Ctrl-C in the lines of an `Event` leaves that locked for ever
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._begun = self._cancelled = False
        self._pid = os.getpid()

    def _start(self) -> None:
        if self._cancelled:
            self.abandon()
            return
        self.task = self._thread.loop.create_task(self._function())
        self.task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it is looked at, so asyncio need not warn
        self.abandon()

    def abandon(self) -> None:
        """Nothing more comes: wake whoever waits."""
        self._thread.runs.discard(self)
        self.done = True
        self._ring()

    def wake(self) -> None:
        """Let the waiting thread go on while the task does too."""
        self.ready = True
        self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._wakeup.release()

    def cancel(self) -> None:
        """Cancel the task, from any thread; it may not have begun."""
        self._cancelled = True
        self.schedule(lambda: self.task.cancel() if self.task else self.abandon())

    def schedule(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, if it is still there."""
        try:
            self._thread.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            self.abandon()

    def is_inherited(self) -> bool:
        """Tell whether a parent process began this."""
        return self._pid != os.getpid()

    def is_ours(self) -> bool:
        """Tell whether this runs in the calling thread, which therefore cannot wait for it."""
        return self._thread.is_current()

    def wait(self, *, ready: bool = False) -> None:
        """Wait until the task is done, or `wake` was called; an interrupted wait cancels it."""
        try:
            if not self._begun:
                self._begun = True
                self._thread.runs.add(self)
                self.schedule(self._start)
            while not (self.done or (ready and self.ready)):
                self._wakeup.acquire()
        except BaseException:
            self.cancel_and_wait()
            raise

    def cancel_and_wait(self) -> None:
        """Cancel the task and wait until it has cleaned up; interrupted once more, don't wait."""
        try:
            self.cancel()
            while not self.done:
                self._wakeup.acquire()
        except BaseException:
            self.cancel()
            raise

    def result(self) -> T:
        """Wait for the task and answer its result."""
        self.wait()
        task = self.task
        if task is None or not task.done() or (task.cancelled() and not self._cancelled):
            raise self._thread.gone()
        return task.result()


class _Hold(Generic[T]):
    """The task of an async context manager: it enters, waits, and leaves."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._left: asyncio.Event
        self.raised: BaseException | None = None
        self.run: _Run[bool]
        self.value: T

    async def hold(self) -> bool:
        """Answer whether the manager put an end to the error of the body."""
        self.value = await self._manager.__aenter__()
        self._left = asyncio.Event()
        self.run.wake()
        try:
            await self._left.wait()
        except BaseException as error:
            if not await self._manager.__aexit__(type(error), error, error.__traceback__):
                raise
            return False
        raised = self.raised
        if raised is None:
            return bool(await self._manager.__aexit__(None, None, None))
        return bool(await self._manager.__aexit__(type(raised), raised, raised.__traceback__))

    def leave(self, raised: BaseException | None) -> None:
        """Let the task go on, from any thread."""
        self.raised = raised
        self.run.schedule(self._left.set)


class _Context(Generic[T]):
    """An async context manager, entered and left in one task of the loop."""

    def __init__(self, portal: Portal, manager: AbstractAsyncContextManager[T]) -> None:
        self._portal = portal
        self._manager = manager
        self._hold: _Hold[T] | None = None

    def __enter__(self) -> T:
        hold = self._hold = _Hold(self._manager)
        run = hold.run = self._portal.begin(hold.hold, holds=True)
        try:
            run.wait(ready=True)
            if not run.ready:
                run.result()  # raises what kept us out
        except BaseException:
            if not run.done:  # interrupted between two lines
                run.cancel_and_wait()
            raise
        return hold.value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        hold = cast("_Hold[T]", self._hold)
        if hold.run.is_inherited():  # it stays with the parent process
            if exc is None:
                raise StorageClosedError("what the parent process holds cannot be left in a child")
            return False
        if hold.run.is_ours():  # a generator that holds it was found by the garbage collector
            hold.run.cancel()
            return False
        over = hold.run.done
        if exc is None or isinstance(exc, Exception):
            hold.leave(exc)
        else:
            # Ctrl-C in this thread is a cancellation there: it must not take the loop down
            hold.run.cancel()
        try:
            return hold.run.result()
        except (Exception, asyncio.CancelledError):
            # a body that failed says more than that its hold was lost meanwhile
            if exc is not None and (over or not isinstance(exc, Exception)):
                return False
            raise

    def __del__(self) -> None:
        # never left, or the attempt was interrupted: what nobody has any more, nobody holds
        run = getattr(self._hold, "run", None)
        if run is not None and not run.done and not run.is_inherited():
            run.cancel()


_portals: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()
_threads: Final[set[_LoopThread]] = set()
_inherited: Final[list[Any]] = []
"""Loops of a parent process. To finalise one would take away what the parent waits on."""


def _forget_all() -> None:
    _inherited.append((set(_threads), [portal.thread for portal in _portals]))
    _threads.clear()
    for portal in _portals:
        portal.forget()


def _end_all() -> None:
    """End every loop that was not closed: daemon threads would be stopped in mid-sentence."""
    threads = list(_threads)
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(PATIENCE)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_end_all)
