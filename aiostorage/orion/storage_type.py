"""A storage type for Oríon, on any engine of aiostorage.

Oríon finds it by its entry point and by its class name. Oríon's configuration needs no more than::

    storage:
      type: aiostorage
      database:
        url: sqlite:///tune.db

Options of `aiostorage.open_storage` and of the engine may stand beside ``url``. If Oríon is
configured by its environment instead (``ORION_STORAGE_TYPE=aiostorage``), ``ORION_DB_ADDRESS`` is
the URL.

Algorithm state is stored with ``state_codec="pickle"`` unless the configuration says otherwise.
Oríon itself writes pickles, so both can work on one database, and Oríon's algorithms put objects
into their state that only pickle can encode. Unpickling runs code that the store contains: give
write access only to those you trust, as with any database of Oríon's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orion.storage.base as orion_base
from orion.core.worker.trial import Trial as OrionTrial
from orion.core.worker.trial import validate_status

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.state import state_codec
from aiostorage._core.trial_queries import Unchecked
from aiostorage.errors import DuplicateKeyError
from aiostorage.orion.algorithm_lock import hold_algorithm_lock
from aiostorage.orion.configuration import shared_storage, storage_options
from aiostorage.orion.conversion import (
    as_time,
    naive_utc,
    orion_document,
    plain,
    plain_document,
    trial_from_orion,
)
from aiostorage.orion.database import AioStorageDB
from aiostorage.orion.error_translation import orion_errors
from aiostorage.orion.experiment_ids import never_stored
from aiostorage.orion.lock_state import OrionLockState
from aiostorage.orion.stored_trial import trials_for_orion
from aiostorage.sync.collection_calls import call_collections
from aiostorage.trial import Trial, TrialStatus

__all__ = ["AioStorage"]

P = ParamSpec("P")
T = TypeVar("T")


if TYPE_CHECKING:

    class OrionStorageProtocol:
        """Oríon's base class, which has no types of its own."""

else:
    OrionStorageProtocol = orion_base.BaseStorageProtocol


