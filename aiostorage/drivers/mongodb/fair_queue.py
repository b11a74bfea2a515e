"""Operations that come at the same time: a few go abreast, more than that go together.

What is asked for in one turn of the event loop is looked at in the next. If it is little, each
operation goes by itself. If it is more, or as much is under way, it waits until all that is under
way has ended, and then goes together: few commands for many operations.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import anyio

__all__ = ["HASTE", "Queue"]

O = TypeVar("O")  # noqa: E741  as in operation
R = TypeVar("R")

log: logging.Logger = logging.getLogger("aiostorage")

ABREAST: Final = 3
"""Operations under way by themselves, at most."""

TOGETHER: Final = 100
"""Operations that go together, at most."""

HASTE: Final = 1.0
"""Seconds: what has less left does not come here, lest others fail with it."""

APART: Final = (32, 1024)
"""Operations that go by themselves where going together failed: the first time, and at most."""


@dataclass(eq=False, slots=True)
class _Entry(Generic[O, R]):
    operation: O
    end: float
    answer: asyncio.Future[R]
    over: bool = False

    def settle(self, result: R | None, error: BaseException | None) -> None:
        self.over = True
        if self.answer.done():
            return  # its caller was cancelled, and does not wait yet or any more
        if error is None:
            self.answer.set_result(result)  # type: ignore[arg-type]  # R may be None
        elif isinstance(error, asyncio.CancelledError):
            self.answer.cancel()
        else:
            self.answer.set_exception(error)


class Queue(Generic[O, R]):
    """Operations of one kind.

    Parameters
    ----------
    alone
        Carries out one operation within so many seconds.
    together
        Carries out several, and answers a result or an error for each; is handed this queue too.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        alone: Callable[[O, float], Awaitable[R]],
        together: Callable[[Queue[O, R], Sequence[O], float], Awaitable[Sequence[R | Exception]]],
    ) -> None:
        self._loop = loop
        self._alone = alone
        self._together = together
        self._waiting: list[_Entry[O, R]] = []
        self._under_way = 0
        self._looking = False
        self._apart, self._next_apart = 0, APART[0]
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, and nobody is at it."""
        return not self._waiting and not self._under_way

    def went_well(self, well: bool) -> None:
        """Be told whether it was good that operations went together.

        If not, they go by themselves for a while, for longer each time.
        """
        if well:
            self._next_apart = APART[0]
        else:
            self._apart, self._next_apart = self._next_apart, min(2 * self._next_apart, APART[1])

    async def carry_out(self, operation: O, seconds: float) -> R:
        """Carry out an operation, to the end if it has begun when the caller is cancelled."""
        entry: _Entry[O, R] = _Entry(
            operation, self._loop.time() + seconds, self._loop.create_future()
        )
        self._waiting.append(entry)
        self._look()
        try:
            return await entry.answer
        except asyncio.CancelledError as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
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
                    log.warning("while being cancelled: %s", error)
        if entry.answer.done() and not entry.answer.cancelled():
            entry.answer.exception()  # else asyncio complains that nobody has asked for it
        raise cancelled

    def _look(self) -> None:
        """See to it that what can go goes, at the next turn of the loop."""
        if self._waiting and not self._looking and self._can_go():
            self._looking = True
            self._spawn(self._go())

    def _can_go(self) -> bool:
        abreast = TOGETHER if self._apart else ABREAST
        return not self._under_way or len(self._waiting) <= abreast - self._under_way

    async def _go(self) -> None:
        self._looking = False
        if not self._can_go():
            return  # more have come; the last one that is under way looks after them
        batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        if len(batch) > ABREAST and not self._apart:
            self._under_way = TOGETHER  # nothing goes beside it
            await self._carry_out_together(batch)
            return
        self._under_way += len(batch)
        self._apart = max(self._apart - len(batch), 0)
        for entry in batch[1:]:
            self._spawn(self._carry_out_alone(entry))
        for entry in batch[:1]:
            await self._carry_out_alone(entry)

    async def _carry_out_alone(self, entry: _Entry[O, R]) -> None:
        try:
            result = await self._alone(entry.operation, self._left([entry]))
        except BaseException as error:
            entry.settle(None, error)
            if not isinstance(error, Exception):
                raise
        else:
            entry.settle(result, None)
        finally:
            self._under_way -= 1
            self._look()

    async def _carry_out_together(self, batch: Sequence[_Entry[O, R]]) -> None:
        try:
            operations = [entry.operation for entry in batch]
            results = await self._together(self, operations, self._left(batch))
        except BaseException as error:
            for entry in batch:
                entry.settle(None, error)
            if not isinstance(error, Exception):
                raise
        else:
            for entry, result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    entry.settle(None, result)
                else:
                    entry.settle(result, None)
            await asyncio.sleep(0)  # who has an answer may have more to ask for: that goes along
        finally:
            self._under_way = 0
            self._look()

    def _left(self, batch: Sequence[_Entry[O, R]]) -> float:
        return max(min(entry.end for entry in batch) - self._loop.time(), HASTE)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
