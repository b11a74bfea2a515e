"""Objectives that are coroutines: many trials of a study in one event loop."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import optuna
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.progress_bar import _ProgressBar
from optuna.storages import fail_stale_trials
from optuna.study._optimize import _log_failed_trial
from optuna.study._tell import _tell_with_warning
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.event_log import EventLog
from aiostorage.errors import BackendError, ConfigurationError
from aiostorage.optuna.async_objectives.async_trial import AsyncTrial, StudyTrial, ThreadTrial
from aiostorage.optuna.async_objectives.deferred_storage import DeferredStorage, RunningTrial
from aiostorage.optuna.async_objectives.loop_turns import TaskResumer
from aiostorage.optuna.async_objectives.study_thread import StudyThread
from aiostorage.optuna.async_objectives.study_writer import StudyWriter
from aiostorage.optuna.async_objectives.trial_batches import TrialBatches
from aiostorage.optuna.storage import OptunaStorage
from aiostorage.optuna.studies import Studies
from aiostorage.optuna.trial_document import final_update
from aiostorage.work.calls import is_async, name_of
from aiostorage.work.daemon_threads import in_daemon_thread
from aiostorage.work.evaluators import not_cancelled
from aiostorage.work.stop_signals import stopped_by_signals

__all__ = ["Callback", "Objective", "optimize"]

T = TypeVar("T")

Values: TypeAlias = float | Sequence[float]
Objective: TypeAlias = Callable[[AsyncTrial], Awaitable[Values]] | Callable[[optuna.Trial], Values]
"""A coroutine function, or a plain one, which gets Optuna's own trial and runs in a thread."""

Callback: TypeAlias = Callable[[optuna.Study, FrozenTrial], object]

events: Final = EventLog("optuna")
_logger: Final = optuna.logging.get_logger("optuna.study")

LOST_AFTER_HEARTBEATS: Final = 5
"""Heartbeats in the time after which a trial counts as lost, where Optuna itself wants none."""


async def optimize(
    study: optuna.Study,
    objective: Objective,
    n_trials: int | None = None,
    timeout: float | None = None,
    *,
    tasks: int = 16,
    callbacks: Iterable[Callback] | None = None,
    catch: type[Exception] | Iterable[type[Exception]] = (),
    show_progress_bar: bool = False,
) -> None:
    """Evaluate trials of a study, several at the same time in this event loop.

    An objective that is a coroutine function gets an `AsyncTrial`: the methods of Optuna's trial,
    to be awaited. A plain function gets Optuna's own trial and runs in a thread. A thread cannot be
    stopped: if the trial is handed back or lost, the thread is abandoned, its result is ignored,
    and the program does not wait for it when it exits.

    The sampler, the pruner and the callbacks run in one thread, one after the other, because they
    are not thread-safe in Optuna. They do not block the event loop, and none of them waits for the
    store.

    When this is cancelled, or the process gets SIGTERM or Ctrl-C, trials under way are handed back:
    they wait, with their params, for the next worker. So are the others when an objective raises
    something that is not in `catch`.

    Parameters
    ----------
    study
        A study on an `OptunaStorage`.
    objective
        Returns the value of a trial, or the values.
    n_trials
        How many trials to evaluate; None for no limit.
    timeout
        Seconds after which no further trial begins; None for no limit.
    tasks
        How many trials are evaluated at the same time, at most.
    callbacks
        Called with the study and each trial that has ended, in the thread of the sampler.
    catch
        Exceptions of the objective that only fail the trial. Any other ends this, too.
    show_progress_bar
        Whether to show the progress.

    Raises
    ------
    ConfigurationError
        The study has another storage.
    RuntimeError
        This is called within ``study.optimize``, or while another call of this evaluates the same
        `Study` object in this thread.
    TypeError
        A callback is a coroutine function.
    SystemExit, KeyboardInterrupt
        The process got SIGTERM or Ctrl-C; trials have been handed back.

    Examples
    --------
    >>> async def objective(trial):
    ...     x = await trial.suggest_float("x", -10, 10)
    ...     return await measure(x)
    >>> await optimize(study, objective, n_trials=1000, tasks=64)
    """
    storage = study._storage
    if not isinstance(storage, OptunaStorage):
        raise ConfigurationError(
            f"the study needs an OptunaStorage, and has a {type(storage).__name__}: "
            'optuna.create_study(storage=OptunaStorage("sqlite:///tune.db"))'
        )
    if study._thread_local.in_optimize_loop:
        raise RuntimeError(
            "this Study object is being optimized already: await that first, or load the study "
            "once more for a second optimization"
        )
    if tasks < 1:
        raise ValueError(f"tasks is a number of at least 1, not {tasks!r}")
    callbacks = tuple(callbacks or ())
    if any(map(is_async, callbacks)):
        raise TypeError("a callback is a plain function, which is called in a thread, not async")
    caught = (catch,) if isinstance(catch, type) else tuple(catch)
    asked = _Asked(study, objective, n_trials, timeout, caught, callbacks)
    run = _Optimization(asked, storage)
    study._thread_local.in_optimize_loop = True
    progress = _ProgressBar(show_progress_bar, n_trials, timeout)
    try:
        await run.run(tasks, progress if show_progress_bar else None)
    finally:
        study._thread_local.in_optimize_loop = False
        progress.close()
    if run.signal is not None:
        if run.signal is signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + run.signal)


