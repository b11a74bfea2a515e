"""Something that has to be repeated while a body runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage.errors import AioStorageError, BackendError

__all__ = ["repeating"]

log = logging.getLogger("aiostorage")


@asynccontextmanager
async def repeating(beat: Callable[[], Awaitable[object]], every: float) -> AsyncIterator[None]:
    """Call `beat` every so many seconds while the body runs.

    An engine that fails for a while is no reason to stop either of them: the next beat may get
    through. Any other error of `beat` means that what it kept alive is gone: the body is cancelled
    and the error raised in its stead.
    """
    gone: AioStorageError | None = None

    async def beating() -> None:
        nonlocal gone
        while True:
            await anyio.sleep(every)
            try:
                await beat()
            except BackendError as error:
                log.warning("a heartbeat did not get through: %s", error)
            except AioStorageError as error:
                gone = error
                scope.cancel()
                return

    # a plain task: a task group would wrap whatever the body raises in an exception group
    with anyio.CancelScope() as scope:
        task = asyncio.create_task(beating())
        try:
            yield
        finally:
            task.cancel()
            await shielded(None, lambda: asyncio.wait([task]))
    if gone is not None and scope.cancelled_caught:
        raise gone
