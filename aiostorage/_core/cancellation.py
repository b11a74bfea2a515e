"""What must run to its end although its caller is cancelled, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio

from aiostorage._core.event_log import EventLog
from aiostorage.errors import AioStorageError

__all__ = [
    "clean_up",
    "had_no_effect",
    "mark_without_effect",
    "run_detached",
    "run_to_completion",
    "shielded",
    "wait_until_done",
]

T = TypeVar("T")

events: Final = EventLog("cleanup")


def mark_without_effect(error: asyncio.CancelledError) -> None:
    """Note that the call which was cancelled has changed nothing, and never will."""
    vars(error)["without_effect"] = True


def had_no_effect(error: BaseException) -> bool:
    """Return whether this is the cancellation of a call that has changed nothing."""
    return isinstance(error, asyncio.CancelledError) and "without_effect" in vars(error)


async def wait_until_done(
    future: asyncio.Future[Any], give_up: Callable[[], object] | None = None
) -> None:
    """Wait for the end of `future` although this task is cancelled; then let it be cancelled.

    Then it calls `give_up`, too, which may make the end come sooner.

    A shielded scope of AnyIO keeps off the cancellation of other scopes, but not ``task.cancel()``,
    which `asyncio.timeout` and `asyncio.TaskGroup` use.
    """
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return
    if give_up is not None:
        give_up()
    with anyio.CancelScope(shield=True):  # else AnyIO cancels again, in every turn of the loop
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
    raise cancelled


async def run_to_completion(
    action: Callable[[], Awaitable[T]], give_up: Callable[[], object] | None = None
) -> T:
    """Await `action` in a task of its own, to its end; a cancellation of this task waits for it.

    A cancellation also calls `give_up`, which may make the end come sooner.

    If this task is cancelled, an error of `action` is logged.
    """
    task = asyncio.ensure_future(action())
    try:
        await wait_until_done(task, give_up)
    except asyncio.CancelledError:
        if not task.cancelled() and (failure := task.exception()) is not None:
            tell = events.warning if give_up is None else events.debug
            tell("failed_while_cancelled", "while being cancelled: %(error)s", error=failure)
        raise
    return task.result()


async def shielded(seconds: float | None, action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` as `run_to_completion` does, with a time limit; also in a cancelled scope.

    Raises
    ------
    TimeoutError
        It took longer than so many seconds.
    """

    async def limited() -> T:
        with anyio.fail_after(seconds):
            return await action()

    with anyio.CancelScope(shield=True):
        return await run_to_completion(limited)
    raise AssertionError("unreachable")  # pragma: no cover


async def run_detached(action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` in a task of its own, which a cancellation of this one cancels only once.

    The end of that task is waited for. For libraries that do not expect a second cancellation: a
    scope of AnyIO cancels again and again; and before Python 3.12 `asyncio.wait_for` may swallow a
    cancellation, or leave a condition locked for ever if a second one follows:
    https://github.com/python/cpython/issues/86296
    """
    task = asyncio.ensure_future(action())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()) is not None:
            events.debug(
                "failed_while_cancelled", "while being cancelled: %(error)s", error=failure
            )
        raise
    return task.result()


async def clean_up(seconds: float, action: Callable[[], Awaitable[object]], what: str) -> None:
    """Await a clean-up after a failure or a cancellation, for at most so many seconds.

    Cancellation does not reach `action`. Its errors are logged and not raised, since the caller is
    about to raise a more important one.
    """
    try:
        await shielded(seconds, action)
    except AioStorageError as error:
        events.warning("cleanup_failed", "%(what)s failed: %(error)s", what=what, error=error)
    except TimeoutError:
        events.warning(
            "cleanup_timed_out",
            "%(what)s did not end within %(seconds).3g s",
            what=what,
            seconds=seconds,
        )
