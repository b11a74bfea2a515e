"""The state of an experiment that the screen shows, kept up to date by changes, without I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from aiostorage.summary import Direction, ExperimentSummary
from aiostorage.trial_change import TrialChange
from aiostorage.values import TrialStatus

__all__ = ["BestPoint", "SortKey", "WatchPhase", "WatchState", "WorkerRow", "sorted_workers"]

WatchPhase: TypeAlias = Literal["opening", "missing", "live", "away"]
"""Not open yet; there is no such experiment; all is well; the store does not answer."""

SortKey: TypeAlias = Literal["heartbeat", "running", "worker", "trial"]

MAX_CHANGES: Final = 500
"""Maximum number of changes that are kept for the screen."""

MAX_ENDS: Final = 20_000
"""Maximum number of completion times that are kept for the throughput."""

MAX_STEPS: Final = 2_000
"""Maximum number of steps of the best objective that are kept."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A trial that a worker holds.

    Parameters
    ----------
    worker
        The worker, without its token.
    """

    worker: str
    trial: str
    since: datetime | None
    heartbeat: datetime | None


@dataclass(frozen=True, slots=True)
class BestPoint:
    """The best objective from a given time on."""

    time: datetime
    value: float


@dataclass
class WatchState:
    """The known state of the watched experiment.

    Parameters
    ----------
    wanted
        The experiment, as the caller named it.
    direction
        ``minimize`` or ``maximize``.
    note
        A message for the user: why the store is away, or that changes were missed.
    away_since
        When the store stopped answering, on the clock of `time.monotonic`.
    offset
        By how much the store's clock was ahead of `now` when the summary was read.
    """

    wanted: str
    direction: Direction
    phase: WatchPhase = "opening"
    note: str = ""
    away_since: float | None = None
    summary: ExperimentSummary | None = None
    counts: Counter[str] = field(default_factory=Counter)
    workers: list[WorkerRow] = field(default_factory=list)
    more_workers: int = 0
    changes: deque[TrialChange] = field(default_factory=lambda: deque(maxlen=MAX_CHANGES))
    seen: int = 0
    steps: list[BestPoint] = field(default_factory=list)
    ends: deque[datetime] = field(default_factory=lambda: deque(maxlen=MAX_ENDS))

    def begin(self) -> None:
        """Start again: with another experiment, or after changes were missed."""
        self.summary = None
        self.counts.clear()
        self.workers = []
        self.more_workers = 0
        self.changes.clear()
        self.seen = 0
        self.steps = []
        self.ends.clear()

    def take_summary(self, summary: ExperimentSummary) -> None:
        """Take over the engine's counts, which are right whatever changes were seen."""
        self.summary = summary
        self.counts = Counter(summary.counts)
        best = summary.best
        objective = None if best is None else best.objective
        if best is not None and objective is not None and not self.steps:
            self.take_objective(best.end_time or summary.time, objective.value)

    def take_changes(self, changes: Sequence[TrialChange]) -> None:
        """Apply changes in their order."""
        counted = None if self.summary is None else self.summary.time
        for change in changes:
            if counted is None or change.time > counted:
                self._count(change.before, -1)
                self._count(change.after, 1)
            if change.after == TrialStatus.COMPLETED != change.before and (
                not self.ends or change.time > self.ends[-1]
            ):
                self.ends.append(change.time)
        self.changes.extend(changes)
        self.seen += len(changes)

    def _count(self, status: str | None, by: int) -> None:
        if status is not None:
            self.counts[status] = max(self.counts[status] + by, 0)

    def take_objective(self, time: datetime, value: Any) -> None:
        """Apply the objective of a completed trial."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
            return
        number = float(value)
        if not self.steps or self._is_better(number, self.steps[-1].value):
            self.steps.append(BestPoint(time, number))
            del self.steps[:-MAX_STEPS]

    def _is_better(self, value: float, than: float) -> bool:
        return value < than if self.direction == "minimize" else value > than

    @property
    def best(self) -> float | None:
        """The best objective so far."""
        return self.steps[-1].value if self.steps else None

    def best_line(self, now: datetime, count: int) -> tuple[list[float], timedelta]:
        """Return the best objective at `count` moments up to now, and how long ago the first is."""
        if not self.steps:
            return [], timedelta()
        start = self.steps[0].time
        span = max(now - start, timedelta(seconds=1))
        times = [point.time for point in self.steps]
        moments = (start + span * i / max(count - 1, 1) for i in range(count))
        places = (bisect_left(times, moment + timedelta(microseconds=1)) for moment in moments)
        return [self.steps[max(place - 1, 0)].value for place in places], span

    def throughput(self, now: datetime, count: int, bucket: timedelta) -> list[int]:
        """Return the number of trials completed in each of the last `count` intervals."""
        found = [0] * count
        for end in reversed(self.ends):
            place = int((now - end) / bucket)
            if place >= count:
                break
            found[count - 1 - max(place, 0)] += 1
        return found


def sorted_workers(
    rows: Iterable[WorkerRow], key: SortKey, *, descending: bool = False
) -> list[WorkerRow]:
    """Sort workers; by time, those without a time come first, then the oldest."""
    keys: Mapping[SortKey, Any] = {
        "heartbeat": lambda row: (row.heartbeat is not None, row.heartbeat or 0, row.worker),
        "running": lambda row: (row.since is not None, row.since or 0, row.worker),
        "worker": lambda row: (row.worker, row.trial),
        "trial": lambda row: row.trial,
    }
    return sorted(rows, key=keys[key], reverse=descending)