class AioStorage(OrionStorageProtocol):
    """Oríon's storage protocol over a `SyncStorage`: Oríon's trials, errors and naive times.

    Oríon makes several storages. Those of one configuration share one connection in each process,
    which the first call opens.

    The signatures of the methods are Oríon's. Each method passes its call on to the method of the
    same name of `SyncStorage`, with tuples as lists, paths as text, ISO strings as times and with
    Oríon's trials as ours, and returns the result in Oríon's types. An experiment that was never
    stored, whose id is None, has nothing: nothing is found, changed or deleted.

    Parameters
    ----------
    database
        A mapping with ``url`` and options. The defaults that Oríon adds for its own databases are
        ignored.
    url
        The URL, if it is not in `database`.
    setup
        Accepted because Oríon passes it.
    options
        Further options, as in `database`.

    Raises
    ------
    ConfigurationError
        There is no URL, or the options are not valid.
    """

    def __init__(
        self,
        database: Mapping[str, Any] | None = None,
        url: str | None = None,
        setup: bool = True,  # noqa: ARG002
        **options: Any,
    ) -> None:
        self._options = storage_options(database, url, **options)
        self._storage = shared_storage(self._options)

    def __getstate__(self) -> dict[str, Any]:
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._storage = shared_storage(options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage.location!r})"

    @property
    def _db(self) -> AioStorageDB:
        """The database that Oríon's commands use beside the protocol."""
        return AioStorageDB(**self._options)

    # ------------------------------------------------------------------------- experiments

    def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> None:
        """Insert a new experiment, and put its ``_id`` into `config`."""
        stored, beat = plain_document(EXPERIMENTS, config), as_time(algo_heartbeat)
        self._call(self._storage.create_experiment, stored, algo_locked, algo_state, beat)
        config["_id"] = stored["_id"]

    def delete_experiment(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete an experiment with its trials and its lock; return the number of experiments."""
        return self._about(experiment, uid, 0, self._storage.delete_experiment, experiment, uid)

    def update_experiment(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> bool:
        """Set fields of an experiment; return whether there is such an experiment."""
        where, changes = plain(where), plain_document(EXPERIMENTS, kwargs)
        update = self._storage.update_experiment
        return self._about(experiment, uid, False, update, experiment, uid, where, **changes)

    def fetch_experiments(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Return the configs of the experiments that match."""
        return self._fetch(self._storage.fetch_experiments, plain(query), selection)

    # --------------------------------------------------------------------------- benchmarks

    def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark, and put its ``_id`` into `config`."""
        stored = plain_document(BENCHMARKS, config)
        created = self._call(self._storage.create_benchmark, stored)
        config["_id"] = stored["_id"]
        return created

    def fetch_benchmark(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Return the benchmarks that match."""
        return self._fetch(self._storage.fetch_benchmark, plain(query), selection)

    def delete_benchmark(self, query: Any) -> int:
        """Delete the benchmarks that match; return their number."""
        return self._call(self._storage.delete_benchmark, plain(query))

    # ------------------------------------------------------------------------------- trials

    def register_trial(self, trial: Any) -> Any:
        """Insert a new trial, and put its database id and its submit time into `trial`."""
        stored = self._call(self._storage.register_trial, trial_from_orion(trial))
        trial.id_override, trial.submit_time = stored.id_override, naive_utc(stored.submit_time)
        return trial

    def reserve_trial(self, experiment: Any) -> Any:
        """Reserve the oldest pending trial for this caller alone; return None if there is none."""

        def reserve() -> Trial | None:
            return call_collections(self._storage, CollectionAccess.reserve, experiment)

        return trials_for_orion(self._about(experiment, None, None, reserve))

    def fetch_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> Any:
        """Return the trials that match: none, as in Oríon's own storage, without an experiment."""
        where, fetch = _as_asked(where), self._storage.fetch_trials
        found = self._about(experiment, uid, None, fetch, experiment, uid, where)
        return trials_for_orion(found or [])

    def get_trial(self, trial: Any = None, uid: Any = None, experiment_uid: Any = None) -> Any:
        """Return one trial as it is stored, None if there is none."""
        uid, experiment_uid = orion_base.get_trial_uid_and_exp(trial, uid, experiment_uid)
        if experiment_uid is None:  # that of a trial that was never stored
            return None
        return trials_for_orion(self._call(self._storage.get_trial, None, uid, experiment_uid))

    def update_trials(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> int:
        """Set fields of the trials that match; return their number.

        An unknown status is a ValueError, in Oríon's words.
        """
        validate_status(kwargs.get("status"))
        where, changes = _as_asked(where), plain_document(TRIALS, kwargs)
        update = self._storage.update_trials
        return self._about(experiment, uid, 0, update, experiment, uid, where, **changes)

    def update_trial(
        self,
        trial: Any = None,
        uid: Any = None,
        experiment_uid: Any = None,
        where: Any = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of one trial; return the number of trials that match.

        An unknown status is a ValueError, in Oríon's words.
        """
        uid, experiment_uid = orion_base.get_trial_uid_and_exp(trial, uid, experiment_uid)
        if experiment_uid is None:
            return 0
        validate_status(kwargs.get("status"))
        where, changes = _as_asked(where), plain_document(TRIALS, kwargs)
        return self._call(self._storage.update_trial, None, uid, experiment_uid, where, **changes)

    def delete_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> int:
        """Delete the trials that match; return their number."""
        where, delete = _as_asked(where), self._storage.delete_trials
        return self._about(experiment, uid, 0, delete, experiment, uid, where)

    def fetch_lost_trials(self, experiment: Any) -> Any:
        """Return the reserved trials whose last heartbeat is five of Oríon's intervals old."""
        fetch = self._storage.fetch_lost_trials
        return trials_for_orion(self._about(experiment, None, [], fetch, experiment))

    def fetch_pending_trials(self, experiment: Any) -> Any:
        """Return the new, suspended and interrupted trials."""
        fetch = self._storage.fetch_pending_trials
        return trials_for_orion(self._about(experiment, None, [], fetch, experiment))

    def fetch_noncompleted_trials(self, experiment: Any) -> Any:
        """Return the trials that are not completed."""
        fetch = self._storage.fetch_noncompleted_trials
        return trials_for_orion(self._about(experiment, None, [], fetch, experiment))

    def fetch_trials_by_status(self, experiment: Any, status: str) -> Any:
        """Return the trials with this status: none if there is no such status."""
        if status not in OrionTrial.allowed_stati:
            return []
        fetch = self._storage.fetch_trials_by_status
        return trials_for_orion(self._about(experiment, None, [], fetch, experiment, status))

    def count_completed_trials(self, experiment: Any) -> int:
        """Return the number of completed trials."""
        return self._about(experiment, None, 0, self._storage.count_completed_trials, experiment)

    def count_broken_trials(self, experiment: Any) -> int:
        """Return the number of broken trials."""
        return self._about(experiment, None, 0, self._storage.count_broken_trials, experiment)

    def retrieve_result(self, trial: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the trial with its results: those that Oríon has put into it, or the medium's."""
        if not trial.results:
            ours = trial_from_orion(trial)
            self._call(self._storage.retrieve_result, ours)
            if ours.results:  # Oríon refuses an empty list
                trial.results = [OrionTrial.Result(**r.to_dict()) for r in ours.results]
        return trial

    def push_trial_results(self, trial: Any) -> int:
        """Store the results, the end time and the status of a reserved trial."""
        ours = trial_from_orion(trial)
        pushed = self._call(self._storage.push_trial_results, ours)
        trial.status = ours.status
        return pushed

    def set_trial_status(
        self, trial: Any, status: str, heartbeat: datetime | None = None, was: str | None = None
    ) -> None:
        """Set the status of a trial that has the status `was`.

        Raises
        ------
        ValueError
            There is no such status; in Oríon's words.
        """
        validate_status(status)
        validate_status(was)
        ours, heartbeat = trial_from_orion(trial), as_time(heartbeat)
        if not isinstance(heartbeat, datetime):  # `ExperimentClient.reserve` passes its interval
            heartbeat = None
        self._call(self._storage.set_trial_status, ours, status, heartbeat, was)
        trial.status, trial.worker = ours.status, ours.worker
        if ours.status == TrialStatus.RESERVED:  # a new reservation begins clean
            trial.start_time, trial.heartbeat = (
                naive_utc(ours.start_time),
                naive_utc(ours.heartbeat),
            )
            trial.end_time = None
            trial._results = []  # noqa: SLF001  the property wants an objective

    def update_heartbeat(self, trial: Any) -> int:
        """Renew the heartbeat of a reserved trial; return the number of trials that match."""
        return self._call(self._storage.update_heartbeat, trial_from_orion(trial))

    # ---------------------------------------------------------------------- algorithm lock

    def initialize_algorithm_lock(self, experiment_id: Any, algorithm_config: Any) -> int:
        """Insert the lock record of an experiment unless it has one; return the number inserted."""
        config = plain(algorithm_config)
        try:
            return self._storage.initialize_algorithm_lock(experiment_id, config)
        except DuplicateKeyError:  # `orion db upgrade` calls this every time
            return 0

    def write_algorithm_lock(
        self,
        experiment_id: Any,
        algorithm_config: Any,
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Write the lock record of an experiment, over the one that it may have; return 1.

        The state of an existing record stays unless a new one is given.
        """
        content = (experiment_id, plain(algorithm_config), locked, state, as_time(heartbeat))
        with orion_errors():
            return call_collections(self._storage, CollectionAccess.write_lock, *content)

    def release_algorithm_lock(
        self, experiment: Any = None, uid: Any = None, new_state: Any = None
    ) -> int:
        """Release the lock, whichever worker holds it; return 1 if it was locked, else 0."""
        release = self._storage.release_algorithm_lock
        return self._about(experiment, uid, 0, release, experiment, uid, new_state)

    def get_algorithm_lock_info(
        self, experiment: Any = None, uid: Any = None
    ) -> OrionLockState | None:
        """Return the lock record without acquiring the lock."""
        info = self._storage.get_algorithm_lock_info
        found = self._about(experiment, uid, None, info, experiment, uid)
        return None if found is None else OrionLockState(found)

    def delete_algorithm_lock(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete the lock record; return the number of records deleted."""
        delete = self._storage.delete_algorithm_lock
        return self._about(experiment, uid, 0, delete, experiment, uid)

    @contextmanager
    def acquire_algorithm_lock(
        self,
        experiment: Any = None,
        timeout: float = 600,
        retry_interval: float = 1,
        *,
        uid: Any = None,
    ) -> Iterator[OrionLockState]:
        """Hold the experiment's algorithm alone, and save its state afterwards.

        A block whose lock was released from outside ends as it would have ended, if it has no new
        state to save.

        Raises
        ------
        LockAcquisitionTimeout
            Others held the lock all the time, or there was no lock; or the lock was lost and with
            it a new state.
        """
        encode = state_codec(self._options["state_codec"]).encode
        claim = (self._storage, experiment, uid, timeout, retry_interval)
        with hold_algorithm_lock(*claim, encode=encode) as state:
            yield state

    # ------------------------------------------------------------------------------- calls

    @staticmethod
    def _call(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the storage; raise Oríon's exceptions."""
        with orion_errors():
            return method(*args, **kwargs)

    @staticmethod
    def _about(
        experiment: Any,
        uid: Any,
        nothing: T,
        method: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method about an experiment; return `nothing` if it was never stored."""
        with orion_errors():
            return nothing if never_stored(experiment, uid) else method(*args, **kwargs)

    @classmethod
    def _fetch(
        cls, method: Callable[..., list[dict[str, Any]]], query: Any, selection: Any
    ) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = orion_document(cls._call(method, query, selection))
        return documents


def _as_asked(where: Any) -> Any:
    """Return a filter of trials that finds nothing where ours would say why, as in Oríon."""
    found = plain_document(TRIALS, where)
    return Unchecked(found) if isinstance(found, Mapping) else found
