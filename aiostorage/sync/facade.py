"""The synchronous facade: the original's methods over any async storage."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from aiostorage._core.storage import Storage
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import RunningLoopError
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike, Uid
from aiostorage.sync.base_protocol import BaseStorageProtocol
from aiostorage.sync.portal import Portal
from aiostorage.trial import Trial

__all__ = ["SyncStorage"]

P = ParamSpec("P")
T = TypeVar("T")


class SyncStorage(BaseStorageProtocol):
    """A storage for callers without an event loop: legacy code, scripts, Oríon.

    Every method does what the async one of the same name does, in an event loop in a thread of its
    own, and waits for it. Any number of threads may share one. It opens with its first call; it is
    closed by ``with``, by `close`, or at exit. A pickled or forked copy opens anew.

    Parameters
    ----------
    storage
        The async storage, made by `aiostorage.open_storage` and not opened. It belongs to this
        facade from now on.
    in_running_loop
        Whether calls are allowed in a thread whose event loop runs. They block that loop until
        they return; that is what one may want in a notebook, and a fault anywhere else.

    Examples
    --------
    >>> with SyncStorage(open_storage("sqlite:///tune.db")) as storage:
    ...     experiment = storage.create_experiment({"name": "tune"})
    """

    def __init__(self, storage: Storage, *, in_running_loop: bool = False) -> None:
        self._storage = storage
        self._in_running_loop = in_running_loop
        self._portal = Portal(storage.aclose)

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self._storage, "in_running_loop": self._in_running_loop}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage!r})"

    @property
    def location(self) -> str:
        """Where the data is, for people to read; without secrets."""
        return self._storage.location

    # --------------------------------------------------------------------------- lifetime

    def close(self) -> None:
        """Close the storage and end its event loop. A second call does nothing.

        What other threads hold is put back, as if they had been cancelled; they get
        `StorageClosedError`.
        """
        self._check("close", "aclose")
        self._portal.close()

    def __enter__(self) -> Self:
        self._check("__enter__", "open")
        self._portal.call(self._storage.open)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------- calls

    def _call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check(method.__name__)
        return self._portal.call(method, *args, **kwargs)

    def _context(
        self,
        method: Callable[P, AbstractAsyncContextManager[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[T]:
        self._check(method.__name__)
        return self._portal.context(method(*args, **kwargs))

    def in_collections(self, method: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a method of `Collections`, for adapters; this is no part of the public interface."""
        return self._call(method, self._storage.collections, *args)

    def _check(self, name: str, twin: str | None = None) -> None:
        if self._in_running_loop:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RunningLoopError(
            f"SyncStorage.{name}() would block the event loop that runs in this thread; await "
            f"Storage.{twin or name}() there, or asyncio.to_thread(storage.{name}, ...); in a "
            "notebook make the facade with SyncStorage(storage, in_running_loop=True)"
        )

    # ----------------------------------------------------------------------------- methods

    def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> Experiment:
        return self._call(
            self._storage.create_experiment, config, algo_locked, algo_state, algo_heartbeat
        )

    def delete_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        *,
        cascade: bool = True,
    ) -> int:
        return self._call(self._storage.delete_experiment, experiment, uid, cascade=cascade)

    def update_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        return self._call(self._storage.update_experiment, experiment, uid, where, **kwargs)

    def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        return self._call(self._storage.fetch_experiments, query, selection)

    def register_trial(self, trial: Trial) -> Trial:
        return self._call(self._storage.register_trial, trial)

    def register_trials(self, trials: Sequence[Trial]) -> list[Trial]:
        return self._call(self._storage.register_trials, trials)

    def reserve_trial(self, experiment: ExperimentLike, *, wait: float = 0.0) -> Trial | None:
        return self._call(self._storage.reserve_trial, experiment, wait=wait)

    def reserve_trials(self, experiment: ExperimentLike, count: int) -> list[Trial]:
        return self._call(self._storage.reserve_trials, experiment, count)

    def fetch_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Trial] | None:
        return self._call(self._storage.fetch_trials, experiment, uid, where)

    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        batch_size: int = 200,
    ) -> Iterator[Any]:
        items = self._storage.iter_trials(
            experiment, where=where, selection=selection, batch_size=batch_size
        )
        while True:
            self._check("iter_trials")
            batch = self._portal.call(_next, items, batch_size)
            yield from batch
            if len(batch) < batch_size:
                return

    def get_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
    ) -> Trial | None:
        return self._call(self._storage.get_trial, trial, uid, experiment_uid)

    def update_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        return self._call(self._storage.update_trial, trial, uid, experiment_uid, where, **kwargs)

    def update_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        return self._call(self._storage.update_trials, experiment, uid, where, **kwargs)

    def delete_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        return self._call(self._storage.delete_trials, experiment, uid, where)

    def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        return self._call(self._storage.fetch_lost_trials, experiment)

    def recover_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        return self._call(self._storage.recover_lost_trials, experiment)

    def retrieve_result(self, trial: Trial, *args: Any, **kwargs: Any) -> Trial:
        return self._call(self._storage.retrieve_result, trial, *args, **kwargs)

    def push_trial_results(self, trial: Trial) -> int:
        return self._call(self._storage.push_trial_results, trial)

    def complete_trial(self, trial: Trial, results: Any) -> None:
        self._call(self._storage.complete_trial, trial, results)

    def set_trial_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None = None,
        was: str | None = None,
    ) -> None:
        self._call(self._storage.set_trial_status, trial, status, heartbeat, was)

    def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        return self._call(self._storage.fetch_pending_trials, experiment)

    def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        return self._call(self._storage.fetch_noncompleted_trials, experiment)

    def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        return self._call(self._storage.fetch_trials_by_status, experiment, status)

    def count_completed_trials(self, experiment: ExperimentLike) -> int:
        return self._call(self._storage.count_completed_trials, experiment)

    def count_broken_trials(self, experiment: ExperimentLike) -> int:
        return self._call(self._storage.count_broken_trials, experiment)

    def update_heartbeat(self, trial: Trial) -> int:
        return self._call(self._storage.update_heartbeat, trial)

    def reserved_trial(
        self, experiment: ExperimentLike, *, heartbeat: float | None = None, wait: float = 0.0
    ) -> AbstractContextManager[Trial | None]:
        return self._context(
            self._storage.reserved_trial, experiment, heartbeat=heartbeat, wait=wait
        )

    def create_benchmark(self, config: dict[str, Any]) -> int:
        return self._call(self._storage.create_benchmark, config)

    def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        return self._call(self._storage.fetch_benchmark, query, selection)

    def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        return self._call(self._storage.delete_benchmark, query)

    def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        return self._call(self._storage.initialize_algorithm_lock, experiment_id, algorithm_config)

    def write_algorithm_lock(
        self,
        experiment_id: Uid,
        algorithm_config: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        return self._call(
            self._storage.write_algorithm_lock,
            experiment_id,
            algorithm_config,
            locked,
            state,
            heartbeat,
        )

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike, timeout: float = 600, retry_interval: float = 1
    ) -> AbstractContextManager[LockedAlgorithmState]:
        return self._context(
            self._storage.acquire_algorithm_lock, experiment, timeout, retry_interval
        )

    def release_algorithm_lock(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        new_state: Any = None,
    ) -> int:
        return self._call(self._storage.release_algorithm_lock, experiment, uid, new_state)

    def get_algorithm_lock_info(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> LockedAlgorithmState | None:
        return self._call(self._storage.get_algorithm_lock_info, experiment, uid)

    def delete_algorithm_lock(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> int:
        return self._call(self._storage.delete_algorithm_lock, experiment, uid)


async def _next(items: AsyncIterator[T], count: int) -> list[T]:
    """Fetch some items; what is left stays where it is."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == count:
            break
    return batch


def _document() -> None:
    """Give each method the docstring of the async one."""
    for name, method in vars(SyncStorage).items():
        twin = getattr(AsyncStorageProtocol, name, None)
        if inspect.isfunction(method) and not method.__doc__ and twin is not None:
            method.__doc__ = twin.__doc__


_document()
