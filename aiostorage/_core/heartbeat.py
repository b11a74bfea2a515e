"""Heartbeats: a call that is repeated in the background while a body runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from aiostorage._core.cancellation import wait_until_done
from aiostorage._core.event_log import EventLog
from aiostorage._core.telemetry import Telemetry
from aiostorage.errors import AioStorageError, BackendError

__all__ = ["repeating"]

events: Final = EventLog("worker")


@asynccontextmanager
async def repeating(
    beat: Callable[[], Awaitable[object]], interval: float, telemetry: Telemetry | None = None
) -> AsyncIterator[None]:
    """Call `beat` every `interval` seconds while the body runs.

    When the engine fails, both go on: the next beat may succeed. Any other error of `beat` means
    that what it keeps alive is lost: the body is cancelled, and the error is raised instead. If
    the task is cancelled from elsewhere as well, that goes first.
    """
    task = asyncio.current_task()
    cancelling = task.cancelling() if task is not None else 0
    with anyio.CancelScope() as scope:
        heart = _Heart(beat, interval, scope, telemetry)
        heart.wait()
        try:
            yield
        finally:
            heart.stop()
            # plain tasks: a task group would wrap whatever the body raises in an exception group
            if heart.beating is not None:
                with anyio.CancelScope(shield=True):
                    await wait_until_done(heart.beating)
    if heart.lost is not None and scope.cancelled_caught:
        # asyncio makes one of two cancellations in one turn of the loop, and older versions of
        # AnyIO take that one for their own
        if task is not None and task.cancelling() > cancelling:
            raise asyncio.CancelledError
        raise heart.lost


class _Heart:
    """A timer and, while a beat is under way, a task: most bodies end before the first beat."""

    def __init__(
        self,
        beat: Callable[[], Awaitable[object]],
        interval: float,
        scope: anyio.CancelScope,
        telemetry: Telemetry | None,
    ) -> None:
        self._beat = beat
        self._interval = interval
        self._scope = scope
        self._telemetry = telemetry
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.beating: asyncio.Task[None] | None = None
        self.lost: AioStorageError | None = None

    def wait(self) -> None:
        """Beat after the interval."""
        self._due = self._loop.time() + self._interval
        self._timer = self._loop.call_at(self._due, self._start)

    def stop(self) -> None:
        """Beat no more; cancel the beat that is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self.beating is not None:
            self.beating.cancel()

    def _start(self) -> None:
        self._timer = None
        self.beating = self._loop.create_task(self._beat_once())

    async def _beat_once(self) -> None:
        try:
            await self._beat()
        except BackendError as error:
            events.warning(
                "heartbeat_failed", "a heartbeat did not get through: %(error)s", error=error
            )
        except AioStorageError as error:
            self.lost = error
            self._scope.cancel()
            return
        else:
            if self._telemetry is not None:
                self._telemetry.beaten(self._loop.time() - self._due)
        self.beating = None
        self.wait()
