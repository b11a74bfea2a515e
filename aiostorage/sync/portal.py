"""Calls from threads without an event loop into one that runs in a thread of its own.

The loop lives as long as the portal, since engines bind connections and tasks to it. Portals of one
engine may share it. The portal's use of it ends in an orderly way however it ends: by
`Portal.close`, by the garbage collector, or by the interpreter's exit. No thread waits for a loop
that has ended.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from aiostorage.errors import RunningLoopError, StorageClosedError
from aiostorage.sync.loop_thread import LoopUse, use_loop

__all__ = ["Portal"]

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """Runs coroutines in its event loop; any number of threads may call.

    The loop starts with the first call, and again in a forked child.

    Parameters
    ----------
    on_close
        What is awaited in the loop before it ends.
    in_running_loop
        Whether a thread whose own event loop runs may call, which blocks that loop.
    shares
        Portals that have the same share an event loop. Default: none does.
    """

    def __init__(
        self,
        on_close: Callable[[], Awaitable[object]],
        *,
        in_running_loop: bool = False,
        shares: Hashable | None = None,
    ) -> None:
        self.in_running_loop: bool = in_running_loop
        self._on_close = on_close
        self._shares = shares
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may close while the portal opens
        self._thread: LoopUse | None = None
        self._finalizer: weakref.finalize[..., Portal] | None = None
        _portals.add(self)

    def reset_after_fork(self) -> None:
        """Start again in a child process, which does not have the thread of the loop."""
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._thread is not None:
            _inherited.append(self._thread)
        self._lock, self._thread, self._finalizer = threading.RLock(), None, None

    def call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``method(*args, **kwargs)`` in the loop and return its result.

        When the calling thread is interrupted (Ctrl-C), the task is cancelled and has cleaned up
        before the interruption goes on.

        Raises
        ------
        StorageClosedError
            The portal is closed, or was closed while this ran.
        RunningLoopError
            An event loop runs in the calling thread.
        """
        self.check_caller(method)
        return _PortalCall(self._running(), partial(method, *args, **kwargs)).result()

    def start(
        self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Start ``method(*args, **kwargs)`` in the loop, and return at once.

        For a caller that has an event loop of its own: it awaits `asyncio.wrap_future` of this.

        Raises
        ------
        StorageClosedError
            The portal is closed.
        """
        thread = self._running()

        async def awaited() -> T:
            return await method(*args, **kwargs)

        coroutine = awaited()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, thread.loop)
        except RuntimeError:  # the loop has just ended
            coroutine.close()
            raise thread.closed_error() from None

    def context(
        self,
        method: Callable[P, AbstractAsyncContextManager[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[T]:
        """Return ``method(*args, **kwargs)`` as a plain context manager; its ends run in one task.

        The errors are those of `call`; `RunningLoopError` is raised at once.
        """
        self.check_caller(method)
        return _PortalContext(self, method(*args, **kwargs))

    def check_caller(self, method: Callable[..., object] | str, twin: str | None = None) -> None:
        """Raise `RunningLoopError` rather than block an event loop that runs in this thread.

        The error names the `method` that was called, and its async `twin` if that differs.
        """
        if self.in_running_loop:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        name = method if isinstance(method, str) else method.__name__
        raise RunningLoopError(
            f"SyncStorage.{name}() would block the event loop that runs in this thread; await "
            f"Storage.{twin or name}() there, or asyncio.to_thread(storage.{name}, ...); in a "
            "notebook make the facade with SyncStorage(storage, in_running_loop=True)"
        )

    def close(self) -> None:
        """End for good and cancel all calls. A second call does nothing."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        if threading.current_thread() is thread.thread:
            raise RunningLoopError("a facade cannot be closed from within its own event loop")
        if self._finalizer is not None:
            self._finalizer.detach()
        thread.stop()
        thread.join()
        failure, thread.failure = thread.failure, None
        if isinstance(failure, Exception):
            raise failure

    def _running(self) -> LoopUse:
        thread = self._thread
        if thread is None or self._closed:
            with self._lock:
                if self._closed:
                    raise StorageClosedError
                thread = self._thread
                if thread is None:
                    thread = self._thread = use_loop(self._shares, self._on_close)
                    self._finalizer = weakref.finalize(self, thread.stop)
                    self._finalizer.atexit = False  # the thread ends itself at exit
        return thread

    def hold(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Start a coroutine that holds something; call this in the loop.

        It is cancelled before the storage is closed, which waits until it has ended.
        """
        _HoldingTask(self._running(), function())

    def prepare(self, function: Callable[[], Awaitable[T]]) -> _PortalCall[T]:
        """Return a call of a coroutine that holds something; `_PortalCall.wait` starts it."""
        return _PortalCall(self._running(), function, holds=True)


class _PortalCall(Generic[T]):
    """A call in another thread's loop, and the thread that waits for it."""

    def __init__(
        self, thread: LoopUse, function: Callable[[], Awaitable[T]], *, holds: bool = False
    ) -> None:
        if threading.get_ident() == thread.thread.ident:
            raise RunningLoopError(
                "a facade was called from within its own event loop, which would wait for itself"
            )
        self.holds: bool = holds
        self.task: asyncio.Task[None] | None = None
        self.done: bool = False
        self.ready: bool = False
        self._thread = thread
        self._function = function
        self._outcome: tuple[T | None, BaseException | None] | None = None
        # a bare lock: Ctrl-C in the lines of an `Event` leaves that locked for ever
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._begun = self._running = self._cancelled = False
        self._pid = os.getpid()

    def _start(self) -> None:
        if self._cancelled:
            self.abandon()
            return
        self.task = self._thread.loop.create_task(self._run())

    async def _run(self) -> None:
        self._running = True
        try:
            self._outcome = await self._function(), None
        except (KeyboardInterrupt, SystemExit):  # they end the loop
            raise
        except BaseException as error:  # noqa: BLE001  the waiting thread raises it
            self._outcome = None, error
        # as `abandon` does, which every call would have to call
        self._thread.calls.discard(self)
        self._thread.waiting.discard(self)
        self.done = True
        try:
            self._wakeup.release()
        except RuntimeError:  # the thread has been woken to be cancelled
            return

    def abandon(self) -> None:
        """Wake the waiting thread: the call makes no further progress."""
        self._thread.calls.discard(self)
        self._thread.waiting.discard(self)
        self.done = True
        self._wake_waiter()

    def wake(self) -> None:
        """Let the waiting thread go on while the task goes on too."""
        self.ready = True
        self._wake_waiter()

    def _wake_waiter(self) -> None:
        try:
            self._wakeup.release()
        except RuntimeError:  # it has been woken already
            return

    def cancel(self) -> None:
        """Cancel the task, from any thread; it need not have started."""
        self._cancelled = self._thread.waiting.interrupted = True
        self.schedule(self._cancel)

    def _cancel(self) -> None:
        self._thread.waiting.interrupted = False
        if self.task is not None:
            self.task.cancel()
        if not self._running:  # and it never will
            self.abandon()

    def schedule(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, unless that has ended."""
        try:
            self._thread.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            self.abandon()

    def is_inherited(self) -> bool:
        """Return whether a parent process began this."""
        return self._pid != os.getpid()

    def is_own_thread(self) -> bool:
        """Return whether this runs in the calling thread, which therefore cannot wait for it."""
        return threading.current_thread() is self._thread.thread

    def wait(self, *, ready: bool = False) -> None:
        """Wait until the task is done or, with `ready`, until `wake` was called.

        An interrupted wait cancels the task.
        """
        try:
            if not self._begun:
                self._begun = True
                self._thread.calls.add(self)
                if not self.holds:
                    waiting = self._thread.waiting
                    waiting.add(self)
                    if len(waiting) > 1:
                        waiting.crowded = monotonic()
                self.schedule(self._start)
            while not (self.done or (ready and self.ready)):
                self._wakeup.acquire()
        except BaseException:
            self.cancel_and_wait()
            raise

    def cancel_and_wait(self) -> None:
        """Cancel the task and wait until it has cleaned up; a second interruption ends the wait."""
        try:
            self.cancel()
            while not self.done:
                self._wakeup.acquire()
        except BaseException:
            self.cancel()
            raise

    def result(self) -> T:
        """Wait for the call and return its result."""
        self.wait()
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            if self.task is not None and self.task.done() and not self.task.cancelled():
                self.task.result()  # raises what has ended the loop
            raise self._thread.closed_error()
        result, error = outcome
        if error is None:
            return cast(T, result)
        try:
            if isinstance(error, asyncio.CancelledError) and not self._cancelled:
                raise self._thread.closed_error()
            raise error
        finally:
            del error, outcome  # else the error would keep itself alive


class _HoldingTask:
    """A task that was started in the loop and holds something; no thread waits for its result."""

    holds = True

    def __init__(self, thread: LoopUse, coroutine: Coroutine[Any, Any, object]) -> None:
        self.task: asyncio.Task[Any] | None = thread.loop.create_task(coroutine)
        thread.calls.add(self)
        self.task.add_done_callback(lambda _: thread.calls.discard(self))

    def abandon(self) -> None:
        """Do nothing: there is no thread to be woken."""


class _ContextTask(Generic[T]):
    """The task of an async context manager: it enters, waits, and leaves."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._left: asyncio.Event
        self.raised: BaseException | None = None
        self.ended_early: bool = False
        self.call: _PortalCall[bool]
        self.value: T

    async def hold(self) -> bool:
        """Enter, wait for `leave`, and exit; return whether the manager suppressed the error."""
        self.value = await self._manager.__aenter__()
        self._left = asyncio.Event()
        self.call.wake()
        try:
            await self._left.wait()
        except BaseException as error:
            if not await self._manager.__aexit__(type(error), error, error.__traceback__):
                raise
            self.ended_early = True
            return False
        raised = self.raised
        if raised is None:
            return bool(await self._manager.__aexit__(None, None, None))
        return bool(await self._manager.__aexit__(type(raised), raised, raised.__traceback__))

    def leave(self, raised: BaseException | None) -> None:
        """Let the task exit the manager, from any thread."""
        self.raised = raised
        self.call.schedule(self._left.set)


class _PortalContext(Generic[T]):
    """An async context manager, entered and left in one task of the loop."""

    def __init__(self, portal: Portal, manager: AbstractAsyncContextManager[T]) -> None:
        self._portal = portal
        self._manager = manager
        self._held: _ContextTask[T] | None = None

    def __enter__(self) -> T:
        held = self._held = _ContextTask(self._manager)
        call = held.call = self._portal.prepare(held.hold)
        try:
            call.wait(ready=True)
            if not call.ready:
                call.result()  # raises the error of entering
        except BaseException:
            if not call.done:  # interrupted between two lines
                call.cancel_and_wait()
            raise
        return held.value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        held = cast("_ContextTask[T]", self._held)
        if held.call.is_inherited():  # it stays with the parent process
            if exc is None:
                raise StorageClosedError("what the parent process holds cannot be left in a child")
            return False
        if held.call.is_own_thread():  # the garbage collector found a generator that holds it
            held.call.cancel()
            return False
        was_done = held.call.done
        if exc is None or isinstance(exc, Exception):
            held.leave(exc)
        else:
            # Ctrl-C in this thread is a cancellation there: it must not end the loop
            held.call.cancel()
        try:
            suppressed = held.call.result()
        except (Exception, asyncio.CancelledError):
            # the error of the body says more than that its hold was lost meanwhile
            if exc is not None and (was_done or not isinstance(exc, Exception)):
                return False
            raise
        if held.ended_early and exc is not None:  # it was left before the body raised this
            suppresses = getattr(self._manager, "suppresses", None)
            return suppresses is not None and bool(suppresses(exc))
        return suppressed

    def __del__(self) -> None:
        # never left, or interrupted while leaving: without a reference it must not stay held
        call = getattr(self._held, "call", None)
        if call is not None and not call.done and not call.is_inherited():
            call.cancel()


_portals: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()
_inherited: Final[list[LoopUse]] = []
"""Loops of a parent process. Finalising one would break what the parent waits for."""


def _reset_all_after_fork() -> None:
    for portal in _portals:
        portal.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all_after_fork)
