"""Between the event loop of the objectives and that of the storage: what many trials ask for.

Requests that wait at the same time go to the storage together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import anyio

from aiostorage._core.cancellation import clean_up, wait_until_done
from aiostorage._core.event_log import EventLog
from aiostorage.errors import StorageClosedError, TemporaryBackendError
from aiostorage.optuna.async_objectives.deferred_storage import DeferredStorage, RunningTrial
from aiostorage.optuna.async_objectives.loop_turns import few_at_once, resolve
from aiostorage.optuna.async_objectives.trial_batches import BegunTrial, TrialBatches, TrialWrite
from aiostorage.optuna.unwritten_params import MAX_WRITE_DELAY, UNWRITTEN
from aiostorage.sync.portal import Portal

__all__ = ["StudyWriter"]

T = TypeVar("T")

events: Final = EventLog("optuna")

CLEAN_UP_TIMEOUT: Final = 30.0
"""Seconds for which trials are handed back after a cancellation, at most."""

EARLY_WRITE_WINDOW: Final = 0.025
"""Seconds for which a write may come before it is due, at most, together with one that is due."""

SYNC_INTERVAL: Final = 0.5
"""Seconds for which the other trials of the study count as known when a pruner is asked."""


_Told: TypeAlias = tuple[bool, BegunTrial | None]
"""Whether a trial was still ours to write, and the next one, if that has begun."""

_Ended: TypeAlias = "dict[RunningTrial, tuple[asyncio.Future[_Told], bool]]"
"""Trials with a final state: who waits for it to be written, and whether another is to begin."""


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
        self._wanted: list[asyncio.Future[BegunTrial]] = []
        self._ended: _Ended = {}
        self._wake = asyncio.Event()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._synced = -SYNC_INTERVAL
        self._writing = asyncio.Lock()
        self._stopped = False
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
        since = self._deferred.dirty_since
        if since is not None and self._timer is None:
            delay = since + MAX_WRITE_DELAY - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(delay, self._is_due)

    def _is_due(self) -> None:
        self._timer, self._due = None, True
        self._wake.set()

    async def begun(self) -> RunningTrial:
        """Begin a trial."""
        self._check()
        future: asyncio.Future[BegunTrial] = asyncio.get_running_loop().create_future()
        self._wanted.append(future)
        self._wake.set()
        try:
            begun = await future
        except BaseException:
            if _has_result(future):  # it came together with the cancellation
                await self._return([future.result()])
            raise
        return self._begin(begun)

    def _begin(self, begun: BegunTrial) -> RunningTrial:
        former = self._deferred.running(begun.number)
        if former is not None:  # it was taken away, which is not known yet, and waited
            self._on_lost(former)
        running = self._deferred.begin(begun)
        self.noted()
        return running

    async def written(
        self, running: RunningTrial, *, begins: bool = False
    ) -> tuple[bool, RunningTrial | None]:
        """Write the final state of a trial, and begin the next one of its task with it.

        Parameters
        ----------
        begins
            Whether another trial is to begin.

        Returns
        -------
        bool
            Whether the trial was still ours to write.
        RunningTrial or None
            The next trial; None if none was wanted, or none could be begun.
        """
        self._check()
        future: asyncio.Future[_Told] = asyncio.get_running_loop().create_future()
        self._ended[running] = future, begins
        self._wake.set()
        try:
            is_ours, begun = await future
        except BaseException:
            if _has_result(future) and (following := future.result()[1]) is not None:
                await self._return([following])
            raise
        return is_ours, None if begun is None else self._begin(begun)

    async def sync(self) -> None:
        """Know of the other trials, as they were a moment ago."""
        now = anyio.current_time()
        if now - self._synced > SYNC_INTERVAL:
            self._synced = now
            await self.there(self._batches.sync)

    async def run(self) -> None:
        """Carry out what is asked for, until this is cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                # what is begun has an owner, or is handed back
                with anyio.CancelScope(shield=True):
                    if unwanted := await self._carry_out():
                        await self._return(unwanted)
        finally:
            self._stopped = True
            _cancel(self._ended, self._wanted)
            if self._timer is not None:
                self._timer.cancel()

    def _check(self) -> None:
        if self._stopped:
            raise RuntimeError("the optimization has ended")

    async def _carry_out(self) -> list[BegunTrial]:
        """Write and begin what is asked for; return the trials that no task wants."""
        async with self._writing:
            wanted = [future for future in self._wanted if not future.done()]
            ended, self._wanted, self._ended = self._ended, [], {}
            writes = self._take_writes(ended)
            count = len(wanted) + sum(begins for _, begins in ended.values())
            try:
                outcomes, begun = await self._results(writes, count)
            except BaseException:  # all tasks of the loop are cancelled
                _cancel(ended, wanted)
                raise
            for one, result in outcomes.items():
                self._take_outcome(one, result, writes[one], has_ended=one in ended)
            if isinstance(begun, list) and begun:
                self._synced = anyio.current_time()
            return await _answer(ended, outcomes, wanted, begun)

    def _take_writes(self, ended: _Ended) -> dict[RunningTrial, TrialWrite]:
        """Return what is to be written of which trials."""
        dirty: list[RunningTrial] = []
        if self._due:
            self._due = False
            dirty = self._deferred.take_dirty(
                time.monotonic() - MAX_WRITE_DELAY + EARLY_WRITE_WINDOW
            )
            self.noted()
        # what has ended is written with its final state, when its task has asked for that
        return {
            one: write
            for one in {**dict.fromkeys(dirty), **ended}
            if not one.lost and (write := one.take_write(ended=one in ended)) is not None
        }

    async def _results(
        self, writes: Mapping[RunningTrial, TrialWrite], count: int
    ) -> tuple[dict[RunningTrial, Any], list[BegunTrial] | Exception]:
        """Return what `TrialBatches.carry_out` does, by trial."""
        if not writes and not count:
            return {}, []
        try:
            results, begun = await self._carried_out(list(writes.values()), count)
        except Exception as error:  # noqa: BLE001  those who asked raise it
            return dict.fromkeys(writes, error), error
        return dict(zip(writes, results, strict=True)), begun

    async def _carried_out(
        self, writes: Sequence[TrialWrite], count: int
    ) -> tuple[list[Any], list[BegunTrial] | Exception]:
        """Await `TrialBatches.carry_out` to its end, so that no trial that it begins is left."""
        future = asyncio.wrap_future(self._portal.start(self._batches.carry_out, writes, count))
        try:
            await wait_until_done(future)
        except asyncio.CancelledError:  # not by a scope, but with all tasks of the loop
            if _has_result(future) and isinstance(unwanted := future.result()[1], list):
                await self._return(unwanted)
            raise
        if future.cancelled():
            raise StorageClosedError
        return future.result()

    def _take_outcome(
        self, one: RunningTrial, result: Any, write: TrialWrite, *, has_ended: bool
    ) -> None:
        """Note what has become of what was written of a trial."""
        if result is not True and result is not False and not has_ended:
            self._delay(one, write, result)
            return
        self._delayed.discard(one)
        if result is False:
            self._on_lost(one)
        elif result is True:
            one.written(write)
            if has_ended:
                self._deferred.publish(one)

    async def _return(self, begun: list[BegunTrial]) -> None:
        """Hand back trials that no task evaluates."""
        hand_back = partial(self.there, self._batches.hand_back, begun, "cancelled")
        await clean_up(CLEAN_UP_TIMEOUT, hand_back, "handing trials back")

    async def hand_back(self, running: RunningTrial) -> None:
        """Hand back a trial whose evaluation was cancelled, with the params that it has."""
        running.lost = True

        async def written_and_back() -> None:
            results = []
            async with self._writing:  # what is being written now may come back
                self._delayed.discard(running)
                write = running.take_write()
                if write is not None and (write.params or write.changes.keys() - {UNWRITTEN}):
                    results = await self.there(self._batches.write, [write])
            await self.there(self._batches.hand_back, [running], "cancelled")
            for result in results:
                if isinstance(result, BaseException):
                    raise result

        await clean_up(CLEAN_UP_TIMEOUT, written_and_back, "handing a trial back")

    def _delay(self, running: RunningTrial, write: TrialWrite, error: Exception) -> None:
        """Keep what could not be written of a trial that goes on.

        It is written again soon, if that may succeed, and otherwise together with the final state,
        where the error is raised that it has then.
        """
        running.give_back(write)
        if running not in self._delayed:
            self._delayed.add(running)
            events.warning(
                "not_written",
                "trial %(number)s: what it has set is not written yet: %(error)s",
                number=running.number,
                error=error,
            )
        if isinstance(error, TemporaryBackendError):
            self._deferred.note(running)
            self.noted()


def _has_result(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _cancel(ended: _Ended, wanted: Sequence[asyncio.Future[BegunTrial]]) -> None:
    """Let nobody wait for what will not be done any more."""
    for of_ended, _ in ended.values():
        of_ended.cancel()
    for of_begun in wanted:
        of_begun.cancel()


async def _answer(
    ended: _Ended,
    outcomes: Mapping[RunningTrial, Any],
    wanted: Sequence[asyncio.Future[BegunTrial]],
    begun: list[BegunTrial] | Exception,
) -> list[BegunTrial]:
    """Resolve the futures of those who asked; return the trials that no task gets."""
    left = deque(begun if isinstance(begun, list) else ())
    async for one, (future, begins) in few_at_once(ended.items()):
        result = outcomes.get(one, False)
        if isinstance(result, BaseException):
            resolve(future, None, result)
        elif not future.done():
            future.set_result((result, left.popleft() if begins and left else None))
    async for of_begun in few_at_once(wanted):
        if isinstance(begun, Exception):
            resolve(of_begun, None, begun)
        elif not of_begun.done():  # not cancelled meanwhile
            of_begun.set_result(left.popleft())
    return list(left)
