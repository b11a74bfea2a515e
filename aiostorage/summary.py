"""The result of `Storage.summary`: the state of an experiment at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["Direction", "ExperimentSummary", "LockSummary"]

Direction: TypeAlias = Literal["minimize", "maximize"]
"""Whether the smallest objective is the best one, or the greatest."""


@dataclass(frozen=True, slots=True)
class LockSummary:
    """The algorithm lock of an experiment.

    Attributes
    ----------
    locked : bool
        Whether a process holds it, by the store's clock.
    owner : str or None
        Where the holder runs, and a fingerprint of its token; None if the lock is free, or if
        Oríon's own storage holds it.
    since : datetime or None
        When the owner acquired it.
    heartbeat : datetime or None
        When it was last acquired, renewed or released.
    """

    locked: bool
    owner: str | None
    since: datetime | None
    heartbeat: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; the owner of a free lock is left out."""
        return {
            "locked": self.locked,
            "owner": self.owner if self.locked else None,
            "since": _iso(self.since) if self.locked else None,
            "heartbeat": _iso(self.heartbeat),
        }


@dataclass(frozen=True, slots=True)
class ExperimentSummary:
    """The state of an experiment, counted by the engine.

    Attributes
    ----------
    id : str or int
        The key in the store.
    name : str
        The name.
    version : int
        The version.
    time : datetime
        The time of this state, by the store's clock.
    counts : Mapping of str to int
        The number of trials in each status that some trial has.
    lost : int
        How many of the reserved ones are lost.
    best : Trial or None
        The completed trial with the best objective; NaN is never the best.
    direction : str
        ``minimize`` or ``maximize``.
    recent : int
        How many trials were completed in the last `window`.
    window : timedelta
        The time that `recent` covers; less than the one that was asked for if the first of those
        trials began later.
    max_trials : int or None
        The number of completed trials after which the experiment is done, if its config has one.
    workers : int
        How many processes hold trials that are not lost; a lower bound if there are more than a
        thousand such trials.
    oldest_heartbeat : datetime or None
        The oldest heartbeat of these trials.
    lock : LockSummary or None
        The algorithm lock; None if the experiment has none.
    waiting : int
        How many processes wait for the lock.
    """

    id: str | int
    name: str
    version: int
    time: datetime
    counts: Mapping[str, int] = field(hash=False)
    lost: int
    best: Trial | None = field(hash=False)
    direction: str
    recent: int
    window: timedelta
    max_trials: int | None
    workers: int
    oldest_heartbeat: datetime | None
    lock: LockSummary | None
    waiting: int

    @property
    def total(self) -> int:
        """The number of trials."""
        return sum(self.counts.values())

    @property
    def completed(self) -> int:
        """The number of completed trials."""
        return self.counts.get(TrialStatus.COMPLETED.value, 0)

    @property
    def rate(self) -> float:
        """How many trials are currently completed per minute."""
        seconds = self.window.total_seconds()
        return 60 * self.recent / seconds if self.recent and seconds > 0 else 0.0

    @property
    def remaining(self) -> int | None:
        """How many trials have yet to be completed; None for an experiment without a limit."""
        return None if self.max_trials is None else max(self.max_trials - self.completed, 0)

    @property
    def eta(self) -> timedelta | None:
        """How long the remaining trials take at the current rate.

        None if it is unknown, or if no process works on the experiment: then the rate is of the
        past.
        """
        if not self.remaining:
            return None if self.remaining is None else timedelta()
        if not self._is_at_work:
            return None
        try:
            return timedelta(minutes=self.remaining / self.rate)
        except (OverflowError, ZeroDivisionError):
            return None

    @property
    def _is_at_work(self) -> bool:
        """Whether a process holds a trial that is not lost, or holds the lock or waits for it."""
        held = self.counts.get(TrialStatus.RESERVED.value, 0) > self.lost
        locked = self.lock is not None and self.lock.locked
        return bool(held or self.workers or locked or self.waiting)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold: times in ISO 8601, an infinite objective as text."""
        eta = self.eta
        return {
            "name": self.name,
            "version": self.version,
            "id": self.id,
            "time": _iso(self.time),
            "trials": dict(self.counts),
            "total": self.total,
            "lost": self.lost,
            "direction": self.direction,
            "best": _finite(_objective_of(self.best)),
            "best_trial": None if self.best is None else self.best.id,
            "rate": self.rate,
            "max_trials": self.max_trials,
            "eta": None if eta is None else eta.total_seconds(),
            "workers": self.workers,
            "oldest_heartbeat": _iso(self.oldest_heartbeat),
            "lock": None if self.lock is None else self.lock.to_dict(),
            "waiting": self.waiting,
        }


def _objective_of(trial: Trial | None) -> float | None:
    objective = None if trial is None else trial.objective
    return None if objective is None else objective.value


def _finite(value: float | None) -> float | str | None:
    """Return a number that JSON has, or the name of an infinity, which JavaScript and Python read.

    >>> float("-Infinity")
    -inf
    """
    if value is None or isinstance(value, int) or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
