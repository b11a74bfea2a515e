"""One run of a worker: its tasks, each of which evaluates one trial after another."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio

from aiostorage._core.ids import get_uid
from aiostorage._core.reasons import reason_of
from aiostorage._core.turn import status_after
from aiostorage.errors import AioStorageError, ConfigurationError, FailedUpdate, TrialLost
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.trial import Trial
from aiostorage.values import FINAL_STATUSES, TrialStatus
from aiostorage.work.attempts import check_history, gave_up
from aiostorage.work.calls import NamedCall, objective_arguments
from aiostorage.work.evaluators import Evaluator
from aiostorage.work.stop_signals import stopped_by_signals
from aiostorage.work.suggestions import PENDING_STATUSES, Suggestions
from aiostorage.work.worker_report import (
    EndedBy,
    EventName,
    Tally,
    WorkerEvent,
    WorkerReport,
)

__all__ = ["WorkerSettings", "WorkerTasks"]

IDLE_CHECK_INTERVAL: Final = 2.0
"""Seconds of waiting for a trial after which an idle task checks whether there is work left."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The arguments of a `Worker`; see there."""

    tasks: int
    suggest: Callable[..., Any] | None
    max_trials: int | Literal[True] | None
    max_broken: int | Literal[True] | None
    max_attempts: int | None
    wait: float
    heartbeat: float | None
    grace: float
    signals: bool


