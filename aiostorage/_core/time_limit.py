"""A time limit that many calls have, at hardly any cost for a call that ends in time.

A scope of AnyIO, or `asyncio.timeout`, starts and stops a timer for each call. Calls with the same
limit expire in the order in which they began, so one timer does for all of them.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["TimeLimit", "TimedCall"]

PAUSE: Final = 0.1
"""Seconds after which a call that has swallowed its cancellation is cancelled again."""


class TimedCall:
    """A call under way, and the task that makes it.

    Attributes
    ----------
    cancellations
        How often the limit has cancelled the call.
    """

    __slots__ = ("cancellations", "cancelled_before", "deadline", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.cancelled_before: int = task.cancelling()
        self.cancellations: int = 0

    def has_expired(self) -> bool:
        """Return whether the limit has cancelled the call, and nothing else has."""
        others = self.task.cancelling() - self.cancellations
        return self.cancellations > 0 and others <= self.cancelled_before

    def take_back(self) -> None:
        """Take the cancellations by the limit back, at the end of the call."""
        for _ in range(self.cancellations):
            self.task.uncancel()


class TimeLimit:
    """Cancels calls that take longer than so many seconds.

    They are those of one event loop at a time. Whoever ends a call takes it out of `calls`, and its
    cancellations back.

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
            self._timer = loop.call_at(max(first.deadline, now + PAUSE), self._expire, loop)
