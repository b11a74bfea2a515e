"""The reports of a worker: events while it runs, and the counts at its end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import anyio

from aiostorage.trial import Trial

__all__ = ["EndedBy", "EventName", "Tally", "WorkerEvent", "WorkerReport"]

EventName: TypeAlias = Literal["started", "completed", "broken", "interrupted", "lost", "suggested"]
EndedBy: TypeAlias = Literal["max_trials", "max_broken", "done", "stopped"]

MAX_REASONS: Final = 100
"""How many reasons of broken trials a report contains at most: the latest ones."""

log: Final = logging.getLogger("aiostorage.worker")


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The results of a worker.

    Attributes
    ----------
    completed, broken
        How many trials this worker has completed, and how many it has marked as broken.
    interrupted
        How many it has handed back, so that they will be evaluated again.
    lost
        How many were lost to another worker, or deleted, while it evaluated them.
    suggested
        How many new trials it has registered.
    ended_by
        ``max_trials`` or ``max_broken``, the limit that the experiment has reached; ``done`` when
        there was nothing left to do; ``stopped`` by a signal or by `Worker.stop`. None while the
        worker runs.
    signal
        The name of the signal that stopped it, such as ``SIGTERM``.
    seconds
        How long it has run.
    reasons
        Why trials became broken, or were handed back because a process died, by their ids: the
        latest hundred.
    """

    completed: int = 0
    broken: int = 0
    interrupted: int = 0
    lost: int = 0
    suggested: int = 0
    ended_by: EndedBy | None = None
    signal: str | None = None
    seconds: float = 0.0
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """An event in the life of a worker.

    Attributes
    ----------
    name
        ``started`` when it has reserved a trial; ``completed``, ``broken``, ``interrupted`` or
        ``lost`` when its turn with the trial is over; ``suggested`` when it has registered trials.
    report
        The counts up to now.
    trial
        The trial, which must not be changed; None for ``suggested``.
    reason
        Why the trial is broken or interrupted: the type of the exception and its first line.
    """

    name: EventName
    report: WorkerReport
    trial: Trial | None = None
    reason: str | None = None


class Tally:
    """Counts the events of a worker, and passes them to listeners.

    Parameters
    ----------
    listeners
        Called with each event. An exception of theirs is logged, and changes nothing.
    """

    def __init__(self, listeners: list[Callable[[WorkerEvent], None]]) -> None:
        self._listeners = listeners
        self._counts: Counter[EventName] = Counter()
        self._reasons: dict[str, str] = {}
        self._begin = anyio.current_time()
        self.ended_by: EndedBy | None = None
        self.signal: str | None = None

    def add(
        self,
        name: EventName,
        trial: Trial | None = None,
        reason: str | None = None,
        *,
        count: int = 1,
    ) -> None:
        """Count an event, and call the listeners."""
        self._counts[name] += count
        if trial is not None and reason is not None:
            self._reasons.pop(trial.id, None)
            self._reasons[trial.id] = reason
            while len(self._reasons) > MAX_REASONS:
                del self._reasons[next(iter(self._reasons))]
        if not self._listeners:
            return
        event = WorkerEvent(name, self.report(), trial, reason)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener to the events of a worker failed")

    def report(self) -> WorkerReport:
        """Return the counts up to now."""
        return WorkerReport(
            completed=self._counts["completed"],
            broken=self._counts["broken"],
            interrupted=self._counts["interrupted"],
            lost=self._counts["lost"],
            suggested=self._counts["suggested"],
            ended_by=self.ended_by,
            signal=self.signal,
            seconds=anyio.current_time() - self._begin,
            reasons=dict(self._reasons),
        )
