"""Operations that come at the same time: a few go one by one, more than that in batches.

The queue looks at the operations of one turn of the event loop in the next turn. If they are few,
each goes by itself. If they are more, or as many are under way, they wait until all that is under
way has ended, and then go as a batch: few commands for many operations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio

from aiostorage._core.cancellation import mark_without_effect
from aiostorage._core.event_log import EventLog

__all__ = ["MAX_CONCURRENT", "MIN_QUEUED_SECONDS", "FairQueue"]

O = TypeVar("O")  # noqa: E741  as in operation
R = TypeVar("R")
T = TypeVar("T")

BatchOutcome: TypeAlias = tuple[Sequence[R | Exception], bool]

events: Final = EventLog("mongodb")

MAX_CONCURRENT: Final = 3
"""Operations under way by themselves, at most."""

MAX_BATCH_SIZE: Final = 100
"""Operations in one batch, at most."""

MIN_QUEUED_SECONDS: Final = 1.0
"""An operation that has less time left does not come here, since others would fail with it."""

UNBATCHED_RANGE: Final = (32, 1024)
"""Operations that go by themselves after a batch was no use: the first time, and at most."""


@dataclass(eq=False, slots=True)
class _Entry(Generic[O, R]):
    operation: O
    end: float
    answer: asyncio.Future[R]
    over: bool = False

    def resolve(self, result: R | None, error: BaseException | None) -> None:
        self.over = True
        if self.answer.done():
            return  # its caller was cancelled, and does not wait yet or any more
        if error is None:
            self.answer.set_result(result)  # type: ignore[arg-type]  # R may be None
        elif isinstance(error, asyncio.CancelledError):
            self.answer.cancel()
        else:
            self.answer.set_exception(error)


class FairQueue(Generic[O, R]):
    """Operations of one kind.

    Parameters
    ----------
    carry_out_one
        Carries out one operation within so many seconds.
    carry_out_batch
        Carries out several; returns a result or an error for each, and whether the batch was
        better than its operations by themselves. If not, they go by themselves for a while, for
        longer each time.
    concurrent
        How many operations are under way by themselves, at most.
    on_group
        Called for each batch, and each operation by itself: how many it has, and how many wait.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carry_out_one: Callable[[O, float], Coroutine[Any, Any, R]],
        carry_out_batch: Callable[[Sequence[O], float], Coroutine[Any, Any, BatchOutcome[R]]],
        concurrent: int = MAX_CONCURRENT,
        on_group: Callable[[int, int], None] | None = None,
    ) -> None:
        self._concurrent = concurrent
        self._on_group = on_group
        self._loop = loop
        self._carry_out_one = carry_out_one
        self._carry_out_batch = carry_out_batch
        self._waiting: list[_Entry[O, R]] = []
        self._under_way = 0
        self._scheduled = False
        self._unbatched, self._next_unbatched = 0, UNBATCHED_RANGE[0]
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def idle(self) -> bool:
        """Whether no operation waits or is under way."""
        return not self._waiting and not self._under_way

    async def carry_out(self, operation: O, seconds: float) -> R:
        """Carry out an operation, to the end if it has begun when the caller is cancelled."""
        entry: _Entry[O, R] = _Entry(
            operation, self._loop.time() + seconds, self._loop.create_future()
        )
        self._waiting.append(entry)
        self._schedule()
        try:
            return await entry.answer
        except asyncio.CancelledError as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
                mark_without_effect(error)
                raise
            cancelled = error
        with anyio.CancelScope(shield=True):  # else AnyIO cancels again, at every turn of the loop
            while not entry.over:
                entry.answer = self._loop.create_future()
                try:
                    await entry.answer
                except asyncio.CancelledError as error:
                    cancelled = error
                except Exception as error:  # noqa: BLE001  the cancellation comes first
                    events.warning(
                        "failed_while_cancelled", "while being cancelled: %(error)s", error=error
                    )
        if entry.answer.done() and not entry.answer.cancelled():
            entry.answer.exception()  # else asyncio complains that it was never retrieved
        raise cancelled

    def _schedule(self) -> None:
        """Start what may start, at the next turn of the loop."""
        if self._waiting and not self._scheduled and self._may_start():
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _may_start(self) -> bool:
        most = MAX_BATCH_SIZE if self._unbatched else self._concurrent
        return not self._under_way or len(self._waiting) <= most - self._under_way

    def _start(self) -> None:
        self._scheduled = False
        if not self._may_start():
            return  # more have come; the end of what is under way starts them
        batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
        if len(batch) > self._concurrent and not self._unbatched:
            self._under_way = MAX_BATCH_SIZE  # nothing goes beside it
            self._tell(len(batch))
            operations = [entry.operation for entry in batch]
            work = self._carry_out_batch(operations, self._time_left(batch))
            self._spawn(work, partial(self._end_batch, batch))
            return
        self._under_way += len(batch)
        self._unbatched = max(self._unbatched - len(batch), 0)
        for entry in batch:
            self._tell(1)
            one = self._carry_out_one(entry.operation, self._time_left([entry]))
            self._spawn(one, partial(self._end_one, entry))

    def _tell(self, size: int) -> None:
        if self._on_group is not None:
            self._on_group(size, len(self._waiting))

    def _end_one(self, entry: _Entry[O, R], task: asyncio.Task[R]) -> None:
        self._tasks.discard(task)
        error = _error_of(task)
        entry.resolve(task.result() if error is None else None, error)
        self._under_way -= 1
        self._schedule()

    def _end_batch(
        self, batch: Sequence[_Entry[O, R]], task: asyncio.Task[BatchOutcome[R]]
    ) -> None:
        self._tasks.discard(task)
        if (error := _error_of(task)) is not None:
            for entry in batch:
                entry.resolve(None, error)
            self._free()
            return
        results, worthwhile = task.result()
        if worthwhile:
            self._next_unbatched = UNBATCHED_RANGE[0]
        else:
            self._unbatched = self._next_unbatched
            self._next_unbatched = min(2 * self._next_unbatched, UNBATCHED_RANGE[1])
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                entry.resolve(None, result)
            else:
                entry.resolve(result, None)
        # a caller that has its answer may have more to ask for: that joins the next batch
        self._loop.call_soon(self._free)

    def _free(self) -> None:
        self._under_way = 0
        self._schedule()

    def _time_left(self, batch: Sequence[_Entry[O, R]]) -> float:
        return max(min(entry.end for entry in batch) - self._loop.time(), MIN_QUEUED_SECONDS)

    def _spawn(
        self, work: Coroutine[Any, Any, T], at_end: Callable[[asyncio.Task[T]], None]
    ) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(at_end)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
