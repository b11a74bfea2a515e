"""A time limit that many calls have, at hardly any cost for a call that ends in time.

A scope of AnyIO, or `asyncio.timeout`, starts and stops a timer for each call. Calls with the same
limit expire in the order in which they began, so one timer does for all of them.
"""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import Final

import anyio

__all__ = ["PRESENT_CALL", "TimeLimit", "TimedCall", "deadline_of_call"]

RECANCEL_INTERVAL: Final = 0.1
"""Seconds after which a call that has swallowed its cancellation is cancelled again."""


class TimedCall:
    """A call under way, and the task that makes it.

    Attributes
    ----------
    cancellations
        How often the limit has cancelled the call.
    """

    __slots__ = ("cancellations", "cancelled_before", "deadline", "outer", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.cancelled_before: int = task.cancelling()
        self.cancellations: int = 0
        self.outer: TimedCall | None = PRESENT_CALL.get()
        PRESENT_CALL.set(self)

    def has_expired(self) -> bool:
        """Return whether the limit has cancelled the call, and nothing else has."""
        others = self.task.cancelling() - self.cancellations
        return self.cancellations > 0 and others <= self.cancelled_before

    def take_back(self) -> None:
        """Take the cancellations by the limit back, at the end of the call."""
        for _ in range(self.cancellations):
            self.task.uncancel()


PRESENT_CALL: Final[ContextVar[TimedCall | None]] = ContextVar("present call", default=None)


def deadline_of_call() -> float:
    """Return when the present call has to end, by the clock of the event loop.

    That is the end of its time limit, or an earlier one of a scope of AnyIO; infinity if it has
    none.
    """
    call = PRESENT_CALL.get()
    limit = math.inf
    # a task that was started by the call has its variables, too, but may last longer
    if call is not None and call.task is asyncio.current_task():
        limit = call.deadline
    return min(limit, anyio.current_effective_deadline())


class TimeLimit:
    """Cancels calls that take longer than so many seconds.

    They are those of one event loop at a time. Whoever ends a call takes it out of `calls`, makes
    its `outer` one the present call, and takes its cancellations back.

    Parameters
    ----------
    seconds
        How long a call may take.

    Attributes
    ----------
    calls
        Those under way, in the order of their deadlines.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self.calls: dict[TimedCall, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> TimedCall:
        """Begin a call of this task."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in a task
        loop = task.get_loop()
        if loop is not self._loop:  # the last one has ended, and its timer with it
            self._loop, self.calls, self._timer = loop, {}, None
        call = TimedCall(task, loop.time() + self.seconds)
        self.calls[call] = None
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._expire, loop)
        return call

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now, self._timer = loop.time(), None
        for call in list(self.calls):
            if call.deadline > now:
                break
            call.task.cancel()
            call.cancellations += 1
        if self.calls:
            first = next(iter(self.calls))
            self._timer = loop.call_at(
                max(first.deadline, now + RECANCEL_INTERVAL), self._expire, loop
            )
