"""Time that clean-up may take, whoever cancels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio

from aiostorage.errors import AioStorageError

__all__ = ["clean_up", "run_detached", "run_to_completion", "shielded"]

T = TypeVar("T")

log = logging.getLogger("aiostorage")


async def run_to_completion(action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` to its end although this task is cancelled; then let it be cancelled.

    A shielded scope of AnyIO keeps off the cancellation of other scopes, but not ``task.cancel()``,
    which `asyncio.timeout` and `asyncio.TaskGroup` use; so `action` gets a task of its own.
    """
    task = asyncio.ensure_future(action())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return task.result()
    with anyio.CancelScope(shield=True):  # else AnyIO cancels again, at every turn of the loop
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.warning("while being cancelled: %s", failure)
    raise cancelled


async def shielded(seconds: float | None, action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` as `run_to_completion` does, with a time limit; also within a cancelled scope.

    Raises
    ------
    TimeoutError
        It took longer than so many seconds.
    """

    async def act() -> T:
        with anyio.fail_after(seconds):
            return await action()

    with anyio.CancelScope(shield=True):
        return await run_to_completion(act)
    raise AssertionError("unreachable")  # pragma: no cover


async def run_detached(action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` in a task of its own, which is cancelled once if this one is, and waited for.

    For what takes a cancellation badly. A scope of AnyIO cancels again and again; and before Python
    3.12 `asyncio.wait_for` may swallow a cancellation, or leave a condition locked for ever if a
    second one follows: https://github.com/python/cpython/issues/86296
    """

    async def act() -> T:
        return await action()

    task = asyncio.create_task(act())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.debug("while being cancelled: %s", failure)
        raise
    return task.result()


async def clean_up(seconds: float, action: Callable[[], Awaitable[object]], what: str) -> None:
    """Do what has to be done although something failed or was cancelled.

    Cancellation does not reach `action`, the time does: after so many seconds it is given up. Its
    errors are logged, not raised, for the caller has something more important to report.
    """
    try:
        await shielded(seconds, action)
    except AioStorageError as error:
        log.warning("%s failed: %s", what, error)
    except TimeoutError:
        log.warning("%s did not end within %.3g s", what, seconds)
