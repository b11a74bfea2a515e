"""An event loop in a thread of its own, for callers that have none.

The loop lives as long as the portal, since engines bind connections and tasks to it. anyio's portal
keeps it; calls take a shorter way into it that costs half as much and that Ctrl-C can interrupt.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, ExitStack
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from anyio.from_thread import start_blocking_portal

__all__ = ["Portal"]

P = ParamSpec("P")
T = TypeVar("T")

_inherited: list[Any] = []
"""Loops of a parent process. Their threads are gone, and to finalise one would wait for ever."""


class Portal:
    """Runs coroutines in its event loop; any number of threads may call.

    The loop starts with the first call, and anew in a forked child.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack: ExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)`` in the loop and answer its result.

        When the calling thread is interrupted (Ctrl-C), what runs is cancelled and has cleaned up
        before the interruption goes on.
        """

        async def awaited() -> T:
            return await function(*args, **kwargs)

        return _Run(self.loop(), awaited()).result()

    def context(self, manager: AbstractAsyncContextManager[T]) -> _Context[T]:
        """Answer an async context manager as a plain one, whose two ends run in one task."""
        return _Context(self.loop(), manager)

    def close(self) -> None:
        """End the loop. The next call would start another one."""
        with self._lock:
            stack, self._stack, self._loop = self._stack, None, None
        if stack is not None and self._pid == os.getpid():
            atexit.unregister(stack.close)
            stack.close()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Answer the loop, which runs."""
        if self._pid != os.getpid():
            _inherited.append((self._stack, self._loop))
            # a thread that is gone may hold the lock
            self._lock, self._stack, self._loop = threading.Lock(), None, None
            self._pid = os.getpid()
        loop = self._loop
        if loop is None:
            with self._lock:
                loop = self._loop
                if loop is None:
                    self._stack = ExitStack()
                    portal = self._stack.enter_context(start_blocking_portal("asyncio"))
                    loop = self._loop = portal.call(_running_loop)
                    # an open portal would keep the interpreter from exiting
                    atexit.register(self._stack.close)
        return loop


class _Run(Generic[T]):
    """A task in another thread's loop, and the thread that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._event = threading.Event()
        self.done = False
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[T]) -> None:
        self.done = True
        if not task.cancelled():
            task.exception()  # it is looked at, so asyncio need not warn
        self._event.set()

    def wake(self) -> None:
        """Let the waiting thread look."""
        self._event.set()

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())

    def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until the task is done or `enough`; an interrupted wait cancels the task."""
        try:
            while not (self.done or enough()):
                self._event.wait()
                self._event.clear()
        except BaseException:
            self.cancel()
            while not self.done:
                self._event.wait(1.0)
            raise

    def result(self) -> T:
        """Wait for the task and answer its result."""
        self.wait(lambda: False)
        return cast("asyncio.Task[T]", self._task).result()


class _Context(Generic[T]):
    """An async context manager, entered and left in one task of the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, manager: AbstractAsyncContextManager[T]
    ) -> None:
        self._loop = loop
        self._manager = manager
        self._left: asyncio.Future[None] = loop.create_future()
        self._value: list[T] = []

    async def _hold(self) -> None:
        async with self._manager as value:
            self._value.append(value)
            self._run.wake()
            await self._left

    def __enter__(self) -> T:
        self._run = _Run(self._loop, self._hold())
        self._run.wait(lambda: bool(self._value))
        if not self._value:
            self._run.result()  # raises what kept us out
        return self._value[0]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is not None and not isinstance(exc, Exception):
            # Ctrl-C in this thread is a cancellation there: it must not take the loop down
            self._run.cancel()
        else:
            self._loop.call_soon_threadsafe(self._leave, exc)
        try:
            self._run.result()
        except asyncio.CancelledError:
            return False
        except BaseException as raised:
            if raised is exc:
                return False
            raise
        return exc is not None and isinstance(exc, Exception)

    def _leave(self, exc: BaseException | None) -> None:
        if self._left.done():
            return
        if exc is None:
            self._left.set_result(None)
        else:
            self._left.set_exception(exc)


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
