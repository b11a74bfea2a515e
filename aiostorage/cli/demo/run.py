"""One run of the demo: an experiment, those who work on it, and who watches them."""

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
from aiostorage.cli.demo.problem import Problem, ProblemSpec
from aiostorage.cli.demo.processes import Fleet
from aiostorage.cli.demo.run_state import Best, Board
from aiostorage.cli.demo.suggest import RandomSearch
from aiostorage.cli.demo.workers import Crew
from aiostorage.cli.summary import best_in, tally
from aiostorage.errors import DuplicateKeyError
from aiostorage.experiment import Experiment
from aiostorage.factory import open_storage

__all__ = ["Run", "RunFailed", "Settings", "Stopped"]

NAME: Final = "demo"
"""Of the experiment; every run makes another version of it."""

REFRESH: Final = 0.25
"""Seconds between two looks at the storage, for the screen."""


class RunFailed(Exception):
    """All workers have ended, the trials have not been done; says why."""


class Stopped(Exception):
    """A signal has ended the run.

    Attributes
    ----------
    number : int
        Which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for; see the options of ``aiostorage demo``."""

    url: str
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
        return self.url.partition("://")[0].lower() == "memory"

    @property
    def lock_lease(self) -> float:
        """Seconds after which the algorithm lock is free if a dead process has it."""
        return max(self.lost_after, 2.0)

    def storage(self) -> Storage:
        """Make the storage."""
        return open_storage(self.url, lost_after=self.lost_after, lock_lease=self.lock_lease)


class Run:
    """A run, from the new experiment to the last trial; used with ``async with``.

    Attributes
    ----------
    problem
        What the workers look for the best of.
    board
        What they report.
    references
        What the best objective is compared with; complete after `go`.
    """

    def __init__(self, settings: Settings, problem: Problem) -> None:
        self._settings = settings
        self.problem = problem
        RandomSearch(problem.space, settings.trials)  # refuses what it cannot do
        self._storage = settings.storage()
        self._experiment = Experiment("", NAME)
        self.board = Board(settings.trials)
        self.references: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        await self._storage.open()
        self._experiment = await self._created()
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

    async def best(self) -> Best | None:
        """Answer the best trial that the storage has."""
        return await best_in(self._storage, self._experiment)

    async def go(self, show: Callable[[Board], None]) -> None:
        """Do all trials.

        Parameters
        ----------
        show
            Is called several times a second.

        Raises
        ------
        RunFailed
            The workers have ended before the trials were done.
        Stopped
            SIGTERM or SIGHUP came; the processes have been ended.
        """
        stopped: list[int] = []
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self._heed_signals, stopped, watchers.cancel_scope)
            watchers.start_soon(self._follow, show)
            async with anyio.create_task_group() as group:
                group.start_soon(self._compare)
                await self._work()
            watchers.cancel_scope.cancel()
        if stopped:
            raise Stopped(stopped[0])
        self.board.statuses = await tally(self._storage, self._experiment)
        if self.board.finished < self._settings.trials:
            why = "; ".join(self.board.failures()) or "somebody has deleted trials"
            raise RunFailed(
                f"the workers ended after {self.board.finished} of {self._settings.trials} "
                f"trials: {why}"
            )

    # ---------------------------------------------------------------------------- the work

    async def _created(self) -> Experiment:
        """Create the next version of the experiment."""
        settings = self._settings
        while True:
            others = await self._storage.fetch_experiments({"name": NAME}, {"version": 1})
            config: dict[str, Any] = {
                "name": NAME,
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
            state = RandomSearch.initial_state(settings.seed)
            try:
                return await self._storage.create_experiment(config, algo_state=state)
            except DuplicateKeyError:
                continue  # somebody else's run has just begun

    async def _work(self) -> None:
        settings, board = self._settings, self.board
        if settings.in_memory:
            board.joined(1, os.getpid(), settings.workers)
            crew = Crew(
                self._storage,
                self._experiment.id,
                self.problem,
                trials=settings.trials,
                workers=settings.workers,
                report=partial(board.handle, 1),
            )
            await crew.run()
            board.left(1, 0)
            return
        fleet = Fleet(
            {
                "url": settings.url,
                "settings": {
                    "lost_after": settings.lost_after,
                    "lock_lease": settings.lock_lease,
                },
                "experiment": self._experiment.id,
                "problem": settings.spec.to_dict(),
                "trials": settings.trials,
            },
            processes=settings.processes,
            workers=settings.workers,
            board=board,
            debug=settings.debug,
        )
        async with anyio.create_task_group() as group:
            if settings.kill:
                group.start_soon(fleet.kill_one, self._storage, self._experiment.id)
            await fleet.run()
            group.cancel_scope.cancel()

    # ------------------------------------------------------------------------ beside the work

    async def _compare(self) -> None:
        self.references = await self.problem.references()

    async def _follow(self, show: Callable[[Board], None]) -> None:
        while True:
            begin = anyio.current_time()
            self.board.statuses = await tally(self._storage, self._experiment)
            took = anyio.current_time() - begin
            show(self.board)
            await anyio.sleep(max(REFRESH, 10 * took))  # a huge run is looked at less often

    async def _heed_signals(self, stopped: list[int], everything: anyio.CancelScope) -> None:
        """End in good order when told to, as after Ctrl-C: no process and no cursor is left."""
        if threading.current_thread() is not threading.main_thread():
            return
        wanted = [
            number
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
        ]
        with anyio.open_signal_receiver(*wanted) as received:
            async for number in received:
                stopped.append(number)
                everything.cancel()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
