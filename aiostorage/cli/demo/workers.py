"""The async workers of one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio

from aiostorage.cli.demo.events import Event, Kind
from aiostorage.cli.demo.problem import Problem
from aiostorage.cli.demo.suggest import RandomSearch
from aiostorage.cli.demo.timed_storage import Spent, TimedStorage
from aiostorage.errors import FailedUpdate, InvalidResult, LockLost
from aiostorage.protocols import AsyncStorageProtocol, Uid
from aiostorage.trial import Trial

__all__ = ["Crew"]

log = logging.getLogger("aiostorage.cli")

LOOK: Final = 0.2
"""Seconds between two looks for lost trials, for new ones when idle, and for the end of the run."""

GRACE: Final = 1.0
"""Seconds that workers have to report when the run has ended."""


class _ObjectiveFailed(Exception):
    """The objective raised; says what."""


class Crew:
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
        How many trials the experiment is to have.
    workers
        How many work at the same time.
    report
        Is told what happens; must not wait.
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
        self._size = workers
        self._report = report
        self._finished = anyio.Event()
        self._asking = anyio.Lock()
        self._asked = 0
        self._exhausted = False

    async def run(self) -> None:
        """Work until all trials are completed or broken, by whomever."""
        self._report(Event(Kind.READY))
        async with anyio.create_task_group() as watch:
            watch.start_soon(self._watch, watch.cancel_scope)
            async with anyio.create_task_group() as workers:
                for number in range(1, self._size + 1):
                    workers.start_soon(self._work, number)
            watch.cancel_scope.cancel()

    async def _watch(self, everything: anyio.CancelScope) -> None:
        """Bring lost trials back, and tell the end of the run."""
        while True:
            recovered = await self._storage.recover_lost_trials(self._experiment)
            if recovered:
                ids = tuple(trial.id for trial in recovered)
                self._report(Event(Kind.RECOVERED, trials=ids))
            done = await self._storage.count_completed_trials(self._experiment)
            done += await self._storage.count_broken_trials(self._experiment)
            if done >= self._trials:
                break
            await anyio.sleep(LOOK)
        self._finished.set()
        await anyio.sleep(GRACE)
        everything.cancel()  # somebody evaluates a trial that others have done meanwhile

    async def _work(self, number: int) -> None:
        """Be one worker."""
        spent = Spent()
        storage = TimedStorage(self._storage, spent)
        idle = False
        while not self._finished.is_set():
            if await self._evaluate_one(number, storage, spent):
                idle = False
            elif not self._exhausted:
                await self._ask_for_more(number, storage)
            else:
                if not idle:
                    self._report(Event(Kind.IDLE, number))
                idle = True
                with anyio.move_on_after(LOOK):
                    await self._finished.wait()
        self._report(Event(Kind.ENDED, number, spent=spent.up_to_now()))

    async def _evaluate_one(self, number: int, storage: TimedStorage, spent: Spent) -> bool:
        """Reserve and evaluate a trial; answer whether there was one."""
        trial: Trial | None = None
        try:
            async with storage.reserved_trial(self._experiment) as trial:
                if trial is None:
                    return False
                self._report(
                    Event(Kind.EVALUATING, number, trial=trial.id, token=trial.worker or "")
                )
                results = await self._evaluated(trial, spent)
                await storage.complete_trial(trial, results)
        except (_ObjectiveFailed, InvalidResult) as error:
            self._report(Event(Kind.BROKEN, number, trial=_id(trial), error=str(error)))
            return True
        except FailedUpdate as error:
            self._report(Event(Kind.LOST, number, trial=_id(trial), error=str(error)))
            return True
        best = trial.objective.value if trial.objective else None
        self._report(
            Event(
                Kind.COMPLETED,
                number,
                trial=trial.id,
                objective=best,
                params=trial.params,
                spent=spent.up_to_now(),
            )
        )
        return True

    async def _evaluated(self, trial: Trial, spent: Spent) -> object:
        try:
            with spent.on("evaluating"):
                return await self._problem.evaluate(trial.params)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise _ObjectiveFailed(f"{text:.200}") from error

    async def _ask_for_more(self, number: int, storage: TimedStorage) -> None:
        """See to it that there are suggestions, together with the others of this process."""
        asked = self._asked
        async with self._asking:
            if asked != self._asked:
                return  # somebody has, while we waited
            self._report(Event(Kind.SUGGESTING, number))
            try:
                self._exhausted = await self._search.suggest(storage, self._uid, self._size)
            except LockLost as error:
                log.warning("%s", error)  # whoever has it now suggests
            self._asked += 1


def _id(trial: Trial | None) -> str:
    return "" if trial is None else trial.id
