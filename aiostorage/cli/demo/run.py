"""One run of the demo: its experiment, its workers, and the tasks that watch them."""

from __future__ import annotations

import getpass
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import anyio

from aiostorage import Storage
from aiostorage._core.named_store import NamedStore
from aiostorage.cli.demo.problem import Problem, ProblemSpec
from aiostorage.cli.demo.processes import WorkerProcesses
from aiostorage.cli.demo.run_state import RunState
from aiostorage.cli.demo.suggest import RandomSearch
from aiostorage.cli.demo.workers import Workers
from aiostorage.cli.results import BestTrial, best_trial, count_by_status
from aiostorage.errors import DuplicateKeyError
from aiostorage.experiment import Experiment
from aiostorage.factory import storage_of

__all__ = ["DemoRun", "DemoSettings", "RunFailed", "StoppedBySignal"]

EXPERIMENT_NAME: Final = "demo"
"""Every run makes a new version of this experiment."""

REFRESH_INTERVAL: Final = 0.25
"""Seconds between two updates of the display, at least."""

MAX_COUNTING_SHARE: Final = 0.1
"""Seconds that counting the trials may take, for each second of waiting after it."""

MIN_LOCK_LEASE: Final = 2.0
"""Seconds."""


class RunFailed(Exception):
    """All workers have ended before the trials were done; the message says why."""


class StoppedBySignal(Exception):
    """A signal has ended the run.

    Attributes
    ----------
    number : int
        The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the command line asks for; see the options of ``aiostorage demo``."""

    store: NamedStore
    spec: ProblemSpec
    processes: int
    workers: int
    trials: int
    seed: int
    kill: bool
    lost_after: float
    debug: bool

    @property
    def in_memory(self) -> bool:
        """Whether the storage ends with this process."""
        return self.store.engine == "memory"

    @property
    def lock_lease(self) -> float:
        """Seconds after which the algorithm lock of a dead process is free."""
        return max(self.lost_after, MIN_LOCK_LEASE)

    def storage(self) -> Storage:
        """Return the storage."""
        return storage_of(self.store, **self.storage_settings)

    @property
    def storage_settings(self) -> dict[str, Any]:
        """The settings that all processes open the storage with."""
        return {"lost_after": self.lost_after, "lock_lease": self.lock_lease, "nan": "completed"}


class DemoRun:
    """A run, from the new experiment to the last trial; used with ``async with``.

    Attributes
    ----------
    problem
        What the workers minimise.
    state
        What they report.
    references
        Objectives to compare the best one with; complete after `execute`.
    """

    def __init__(self, settings: DemoSettings, problem: Problem) -> None:
        self._settings = settings
        self.problem = problem
        RandomSearch(problem.space, settings.trials)  # raises if the space is too small
        self._storage = settings.storage()
        self._experiment = Experiment("", EXPERIMENT_NAME)
        self.state: RunState = RunState(settings.trials)
        self.references: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        await self._storage.open()
        self._experiment = await self._create_experiment()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._storage.aclose()

    @property
    def name(self) -> str:
        """The experiment's name and version."""
        return f"{self._experiment.name} v{self._experiment.version}"

    @property
    def location(self) -> str:
        """Where the experiment is stored."""
        return self._storage.location

    async def best(self) -> BestTrial | None:
        """Return the best trial in the storage."""
        return await best_trial(self._storage, self._experiment)

    async def execute(self, show: Callable[[RunState], None]) -> None:
        """Do all trials.

        Parameters
        ----------
        show
            Called several times a second.

        Raises
        ------
        RunFailed
            The workers have ended before the trials were done.
        StoppedBySignal
            SIGTERM or SIGHUP was received; the processes have been ended.
        """
        stopped: list[int] = []
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self._watch_signals, stopped, watchers.cancel_scope)
            watchers.start_soon(self._refresh, show)
            async with anyio.create_task_group() as group:
                group.start_soon(self._evaluate_references)
                await self._work()
            watchers.cancel_scope.cancel()
        if stopped:
            raise StoppedBySignal(stopped[0])
        self.state.statuses = await count_by_status(self._storage, self._experiment)
        if self.state.finished < self._settings.trials:
            reason = "; ".join(self.state.failures()) or "trials have been deleted"
            raise RunFailed(
                f"the workers ended after {self.state.finished} of {self._settings.trials} "
                f"trials: {reason}"
            )

    # ---------------------------------------------------------------------------- the work

    async def _create_experiment(self) -> Experiment:
        """Create the next version of the experiment."""
        settings = self._settings
        while True:
            others = await self._storage.fetch_experiments(
                {"name": EXPERIMENT_NAME}, {"version": 1}
            )
            config: dict[str, Any] = {
                "name": EXPERIMENT_NAME,
                "version": 1 + max((other["version"] for other in others), default=0),
                "space": self.problem.space.priors,
                "algorithm": {"random": {"seed": settings.seed}},
                "max_trials": settings.trials,
                "metadata": {
                    "user": _user(),
                    "datetime": datetime.now(UTC),
                    "problem": settings.spec.to_dict(),
                },
            }
            algo_state = RandomSearch.initial_state(settings.seed)
            try:
                return await self._storage.create_experiment(config, algo_state=algo_state)
            except DuplicateKeyError:
                continue  # another run has created this version

    async def _work(self) -> None:
        if self._settings.in_memory:
            await self._work_here()
        else:
            await self._work_in_processes()

    async def _work_here(self) -> None:
        settings, state = self._settings, self.state
        state.process_started(1, os.getpid(), settings.workers)
        await Workers(
            self._storage,
            self._experiment.id,
            self.problem,
            trials=settings.trials,
            workers=settings.workers,
            report=partial(state.handle, 1),
        ).run()
        state.process_ended(1, 0)

    async def _work_in_processes(self) -> None:
        settings = self._settings
        processes = WorkerProcesses(
            {
                "store": dict(settings.store.options),
                "origin": settings.store.origin,
                "settings": settings.storage_settings,
                "experiment": self._experiment.id,
                "problem": settings.spec.to_dict(),
                "trials": settings.trials,
            },
            processes=settings.processes,
            workers=settings.workers,
            state=self.state,
            debug=settings.debug,
        )
        async with anyio.create_task_group() as group:
            if settings.kill:
                group.start_soon(processes.kill_one, self._storage, self._experiment.id)
            await processes.run()
            group.cancel_scope.cancel()

    # ------------------------------------------------------------------------ beside the work

    async def _evaluate_references(self) -> None:
        self.references = await self.problem.references()

    async def _refresh(self, show: Callable[[RunState], None]) -> None:
        while True:
            begin = anyio.current_time()
            self.state.statuses = await count_by_status(self._storage, self._experiment)
            took = anyio.current_time() - begin
            show(self.state)
            await anyio.sleep(max(REFRESH_INTERVAL, took / MAX_COUNTING_SHARE))

    async def _watch_signals(self, stopped: list[int], everything: anyio.CancelScope) -> None:
        """Cancel the run at a signal, as Ctrl-C does: processes end, the cursor is shown again."""
        if threading.current_thread() is not threading.main_thread():
            return
        wanted = [
            number
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup sets it
        ]
        with anyio.open_signal_receiver(*wanted) as received:
            async for number in received:
                stopped.append(number)
                everything.cancel()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name
        return str(os.getuid())