@dataclass(slots=True, eq=False)
class _Slot:
    """One task: whether it evaluates a trial, and the scope of what it does."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    idle: bool = True
    wait: float = 0.0


@dataclass(slots=True)
class _TrialEvaluation:
    """The evaluation of one trial by a task, and its outcome."""

    trial: Trial
    ended: bool = False
    lost: bool = False
    reason: str | None = None
    failure: BaseException | None = None
    fault: ConfigurationError | None = None


class WorkerTasks:
    """The tasks of a worker while it runs.

    Parameters
    ----------
    evaluator
        Makes an evaluator for each task.
    listeners
        Called with each event.
    """

    def __init__(
        self,
        storage: AsyncStorageProtocol,
        experiment: ExperimentLike,
        objective: Callable[..., Any],
        evaluator: Callable[[], Evaluator],
        settings: WorkerSettings,
        *,
        listeners: list[Callable[[WorkerEvent], None]],
    ) -> None:
        self._storage = storage
        self._experiment = experiment
        self._uid = get_uid(experiment, None)
        self._call = NamedCall(objective)
        self._evaluator = evaluator
        self._settings = settings
        self._tally = Tally(listeners)
        self._slots: list[_Slot] = []
        self._loop = asyncio.get_running_loop()
        self._suggestions: Suggestions | None = None
        self._last_work = anyio.current_time()

    async def run(self) -> WorkerReport:
        """Work until there is nothing left to do, or the worker is stopped."""
        config = await self._config()
        if self._settings.max_attempts is not None:
            await check_history(self._storage, self._uid)
        if self._settings.suggest is not None:
            asked = self._settings.max_trials
            limit = config.get("max_trials") if asked is True else asked
            self._suggestions = Suggestions(
                self._storage,
                self._experiment,
                self._uid,
                self._settings.suggest,
                limit=math.inf if limit is None else limit,
            )
        receiving = stopped_by_signals(self._receive) if self._settings.signals else nullcontext()
        with receiving:
            try:
                async with anyio.create_task_group() as group:
                    for _ in range(self._settings.tasks):
                        group.start_soon(self._work)
            except BaseExceptionGroup as errors:
                raise _plain(errors) from None
        return self._tally.report()

    def stop(self) -> None:
        """Reserve no more trials; hand back those in progress when the grace period is over."""
        self._end("stopped", self._settings.grace)

    def _receive(self, number: signal.Signals) -> None:
        """Stop; called in the main thread between any two instructions."""
        self._tally.signal = self._tally.signal or number.name
        self._loop.call_soon_threadsafe(self.stop)

    def _end(self, why: EndedBy, grace: float = math.inf) -> None:
        """Let the tasks end: idle ones at once, others after their trial or the grace period."""
        if self._tally.ended_by is None:
            self._tally.ended_by = why
        for slot in self._slots:
            if slot.idle:
                slot.scope.cancel()
            else:
                slot.scope.deadline = min(slot.scope.deadline, anyio.current_time() + grace)

    async def _config(self) -> dict[str, Any]:
        found = await self._storage.fetch_experiments({"_id": self._uid})
        if not found:
            raise FailedUpdate(
                f"there is no experiment {self._uid!r} to work on: it was deleted, or never created"
            )
        return found[0]

    # ------------------------------------------------------------------------------ one task

    async def _work(self) -> None:
        evaluator, slot = self._evaluator(), _Slot()
        self._slots.append(slot)
        try:
            while self._tally.ended_by is None:
                with slot.scope:
                    await evaluator.start()
                    if not await self._take(evaluator, slot) and self._tally.ended_by is None:
                        await self._without_trial(slot)
                slot.scope = anyio.CancelScope()
        finally:
            self._slots.remove(slot)
            await evaluator.aclose()

    async def _take(self, evaluator: Evaluator, slot: _Slot) -> bool:
        """Reserve a trial and evaluate it; return whether there was one."""
        settings, evaluation = self._settings, None
        try:
            async with self._storage.reserved_trial(
                self._experiment,
                heartbeat=settings.heartbeat,
                wait=slot.wait,
                max_trials=settings.max_trials,
                max_broken=settings.max_broken,
            ) as trial:
                if trial is None:
                    return False
                slot.idle = False
                evaluation = _TrialEvaluation(trial)
                if self._tally.ended_by is None:
                    self._tally.add("started", trial)
                    await self._evaluate(evaluator, evaluation)
                evaluation.ended = True
        except Exception as error:
            if evaluation is not None:
                evaluation.lost = isinstance(error, TrialLost)
            if evaluation is None or not _is_of_the_trial(error, evaluation):
                raise
            if evaluation.trial.status != TrialStatus.COMPLETED:
                evaluation.reason = reason_of(error)
        else:  # if the block ends before that without an error, it has lost its trial
            evaluation.lost = not evaluation.ended
        finally:
            slot.idle, slot.wait = True, 0.0
            self._last_work = anyio.current_time()
            if evaluation is not None:
                self._tally.add(_became(evaluation), evaluation.trial, evaluation.reason)
        if evaluation.fault is not None:
            raise evaluation.fault
        return True

    async def _evaluate(self, evaluator: Evaluator, evaluation: _TrialEvaluation) -> None:
        """Evaluate a reserved trial; leave it reserved to hand it back."""
        storage, trial, most = self._storage, evaluation.trial, self._settings.max_attempts
        try:
            if most is not None and (reason := await gave_up(storage, trial, most)):
                evaluation.reason = reason
                return
            arguments = objective_arguments(self._call, trial)
        except ConfigurationError as fault:  # the trial is not to blame
            evaluation.fault = fault
            return
        try:
            results = await evaluator.evaluate(arguments)
        except Exception as error:
            if _is_worth_another_attempt(error, most):
                evaluation.reason = reason_of(error)
                return
            evaluation.failure = error
            raise
        await storage.complete_trial(trial, results)
        if trial.status == TrialStatus.BROKEN:
            evaluation.reason = "the objective is NaN"

    async def _without_trial(self, slot: _Slot) -> None:
        """End, have trials suggested, or wait, depending on why there was no trial."""
        storage, settings = self._storage, self._settings
        if reached := await self._limit_reached():
            self._end(reached)
            return
        if self._suggestions is not None:
            more, registered = await self._suggestions.ask(settings.tasks)
            if registered:
                self._tally.add("suggested", count=registered)
            if more:
                slot.wait = 0.0
                return
        unfinished = {"status": {"$in": [*PENDING_STATUSES, TrialStatus.RESERVED.value]}}
        if await storage.count_trials(self._experiment, where=unfinished):
            self._last_work = anyio.current_time()
            slot.wait = IDLE_CHECK_INTERVAL
            return
        left = self._last_work + settings.wait - anyio.current_time()
        if left <= 0:  # the last trials may have been completed since
            self._end(await self._limit_reached() or "done")
        slot.wait = min(IDLE_CHECK_INTERVAL, max(left, 0.0))

    async def _limit_reached(self) -> EndedBy | None:
        return await self._storage.limit_reached(
            self._experiment,
            max_trials=self._settings.max_trials,
            max_broken=self._settings.max_broken,
        )


def _became(evaluation: _TrialEvaluation) -> EventName:
    """Return the event at the end of an evaluation."""
    if evaluation.trial.status == TrialStatus.COMPLETED:
        return "completed"
    if evaluation.trial.status == TrialStatus.BROKEN or evaluation.failure is not None:
        return "broken"
    return "lost" if evaluation.lost else "interrupted"


def _is_of_the_trial(error: Exception, evaluation: _TrialEvaluation) -> bool:
    """Return whether the worker goes on: the trial is to blame, or was completed after all."""
    return evaluation.trial.status in FINAL_STATUSES or (
        error is evaluation.failure and status_after(error) is TrialStatus.BROKEN
    )


def _is_worth_another_attempt(error: Exception, max_attempts: int | None) -> bool:
    """Return whether the process of the objective died for a reason that may not recur."""
    told_to_end: bool | None = getattr(error, "told_to_end", None)
    return told_to_end is not None and (told_to_end or max_attempts is not None)


def _plain(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error if all errors in the group are errors of the storage."""
    mine, others = errors.split(AioStorageError)
    if others is not None or mine is None:
        return errors.exceptions[0] if len(errors.exceptions) == 1 else errors
    first: BaseException = mine
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
