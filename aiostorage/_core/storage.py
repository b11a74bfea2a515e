"""The storage: every method of the protocol, by the nouns that carry it out."""

from __future__ import annotations

import math
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from aiostorage._core.arguments import KNOWN, check_arguments
from aiostorage._core.benchmarks import Benchmarks
from aiostorage._core.change_feed import ChangeFeed
from aiostorage._core.experiments import Experiments
from aiostorage._core.frames import arrow_table, dataframe
from aiostorage._core.gateway import Gateway
from aiostorage._core.history import History
from aiostorage._core.history_limit import HistoryLimit
from aiostorage._core.kinds import (
    FLAG,
    INTERVAL,
    TEXT,
    WAIT,
    Kind,
    check_values,
    having,
    option,
    optional,
    shown,
)
from aiostorage._core.limits import LimitedReservations
from aiostorage._core.lock import AlgorithmLocks
from aiostorage._core.lock_records import LockRecords
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.nan_policy import NanPolicy
from aiostorage._core.observed import observe
from aiostorage._core.reservations import Reservations
from aiostorage._core.resumption import resume
from aiostorage._core.retry import RetryPolicy
from aiostorage._core.state import MAX_INFLATED
from aiostorage._core.state import state_codec as codec_named
from aiostorage._core.summaries import Summaries
from aiostorage._core.trials import Trials
from aiostorage._core.worker import ReservedTrial
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import ConfigurationError
from aiostorage.experiment import Experiment
from aiostorage.operations import Compare, Document
from aiostorage.protocols import AsyncStorageProtocol, Driver, ExperimentLike, Uid
from aiostorage.reservation import Reservation
from aiostorage.summary import Direction, ExperimentSummary
from aiostorage.trial import Trial, TrialStatus, validate_status
from aiostorage.trial_change import TrialChange, TrialChanges
from aiostorage.values import FINAL_STATUSES, Results

if TYPE_CHECKING:
    from aiostorage._core.collection_access import CollectionAccess
    from aiostorage._core.mirror import Mirror
    from aiostorage.trackers.protocol import Tracker

__all__ = ["Storage"]


