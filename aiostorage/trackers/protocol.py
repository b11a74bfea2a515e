"""What an experiment tracker does for a storage that is mirrored into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from aiostorage.experiment import Experiment
from aiostorage.trial import Trial

__all__ = ["TrackedExperiment", "TrackedTrial", "Tracker", "TrackerRun", "TrackerSource"]


@dataclass(frozen=True, slots=True)
class TrackedExperiment:
    """An experiment as the store has it now, and where the tracker has it.

    Attributes
    ----------
    experiment
        The experiment.
    key
        What `Tracker.send_experiment` returned for it; None if it has not been sent.
    """

    experiment: Experiment
    key: str | None = None


@dataclass(frozen=True, slots=True)
class TrackedTrial:
    """A trial as the store has it now, and where the tracker has it.

    Attributes
    ----------
    experiment
        The experiment of the trial; its key is never None.
    trial
        The trial.
    attempt
        How often it has been reserved; 0 before the first time.
    key
        What `Tracker.send_trial` returned for it; None if that is not known.
    uncertain
        Whether an earlier call without a key may have made a run whose key is lost. Then look for
        that run before making one.
    """

    experiment: TrackedExperiment
    trial: Trial
    attempt: int = 0
    key: str | None = None
    uncertain: bool = False


@runtime_checkable
class Tracker(Protocol):
    """A mirror of experiments and trials.

    All methods block. They are called in threads, never in an event loop, after `open`; calls for
    one trial come one after the other, and those of different trials at the same time, up to
    `max_concurrency` of them. Laws:

    - **Repeatable.** Every call may come again, also after one whose answer was lost. Sending the
      same trial twice leaves one run, with each value once.
    - **Current state.** A call brings what the store has now, which may be older than what the
      tracker has only if another program has changed the tracker. It replaces what is there, except
      for values that a user's script has logged itself: those stay.
    - **Bounded.** A call ends within 30 seconds, if need be with an error.
    - **Errors.** `TrackerUnavailable` for temporary failures: the call is repeated later.
      `TrackerError` for permanent ones: it is logged and the trial is left out until its next
      change. Values that the tracker cannot hold must not cause an error: they are left out or
      shortened with a warning by the logger ``aiostorage``, and the rest is sent.
    - **Secrets** appear in no error, no log and not in `location`.
    - **Copies.** A tracker can be pickled, open or not. The copy is not open. A process that was
      forked uses such a copy.
    - **Forgetful.** Nothing is remembered only in the object: another process can continue with
      what the calls are given.
    """

    @property
    def name(self) -> str:
        """The kind of tracker, such as ``mlflow``."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for people to read; without secrets."""
        ...

    @property
    def max_concurrency(self) -> int:
        """How many calls it takes at the same time."""
        ...

    def open(self) -> None:
        """Connect, or raise `TrackerUnavailable`. A call when it is open does nothing."""
        ...

    def close(self) -> None:
        """Send what is held back, and disconnect. A second call does nothing."""
        ...

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        """Make or update an experiment; return its key in the tracker."""
        ...

    def send_trial(self, tracked: TrackedTrial) -> str | None:
        """Make or update the run of a trial; return its key in the tracker.

        None means that the tracker has no run for it yet, and certainly none whose key is lost. A
        tracker whose runs begin when they are made returns it for a trial that was never reserved.
        """
        ...

    def delete_experiment(self, key: str) -> None:
        """Delete an experiment; do nothing if it is already gone."""
        ...

    def delete_trial(self, key: str) -> None:
        """Delete the run of a trial; do nothing if it is already gone."""
        ...

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        """Return the last value of every metric that anyone has logged in a run."""
        ...

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:
        """Return the environment variables with which the tracker's own client joins a run."""
        ...


@dataclass(frozen=True, slots=True)
class TrackerRun:
    """A run that a tracker has, whoever made it.

    Attributes
    ----------
    key
        Its key in the tracker.
    status
        The name of a `TrialStatus`.
    params
        The parameters by name; text where the tracker keeps nothing else.
    metrics
        The last values by name.
    start_time, end_time
        In UTC.
    tags
        Anything else.
    """

    key: str
    status: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    start_time: datetime | None = None
    end_time: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class TrackerSource(Protocol):
    """A tracker whose runs can be brought into a store."""

    def read_runs(self, experiment: str, after: str | None = None) -> Iterator[TrackerRun]:
        """Yield the runs of an experiment, in a stable order, oldest first.

        Parameters
        ----------
        experiment
            Its name or its key in the tracker.
        after
            The key of a run: only the runs behind it.

        Raises
        ------
        TrackerError
            There is no such experiment; the error lists those that there are.
        """
        ...