@dataclass(frozen=True)
class _Asked:
    """What `optimize` was asked for."""

    study: optuna.Study
    objective: Callable[[Any], Any]
    n_trials: int | None
    timeout: float | None
    caught: tuple[type[Exception], ...]
    callbacks: tuple[Callback, ...]


@dataclass(frozen=True)
class _Evaluation:
    """What has become of a trial: the result of its objective, or why there is none."""

    value: Any = None
    state: TrialState | None = None
    error: Exception | None = None


class _Optimization:
    """One call of `optimize`."""

    def __init__(self, asked: _Asked, storage: OptunaStorage) -> None:
        self.signal: signal.Signals | None = None
        self._study = asked.study
        self._storage = storage
        self._objective = asked.objective
        self._in_thread = not is_async(asked.objective)
        self._left = asked.n_trials
        self._end = None if asked.timeout is None else anyio.current_time() + asked.timeout
        self._caught = asked.caught
        self._callbacks = asked.callbacks
        self._failure: Exception | None = None
        self._interruption: asyncio.CancelledError | None = None
        self._running: dict[RunningTrial, anyio.CancelScope] = {}
        self._begun = time.monotonic()
        self._thread: StudyThread
        self._writer: StudyWriter
        self._twin: optuna.Study
        self._batches: TrialBatches
        self._workers: anyio.CancelScope

    async def run(self, tasks: int, progress: _ProgressBar | None) -> None:
        """Evaluate trials until there is no more to do."""
        portal = self._storage._storage._portal
        studies = self._storage.studies
        known = await asyncio.wrap_future(
            portal.start(Studies.study, studies, self._study._study_id)
        )
        self._batches = TrialBatches(studies, known)
        deferred = DeferredStorage(self._storage, known)
        self._deferred = deferred
        self._writer = StudyWriter(portal, self._batches, deferred, self._on_lost)
        self._twin = copy.copy(self._study)
        self._twin._storage = deferred
        self._study._stop_flag = self._twin._stop_flag = False
        self._progress = progress
        self._thread = StudyThread(TaskResumer(), self._writer.noted)
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            stack.callback(self._thread.stop)
            await self._thread.call(self._enter_thread)
            scope = anyio.CancelScope()
            stack.enter_context(stopped_by_signals(partial(self._receive, loop, scope)))
            failure: BaseException | None = None
            try:
                with scope:
                    await self._work_together(tasks)
            except BaseExceptionGroup as errors:
                failure = self._failure or _first(errors)
            if failure is None and self._interruption is not None and self.signal is None:
                failure = not_cancelled(self._interruption)
            if failure is not None:  # out here, lest its own cause and context are changed
                raise failure

    async def _work_together(self, tasks: int) -> None:
        needed = anyio.CancelScope(shield=True), anyio.CancelScope(shield=True)
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(_within, needed[0], self._writer.run)
            helpers.start_soon(_within, needed[1], self._beat)
            try:
                async with anyio.create_task_group() as workers:
                    self._workers = workers.cancel_scope
                    for _ in range(tasks):
                        workers.start_soon(self._work)
            finally:  # cancelled workers still write, and hand back
                for scope in needed:
                    scope.cancel()

    def _receive(
        self, loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope, number: signal.Signals
    ) -> None:
        self.signal = number
        loop.call_soon_threadsafe(scope.cancel)

    def _enter_thread(self) -> None:
        """Let this thread stop the study, and not optimize it."""
        for study in (self._study, self._twin):
            study._thread_local.in_optimize_loop = True

    # ------------------------------------------------------------------------------- a worker

    async def _work(self) -> None:
        running: RunningTrial | None = None
        while True:
            if running is None:
                if not self._takes_another():
                    return
                running = await self._writer.begun()
            try:
                following = await self._evaluate(running)
            finally:
                self._running.pop(running, None)
                self._deferred.end(running)
            running = following

    def _takes_another(self) -> bool:
        if self._study._stop_flag or self._twin._stop_flag:
            return False
        if self.signal is not None or self._workers.cancel_called:
            return False
        if self._end is not None and anyio.current_time() >= self._end:
            return False
        if self._left is None:
            return True
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    async def _evaluate(self, running: RunningTrial) -> RunningTrial | None:
        """Evaluate a trial that has begun; return the next one if that has begun, too."""
        trial = StudyTrial(partial(self._deferred.calls_of, running), partial(self._trial, running))
        scope = self._running[running] = anyio.CancelScope()
        try:
            with scope:
                outcome = await self._outcome(running, trial)
                if not trial.is_made:  # the objective has asked for nothing, or it failed
                    await self._thread.call(trial.get)
        except BaseException:  # cancelled, or the sampler has failed at the beginning
            await self._writer.hand_back(running)
            raise
        if running.lost or scope.cancelled_caught:
            return None
        failure = outcome.error if outcome.state is TrialState.FAIL else None
        ends_all = failure is not None and not isinstance(failure, self._caught)
        # a callback may stop the study
        begins = not (ends_all or self._callbacks)
        tell = partial(self._tell, running, trial, outcome, begins=begins)
        try:
            written, following = await _to_its_end(tell)
        except asyncio.CancelledError:  # not by a scope, but with all tasks of the loop
            await self._writer.hand_back(running)
            raise
        if failure is None or not ends_all or not written:
            return following
        if self._failure is None:
            self._failure = failure
        raise failure

    def _trial(self, running: RunningTrial) -> optuna.Trial:
        """Return Optuna's own trial; in the thread."""
        if self._in_thread:
            bound = partial(self._deferred.calls_of, running)
            return ThreadTrial(self._twin, running.trial_id, bound, self._thread)
        return optuna.Trial(self._twin, running.trial_id)

    async def _outcome(self, running: RunningTrial, trial: StudyTrial) -> _Evaluation:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for mypy: a worker is a task
        cancelling = task.cancelling()  # an earlier objective may have left something
        try:
            return _Evaluation(await self._value(running, trial))
        except TrialPruned as error:
            return _Evaluation(state=TrialState.PRUNED, error=error)
        except Exception as error:  # noqa: BLE001  it fails the trial, and is raised afterwards
            return _Evaluation(state=TrialState.FAIL, error=error)
        except asyncio.CancelledError as cause:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            if task.cancelling() > cancelling:  # with all others, or by its objective
                self._interruption = cause
                raise
            return _Evaluation(state=TrialState.FAIL, error=not_cancelled(cause))

    async def _value(self, running: RunningTrial, trial: StudyTrial) -> Any:
        if self._in_thread:
            own = await self._thread.call(trial.get)
            return await in_daemon_thread(partial(self._call_objective, own))
        return await self._objective(
            AsyncTrial(self._study, running, trial, self._thread.call, self._writer.sync)
        )

    def _call_objective(self, trial: optuna.Trial) -> Any:
        """Call an objective that is a plain function; in a thread of its own."""
        self._enter_thread()
        value = self._objective(trial)
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(
                f"the objective, {name_of(self._objective)}, is a plain function that has returned "
                "a coroutine: pass an `async def` function, which gets an AsyncTrial"
            )
        return value

    async def _tell(
        self, running: RunningTrial, trial: StudyTrial, outcome: _Evaluation, *, begins: bool
    ) -> tuple[bool, RunningTrial | None]:
        """Write what has become of a trial, and tell the log and the callbacks.

        Parameters
        ----------
        begins
            Whether the next trial may begin together with that.

        Returns
        -------
        bool
            Whether it was still ours to write.
        RunningTrial or None
            The next trial, if it has begun.
        """
        try:
            complaint = await self._thread.call(self._tell_study, trial, outcome)
        except Exception as error:
            if running.lost and isinstance(error, UpdateFinishedTrialError):
                return False, None
            if not running.ended:  # the values cannot be stored
                running.end(final_update(running.trial, TrialState.FAIL, None))
            await self._writer.written(running)
            raise
        begins = begins and self._takes_another()
        _, following = await self._writer.written(running, begins=begins)
        if begins and following is None and self._left is not None:
            self._left += 1
        try:
            if not running.lost and self._is_shown(running.trial):
                await self._thread.call(self._show, running.trial, outcome, complaint)
        except BaseException:
            if following is not None:
                await self._writer.hand_back(following)
                self._deferred.end(following)
            raise
        return not running.lost, following

    def _tell_study(self, trial: StudyTrial, outcome: _Evaluation) -> str | None:
        """Tell Optuna what has become of a trial; return its complaint. In the thread."""
        with trial.bound() as own:
            *_, complaint = _tell_with_warning(
                study=self._twin,
                trial=own,
                value_or_values=outcome.value,
                state=outcome.state,
                suppress_warning=True,
            )
        return complaint

    def _is_shown(self, trial: FrozenTrial) -> bool:
        """Return whether the user is told of a trial that has ended: by callback, bar or log."""
        level = logging.WARNING if trial.state is TrialState.FAIL else logging.INFO
        return bool(self._callbacks) or self._progress is not None or _logger.isEnabledFor(level)

    def _show(self, trial: FrozenTrial, outcome: _Evaluation, complaint: str | None) -> None:
        """Log a trial that has ended, and call the callbacks; in the thread."""
        error = outcome.error
        if trial.state is TrialState.COMPLETE:
            self._twin._log_completed_trial(trial.values, trial.number, trial.params)
        elif trial.state is TrialState.PRUNED:
            _logger.info("Trial %s pruned. %s", trial.number, error)
        else:
            _log_failed_trial(
                trial.number,
                trial.params,
                str(complaint) if error is None else repr(error),
                exc_info=error and (type(error), error, error.__traceback__),
                value_or_values=outcome.value,
            )
        for callback in self._callbacks:
            callback(self._study, copy.deepcopy(trial))
        if self._progress is not None:
            self._progress.update(time.monotonic() - self._begun, self._twin)

    # ----------------------------------------------------------------------- lost and returned

    def _on_lost(self, running: RunningTrial) -> None:
        """Stop evaluating a trial that was declared stale or handed back by another process."""
        running.lost = True
        events.warning(
            "trial_lost",
            "trial %(number)s of study %(study)r does not run here any more: it was declared "
            "stale, handed back or ended elsewhere; its result is not written",
            number=running.number,
            study=self._study.study_name,
        )
        scope = self._running.get(running)
        if scope is not None:
            scope.cancel()

    async def _beat(self) -> None:
        """Keep the trials alive that run here, and fail those that others have left behind."""
        interval: float | None = self._storage.get_heartbeat_interval()
        watched = interval is not None
        if interval is None:
            interval = self._storage.lost_after / LOST_AFTER_HEARTBEATS
        while True:
            try:
                if watched:
                    await self._thread.call(_fail_stale_trials, self._study)
                await self._beat_once(watched)
            except BackendError as error:  # the next one may succeed
                events.warning(
                    "heartbeat_failed",
                    "study %(study)r: a heartbeat failed: %(error)s",
                    study=self._study.study_name,
                    error=error,
                )
            await anyio.sleep(interval)

    async def _beat_once(self, watched: bool) -> None:
        running = [one for one in self._running if not (one.ended or one.lost)]
        if not running:
            return
        alive = await self._writer.there(self._batches.beat, running, watched=watched)
        for one, is_alive in zip(running, alive, strict=True):
            if not (is_alive or one.ended or one.lost):
                self._on_lost(one)


async def _to_its_end(action: Callable[[], Awaitable[T]]) -> T:
    """Await `action` although this task is cancelled; then an error of it is logged."""
    with anyio.CancelScope(shield=True):
        try:
            return await action()
        except Exception as failure:  # noqa: BLE001  raised again outside of the scope
            error = failure
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
    except BaseException:
        events.warning("failed_while_cancelled", "while being cancelled: %(error)s", error=error)
        raise
    raise error


async def _within(scope: anyio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _fail_stale_trials(study: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
