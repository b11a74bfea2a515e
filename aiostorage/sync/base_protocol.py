"""The synchronous protocol, as the original declares it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.experiment import Experiment
from aiostorage.protocols import ExperimentLike, Uid
from aiostorage.trial import Trial

__all__ = ["BaseStorageProtocol"]


class BaseStorageProtocol:
    """The original's synchronous door: what legacy code calls, and what legacy storages subclass.

    Every method means what the coroutine of `AsyncStorageProtocol` with its name means. As in the
    original, a subclass need not have them all: what it lacks raises `NotImplementedError`.
    `aiostorage.SyncStorage` has them all.
    """

    def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> Experiment:
        raise NotImplementedError

    def delete_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        *,
        cascade: bool = True,
    ) -> int:
        raise NotImplementedError

    def update_experiment(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        raise NotImplementedError

    def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        raise NotImplementedError

    def register_trial(self, trial: Trial) -> Trial:
        raise NotImplementedError

    def reserve_trial(self, experiment: ExperimentLike, *, wait: float = 0.0) -> Trial | None:
        raise NotImplementedError

    def fetch_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Trial] | None:
        raise NotImplementedError

    def get_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
    ) -> Trial | None:
        raise NotImplementedError

    def update_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        raise NotImplementedError

    def update_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        raise NotImplementedError

    def delete_trials(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        raise NotImplementedError

    def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        raise NotImplementedError

    def retrieve_result(self, trial: Trial, *args: Any, **kwargs: Any) -> Trial:
        raise NotImplementedError

    def push_trial_results(self, trial: Trial) -> int:
        raise NotImplementedError

    def set_trial_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None = None,
        was: str | None = None,
    ) -> None:
        raise NotImplementedError

    def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        raise NotImplementedError

    def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        raise NotImplementedError

    def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        raise NotImplementedError

    def count_completed_trials(self, experiment: ExperimentLike) -> int:
        raise NotImplementedError

    def count_broken_trials(self, experiment: ExperimentLike) -> int:
        raise NotImplementedError

    def update_heartbeat(self, trial: Trial) -> int:
        raise NotImplementedError

    def create_benchmark(self, config: dict[str, Any]) -> int:
        raise NotImplementedError

    def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        raise NotImplementedError

    def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        raise NotImplementedError

    def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        raise NotImplementedError

    def write_algorithm_lock(
        self,
        experiment_id: Uid,
        algorithm_config: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        raise NotImplementedError

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike, timeout: float = 600, retry_interval: float = 1
    ) -> AbstractContextManager[LockedAlgorithmState]:
        raise NotImplementedError

    def release_algorithm_lock(
        self,
        experiment: ExperimentLike = None,
        uid: Uid | None = None,
        new_state: Any = None,
    ) -> int:
        raise NotImplementedError

    def get_algorithm_lock_info(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> LockedAlgorithmState | None:
        raise NotImplementedError

    def delete_algorithm_lock(
        self, experiment: ExperimentLike = None, uid: Uid | None = None
    ) -> int:
        raise NotImplementedError
