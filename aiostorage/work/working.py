"""A worker that evaluates the trials of an experiment, without a loop written by its user."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, Literal

from aiostorage._core.kinds import (
    COUNT,
    FLAG,
    FUNCTION,
    INTERVAL,
    LIMIT,
    WAIT,
    Kind,
    check_values,
    choice,
    having,
    optional,
)
from aiostorage.errors import ConfigurationError
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.work.evaluators import Executor, evaluators_of
from aiostorage.work.suggestions import check_suggest
from aiostorage.work.worker_progress import shown_progress
from aiostorage.work.worker_report import WorkerEvent, WorkerReport
from aiostorage.work.worker_tasks import WorkerSettings, WorkerTasks

__all__ = ["Worker"]


class Worker:
    """Evaluates the trials of an experiment until there is nothing left to do.

    For each trial that it reserves, it calls the objective and completes the trial with the
    returned value, while heartbeats show that it is alive. A trial whose objective raises becomes
    ``broken``, and the worker continues; it also continues after a trial was lost to another
    worker. An error of the store ends the worker, after the retry policy of the storage has run
    out.

    On SIGTERM or SIGINT (Ctrl-C) it reserves no more trials, and hands back its current ones, which
    become ``interrupted``; a second signal ends the process at once.

    It ends when a limit of the experiment is reached; or when no trial is pending or
    reserved, and none is suggested. While another worker has a trial, it waits: the trial may be
    lost or handed back.

    Parameters
    ----------
    storage
        Where the trials are; for code without an event loop there is `run_worker`.
    experiment
        The experiment, which has to exist.
    objective
        The function that evaluates a trial. It is called with the params by name,
        ``objective(**params)``. If it has an argument ``trial`` or ``params``, it gets the `Trial`
        or the dict of all params there, and apart from that only the params that it names. It
        returns what `complete_trial` takes: a number, a mapping, or a list of results. It may be a
        coroutine function.
    tasks
        How many trials to evaluate at the same time.
    executor
        Where the objective runs: in the event loop (``loop``), in a thread, or in a process for
        each task. ``auto``, the default, is the loop for a coroutine function and a thread for
        any other. A process imports the objective, so it has to be in a module, and a script needs
        ``if __name__ == "__main__":``. If a process dies, its trial becomes ``broken``; but
        ``interrupted`` if the process was told to end (by SIGTERM, SIGINT or SIGHUP), or if there
        are `max_attempts`. The next trial gets a new process.
    suggest
        Called when no trial is pending, while this worker has the algorithm lock. It returns new
        trials, as dicts of params or as `Trial` objects; or none, if it has none at the moment. Of
        the arguments ``algorithm`` (whose ``set_state`` saves a new state), ``count`` (how many
        trials are wanted), ``storage`` and ``experiment``, it gets those that it names. A function
        that is not a coroutine function runs in a thread.
    max_trials, max_broken
        As for `reserved_trial`. True, the default: those in the experiment's config.
    max_attempts
        How often a trial may be started. A trial that was interrupted or lost that often becomes
        ``broken`` instead of being evaluated once more. None for no limit.
    wait
        Seconds to keep waiting for new trials when there is nothing left to do; `math.inf` for
        ever.
    heartbeat
        As for `reserved_trial`.
    grace
        Seconds that running evaluations may take to end when the worker is stopped.
    signals
        False leaves SIGTERM and SIGINT alone. Only a worker in the main thread receives them.
    on_event
        Called with a `WorkerEvent` for each trial that is started and ended, in the event loop.
    progress
        Whether to show the counts in the terminal.

    Raises
    ------
    InvalidArgument
        An argument is of the wrong kind.
    ConfigurationError
        `suggest` needs other arguments; or the objective is to run in processes, but they cannot
        import it.

    Examples
    --------
    >>> async with open_storage("sqlite:///tune.db") as storage:
    ...     report = await Worker(storage, experiment, train, tasks=4).run()
    """

    def __init__(
        self,
        storage: AsyncStorageProtocol,
        experiment: ExperimentLike,
        objective: Callable[..., Any],
        *,
        tasks: int = 1,
        executor: Executor = "auto",
        suggest: Callable[..., Any] | None = None,
        max_trials: int | Literal[True] | None = True,
        max_broken: int | Literal[True] | None = True,
        max_attempts: int | None = None,
        wait: float = 0.0,
        heartbeat: float | None = None,
        grace: float = 0.0,
        signals: bool = True,
        on_event: Callable[[WorkerEvent], None] | None = None,
        progress: bool = False,
    ) -> None:
        check_values("Worker", _KINDS, locals())
        if suggest is not None:
            check_suggest(suggest)
        self._storage = storage
        self._experiment = experiment
        self._objective = objective
        self._is_in_processes = executor == "process"
        self._evaluator = evaluators_of(objective, executor)
        self._settings = WorkerSettings(
            tasks=int(tasks),
            suggest=suggest,
            max_trials=max_trials,
            max_broken=max_broken,
            max_attempts=max_attempts,
            wait=float(wait),
            heartbeat=heartbeat,
            grace=float(grace),
            signals=bool(signals),
        )
        self._on_event = on_event
        self._progress = progress
        self._running: WorkerTasks | None = None

    async def run(self) -> WorkerReport:
        """Work until there is nothing left to do, or until the worker is stopped.

        A call that is cancelled hands the trials back, too.

        Raises
        ------
        FailedUpdate
            The experiment does not exist, or no longer does.
        ConfigurationError
            The objective cannot be called with the params of a trial, which is handed back; it
            cannot be imported by a process; or the store keeps no history, which `max_attempts`
            needs. Or the worker is running already.
        BackendError
            The store cannot be reached.
        """
        if self._running is not None:
            raise ConfigurationError("this worker is running already")
        if self._is_in_processes:
            from aiostorage.work.objective_process import check_main_module  # noqa: PLC0415

            check_main_module()
        with ExitStack() as stack:
            listeners = [] if self._on_event is None else [self._on_event]
            if self._progress:
                listeners.append(stack.enter_context(shown_progress()))
            self._running = WorkerTasks(
                self._storage,
                self._experiment,
                self._objective,
                self._evaluator,
                self._settings,
                listeners=listeners,
            )
            try:
                return await self._running.run()
            finally:
                self._running = None

    def stop(self) -> None:
        """Stop as a signal does; to be called in the event loop."""
        if self._running is not None:
            self._running.stop()


_LIMIT: Final = Kind(
    "an int, at least 0, True for the limit in the experiment's config, or None",
    lambda value: value is True or value is None or LIMIT.accepts(value),
)
_KINDS: Final = {
    "storage": having("a Storage (for a URL, there is run_worker)", "reserved_trial", "aclose"),
    "experiment": Kind(
        "an Experiment, a stored config, or an object with an id (for a name, there is run_worker)",
        lambda value: not isinstance(value, str | int | float | bytes | None),
    ),
    "objective": FUNCTION,
    "tasks": COUNT,
    "executor": choice("auto", "loop", "thread", "process"),
    "suggest": optional(FUNCTION),
    "max_trials": _LIMIT,
    "max_broken": _LIMIT,
    "max_attempts": optional(COUNT),
    "wait": WAIT,
    "heartbeat": optional(INTERVAL),
    "grace": replace(WAIT, accepts=lambda value: WAIT.accepts(value) and value < math.inf),
    "signals": FLAG,
    "on_event": optional(FUNCTION),
    "progress": FLAG,
}
