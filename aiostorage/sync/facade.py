"""The synchronous facade: the original's methods over any async storage.

Generated from `aiostorage.protocols` by ``python tools/generate_sync.py``; do not edit it here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, overload

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.experiment import Experiment
from aiostorage.operations import Document
from aiostorage.protocols import ExperimentLike, Uid
from aiostorage.reservation import Reservation
from aiostorage.summary import Direction, ExperimentSummary
from aiostorage.sync.base_protocol import BaseStorageProtocol
from aiostorage.sync.portal_storage import PortalStorage
from aiostorage.trial import Trial
from aiostorage.trial_change import TrialChange, TrialChanges
from aiostorage.values import FINAL_STATUSES, Results

__all__ = ["SyncStorage"]


class SyncStorage(PortalStorage, BaseStorageProtocol):
    """A storage for callers without an event loop: legacy code, scripts, Oríon.

    Every method does what the async one of the same name does, in an event loop in a thread of its
    own, and waits for it. Any number of threads may share one. It opens with its first call; it is
    closed by ``with``, by `close`, or at exit. A pickled or forked copy opens the storage again.

    Parameters
    ----------
    storage
        The async storage, made by `aiostorage.open_storage` and not opened. It belongs to this
        facade from now on.
    in_running_loop
        Whether calls are allowed in a thread whose event loop runs. They block that loop until
        they return; that may be wanted in a notebook, and is a fault anywhere else.

    Examples
    --------
    >>> with SyncStorage(open_storage("sqlite:///tune.db")) as storage:
    ...     experiment = storage.create_experiment({"name": "tune"})
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
        return self._portal.call(
            self._storage.create_experiment, config, algo_locked, algo_state, algo_heartbeat
        )

    def get_or_create_experiment(self, config: Mapping[str, Any]) -> Experiment:
        """Return the experiment with the name and version of a config; create it if it is missing.

        Of several callers at the same time, one creates it, and all get that one. Only name and
        version are compared: an existing experiment is returned as it is stored, whatever else
        `config` says. Its ``config`` is the stored one.

        Parameters
        ----------
        config
            As for `create_experiment`; a missing version is 1. It is not changed.

        Raises
        ------
        DuplicateKeyError
            An experiment with another name or version has the ``_id`` of `config`.
        """
        return self._portal.call(self._storage.get_or_create_experiment, config)

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
        return self._portal.call(self._storage.delete_experiment, experiment, uid, cascade=cascade)

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
        return self._portal.call(self._storage.update_experiment, experiment, uid, where, **kwargs)

    def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the stored configs that match, in the order of insertion.

        An experiment that another program has stored without a version is returned as version 1.
        """
        return self._portal.call(self._storage.fetch_experiments, query, selection)

    def summary(
        self,
        experiment: ExperimentLike,
        *,
        direction: Direction = "minimize",
        window: float = 600.0,
    ) -> ExperimentSummary | None:
        """Return the state of an experiment, counted by the engine; None if it does not exist.

        Only the best trial is fetched, so this is quick for many trials, too. The counts are those
        of one moment, except on a MongoDB server without transactions. The best trial is read right
        after them.

        Parameters
        ----------
        direction
            Which objective is the best one: the smallest, ``minimize``, or the greatest,
            ``maximize``.
        window
            The number of seconds whose completed trials make up the rate.
        """
        return self._portal.call(
            self._storage.summary, experiment, direction=direction, window=window
        )

    def best_trial(
        self, experiment: ExperimentLike, direction: Direction = "minimize"
    ) -> Trial | None:
        """Return the completed trial with the best objective; None before there is one.

        A trial whose objective is NaN is never the best one. Of several equally good trials, it is
        the one that was registered first.

        Parameters
        ----------
        direction
            As for `summary`.
        """
        return self._portal.call(self._storage.best_trial, experiment, direction)

    def to_dataframe(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the trials as a `pandas.DataFrame`, one per row, by insertion.

        The columns are ``id``, ``status``, ``submit_time``, ``start_time``, ``end_time``,
        ``objective``, then ``params.NAME`` for each param and ``results.NAME`` for each other
        result. A value that a trial lacks is missing in its row. Trials are read page by page.

        Parameters
        ----------
        where, params
            Which trials, as for `fetch_trials`.

        Raises
        ------
        ConfigurationError
            pandas is not installed.
        """
        return self._portal.call(self._storage.to_dataframe, experiment, where=where, params=params)

    def to_arrow(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the trials as a `pyarrow.Table`, with the columns of `to_dataframe`.

        A column with values of incompatible types, such as numbers and text, has them as JSON text.

        Raises
        ------
        ConfigurationError
            pyarrow is not installed.
        """
        return self._portal.call(self._storage.to_arrow, experiment, where=where, params=params)

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
        return self._portal.call(self._storage.register_trial, trial)

    def register_trials(self, trials: Sequence[Trial]) -> list[Trial]:
        """Store new trials in one transaction, all or none; return them as they were stored.

        Raises
        ------
        DuplicateKeyError
            The experiment has a trial with the params of one of them, or two of them have the same
            params.
        """
        return self._portal.call(self._storage.register_trials, trials)

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
        return self._portal.call(
            self._storage.reserve_trial, experiment, wait=wait, recover=recover
        )

    def reserve_trials(
        self, experiment: ExperimentLike, count: int, *, recover: bool = True
    ) -> list[Trial]:
        """Reserve up to `count` trials for this caller alone: pending ones, the oldest first.

        If there are fewer, lost trials follow, the oldest first. All of them share one token.

        Parameters
        ----------
        recover
            As for `reserve_trial`.
        """
        return self._portal.call(self._storage.reserve_trials, experiment, count, recover=recover)

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
        return self._portal.call(
            self._storage.fetch_trials,
            experiment,
            uid,
            where,
            params=params,
            limit=limit,
            order=order,
            after=after,
            since=since,
        )

    def count_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> int:
        """Return the number of trials that match; 0 if there is no such experiment.

        Parameters
        ----------
        params
            As for `fetch_trials`.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        UnsupportedQuery
            As for `fetch_trials`.
        """
        return self._portal.call(self._storage.count_trials, experiment, uid, where, params=params)

    @overload
    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: None = None,
        batch_size: int = 200,
    ) -> Iterator[Trial]: ...

    @overload
    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any],
        batch_size: int = 200,
    ) -> Iterator[Document]: ...

    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        batch_size: int = 200,
    ) -> Iterator[Trial | Document]:
        """Iterate over the trials that match, by insertion, holding at most `batch_size` of them.

        `where` and `params` are as for `fetch_trials`. With a `selection` the items are documents
        (dicts), without one they are `Trial` objects. Trials that are inserted or changed during
        the iteration may or may not be seen; none is seen twice.
        """
        return self._iterate(
            "iter_trials",
            self._storage.iter_trials(
                experiment, where=where, params=params, selection=selection, batch_size=batch_size
            ),
            batch_size,
        )

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
        return self._portal.call(self._storage.get_trial, trial, uid, experiment_uid)

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
        return self._portal.call(
            self._storage.update_trial, trial, uid, experiment_uid, where, **kwargs
        )

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
        return self._portal.call(self._storage.update_trials, experiment, uid, where, **kwargs)

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
        return self._portal.call(self._storage.delete_trials, experiment, uid, where)

    def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the reserved trials whose heartbeat is older than `lost_after` seconds.

        For a trial without a heartbeat, its ``start_time`` counts, or else its ``submit_time``; one
        that has none of them is lost.
        """
        return self._portal.call(self._storage.fetch_lost_trials, experiment)

    def recover_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Set lost trials to ``interrupted``, in one atomic step, and return them.

        Their workers can no longer write to them. Workers need not call this: `reserve_trial`
        hands out lost trials on its own.
        """
        return self._portal.call(self._storage.recover_lost_trials, experiment)

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
        return self._portal.call(self._storage.retrieve_result, trial, *args, **kwargs)

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
        return self._portal.call(self._storage.push_trial_results, trial)

    def complete_trial(self, trial: Trial, results: Results) -> None:
        """Store the results, the end time and the status ``completed`` in one atomic write.

        `trial` itself is updated when the write has succeeded: its results, status and end time.
        If the objective is NaN, the option ``nan`` of the storage may make the status ``broken``.
        A statistic that cannot be stored is left out with a warning, and so are the largest ones
        if the results are larger than the engine allows.

        Parameters
        ----------
        results
            A number (the objective); a mapping, in which the entry ``objective``, or else the first
            entry, is the objective, and the other entries are statistics; or a list of results.

        Raises
        ------
        EncodingError
            A result that is not a statistic cannot be stored. The trial is unchanged.
        InvalidResult
            There is no objective, or it is not a number; or it is NaN, and the storage was opened
            with ``nan="raise"``.
        FailedUpdate
            As for `push_trial_results`.
        """
        self._portal.call(self._storage.complete_trial, trial, results)

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
        self._portal.call(
            self._storage.set_trial_status, trial, status, heartbeat, was, reason=reason
        )

    def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the trials that `reserve_trial` may reserve: new, suspended, interrupted."""
        return self._portal.call(self._storage.fetch_pending_trials, experiment)

    def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        """Return the trials that are not completed."""
        return self._portal.call(self._storage.fetch_noncompleted_trials, experiment)

    def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        """Return the trials with this status."""
        return self._portal.call(self._storage.fetch_trials_by_status, experiment, status)

    def count_completed_trials(self, experiment: ExperimentLike) -> int:
        """Return the number of completed trials."""
        return self._portal.call(self._storage.count_completed_trials, experiment)

    def count_broken_trials(self, experiment: ExperimentLike) -> int:
        """Return the number of broken trials."""
        return self._portal.call(self._storage.count_broken_trials, experiment)

    def update_heartbeat(self, trial: Trial) -> int:
        """Record that the worker of a reserved trial is alive; return how many trials matched.

        For a trial without a token that is not reserved, this is 0.

        Raises
        ------
        FailedUpdate
            The trial carries a token and is no longer reserved under it (`TrialLost`).
        """
        return self._portal.call(self._storage.update_heartbeat, trial)

    def reserved_trial(
        self,
        experiment: ExperimentLike,
        *,
        heartbeat: float | None = None,
        wait: float = 0.0,
        recover: bool = True,
        on_lost: Literal["skip", "raise"] = "skip",
        export_environment: bool = False,
        max_trials: int | Literal[True] | None = None,
        max_broken: int | Literal[True] | None = None,
    ) -> AbstractContextManager[Trial | None]:
        """Reserve a trial for the body; its heartbeat is updated in the background.

        The body gets None when no trial is pending or lost. A status that the body sets remains:
        completed, suspended, broken. A trial that is still reserved in the store afterwards, by
        this reservation, becomes

        - ``broken`` if the body raised an exception of its own. `EncodingError`, `InvalidResult`
          and errors about wrong arguments count as such, because they would recur each time; and so
          does an exception that is raised ``from`` an error of the store;
        - ``interrupted`` if the store failed (`BackendError`, `LockError`, `DuplicateKeyError`,
          `FailedUpdate`, `StorageClosedError`), or the tracker (`TrackerError`). In an exception
          group, all exceptions have to be of these;
        - ``interrupted`` if the body was interrupted or ended without completing it.

        When a write that ends the trial, such as `complete_trial`, fails with a
        `BackendError`, it is tried again at the end of the body, for as long as the retry policy
        allows and the trial cannot be lost. If that succeeds, the trial is ``completed`` after all;
        the error is raised with a note that says so. The results are in its attribute ``results``.
        A write that was cancelled, for example by a time limit, is made at the end of the body,
        too.

        When the reservation is lost, because another worker has it or the trial was deleted, and
        a heartbeat notices that, the body runs on. The loss is logged as a warning and the
        body ends without an error, so that a loop continues with the next trial; afterwards the
        status of this copy of the trial is ``interrupted``.

        Parameters
        ----------
        heartbeat
            Seconds between two heartbeats. Default: a fifth of `lost_after`, as in Oríon.
        wait, recover
            As for `reserve_trial`.
        on_lost
            ``raise`` raises `TrialLost` when the reservation is lost.
        export_environment
            Whether the variables from `tracker_environment` are in ``os.environ`` during the body,
            for a library or a child process that logs to the run of this trial. A process has only
            one environment, so only one such block can run in it at a time. Without a tracker
            nothing is exported.
        max_trials
            How many trials of the experiment are to be completed; True for the ``max_trials`` in
            its config. The body gets None when that many are completed, also while it waits, and
            while that many are completed or being evaluated. If all callers pass this, completed
            trials and trials under evaluation never add up to more than that. Lost trials do not
            count; so there can be more if a worker completes a trial that was lost and that no
            other worker has taken.
        max_broken
            How many trials may become broken; True for the ``max_broken`` in the config. The body
            gets None when there are so many. Trials that other workers evaluate meanwhile may still
            become broken.

            `limit_reached` says whether a limit is the reason for None.

        Raises
        ------
        ConfigurationError
            `heartbeat` is not less than `lost_after`: the trial would be lost between two of them.
            Or another block in this process has exported its environment; nothing was reserved. Or
            the limit in the config is not a number.
        TrialLost
            The reservation was lost, if `on_lost` is ``raise`` or the experiment was deleted.
            A `TrialLost` that the body raised about another trial is always raised.
        FailedUpdate
            While waiting: the experiment does not exist, or no longer does; see `reserve_trial`.
        TrackerError
            The environment was to be exported, and the tracker has not created the run in time. The
            trial is interrupted.
        ValueError
            `on_lost` has another value.
        """
        return self._portal.context(
            self._storage.reserved_trial,
            experiment,
            heartbeat=heartbeat,
            wait=wait,
            recover=recover,
            on_lost=on_lost,
            export_environment=export_environment,
            max_trials=max_trials,
            max_broken=max_broken,
        )

    def limit_reached(
        self,
        experiment: ExperimentLike,
        *,
        max_trials: int | Literal[True] | None = True,
        max_broken: int | Literal[True] | None = True,
    ) -> Literal["max_trials", "max_broken"] | None:
        """Return the limit that an experiment has reached, by its completed or broken trials.

        The engine counts them. None means that there is, or may be, more to do. If both limits are
        reached, ``max_trials`` is returned.

        Parameters
        ----------
        max_trials, max_broken
            As for `reserved_trial`; None for no limit.

        Raises
        ------
        ConfigurationError
            The limit in the config is not a number.
        """
        return self._portal.call(
            self._storage.limit_reached, experiment, max_trials=max_trials, max_broken=max_broken
        )

    def resume_reservation(self, reservation: Reservation | str) -> Trial:
        """Return the trial of a reservation that another call, process or machine has made.

        It is as the store has it now, with the token in ``worker``, and writes to it work as usual:
        the reservation stays the same, and other copies of it stay valid. The trial gets a
        heartbeat. If it was lost meanwhile and no other worker has it, it belongs to this
        reservation again.

        Parameters
        ----------
        reservation
            ``trial.reservation``, or the text from its `to_text`.

        Raises
        ------
        InvalidReservation
            The text is not a reservation, or only part of one.
        TrialLost
            The reservation is lost: another worker has the trial, or it was handed back or deleted.
        FailedUpdate
            The trial is finished: it is completed, broken or the like. ``status`` says which.
        """
        return self._portal.call(self._storage.resume_reservation, reservation)

    def watch_trials(
        self, experiment: ExperimentLike, *, since: str | None = None, heartbeats: bool = False
    ) -> Iterator[TrialChange]:
        """Yield the changes of an experiment's trials as they happen, endlessly.

        Each change comes once, and those of one trial in the order in which they took effect, even
        if the connection breaks meanwhile. A caller that starts again with the cursor of the last
        change that it has seen misses nothing.

        Parameters
        ----------
        since
            A cursor, for the changes behind it; ``"oldest"`` for all that are kept. None: the
            changes from now on, that is, from the first step of the iteration.
        heartbeats
            Whether to yield the heartbeats of reserved trials, too. They are not part of the
            history: only the last of several between two reads is yielded, and a cursor does not
            bring them back.

        Raises
        ------
        CursorExpired, ConfigurationError
            As for `changes_since`.

        Examples
        --------
        >>> async for change in storage.watch_trials(experiment):
        ...     print(change.time, change.trial, change.after)
        """
        return self._iterate(
            "watch_trials",
            self._storage.watch_trials(experiment, since=since, heartbeats=heartbeats),
            1,
        )

    def changes_since(
        self, experiment: ExperimentLike, cursor: str | None = None, *, limit: int = 1000
    ) -> TrialChanges:
        """Return the changes of an experiment's trials behind a cursor, and the next cursor.

        For a cache: get a cursor first, then read the trials, and ask for the changes behind the
        cursor from time to time. If fewer than `limit` changes are returned, there are no more yet.

        Parameters
        ----------
        cursor
            The cursor from an earlier call, or the ``cursor`` of a change; ``"oldest"`` for all
            changes that are kept. None: no changes, only the current cursor.
        limit
            The maximum number of changes.

        Raises
        ------
        CursorExpired
            Changes behind the cursor are no longer kept, or it belongs to another store.
        ConfigurationError
            The store keeps no history: it is off, or the engine has none.
        """
        return self._portal.call(self._storage.changes_since, experiment, cursor, limit=limit)

    def wait_for(
        self,
        trial: Trial,
        status: str | Collection[str] = FINAL_STATUSES,
        timeout: float | None = None,
    ) -> Trial:
        """Return the trial as soon as it has one of these statuses.

        A status that it has only for a moment may be missed.

        Parameters
        ----------
        status
            A status, or several.
        timeout
            Seconds to wait, at most; None for no limit.

        Raises
        ------
        TimeoutError
            The trial has none of them in time.
        FailedUpdate
            The trial does not exist, or no longer does.
        ValueError
            `status` is not the name of a status.
        """
        return self._portal.call(self._storage.wait_for, trial, status, timeout)

    def trial_history(self, trial: Trial) -> list[TrialChange]:
        """Return the changes of a trial that are kept, the oldest first; they have no cursors.

        They say when it got which status, under which reservation, and why. The option `history` of
        the storage says how long they are kept.

        Raises
        ------
        ConfigurationError
            The store keeps no history: it is off, or the engine has none.
        """
        return self._portal.call(self._storage.trial_history, trial)

    def flush_tracker(self, timeout: float | None = None) -> None:
        """Wait until every change that was made before this call has been sent to the tracker.

        It does not matter which process sends them. Changes that the tracker has refused are logged
        and not waited for. Without a tracker there is nothing to wait for.

        Parameters
        ----------
        timeout
            Seconds to wait, at most; None for no limit.

        Raises
        ------
        TrackerTimeout
            It took longer; the error says how much is left and, if this process knows it, why.
            Sending continues.
        """
        self._portal.call(self._storage.flush_tracker, timeout)

    def tracker_environment(self, trial: Trial, timeout: float | None = 60.0) -> dict[str, str]:
        """Return the environment variables with which a program joins the run of a trial.

        A script that knows only the tracker's own client logs to that run when it is started with
        them. Without a tracker there are none.

        Parameters
        ----------
        timeout
            Maximum seconds to wait until the tracker has created the run; None for no limit.

        Raises
        ------
        TrackerTimeout
            The run was not created in time.
        TrackerError
            The tracker has refused the trial, or creates no run before it is reserved; or the store
            has no such trial.
        """
        return self._portal.call(self._storage.tracker_environment, trial, timeout)

    def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark, which needs a ``name``; put ``_id`` into the config; return 1.

        Raises
        ------
        DuplicateKeyError
            A benchmark of that name already exists.
        """
        return self._portal.call(self._storage.create_benchmark, config)

    def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the benchmarks that match, in the order of insertion."""
        return self._portal.call(self._storage.fetch_benchmark, query, selection)

    def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        """Delete the benchmarks that match; return how many did."""
        return self._portal.call(self._storage.delete_benchmark, query)

    def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        """Insert an unlocked lock record without state for an experiment; return 1.

        Raises
        ------
        DuplicateKeyError
            The experiment already has one; `create_experiment` inserts it.
        """
        return self._portal.call(
            self._storage.initialize_algorithm_lock, experiment_id, algorithm_config
        )

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
        return self._portal.call(
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
        return self._portal.context(
            self._storage.acquire_algorithm_lock, experiment, timeout, retry_interval
        )

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
        return self._portal.call(self._storage.release_algorithm_lock, experiment, uid, new_state)

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
        return self._portal.call(self._storage.get_algorithm_lock_info, experiment, uid)

    def delete_algorithm_lock(
        self, experiment: ExperimentLike | None = None, uid: Uid | None = None
    ) -> int:
        """Delete the lock record; return 1 if there was one, else 0.

        Raises
        ------
        MissingArguments, MismatchedIds
            As for `delete_experiment`.
        """
        return self._portal.call(self._storage.delete_algorithm_lock, experiment, uid)
