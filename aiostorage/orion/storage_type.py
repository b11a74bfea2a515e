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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orion.storage.base as orion_base
from orion.core.worker.trial import Trial as OrionTrial

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import DuplicateKeyError
from aiostorage.orion.configuration import shared_storage, storage_options
from aiostorage.orion.conversion import (
    naive_utc,
    orion_trial_fields,
    trial_from_orion,
    without_tuples,
)
from aiostorage.orion.database import AioStorageDB
from aiostorage.orion.error_translation import orion_errors
from aiostorage.trial import Trial

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
    same name of `SyncStorage`, with tuples as lists and with Oríon's trials as ours, and returns
    the result in Oríon's types.

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
        plain = without_tuples(config)
        self._call(self._storage.create_experiment, plain, algo_locked, algo_state, algo_heartbeat)
        config["_id"] = plain["_id"]

    def delete_experiment(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete an experiment with its trials and its lock; return the number of experiments."""
        return self._call(self._storage.delete_experiment, experiment, uid)

    def update_experiment(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> bool:
        """Set fields of an experiment; return whether there is such an experiment."""
        where, changes = without_tuples(where), without_tuples(kwargs)
        return self._call(self._storage.update_experiment, experiment, uid, where, **changes)

    def fetch_experiments(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Return the configs of the experiments that match."""
        query = without_tuples(query)
        return self._fetch(self._storage.fetch_experiments, query, selection)

    # --------------------------------------------------------------------------- benchmarks

    def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark, and put its ``_id`` into `config`."""
        plain = without_tuples(config)
        created = self._call(self._storage.create_benchmark, plain)
        config["_id"] = plain["_id"]
        return created

    def fetch_benchmark(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Return the benchmarks that match."""
        return self._fetch(self._storage.fetch_benchmark, without_tuples(query), selection)

    def delete_benchmark(self, query: Any) -> int:
        """Delete the benchmarks that match; return their number."""
        return self._call(self._storage.delete_benchmark, without_tuples(query))

    # ------------------------------------------------------------------------------- trials

    def register_trial(self, trial: Any) -> Any:
        """Insert a new trial, and put its database id and its submit time into `trial`."""
        stored = self._call(self._storage.register_trial, trial_from_orion(trial))
        trial.id_override, trial.submit_time = stored.id_override, naive_utc(stored.submit_time)
        return trial

    def reserve_trial(self, experiment: Any) -> Any:
        """Reserve the oldest pending trial for this caller alone; return None if there is none."""
        return _to_orion(self._call(self._storage.reserve_trial, experiment))

    def fetch_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> Any:
        """Return the trials that match: none, as in Oríon's own storage, without an experiment."""
        where = without_tuples(where)
        return _to_orion(self._call(self._storage.fetch_trials, experiment, uid, where) or [])

    def get_trial(self, trial: Any = None, uid: Any = None, experiment_uid: Any = None) -> Any:
        """Return one trial as it is stored, None if there is none."""
        return _to_orion(self._call(self._storage.get_trial, trial, uid, experiment_uid))

    def update_trials(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> int:
        """Set fields of the trials that match; return their number."""
        where, changes = without_tuples(where), without_tuples(kwargs)
        return self._call(self._storage.update_trials, experiment, uid, where, **changes)

    def update_trial(
        self,
        trial: Any = None,
        uid: Any = None,
        experiment_uid: Any = None,
        where: Any = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of one trial; return the number of trials that match."""
        where, changes = without_tuples(where), without_tuples(kwargs)
        return self._call(self._storage.update_trial, trial, uid, experiment_uid, where, **changes)

    def delete_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> int:
        """Delete the trials that match; return their number."""
        return self._call(self._storage.delete_trials, experiment, uid, without_tuples(where))

    def fetch_lost_trials(self, experiment: Any) -> Any:
        """Return the reserved trials whose last heartbeat is five of Oríon's intervals old."""
        return _to_orion(self._call(self._storage.fetch_lost_trials, experiment))

    def fetch_pending_trials(self, experiment: Any) -> Any:
        """Return the new, suspended and interrupted trials."""
        return _to_orion(self._call(self._storage.fetch_pending_trials, experiment))

    def fetch_noncompleted_trials(self, experiment: Any) -> Any:
        """Return the trials that are not completed."""
        return _to_orion(self._call(self._storage.fetch_noncompleted_trials, experiment))

    def fetch_trials_by_status(self, experiment: Any, status: str) -> Any:
        """Return the trials with this status."""
        return _to_orion(self._call(self._storage.fetch_trials_by_status, experiment, status))

    def count_completed_trials(self, experiment: Any) -> int:
        """Return the number of completed trials."""
        return self._call(self._storage.count_completed_trials, experiment)

    def count_broken_trials(self, experiment: Any) -> int:
        """Return the number of broken trials."""
        return self._call(self._storage.count_broken_trials, experiment)

    def retrieve_result(self, trial: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the trial unchanged: Oríon has put the results into it."""
        return trial

    def push_trial_results(self, trial: Any) -> int:
        """Store the results, the end time and the status of a reserved trial."""
        return self._call(self._storage.push_trial_results, trial_from_orion(trial))

    def set_trial_status(
        self, trial: Any, status: str, heartbeat: datetime | None = None, was: str | None = None
    ) -> None:
        """Set the status of a trial that has the status `was`."""
        ours = trial_from_orion(trial)
        if not isinstance(heartbeat, datetime):  # `ExperimentClient.reserve` passes its interval
            heartbeat = None
        self._call(self._storage.set_trial_status, ours, status, heartbeat, was)
        trial.status, trial.worker = ours.status, ours.worker

    def update_heartbeat(self, trial: Any) -> int:
        """Renew the heartbeat of a reserved trial; return the number of trials that match."""
        return self._call(self._storage.update_heartbeat, trial_from_orion(trial))

    # ---------------------------------------------------------------------- algorithm lock

    def initialize_algorithm_lock(self, experiment_id: Any, algorithm_config: Any) -> int:
        """Insert the lock record of an experiment unless it has one; return the number inserted."""
        config = without_tuples(algorithm_config)
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
        """Insert the lock record of an experiment with the given content."""
        config = without_tuples(algorithm_config)
        return self._call(
            self._storage.write_algorithm_lock, experiment_id, config, locked, state, heartbeat
        )

    def release_algorithm_lock(
        self, experiment: Any = None, uid: Any = None, new_state: Any = None
    ) -> int:
        """Release the lock, whichever worker holds it; return 1 if it was locked, else 0."""
        return self._call(self._storage.release_algorithm_lock, experiment, uid, new_state)

    def get_algorithm_lock_info(
        self, experiment: Any = None, uid: Any = None
    ) -> LockedAlgorithmState | None:
        """Return the lock record without acquiring the lock."""
        return self._call(self._storage.get_algorithm_lock_info, experiment, uid)

    def delete_algorithm_lock(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete the lock record; return the number of records deleted."""
        return self._call(self._storage.delete_algorithm_lock, experiment, uid)

    @contextmanager
    def acquire_algorithm_lock(
        self, experiment: Any, timeout: float = 600, retry_interval: float = 1
    ) -> Iterator[LockedAlgorithmState]:
        """Hold the experiment's algorithm alone, and save its state afterwards."""
        manager = self._storage.acquire_algorithm_lock(experiment, timeout, retry_interval)
        with orion_errors():
            state = manager.__enter__()
        try:
            yield state
        except BaseException as error:
            # An error of the caller's block is the caller's own, and is raised as it is.
            with orion_errors():
                suppressed = manager.__exit__(type(error), error, error.__traceback__)
            if not suppressed:
                raise
        else:
            with orion_errors():
                manager.__exit__(None, None, None)

    # ------------------------------------------------------------------------------- calls

    @staticmethod
    def _call(method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the storage; raise Oríon's exceptions."""
        with orion_errors():
            return method(*args, **kwargs)

    @classmethod
    def _fetch(
        cls, method: Callable[..., list[dict[str, Any]]], query: Any, selection: Any
    ) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = naive_utc(cls._call(method, query, selection))
        return documents


def _to_orion(found: Trial | Sequence[Trial] | None) -> Any:
    """Return a trial or trials as Oríon's; None stays None."""
    if found is None:
        return None
    if isinstance(found, Trial):
        return OrionTrial(**orion_trial_fields(found))
    return [OrionTrial(**orion_trial_fields(trial)) for trial in found]