class Storage(AsyncStorageProtocol):
    """Experiments, trials, benchmarks and the algorithm lock on one engine.

    Made by `aiostorage.open_storage`; used with ``async with``, or opened by its first call. A
    pickled or forked copy opens the engine again; a pickle contains the password of the URL, if
    there is one.

    Parameters
    ----------
    driver
        The engine.
    retry
        How often and how long to retry temporary failures.
    lost_after
        Seconds without a heartbeat after which a reserved trial counts as lost; or a function that
        returns them, which is called each time that they are needed.
    lock_lease
        Seconds after which the algorithm lock of a dead holder is free.
    state_codec
        How algorithm state is written: ``msgpack``, or ``pickle`` for a store that Oríon shares.
        Unpickling runs code that the store contains, so choose it only where you trust every
        writer.
    max_inflated_state
        Bytes that a compressed state may have when it is read; more only if that is at most 16
        times its size in the store. A storage never compresses a state so much that it would refuse
        to read it.
    nan
        What becomes of a trial that is completed with NaN as its objective: ``completed``
        stores it like any other, ``broken`` stores the results with that status, ``raise`` raises
        `InvalidResult` and stores nothing. None, the default, is ``completed`` with a warning for
        each experiment, by the logger ``aiostorage``.
    fill_version
        Whether an experiment without a version is stored, found and returned as version 1.
        Without it, experiments are stored as they are passed; Oríon's storage type does that.
    tracker
        A tracker that shows what the store has. Every change is noted in the store, and sent in
        the background.
    objective
        The metric in the tracker that is the objective, for `retrieve_result`. Default: the one
        that is called ``objective``, or else the only one.
    deliver_on_close
        Seconds for which `aclose` keeps sending to the tracker, at most.
    history
        How long the changes of trials are kept: a time such as ``"30d"`` (s, m, h, d or w), a
        number of changes, or ``"off"``. It becomes a setting of the store, for all who open it
        afterwards. None, the default, leaves the setting as it is; a new store has ``"30d"``, or
        1000 changes in a Track file, which is written as a whole each time.
    telemetry
        Whether OpenTelemetry is told what the storage does. None, the default: if a provider of
        traces or of metrics is set when the storage is made or opened. The environment variables
        ``OTEL_SDK_DISABLED=true`` and ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=aiostorage`` turn it
        off.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        retry: RetryPolicy | None = None,
        lost_after: float | Callable[[], float] = 120.0,
        lock_lease: float = 60.0,
        state_codec: str = "msgpack",
        max_inflated_state: int = MAX_INFLATED,
        nan: Literal["completed", "broken", "raise"] | None = None,
        fill_version: bool = True,
        tracker: Tracker | None = None,
        objective: str | None = None,
        deliver_on_close: float = 5.0,
        history: str | int | None = None,
        telemetry: bool | None = None,
    ) -> None:
        check_values(
            type(self).__name__,
            _OPTIONS,
            {
                "driver": driver,
                "retry": retry,
                "state_codec": state_codec,
                "fill_version": fill_version,
                "tracker": tracker,
                "objective": objective,
                "deliver_on_close": deliver_on_close,
                "telemetry": telemetry,
            },
        )
        self._lost_after = (
            lost_after if callable(lost_after) else _seconds("lost_after", lost_after)
        )
        policy = RetryPolicy() if retry is None else retry
        kept = History(None if history is None else HistoryLimit.of(history))
        self._mirror: Mirror | None = None
        if tracker is None:
            self._gateway = Gateway(driver, policy, history=kept)
        else:
            self._gateway, self._mirror = _mirrored(
                driver,
                policy,
                kept,
                tracker,
                objective=objective,
                deliver_on_close=float(deliver_on_close),
            )
        lease = _seconds("lock_lease", lock_lease)
        self._max_inflated = _count("max_inflated_state", max_inflated_state)
        codec = codec_named(state_codec, self._max_inflated)
        self._lock_records = LockRecords(self._gateway, codec, lease)
        self._locks = AlgorithmLocks(self._gateway, self._lock_records, lease)
        self._experiments = Experiments(
            self._gateway, self._lock_records, fill_version=fill_version
        )
        self._lost = LostTrials(self._lost_after)
        self._feed = ChangeFeed(self._gateway)
        self._trials = Trials(self._gateway, self._experiments, self._lost, self._feed)
        self._summaries = Summaries(self._gateway, self._trials, self._lost)
        self._reservations = Reservations(self._gateway, self._lost, NanPolicy(nan))
        self._limited = LimitedReservations(self._gateway, self._lost, self._reservations)
        self._benchmarks = Benchmarks(self._gateway)
        self._telemetry = telemetry
        observe(self, telemetry)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._mirror is not None:
            self._mirror.attach()
        observe(self, self._telemetry)

    def __repr__(self) -> str:
        driver, mirror = self._gateway.driver, self._mirror
        shown = f", shown in {mirror.tracker.name} at {mirror.tracker.location!r}" if mirror else ""
        return f"<{type(self).__name__} {driver.name} at {driver.location!r}{shown}>"

    @property
    def location(self) -> str:
        """Where the data is, for people to read; without secrets."""
        return self._gateway.driver.location

    @property
    def collections(self) -> CollectionAccess:
        """Deprecated: whole collections, which were never public. Goes away in aiostorage 0.3."""
        from aiostorage._core.collection_access import CollectionAccess  # noqa: PLC0415  a cycle

        warnings.warn(
            "Storage.collections goes away in aiostorage 0.3", DeprecationWarning, stacklevel=2
        )
        return CollectionAccess(self)

    # --------------------------------------------------------------------------- lifetime

    async def open(self) -> None:
        """Connect to the engine now rather than at the first call."""
        observe(self, self._telemetry)
        await self._gateway.open()

    async def aclose(self) -> None:
        if self._mirror is None:
            await self._gateway.aclose()
            return
        try:
            await self._mirror.deliverer.aclose()
        finally:
            await self._gateway.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ------------------------------------------------------------------------- experiments

    async def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> Experiment:
        _check("create_experiment", config, algo_locked, algo_heartbeat)
        return await self._experiments.create(config, algo_locked, algo_state, algo_heartbeat)

    async def get_or_create_experiment(self, config: Mapping[str, Any]) -> Experiment:
        _check("get_or_create_experiment", config)
        return await self._experiments.get_or_create(config)

    async def delete_experiment(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        *,
        cascade: bool = True,
    ) -> int:
        _check("delete_experiment", experiment, uid, cascade)
        return await self._experiments.delete(experiment, uid, cascade)

    async def update_experiment(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        _check("update_experiment", experiment, uid, where)
        return await self._experiments.update(experiment, uid, where, kwargs)

    async def fetch_experiments(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        _check("fetch_experiments", query, selection)
        return await self._experiments.fetch(query, selection)

    async def summary(
        self,
        experiment: ExperimentLike,
        *,
        direction: Direction = "minimize",
        window: float = 600.0,
    ) -> ExperimentSummary | None:
        _check("summary", experiment, direction, window)
        return await self._summaries.summary(experiment, direction, float(window))

    async def best_trial(
        self, experiment: ExperimentLike, direction: Direction = "minimize"
    ) -> Trial | None:
        _check("best_trial", experiment, direction)
        return await self._summaries.best(experiment, direction)

    async def to_dataframe(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        _check("to_dataframe", experiment, where, params)
        return await dataframe(self._trials, experiment, where, params)

    async def to_arrow(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        _check("to_arrow", experiment, where, params)
        return await arrow_table(self._trials, experiment, where, params)

    # ------------------------------------------------------------------------------- trials

    async def register_trial(self, trial: Trial) -> Trial:
        _check("register_trial", trial)
        return (await self._trials.register((trial,)))[0]

    async def register_trials(self, trials: Sequence[Trial]) -> list[Trial]:
        _check("register_trials", trials)
        return await self._trials.register(tuple(trials))

    async def reserve_trial(
        self, experiment: ExperimentLike, *, wait: float = 0.0, recover: bool = True
    ) -> Trial | None:
        _check("reserve_trial", experiment, wait, recover)
        reserved = await self._reservations.reserve(experiment, 1, wait, recover)
        return reserved[0] if reserved else None

    async def reserve_trials(
        self, experiment: ExperimentLike, count: int, *, recover: bool = True
    ) -> list[Trial]:
        _check("reserve_trials", experiment, count, recover)
        return await self._reservations.reserve(experiment, int(count), recover=recover)

    async def fetch_trials(
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
        _check("fetch_trials", experiment, uid, where, params, limit, order, after, since)
        return await self._trials.fetch(
            experiment, uid, where, params, limit=limit, order=order, after=after, since=since
        )

    async def count_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> int:
        _check("count_trials", experiment, uid, where, params)
        return await self._trials.count_matching(experiment, uid, where, params)

    @overload
    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: None = None,
        batch_size: int = 200,
    ) -> AsyncIterator[Trial]: ...

    @overload
    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any],
        batch_size: int = 200,
    ) -> AsyncIterator[Document]: ...

    def iter_trials(
        self,
        experiment: ExperimentLike,
        *,
        where: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        batch_size: int = 200,
    ) -> AsyncIterator[Trial | Document]:
        return self._trials.iterate(experiment, where, params, selection, batch_size)

    async def get_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
    ) -> Trial | None:
        _check("get_trial", trial, uid, experiment_uid)
        return await self._trials.get(trial, uid, experiment_uid)

    async def update_trial(
        self,
        trial: Trial | None = None,
        uid: str | None = None,
        experiment_uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        _check("update_trial", trial, uid, experiment_uid, where)
        return await self._trials.update(trial, uid, experiment_uid, where, kwargs)

    async def update_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> int:
        _check("update_trials", experiment, uid, where)
        return await self._trials.update_all(experiment, uid, where, kwargs)

    async def delete_trials(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        _check("delete_trials", experiment, uid, where)
        return await self._trials.delete(experiment, uid, where)

    async def fetch_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        _check("fetch_lost_trials", experiment)
        return await self._trials.lost(experiment)

    async def recover_lost_trials(self, experiment: ExperimentLike) -> list[Trial]:
        _check("recover_lost_trials", experiment)
        return await self._trials.recover(experiment)

    async def retrieve_result(self, trial: Trial, *args: Any, **kwargs: Any) -> Trial:  # noqa: ARG002
        _check("retrieve_result", trial)
        if self._mirror is None:
            return await self._trials.retrieve(trial)
        stored = await self._trials.get(trial, None, None)
        results = stored.results if stored is not None else []
        if results := results or await self._mirror.results(trial):
            trial.results = results
        return trial

    async def push_trial_results(self, trial: Trial) -> int:
        _check("push_trial_results", trial)
        return await self._reservations.push(trial)

    async def complete_trial(self, trial: Trial, results: Results) -> None:
        _check("complete_trial", trial)
        await self._reservations.complete(trial, results)

    async def set_trial_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None = None,
        was: str | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        _check("set_trial_status", trial, status, heartbeat, was, reason)
        await self._reservations.set_status(trial, status, heartbeat, was, reason)

    async def fetch_pending_trials(self, experiment: ExperimentLike) -> list[Trial]:
        _check("fetch_pending_trials", experiment)
        return await self._trials.pending(experiment)

    async def fetch_noncompleted_trials(self, experiment: ExperimentLike) -> list[Trial]:
        _check("fetch_noncompleted_trials", experiment)
        return await self._trials.with_status(
            experiment, Compare("status", "ne", TrialStatus.COMPLETED.value)
        )

    async def fetch_trials_by_status(self, experiment: ExperimentLike, status: str) -> list[Trial]:
        _check("fetch_trials_by_status", experiment, status)
        return await self._trials.with_status(
            experiment, Compare("status", "eq", validate_status(status))
        )

    async def count_completed_trials(self, experiment: ExperimentLike) -> int:
        _check("count_completed_trials", experiment)
        return await self._trials.count(experiment, TrialStatus.COMPLETED.value)

    async def count_broken_trials(self, experiment: ExperimentLike) -> int:
        _check("count_broken_trials", experiment)
        return await self._trials.count(experiment, TrialStatus.BROKEN.value)

    async def update_heartbeat(self, trial: Trial) -> int:
        _check("update_heartbeat", trial)
        return await self._reservations.beat(trial)

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
    ) -> AbstractAsyncContextManager[Trial | None]:
        check_arguments(
            "reserved_trial",
            experiment,
            heartbeat,
            wait,
            recover,
            on_lost,
            export_environment,
            max_trials,
            max_broken,
        )
        lost_after = self._lost.after
        every = _seconds("heartbeat", lost_after / 5 if heartbeat is None else heartbeat)
        if every >= lost_after:
            raise ConfigurationError(
                f"a heartbeat every {every:g} s is too slow: a trial is lost after {lost_after:g} s"
            )
        limited = None
        if max_trials is not None or max_broken is not None:
            limited = partial(
                self._limited.reserve, experiment, max_trials=max_trials, max_broken=max_broken
            )
        reserved = ReservedTrial(
            self._reservations,
            experiment,
            heartbeat=every,
            lost_after=lost_after,
            end_timeout=self._gateway.policy.total,
            wait=wait,
            recover=recover,
            on_lost=on_lost,
            telemetry=self._gateway.telemetry,
            limited=limited,
        )
        if not export_environment:
            return reserved
        from aiostorage._core.exported import ExportedTrial  # noqa: PLC0415  few ask for it

        return ExportedTrial(reserved, self.tracker_environment)

    async def limit_reached(
        self,
        experiment: ExperimentLike,
        *,
        max_trials: int | Literal[True] | None = True,
        max_broken: int | Literal[True] | None = True,
    ) -> Literal["max_trials", "max_broken"] | None:
        _check("limit_reached", experiment, max_trials, max_broken)
        return await self._limited.reached(experiment, max_trials, max_broken)

    async def resume_reservation(self, reservation: Reservation | str) -> Trial:
        return await resume(self._gateway, self._reservations, reservation)

    # ------------------------------------------------------------------------------ changes

    def watch_trials(
        self, experiment: ExperimentLike, *, since: str | None = None, heartbeats: bool = False
    ) -> AsyncIterator[TrialChange]:
        return self._feed.watch(experiment, since, heartbeats)

    async def changes_since(
        self, experiment: ExperimentLike, cursor: str | None = None, *, limit: int = 1000
    ) -> TrialChanges:
        _check("changes_since", experiment, cursor, limit)
        return await self._feed.since(experiment, cursor, int(limit))

    async def wait_for(
        self,
        trial: Trial,
        status: str | Collection[str] = FINAL_STATUSES,
        timeout: float | None = None,
    ) -> Trial:
        _check("wait_for", trial, status, timeout)
        return await self._feed.wait_for(trial, status, timeout)

    async def trial_history(self, trial: Trial) -> list[TrialChange]:
        _check("trial_history", trial)
        return await self._feed.history(trial)

    # ------------------------------------------------------------------------------ tracker

    async def flush_tracker(self, timeout: float | None = None) -> None:
        _check("flush_tracker", timeout)
        if self._mirror is not None:
            await self._mirror.flush(timeout)

    async def tracker_environment(
        self, trial: Trial, timeout: float | None = 60.0
    ) -> dict[str, str]:
        _check("tracker_environment", trial, timeout)
        return {} if self._mirror is None else await self._mirror.environment(trial, timeout)

    # --------------------------------------------------------------------------- benchmarks

    async def create_benchmark(self, config: dict[str, Any]) -> int:
        _check("create_benchmark", config)
        return await self._benchmarks.create(config)

    async def fetch_benchmark(
        self, query: Mapping[str, Any], selection: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        _check("fetch_benchmark", query, selection)
        return await self._benchmarks.fetch(query, selection)

    async def delete_benchmark(self, query: Mapping[str, Any]) -> int:
        _check("delete_benchmark", query)
        return await self._benchmarks.delete(query)

    # ---------------------------------------------------------------------- algorithm lock

    async def initialize_algorithm_lock(
        self, experiment_id: Uid, algorithm_config: Mapping[str, Any]
    ) -> int:
        _check("initialize_algorithm_lock", experiment_id, algorithm_config)
        return await self._lock_records.write(experiment_id, algorithm_config)

    async def write_algorithm_lock(
        self,
        experiment_id: Uid,
        algorithm_config: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        _check("write_algorithm_lock", experiment_id, algorithm_config, locked, heartbeat)
        return await self._lock_records.write(
            experiment_id, algorithm_config, locked, state, heartbeat
        )

    def acquire_algorithm_lock(
        self, experiment: ExperimentLike, timeout: float = 600, retry_interval: float = 1
    ) -> AbstractAsyncContextManager[LockedAlgorithmState]:
        _check("acquire_algorithm_lock", experiment, timeout, retry_interval)
        return self._locks.hold(experiment, timeout, retry_interval)

    async def release_algorithm_lock(
        self,
        experiment: ExperimentLike | None = None,
        uid: Uid | None = None,
        new_state: Any = None,
    ) -> int:
        _check("release_algorithm_lock", experiment, uid)
        return await self._lock_records.override(experiment, uid, new_state)

    async def get_algorithm_lock_info(
        self, experiment: ExperimentLike | None = None, uid: Uid | None = None
    ) -> LockedAlgorithmState | None:
        _check("get_algorithm_lock_info", experiment, uid)
        return await self._lock_records.info(experiment, uid)

    async def delete_algorithm_lock(
        self, experiment: ExperimentLike | None = None, uid: Uid | None = None
    ) -> int:
        _check("delete_algorithm_lock", experiment, uid)
        return await self._lock_records.delete(experiment, uid)


_OPTIONS: Final[Mapping[str, Kind]] = {
    "driver": option(having("a Driver", "execute", "transact", "page", "open")),
    "retry": option(optional(Kind("a RetryPolicy", lambda v: isinstance(v, RetryPolicy)))),
    "state_codec": option(TEXT),
    "fill_version": option(FLAG),
    "tracker": option(optional(having("a Tracker", "send_trial", "send_experiment", "open"))),
    "objective": option(optional(replace(TEXT, wants="the name of a metric (a str)"))),
    "deliver_on_close": option(replace(WAIT, accepts=lambda v: WAIT.accepts(v) and v < math.inf)),
    "telemetry": option(optional(FLAG)),
}
"""Options of a storage; the others are looked at where they are used."""


def _check(method: str, *values: object) -> None:
    """Check the arguments of a method, as `check_arguments` does.

    It stands here since every call passes through it.
    """
    if (method, *map(type, values)) not in KNOWN:
        check_arguments(method, *values)


def _mirrored(
    driver: Driver,
    policy: RetryPolicy,
    history: History,
    tracker: Tracker,
    *,
    objective: str | None,
    deliver_on_close: float,
) -> tuple[Gateway, Mirror]:
    """Return a gateway that notes changes, and what sends them; most storages import neither."""
    from aiostorage._core.delivery import DeliverySettings  # noqa: PLC0415
    from aiostorage._core.mirror import Mirror  # noqa: PLC0415
    from aiostorage._core.noting import NotingDriver  # noqa: PLC0415

    gateway = Gateway(NotingDriver(driver), policy, history=history)
    settings = DeliverySettings(on_close=deliver_on_close)
    return gateway, Mirror(gateway, tracker, objective, settings)


def _seconds(name: str, value: Any) -> float:
    if not (INTERVAL.accepts(value) and value < math.inf):
        raise ConfigurationError(f"{name} is {INTERVAL.wants}, not {shown(value)}")
    return float(value)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name} is a number of bytes, not {value!r}")
    return value
