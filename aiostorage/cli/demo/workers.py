"""The async workers of one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio

from aiostorage.cli.demo.events import Event, EventKind
from aiostorage.cli.demo.problem import Problem
from aiostorage.cli.demo.suggest import RandomSearch
from aiostorage.cli.demo.timed_storage import TimedStorage, TimeSpent
from aiostorage.errors import FailedUpdate, InvalidResult, LockLost
from aiostorage.protocols import AsyncStorageProtocol, Uid
from aiostorage.trial import Trial

__all__ = ["Workers"]

log: Final = logging.getLogger("aiostorage.cli")

POLL_INTERVAL: Final = 0.2
"""Seconds between two checks for lost trials, for new trials when idle, and for the run's end."""

FINISH_TIMEOUT: Final = 1.0
"""Seconds that workers have to finish and report when the run has ended."""


class _ObjectiveFailed(Exception):
    """The objective raised; the message says what."""


class Workers:
    """Workers that evaluate trials until all are done.

    Parameters
    ----------
    storage
        Where the trials are.
    experiment
        The id of the experiment.
    problem
        What to evaluate.
    trials
        The number of trials that the experiment is to have.
    workers
        The number of workers.
    report
        Called with each event; must not wait.
    """

    def __init__(
        self,
        storage: AsyncStorageProtocol,
        experiment: Uid,
        problem: Problem,
        *,
        trials: int,
        workers: int,
        report: Callable[[Event], None],
    ) -> None:
        self._storage = storage
        self._uid = experiment
        self._experiment = {"_id": experiment}
        self._problem = problem
        self._search = RandomSearch(problem.space, trials)
        self._trials = trials
        self._count = workers
        self._report = report
        self._run_ended = anyio.Event()
        self._suggesting = anyio.Lock()
        self._suggestions = 0
        self._exhausted = False

    async def run(self) -> None:
        """Work until all trials are completed or broken, in this process or in others."""
        self._report(Event(EventKind.READY))
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, group.cancel_scope)
            async with anyio.create_task_group() as workers:
                for number in range(1, self._count + 1):
                    workers.start_soon(self._work, number)
            group.cancel_scope.cancel()

    async def _watch(self, everything: anyio.CancelScope) -> None:
        """Recover lost trials, and end the workers when the run has ended."""
        while True:
            recovered = await self._storage.recover_lost_trials(self._experiment)
            if recovered:
                ids = tuple(trial.id for trial in recovered)
                self._report(Event(EventKind.RECOVERED, trials=ids))
            done = await self._storage.count_completed_trials(self._experiment)
            done += await self._storage.count_broken_trials(self._experiment)
            if done >= self._trials:
                break
            await anyio.sleep(POLL_INTERVAL)
        self._run_ended.set()
        await anyio.sleep(FINISH_TIMEOUT)
        everything.cancel()  # a worker still evaluates a trial that another one has completed

    async def _work(self, number: int) -> None:
        """Run one worker."""
        spent = TimeSpent()
        storage = TimedStorage(self._storage, spent)
        is_idle = False
        while not self._run_ended.is_set():
            if await self._evaluate_one(number, storage, spent):
                is_idle = False
            elif not self._exhausted:
                await self._suggest_more(number, storage)
            else:
                if not is_idle:
                    self._report(Event(EventKind.IDLE, number))
                is_idle = True
                with anyio.move_on_after(POLL_INTERVAL):
                    await self._run_ended.wait()
        self._report(Event(EventKind.ENDED, number, spent=spent.up_to_now()))

    async def _evaluate_one(self, number: int, storage: TimedStorage, spent: TimeSpent) -> bool:
        """Reserve and evaluate a trial; return whether there was one."""
        trial: Trial | None = None
        try:
            async with storage.reserved_trial(self._experiment) as trial:
                if trial is None:
                    return False
                self._report(
                    Event(EventKind.EVALUATING, number, trial=trial.id, token=trial.worker or "")
                )
                results = await self._evaluate(trial, spent)
                await storage.complete_trial(trial, results)
        except (_ObjectiveFailed, InvalidResult) as error:
            self._report(Event(EventKind.BROKEN, number, trial=_id(trial), error=str(error)))
            return True
        except FailedUpdate as error:
            self._report(Event(EventKind.LOST, number, trial=_id(trial), error=str(error)))
            return True
        self._report(
            Event(
                EventKind.COMPLETED,
                number,
                trial=trial.id,
                objective=trial.objective.value if trial.objective else None,
                params=trial.params,
                spent=spent.up_to_now(),
            )
        )
        return True

    async def _evaluate(self, trial: Trial, spent: TimeSpent) -> object:
        try:
            with spent.measure("evaluating"):
                return await self._problem.evaluate(trial.params)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise _ObjectiveFailed(f"{text:.200}") from error

    async def _suggest_more(self, number: int, storage: TimedStorage) -> None:
        """Suggest more trials, unless another worker of this process does so meanwhile."""
        before = self._suggestions
        async with self._suggesting:
            if before != self._suggestions:
                return
            self._report(Event(EventKind.SUGGESTING, number))
            try:
                self._exhausted = await self._search.suggest(storage, self._uid, self._count)
            except LockLost as error:
                log.warning("%s", error)  # the present holder of the lock suggests
            self._suggestions += 1


def _id(trial: Trial | None) -> str:
    return "" if trial is None else trial.id
