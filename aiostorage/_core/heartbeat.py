"""Heartbeats: a call that is repeated in the background while a body runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from aiostorage._core.cancellation import wait_until_done
from aiostorage.errors import AioStorageError, BackendError

__all__ = ["repeating"]

log = logging.getLogger("aiostorage")


@asynccontextmanager
async def repeating(beat: Callable[[], Awaitable[object]], interval: float) -> AsyncIterator[None]:
    """Call `beat` every `interval` seconds while the body runs.

    When the engine fails, both go on: the next beat may succeed. Any other error of `beat` means
    that what it keeps alive is lost: the body is cancelled, and the error is raised instead.
    """
    lost: AioStorageError | None = None

    async def beating() -> None:
        nonlocal lost
        while True:
            await anyio.sleep(interval)
            try:
                await beat()
            except BackendError as error:
                log.warning("a heartbeat did not get through: %s", error)
            except AioStorageError as error:
                lost = error
                scope.cancel()
                return

    # a plain task: a task group would wrap whatever the body raises in an exception group
    with anyio.CancelScope() as scope:
        task = asyncio.create_task(beating())
        try:
            yield
        finally:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await wait_until_done(task)
    if lost is not None and scope.cancelled_caught:
        raise lost
