"""What the supervising process knows of a run."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiostorage.cli.demo.events import Event, EventKind
from aiostorage.cli.demo.timed_storage import TimeSpent
from aiostorage.cli.results import BestTrial
from aiostorage.cli.text import plural
from aiostorage.trial import TrialStatus

__all__ = ["KilledProcess", "ProcessState", "Recovery", "RunState", "WorkerState"]


@dataclass(slots=True)
class WorkerState:
    """What one worker does.

    Parameters
    ----------
    last_event
        The kind of the last event that it reported; None before the first.
    trial, token
        The trial of that event, and the token of the worker's last reservation.
    since
        The time of that event, by `time.monotonic`.
    """

    last_event: EventKind | None = None
    trial: str = ""
    token: str = ""
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class ProcessState:
    """A worker process.

    Parameters
    ----------
    number, pid
        Its number in the demo, and its process id.
    workers
        The state of its workers, by their numbers.
    state
        ``starting``, ``working``, or how it ended.
    completed
        The number of trials that it has completed.
    error
        Why it could not go on.
    """

    number: int
    pid: int
    workers: dict[int, WorkerState]
    state: str = "starting"
    completed: int = 0
    error: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("starting", "working")


@dataclass(frozen=True, slots=True)
class KilledProcess:
    """A process that was killed on purpose, and the trials that it was evaluating."""

    process: int
    pid: int
    trials: tuple[str, ...]
    at: float


@dataclass(slots=True)
class Recovery:
    """The process that recovered a lost trial, and when."""

    process: int
    at: float


class RunState:
    """Collects what the workers report, for the display and the report.

    Parameters
    ----------
    trials
        The number of trials that the run is to have.

    Attributes
    ----------
    statuses
        The number of trials by status, as last counted in the storage.
    best
        The best trial so far.
    recovered
        Lost trials that are pending again.
    completed_by
        Process and worker of each completed trial.
    broken
        The errors of the broken trials.
    notes
        Remarkable events that have not been shown yet.
    """

    def __init__(self, trials: int) -> None:
        self.trials = trials
        self.started: float = time.monotonic()
        self.last: float = self.started
        self.processes: dict[int, ProcessState] = {}
        self.statuses: Counter[str] = Counter()
        self.best: BestTrial | None = None
        self.recovered: dict[str, Recovery] = {}
        self.completed_by: dict[str, tuple[int, int]] = {}
        self.broken: dict[str, str] = {}
        self.lost: int = 0
        self.killed: KilledProcess | None = None
        self.notes: list[str] = []
        self._spent: dict[tuple[int, int], TimeSpent] = {}

    # ------------------------------------------------------------------------- what happens

    def process_started(self, number: int, pid: int, workers: int) -> None:
        """Record that a process was started."""
        states = {worker: WorkerState() for worker in range(1, workers + 1)}
        self.processes[number] = ProcessState(number, pid, states)

    def handle(self, number: int, event: Event) -> None:
        """Record what a process reported."""
        process = self.processes[number]
        worker = process.workers.get(event.worker, WorkerState())
        if event.spent is not None:
            self._spent[number, event.worker] = TimeSpent(**event.spent)
        match event.kind:
            case EventKind.READY:
                process.state = "working"
            case EventKind.EVALUATING:
                worker.token = event.token
            case EventKind.COMPLETED:
                self._trial_completed(process, event)
            case EventKind.BROKEN:
                self.broken[event.trial] = event.error
                self.notes.append(f"trial {event.trial[:8]} is broken: {event.error}")
            case EventKind.LOST:
                self.lost += 1
            case EventKind.RECOVERED:
                now = time.monotonic()
                self.recovered |= {trial: Recovery(number, now) for trial in event.trials}
                ids = ", ".join(trial[:8] for trial in event.trials)
                self.notes.append(f"process {number} recovered lost trials: {ids}")
            case EventKind.FAILED:
                process.error = event.error
            case EventKind.SUGGESTING | EventKind.IDLE | EventKind.ENDED:
                pass
        worker.last_event, worker.trial, worker.since = event.kind, event.trial, time.monotonic()

    def _trial_completed(self, process: ProcessState, event: Event) -> None:
        process.completed += 1
        self.completed_by[event.trial] = process.number, event.worker
        self.last = time.monotonic()
        value = event.objective
        if value is None or math.isnan(value):
            return
        if self.best is None or value < self.best.objective:
            self.best = BestTrial(value, event.params or {})

    def process_killed(self, number: int, trials: tuple[str, ...]) -> None:
        """Record that a process was killed on purpose while it evaluated trials."""
        process = self.processes[number]
        self.killed = KilledProcess(number, process.pid, trials, time.monotonic())
        process.state = "killed"
        self.notes.append(
            f"process {number} (pid {process.pid}) was killed in the middle of "
            f"{plural(len(trials), 'trial')}"
        )

    def process_ended(self, number: int, code: int) -> None:
        """Record that a process has ended."""
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
            f"process {number} (pid {process.pid}) {process.state}{self._reason(process)}"
        )

    @staticmethod
    def _reason(process: ProcessState) -> str:
        return f": {process.error}" if process.error else ""

    # ------------------------------------------------------------------- the state of the run

    @property
    def finished(self) -> int:
        """The number of trials that need no more work."""
        return self.statuses[TrialStatus.COMPLETED] + self.statuses[TrialStatus.BROKEN]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Completed trials per second."""
        seconds = self.last - self.started
        return len(self.completed_by) / seconds if seconds else 0.0

    @property
    def spent(self) -> TimeSpent:
        """The time that all workers have spent together."""
        return sum(self._spent.values(), TimeSpent())

    def failures(self) -> Iterator[str]:
        """Iterate over the errors of processes that ended by themselves."""
        for process in self.processes.values():
            if process.state not in ("starting", "working", "ended", "killed"):
                yield f"process {process.number} {process.state}{self._reason(process)}"

    def evaluating(self, number: int) -> dict[str, str]:
        """Return the ids of the trials that a process last reported to evaluate, with tokens."""
        return {
            worker.trial: worker.token
            for worker in self.processes[number].workers.values()
            if worker.last_event == EventKind.EVALUATING
        }
