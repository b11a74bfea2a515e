"""The synchronous protocol, as the original declares it.

Generated from `aiostorage.protocols` by ``python tools/generate_sync.py``; do not edit it here.
"""

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
    """The original's synchronous protocol: what legacy code calls and legacy storages subclass.

    As in the original, a subclass need not have all methods: one that it lacks raises
    `NotImplementedError`. `aiostorage.SyncStorage` has them all.
    """

    def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> Experiment:
        """Insert a new experiment together with its algorithm's lock record, or neither.

        If the store has a lock record for its ``_id`` but no experiment, that record is reused: it
        was left by a deletion without `cascade`, or by a creation that was cut short on an engine
        without transactions.

        Parameters
        ----------
        config
            The config to store; needs a ``name``. Gets an ``_id`` unless it has one, and nothing
            else. The stored config has a ``version``, which is 1 if `config` has none. Its
            ``algorithm`` (or ``algorithms``) becomes the configuration of the lock record.
        algo_locked, algo_state, algo_heartbeat
            The initial values of the lock record. Default: unlocked, no state, now.

        Raises
        ------
        DuplicateKeyError
            An experiment with the same name and version, or the same ``_id``, already exists.
        """
        raise NotImplementedError

    def delete_experiment(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        *,
        cascade: bool = True,
    ) -> int:
        """Delete an experiment with its trials and lock record.

        Parameters
        ----------
        cascade
            False keeps its trials and its lock record.

        Returns
        -------
        int
            The number of experiments deleted.

        Raises
        ------
        MissingArguments
            Neither `experiment` nor `uid` was passed.
        MismatchedIds
            Both were passed and do not agree.
        """
        raise NotImplementedError

    def update_experiment(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Set fields of an experiment that also matches `where`; return whether one did.

        Names of fields in `kwargs` may be dotted paths. A version of None is version 1.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        DuplicateKeyError
            Another experiment has the new name and version.
        """
        raise NotImplementedError

    def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the stored configs that match, in the order of insertion.

        An experiment that another program has stored without a version is returned as version 1.
        """
        raise NotImplementedError

    def register_trial(self, trial: Trial) -> Trial:
        """Store a new trial; return it as it was stored, with its ``_id``.

        A trial without ``submit_time`` gets the current time. The ``id`` is derived from the values
        as they are stored, and belongs to the trial from then on. Whether the experiment exists is
        not checked: use `Experiment.id`.

        Raises
        ------
        EncodingError
            The trial has no experiment, or a value that cannot be stored.
        DuplicateKeyError
            The experiment has a trial with these params, or with params whose text is the same,
            such as ``"1"`` instead of 1; the message says which.
        """
        raise NotImplementedError

    def reserve_trial(
        self, experiment: ExperimentLike, *, wait: float = 0.0, recover: bool = True
    ) -> Trial | None:
        """Reserve the oldest pending trial for this caller alone; return None if there is none.

        A trial is pending when it is new, suspended or interrupted. If none is, the oldest lost
        trial is reserved (see `fetch_lost_trials`); its worker can no longer write to it.

        The returned trial is ``reserved``, has a fresh token in ``worker``, and its ``start_time``
        and ``heartbeat`` are the current time. It has no results and no ``end_time``, even if it
        was evaluated before. A trial that cannot be read becomes ``broken``, and the next one is
        reserved.

        Parameters
        ----------
        wait
            Seconds to wait for a trial, at most. Engines that can report changes wake the caller
            soon after a trial has become pending. Lost trials are looked for at the beginning, at
            intervals of a tenth of `lost_after`, and at the end.
        recover
            False leaves lost trials alone.

        Raises
        ------
        FailedUpdate
            While waiting: the experiment does not exist, or no longer does. That is checked at the
            beginning and every second. Without `wait`, None is returned.
        """
        raise NotImplementedError

    def fetch_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        limit: int | None = None,
        order: str | None = None,
        after: Trial | str | None = None,
        since: str | None = None,
    ) -> list[Trial] | None:
        """Return the trials that match, by submit time; None if there is no such experiment.

        None is returned only when neither the experiment nor a trial of it exists.

        Parameters
        ----------
        params
            Conditions on params, by name: values, or operators as in `where`, such as
            ``{"lr": {"$gt": 1e-3}, "optimizer": "adam"}``. Names may be nested, as in `Trial`. A
            trial without that param does not match, whatever the operator; ``{"$exists": False}``
            asks for those.
        limit
            The maximum number of trials to return; None for all that match.
        order
            ``submit_time``, ``start_time``, ``end_time`` or ``objective``, ascending; with a
            ``-`` before it, descending. Trials without such a value, or with NaN, come last.
            Trials with equal values come in the order of their insertion. Default: by submit time,
            trials without one first.
        after
            The last trial of the previous page: the `Trial`, or its ``id``. The trials behind it in
            this order are returned, even if others were inserted meanwhile. A `Trial` marks its
            place at the time when it was read; an ``id`` marks the current place of that trial.
        since
            A cursor from `changes_since`: only trials that have changed since are returned. Deleted
            trials are not among them.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        CursorExpired, ConfigurationError
            As for `changes_since`.
        UnsupportedQuery
            No trial can ever match: `where` has a status that does not exist, a path into
            ``params`` or ``results`` other than by ``name``, ``type`` and ``value``, or a time that
            is not a datetime. The error says what to write instead.
        ValueError
            `limit` is not a number of trials, there is no such `order`, or the experiment does not
            have the trial `after`.
        EncodingError
            `after` is the id of a trial that cannot be read, so that its place is unknown.
        """
        raise NotImplementedError

    def get_trial(
        self, trial: Trial | None = None, uid: str | None = None, experiment_uid: Uid | None = None
    ) -> Trial | None:
        """Return one trial as it is stored; None if there is none.

        Raises
        ------
        EncodingError
            Another program wrote a trial that cannot be read; the error says what is wrong.
        MissingArguments
            Neither `trial` nor both `uid` and `experiment_uid` were passed.
        MismatchedIds
            Both were passed and do not agree.
        """
        raise NotImplementedError

    def update_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of one trial that also matches `where`; return how many matched, 0 or 1.

        This is not fenced. Pass ``where={"worker": token}`` to fence it. Setting the status
        ``reserved`` without a ``heartbeat`` sets the heartbeat to the current time, too. Part of
        the params or results (``params.0.value``) is set in a trial that has that item.

        Raises
        ------
        ValueError
            ``status`` is not the name of a status.
        EncodingError
            A value cannot be stored, or leaves a trial that cannot be read.
        UnsupportedQuery
            As for `fetch_trials`.
        MissingArguments, MismatchedIds
            As for `get_trial`.
        """
        raise NotImplementedError

    def update_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of all trials of an experiment that match `where`; return how many did.

        The status ``reserved`` sets the heartbeat as in `update_trial`.

        Raises
        ------
        ValueError, EncodingError
            As for `update_trial`.
        UnsupportedQuery
            As for `fetch_trials`.
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        raise NotImplementedError

    def delete_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        """Delete the trials of an experiment that match `where`; return how many did.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        UnsupportedQuery
            As for `fetch_trials`. Trials of a status that does not exist, which another program
            wrote, are found by ``{"status": {"$nin": [...]}}`` with those that do.
        """
        raise NotImplementedError

    def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the reserved trials whose heartbeat is older than `lost_after` seconds.

        For a trial without a heartbeat, its ``start_time`` counts, or else its ``submit_time``; one
        that has none of them is lost.
        """
        raise NotImplementedError

    def retrieve_result(self, trial: Trial, *args: Any, **kwargs: Any) -> Trial:
        """Return `trial` with the results that the store has for it, if it has any.

        On a Track file, these are also the last values of metrics that a script has logged there.
        If there are none, and the storage has a tracker, the last values of the metrics in the
        trial's run are its results, whichever program logged them: the option ``objective`` of the
        storage says which of them is the objective, and the others are statistics. `args` and
        `kwargs` are ignored; the original has them.

        Raises
        ------
        InvalidResult
            The run, or the Track file, has metrics, but the objective is not among them or is not a
            number. On a Track file with a named objective, also when nothing was logged.
        TrackerError
            The tracker cannot be asked (`TrackerUnavailable`), or has no such run.
        """
        raise NotImplementedError

    def push_trial_results(self, trial: Trial) -> int:
        """Store the results, the end time and the status of a reserved trial; return 1.

        The status is taken from `trial`, as in Oríon: ``completed`` completes the trial,
        ``reserved`` leaves it reserved. A statistic that cannot be stored is left out, as in
        `complete_trial`, which does all of this in one step. When this completes a trial whose
        objective is NaN, the option ``nan`` applies as there, and ``trial.status`` becomes the
        status in the store.

        Raises
        ------
        InvalidResult
            The objective is NaN, and the storage was opened with ``nan="raise"``.
        FailedUpdate
            The store does not have the trial as ``reserved``; `TrialLost` if it carries a token
            and another worker has it, or it was deleted.
        """
        raise NotImplementedError

    def set_trial_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None = None,
        was: str | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        """Set the status of a trial, and its heartbeat, if its status is `was`.

        ``trial.status`` is updated when the write has succeeded. Setting ``reserved`` makes a new
        reservation, as `reserve_trial` does: a fresh token in ``trial.worker``, a new
        ``start_time``, no results and no ``end_time``, in the store and in `trial`.

        Parameters
        ----------
        heartbeat
            Default: now.
        was
            The status that the trial must have in the store. Default: ``trial.status``.
        reason
            The reason, for the history of the trial; the first 500 characters are kept.

        Raises
        ------
        FailedUpdate
            The store has another status, or no such trial; `TrialLost` if it carries a token and
            another worker has it, or it was deleted.
        ValueError
            `status` or `was` is not the name of a status.
        """
        raise NotImplementedError

    def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the trials that `reserve_trial` may reserve: new, suspended, interrupted."""
        raise NotImplementedError

    def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the trials that are not completed."""
        raise NotImplementedError

    def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        """Return the trials with this status."""
        raise NotImplementedError

    def count_completed_trials(self, experiment: ExperimentLike) -> int:
        """Return the number of completed trials."""
        raise NotImplementedError

    def count_broken_trials(self, experiment: ExperimentLike) -> int:
        """Return the number of broken trials."""
        raise NotImplementedError

    def update_heartbeat(self, trial: Trial) -> int:
        """Record that the worker of a reserved trial is alive; return how many trials matched.

        For a trial without a token that is not reserved, this is 0.

        Raises
        ------
        FailedUpdate
            The trial carries a token and is no longer reserved under it (`TrialLost`).
        """
        raise NotImplementedError

    def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark, which needs a ``name``; put ``_id`` into the config; return 1.

        Raises
        ------
        DuplicateKeyError
            A benchmark of that name already exists.
        """
        raise NotImplementedError

    def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the benchmarks that match, in the order of insertion."""
        raise NotImplementedError

    def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        """Delete the benchmarks that match; return how many did."""
        raise NotImplementedError

    def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        """Insert an unlocked lock record without state for an experiment; return 1.

        Raises
        ------
        DuplicateKeyError
            The experiment already has one; `create_experiment` inserts it.
        """
        raise NotImplementedError

    def write_algorithm_lock(
        self,
        experiment_id: Uid,
        algorithm_config: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Insert a lock record with these values, such as one read from another store; return 1.

        A record that is written as locked has no owner that renews it: it is free after one lease.

        Raises
        ------
        DuplicateKeyError
            The experiment already has one.
        """
        raise NotImplementedError

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike, timeout: float = 600, retry_interval: float = 1
    ) -> AbstractContextManager[LockedAlgorithmState]:
        """Lock the experiment's algorithm for the body; save its state afterwards.

        Live waiters are served in order of arrival. A lease is renewed in the background while
        the body runs; when the holder dies, the lock is free after one lease. The state is saved
        when the body succeeds, whether it was set with ``set_state`` or changed in place. On any
        exception, Ctrl-C included, the store keeps the state it had.

        Parameters
        ----------
        timeout
            Seconds to wait for the lock.
        retry_interval
            Seconds between two attempts, at most. Engines that can report changes wake the caller
            earlier.

        Raises
        ------
        LockAcquisitionTimeout
            The lock did not become free in time; the error says who holds it and since when.
        LockLost
            The lease ran out and another owner took the lock: the state
            was not saved.
        LockError
            The experiment has no lock record.
        """
        raise NotImplementedError

    def release_algorithm_lock(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        new_state: Any = None,
    ) -> int:
        """Release the lock without being its owner: the operator's override.

        Returns 1 if it was locked, else 0. The owner, if it is alive, gets `LockLost`.

        Parameters
        ----------
        new_state
            The state to store; None keeps the stored one.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        raise NotImplementedError

    def get_algorithm_lock_info(
        self, experiment: ExperimentLike | None = None, uid: Uid | None = None
    ) -> LockedAlgorithmState | None:
        """Return the lock record without acquiring it; None if there is none.

        Whether it is locked may have changed by the time the caller looks at it.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        raise NotImplementedError

    def delete_algorithm_lock(
        self, experiment: ExperimentLike | None = None, uid: Uid | None = None
    ) -> int:
        """Delete the lock record; return 1 if there was one, else 0.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        raise NotImplementedError
