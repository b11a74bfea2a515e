"""What the supervising process knows of a run."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiostorage.cli.demo.events import Event, Kind
from aiostorage.cli.demo.timed_storage import Spent

__all__ = ["Best", "Board", "Doing", "Killed", "ProcessView", "Recovery"]


@dataclass(slots=True)
class Doing:
    """What one worker does."""

    what: str = "starting"
    trial: str = ""
    token: str = ""
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class ProcessView:
    """A worker process.

    Parameters
    ----------
    number, pid
        Which one it is: by the demo's count, and by the system's.
    workers
        What its workers do, by their numbers.
    state
        ``starting``, ``working``, or how it ended.
    completed
        How many trials it has completed.
    error
        Why it could not go on.
    """

    number: int
    pid: int
    workers: dict[int, Doing]
    state: str = "starting"
    completed: int = 0
    error: str = ""

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("starting", "working")


@dataclass(frozen=True, slots=True)
class Best:
    """What a trial came to."""

    objective: float
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Killed:
    """A process that was killed on purpose, and the trials that it was evaluating."""

    process: int
    pid: int
    trials: tuple[str, ...]
    at: float


@dataclass(slots=True)
class Recovery:
    """A lost trial that a process brought back, and when."""

    process: int
    at: float


class Board:
    """Keeps what the workers report, for the screen and for the summary.

    Parameters
    ----------
    trials
        How many trials the run is to have.

    Attributes
    ----------
    statuses
        Trials by status, as somebody has last counted them in the storage.
    best
        The best trial so far.
    recovered
        Lost trials that were brought back.
    completed_by
        Process and worker of each completed trial.
    broken
        What went wrong in which trial.
    notes
        Remarkable events that have not been shown yet.
    """

    def __init__(self, trials: int) -> None:
        self.trials = trials
        self.started = time.monotonic()
        self.last = self.started
        self.processes: dict[int, ProcessView] = {}
        self.statuses: Counter[str] = Counter()
        self.best: Best | None = None
        self.recovered: dict[str, Recovery] = {}
        self.completed_by: dict[str, tuple[int, int]] = {}
        self.broken: dict[str, str] = {}
        self.lost = 0
        self.killed: Killed | None = None
        self.notes: list[str] = []
        self._spent: dict[tuple[int, int], Spent] = {}

    # ------------------------------------------------------------------------- what happens

    def joined(self, number: int, pid: int, workers: int) -> None:
        """Note that a process was started."""
        views = {worker: Doing() for worker in range(1, workers + 1)}
        self.processes[number] = ProcessView(number, pid, views)

    def handle(self, number: int, event: Event) -> None:
        """Note what a process reported."""
        process = self.processes[number]
        doing = process.workers.get(event.worker, Doing())
        if event.spent is not None:
            self._spent[number, event.worker] = Spent(**event.spent)
        match event.kind:
            case Kind.READY:
                process.state = "working"
            case Kind.EVALUATING:
                doing.token = event.token
            case Kind.COMPLETED:
                self._completed(process, event)
            case Kind.BROKEN:
                self.broken[event.trial] = event.error
                self.notes.append(f"trial {event.trial[:8]} is broken: {event.error}")
            case Kind.LOST:
                self.lost += 1
            case Kind.RECOVERED:
                now = time.monotonic()
                self.recovered |= {trial: Recovery(number, now) for trial in event.trials}
                ids = ", ".join(trial[:8] for trial in event.trials)
                self.notes.append(f"process {number} recovered lost trials: {ids}")
            case Kind.FAILED:
                process.error = event.error
            case Kind.SUGGESTING | Kind.IDLE | Kind.ENDED:
                pass
        doing.what, doing.trial, doing.since = str(event.kind), event.trial, time.monotonic()

    def _completed(self, process: ProcessView, event: Event) -> None:
        process.completed += 1
        self.completed_by[event.trial] = process.number, event.worker
        self.last = time.monotonic()
        value = event.objective
        if value is None or math.isnan(value):
            return
        if self.best is None or value < self.best.objective:
            self.best = Best(value, event.params or {})

    def was_killed(self, number: int, trials: tuple[str, ...]) -> None:
        """Note that a process was killed on purpose in the middle of trials."""
        process = self.processes[number]
        self.killed = Killed(number, process.pid, trials, time.monotonic())
        process.state = "killed"
        self.notes.append(
            f"process {number} (pid {process.pid}) was killed in the middle of "
            f"{len(trials)} trial{'s' * (len(trials) != 1)}"
        )

    def left(self, number: int, code: int) -> None:
        """Note that a process has ended."""
        process = self.processes[number]
        if process.state == "killed":
            return
        if code == 0:
            process.state = "ended"
            return
        process.state = f"failed with code {code}"
        if code < 0:
            names = {int(known): known.name for known in signal.Signals}
            process.state = f"died of {names.get(-code, f'signal {-code}')}"
        self.notes.append(
            f"process {number} (pid {process.pid}) {process.state}{self._why(process)}"
        )

    @staticmethod
    def _why(process: ProcessView) -> str:
        return f": {process.error}" if process.error else ""

    # ----------------------------------------------------------------------- how it stands

    @property
    def finished(self) -> int:
        """How many trials need no more work."""
        return self.statuses["completed"] + self.statuses["broken"]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Completed trials a second."""
        seconds = self.last - self.started
        return len(self.completed_by) / seconds if seconds else 0.0

    @property
    def spent(self) -> Spent:
        """What all workers have spent together."""
        return sum(self._spent.values(), Spent())

    def failures(self) -> Iterator[str]:
        """Answer what went wrong with processes that nobody meant to end."""
        for process in self.processes.values():
            if process.state not in ("starting", "working", "ended", "killed"):
                yield f"process {process.number} {process.state}{self._why(process)}"

    def evaluating(self, number: int) -> dict[str, str]:
        """Answer the trials that a process evaluates as far as is known, and their tokens."""
        return {
            doing.trial: doing.token
            for doing in self.processes[number].workers.values()
            if doing.what == Kind.EVALUATING
        }
