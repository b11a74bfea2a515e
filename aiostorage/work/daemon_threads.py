"""Threads that keep no program alive: the interpreter does not wait for them when it exits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

__all__ = ["in_daemon_thread"]

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own.

    If the caller is cancelled, the thread goes on, and its result is ignored. The thread does not
    keep the interpreter from exiting.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_result((result, error))

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001  it is raised in the loop
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, result, error)

    thread = threading.Thread(
        target=copy_context().run, args=(run,), name="aiostorage-work", daemon=True
    )
    thread.start()
    found, error = await future
    if error is not None:
        raise error
    return found  # type: ignore[return-value]  # there is a result where there is no error
