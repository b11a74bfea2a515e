"""Between the event loop of the objectives and that of the storage: what many trials ask for.

Requests that wait at the same time go to the storage together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import anyio

from aiostorage._core.cancellation import clean_up
from aiostorage._core.event_log import EventLog
from aiostorage.errors import StorageClosedError, TemporaryBackendError
from aiostorage.optuna.deferred_storage import DeferredStorage, RunningTrial
from aiostorage.optuna.trial_batches import TrialBatches
from aiostorage.optuna.unwritten_params import PATIENCE
from aiostorage.sync.portal import Portal

__all__ = ["StudyWriter"]

T = TypeVar("T")

events = EventLog("optuna")

CLEAN_UP: Final = 30.0
"""Seconds for which trials are handed back after a cancellation, at most."""

SYNC_INTERVAL: Final = 0.5
"""Seconds for which the other trials of the study count as known when a pruner is asked."""


class StudyWriter:
    """Begins trials and writes what was set of them, in batches.

    Parameters
    ----------
    portal
        The way to the event loop of the storage.
    batches
        What runs there.
    deferred
        Has what is to be written.
    on_lost
        Called with a trial that does not run here any more.
    """

    def __init__(
        self,
        portal: Portal,
        batches: TrialBatches,
        deferred: DeferredStorage,
        on_lost: Callable[[RunningTrial], None],
    ) -> None:
        self._portal = portal
        self._batches = batches
        self._deferred = deferred
        self._on_lost = on_lost
        self._wanted: list[asyncio.Future[int]] = []
        self._ended: dict[RunningTrial, asyncio.Future[bool]] = {}
        self._wake = asyncio.Event()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._synced = -SYNC_INTERVAL
        self._writing = asyncio.Lock()
        self._delayed: set[RunningTrial] = set()
        """The trials of which something could not be written when it was due."""

    async def there(
        self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
    ) -> T:
        """Await a method of the batches in the event loop of the storage.

        Raises
        ------
        StorageClosedError
            The storage is closed, or was closed meanwhile.
        """
        try:
            return await asyncio.wrap_future(self._portal.start(method, *args, **kwargs))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise StorageClosedError from None  # that loop has ended; this task is not cancelled

    def noted(self) -> None:
        """Write what was set, soon; call it in the event loop."""
        if self._deferred.dirty and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._is_due)

    def _is_due(self) -> None:
        self._timer, self._due = None, True
        self._wake.set()

    async def begun(self) -> RunningTrial:
        """Begin a trial."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._wanted.append(future)
        self._wake.set()
        try:
            number = await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                await self._return([future.result()])  # it came together with the cancellation
            raise
        return self._deferred.begin(number)

    async def written(self, running: RunningTrial) -> bool:
        """Write the final state of a trial; return whether it was still ours to write."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ended[running] = future
        self._wake.set()
        return await future

    async def sync(self) -> None:
        """Know of the other trials, as they were a moment ago."""
        now = anyio.current_time()
        if now - self._synced > SYNC_INTERVAL:
            self._synced = now
            await self.there(self._batches.sync)

    async def run(self) -> None:
        """Carry out what is asked for, until this is cancelled."""
        try:
            async with anyio.create_task_group() as group:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    wanted, self._wanted = self._wanted, []
                    if wanted:
                        group.start_soon(self._begin, wanted)
                    if self._ended or self._due:
                        await self._write()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _begin(self, wanted: list[asyncio.Future[int]]) -> None:
        with anyio.CancelScope(shield=True):  # what is begun has an owner, or is handed back
            await self._begin_all(wanted)

    async def _begin_all(self, wanted: list[asyncio.Future[int]]) -> None:
        try:
            numbers = await self.there(self._batches.begin, len(wanted))
        except Exception as error:  # noqa: BLE001  those who asked raise it
            for future in wanted:
                if not future.done():
                    future.set_exception(error)
            return
        self._synced = anyio.current_time()
        unwanted = []
        for future, number in zip(wanted, numbers, strict=True):
            if future.done():  # cancelled meanwhile
                unwanted.append(number)
            else:
                future.set_result(number)
        if unwanted:
            await self._return(unwanted)

    async def _return(self, numbers: list[int]) -> None:
        """Hand back trials that no task evaluates."""
        hand_back = partial(self.there, self._batches.hand_back, numbers, "cancelled")
        await clean_up(CLEAN_UP, hand_back, "handing trials back")

    async def hand_back(self, running: RunningTrial) -> None:
        """Hand back a trial whose evaluation was cancelled, with the params that it has."""

        async def written_and_back() -> None:
            results = []
            async with self._writing:  # what is being written now may come back
                self._delayed.discard(running)
                if changes := running.take_changes():
                    writes = [(running.number, changes)]
                    results = await self.there(self._batches.write, writes)
            await self.there(self._batches.hand_back, [running.number], "cancelled")
            for result in results:
                if isinstance(result, BaseException):
                    raise result

        await clean_up(CLEAN_UP, written_and_back, "handing a trial back")

    async def _write(self) -> None:
        async with self._writing:
            await self._write_what_is_due()

    async def _write_what_is_due(self) -> None:
        ended, self._ended = self._ended, {}
        dirty: dict[RunningTrial, None] = {}
        while self._due and self._deferred.dirty:
            dirty[self._deferred.dirty.popleft()] = None
        self._due = False
        writes = {one: one.take_changes() for one in {**dirty, **ended} if not one.lost}
        writes = {one: changes for one, changes in writes.items() if changes}
        try:
            results = await self.there(
                self._batches.write, [(one.number, changes) for one, changes in writes.items()]
            )
        except Exception as error:  # noqa: BLE001  those who ended raise it
            results = [error] * len(writes)
        outcomes = dict(zip(writes, results, strict=True))
        for one, result in outcomes.items():
            if result is not True and result is not False and one not in ended:
                self._delay(one, writes[one], result)
                continue
            self._delayed.discard(one)
            if result is False:
                self._on_lost(one)
            elif result is True and one in ended:
                self._deferred.settle(one)
        for one, future in ended.items():
            result = outcomes.get(one, False)
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _delay(self, running: RunningTrial, changes: dict[str, Any], error: Exception) -> None:
        """Keep what could not be written of a trial that goes on.

        It is written again soon, if that may succeed, and otherwise together with the final state,
        where the error is raised that it has then.
        """
        running.give_back(changes)
        if running not in self._delayed:
            self._delayed.add(running)
            events.warning(
                "not_written",
                "trial %(number)s: what it has set is not written yet: %(error)s",
                number=running.number,
                error=error,
            )
        if isinstance(error, TemporaryBackendError):
            self._deferred.dirty.append(running)
            self.noted()
