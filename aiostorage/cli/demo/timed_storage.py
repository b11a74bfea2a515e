"""A storage whose calls are timed, to show where a worker's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.trial import Trial

__all__ = ["TimeSpent", "TimedStorage"]

T = TypeVar("T")

Purpose = Literal["storage", "lock", "evaluating"]

FIELDS: Final = ("storage", "lock", "evaluating", "total")


@dataclass(slots=True)
class TimeSpent:
    """Seconds that workers have spent.

    Parameters
    ----------
    storage
        Waiting for the storage to answer.
    lock
        Waiting for the algorithm lock: for the storage, and for the holders before.
    evaluating
        In the objective.
    total
        All together; what the other three do not account for is waiting for other workers to
        finish or to suggest.
    """

    storage: float = 0.0
    lock: float = 0.0
    evaluating: float = 0.0
    total: float = 0.0
    _begin: float = field(default_factory=time.perf_counter, repr=False)

    @contextmanager
    def measure(self, purpose: Purpose) -> Iterator[None]:
        """Add the time of the body."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, purpose, getattr(self, purpose) + time.perf_counter() - begin)

    def __add__(self, other: TimeSpent) -> TimeSpent:
        return TimeSpent(*(getattr(self, name) + getattr(other, name) for name in FIELDS))

    def up_to_now(self) -> dict[str, float]:
        """Return a dict, whose total is the time since this object was made."""
        self.total = time.perf_counter() - self._begin
        return {name: round(getattr(self, name), 6) for name in FIELDS}


class TimedStorage:
    """The methods of a storage that a worker uses, timed.

    Heartbeats are not timed: no worker waits for them.

    Parameters
    ----------
    storage
        The storage that is called.
    spent
        Adds up the times.
    """

    def __init__(self, storage: AsyncStorageProtocol, spent: TimeSpent) -> None:
        self._storage = storage
        self._spent = spent

    def reserved_trial(
        self, experiment: ExperimentLike
    ) -> AbstractAsyncContextManager[Trial | None]:
        """See `AsyncStorageProtocol.reserved_trial`; the time of the body is not counted.

        Lost trials are left to the process's watch, which reports them.

        Raises
        ------
        TrialLost
            The reservation was lost, or a trial of another worker.
        """
        reserved = self._storage.reserved_trial(experiment, recover=False, on_lost="raise")
        return _TimedContext(reserved, self._spent, "storage")

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike
    ) -> AbstractAsyncContextManager[LockedAlgorithmState]:
        """See `AsyncStorageProtocol.acquire_algorithm_lock`; the body's time is not counted."""
        return _TimedContext(self._storage.acquire_algorithm_lock(experiment), self._spent, "lock")

    async def complete_trial(self, trial: Trial, results: Any) -> None:
        """See `AsyncStorageProtocol.complete_trial`."""
        with self._spent.measure("storage"):
            await self._storage.complete_trial(trial, results)

    async def register_trials(self, trials: list[Trial]) -> list[Trial]:
        """See `AsyncStorageProtocol.register_trials`."""
        with self._spent.measure("storage"):
            return await self._storage.register_trials(trials)

    async def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """See `AsyncStorageProtocol.fetch_pending_trials`."""
        with self._spent.measure("storage"):
            return await self._storage.fetch_pending_trials(experiment)


class _TimedContext(AbstractAsyncContextManager[T]):
    """A context manager whose entry and exit are timed."""

    def __init__(
        self, inner: AbstractAsyncContextManager[T], spent: TimeSpent, entry: Purpose
    ) -> None:
        self._inner = inner
        self._spent = spent
        self._entry: Purpose = entry

    async def __aenter__(self) -> T:
        with self._spent.measure(self._entry):
            return await self._inner.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with self._spent.measure("storage"):
            return await self._inner.__aexit__(exc_type, exc, traceback)
