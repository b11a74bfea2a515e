"""A storage type for Oríon, on any engine of aiostorage.

Oríon finds it by its entry point and by its class name. This in Oríon's configuration is all::

    storage:
      type: aiostorage
      database:
        url: sqlite:///tune.db

Options of `aiostorage.open_storage` and of the engine may stand beside ``url``. Where Oríon brings
its environment instead (``ORION_STORAGE_TYPE=aiostorage``), ``ORION_DB_ADDRESS`` is the URL.

Algorithm state is stored with ``state_codec="pickle"``, unless the configuration says otherwise:
it is what Oríon itself writes, so that both can work on one database, and Oríon's algorithms put
objects into their state that only pickle can hold. Unpickling runs code that the store contains;
give write access to those you trust, as with any database of Oríon's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import orion.core
import orion.core.io.database as orion_database
import orion.storage.base as orion_base
from orion.core.worker.trial import Trial as OrionTrial

from aiostorage import errors
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.projection import check_selection, select
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.factory import setup_storage
from aiostorage.orion.conversion import listed, naive
from aiostorage.sync.collection_calls import call_collections
from aiostorage.sync.facade import SyncStorage
from aiostorage.trial import Trial

__all__ = ["AioStorage", "AioStorageDB"]

log = logging.getLogger("aiostorage")

T = TypeVar("T")

BEATS: Final = 5
"""Oríon holds a trial for lost after so many of its heartbeats."""

_TRANSLATED: Final[dict[type[Exception], type[Exception]]] = {
    errors.DuplicateKeyError: orion_database.DuplicateKeyError,
    errors.FailedUpdate: orion_base.FailedUpdate,
    errors.LockAcquisitionTimeout: orion_base.LockAcquisitionTimeout,
    # Oríon's workers try again, which is all there is to do
    errors.LockLost: orion_base.LockAcquisitionTimeout,
    errors.MissingArguments: orion_base.MissingArguments,
}

_shared: dict[Any, SyncStorage] = {}


class AioStorage(orion_base.BaseStorageProtocol):  # type: ignore[misc]  # Oríon is not typed
    """Oríon's storage protocol over a `SyncStorage`: Oríon's trials, errors and naive times.

    Storages of one configuration in one process share one connection, for Oríon makes several.
    Nothing is opened before the first call.

    Parameters
    ----------
    database
        A mapping with ``url`` and options; what Oríon adds of its own defaults is ignored.
    url
        The URL, if it does not stand in `database`.
    setup
        Taken for Oríon's sake.
    options
        Further options, as in `database`.
    """

    def __init__(
        self,
        database: Mapping[str, Any] | None = None,
        url: str | None = None,
        setup: bool = True,  # noqa: ARG002
        **options: Any,
    ) -> None:
        given = dict(database or {})
        host = given.pop("host", None)
        for key in ("type", "port"):  # Oríon's defaults for its own databases
            given.pop(key, None)
        name = given.pop("name", None)
        url = url or given.pop("url", None) or (host if "://" in str(host or "") else None)
        if url is None:
            raise errors.ConfigurationError(
                "which storage? write `storage: {type: aiostorage, database: {url: "
                "sqlite:///tune.db}}` into Oríon's configuration, or put the URL into "
                "ORION_DB_ADDRESS"
            )
        if name is not None and _names_no_database(url):
            given["database"] = name
        self._options = {
            "lost_after": float(BEATS * orion.core.config.worker.heartbeat),
            "state_codec": "pickle",
            **given,
            **options,
            "url": url,
        }
        self._storage = _shared_storage(self._options)

    def __getstate__(self) -> dict[str, Any]:
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._storage = _shared_storage(options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage.location!r})"

    @property
    def _db(self) -> AioStorageDB:
        """What Oríon's commands reach for beside the protocol."""
        return AioStorageDB(**self._options)

    # ------------------------------------------------------------------------- experiments

    def create_experiment(
        self,
        config: dict[str, Any],
        algo_locked: int | None = None,
        algo_state: Any = None,
        algo_heartbeat: datetime | None = None,
    ) -> None:
        """Insert a new experiment; its ``_id`` is put into `config`."""
        plain = listed(config)
        with _orions_errors():
            self._storage.create_experiment(plain, algo_locked, algo_state, algo_heartbeat)
        config["_id"] = plain["_id"]

    def delete_experiment(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete an experiment with its trials and its lock; answer how many."""
        return self._ask(self._storage.delete_experiment, experiment, uid)

    def update_experiment(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> bool:
        """Set fields of an experiment; answer whether there was one."""
        return self._ask(
            self._storage.update_experiment, experiment, uid, listed(where), **listed(kwargs)
        )

    def fetch_experiments(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Answer the experiments' configs that match."""
        found: list[dict[str, Any]] = naive(
            self._ask(self._storage.fetch_experiments, listed(query), selection)
        )
        return found

    # --------------------------------------------------------------------------- benchmarks

    def create_benchmark(self, config: dict[str, Any]) -> int:
        """Insert a benchmark; its ``_id`` is put into `config`."""
        plain = listed(config)
        with _orions_errors():
            created = self._storage.create_benchmark(plain)
        config["_id"] = plain["_id"]
        return created

    def fetch_benchmark(self, query: Any, selection: Any = None) -> list[dict[str, Any]]:
        """Answer the benchmarks that match."""
        found: list[dict[str, Any]] = naive(
            self._ask(self._storage.fetch_benchmark, listed(query), selection)
        )
        return found

    def delete_benchmark(self, query: Any) -> int:
        """Delete the benchmarks that match; answer how many."""
        return self._ask(self._storage.delete_benchmark, listed(query))

    # ------------------------------------------------------------------------------- trials

    def register_trial(self, trial: Any) -> Any:
        """Store a new trial; it gets its database id, and its times as they are stored."""
        stored = self._ask(self._storage.register_trial, _ours(trial))
        trial.id_override, trial.submit_time = stored.id_override, naive(stored.submit_time)
        return trial

    def reserve_trial(self, experiment: Any) -> Any:
        """Give the oldest pending trial to this caller alone; None when none is pending."""
        return _orions(self._ask(self._storage.reserve_trial, experiment))

    def fetch_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> Any:
        """Answer the trials that match; none, as Oríon's own storage, without an experiment."""
        found = self._ask(self._storage.fetch_trials, experiment, uid, listed(where))
        return _orions(found or [])

    def get_trial(self, trial: Any = None, uid: Any = None, experiment_uid: Any = None) -> Any:
        """Answer one trial as it is stored, None if there is none."""
        return _orions(self._ask(self._storage.get_trial, trial, uid, experiment_uid))

    def update_trials(
        self, experiment: Any = None, uid: Any = None, where: Any = None, **kwargs: Any
    ) -> int:
        """Set fields of the trials that match; answer how many did."""
        return self._ask(
            self._storage.update_trials, experiment, uid, listed(where), **listed(kwargs)
        )

    def update_trial(
        self,
        trial: Any = None,
        uid: Any = None,
        experiment_uid: Any = None,
        where: Any = None,
        **kwargs: Any,
    ) -> int:
        """Set fields of one trial; answer how many matched."""
        changes = listed(kwargs)
        return self._ask(
            self._storage.update_trial, trial, uid, experiment_uid, listed(where), **changes
        )

    def delete_trials(self, experiment: Any = None, uid: Any = None, where: Any = None) -> int:
        """Delete the trials that match; answer how many did."""
        return self._ask(self._storage.delete_trials, experiment, uid, listed(where))

    def fetch_lost_trials(self, experiment: Any) -> Any:
        """Answer the reserved trials without a heartbeat for five of Oríon's."""
        return _orions(self._ask(self._storage.fetch_lost_trials, experiment))

    def fetch_pending_trials(self, experiment: Any) -> Any:
        """Answer the new, suspended and interrupted trials."""
        return _orions(self._ask(self._storage.fetch_pending_trials, experiment))

    def fetch_noncompleted_trials(self, experiment: Any) -> Any:
        """Answer the trials that are not completed."""
        return _orions(self._ask(self._storage.fetch_noncompleted_trials, experiment))

    def fetch_trials_by_status(self, experiment: Any, status: str) -> Any:
        """Answer the trials with this status."""
        return _orions(self._ask(self._storage.fetch_trials_by_status, experiment, status))

    def count_completed_trials(self, experiment: Any) -> int:
        """Count the completed trials."""
        return self._ask(self._storage.count_completed_trials, experiment)

    def count_broken_trials(self, experiment: Any) -> int:
        """Count the broken trials."""
        return self._ask(self._storage.count_broken_trials, experiment)

    def retrieve_result(self, trial: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Answer the trial as it is: Oríon has put its results into it."""
        return trial

    def push_trial_results(self, trial: Any) -> int:
        """Store the results, the end time and the status of a reserved trial."""
        return self._ask(self._storage.push_trial_results, _ours(trial))

    def set_trial_status(
        self, trial: Any, status: str, heartbeat: datetime | None = None, was: str | None = None
    ) -> None:
        """Set the status of a trial that has the status `was`."""
        ours = _ours(trial)
        if not isinstance(heartbeat, datetime):  # `ExperimentClient.reserve` passes its interval
            heartbeat = None
        self._ask(self._storage.set_trial_status, ours, status, heartbeat, was)
        trial.status, trial.worker = ours.status, ours.worker

    def update_heartbeat(self, trial: Any) -> int:
        """Say that the worker of a reserved trial is alive; answer how many trials matched."""
        return self._ask(self._storage.update_heartbeat, _ours(trial))

    # ---------------------------------------------------------------------- algorithm lock

    def initialize_algorithm_lock(self, experiment_id: Any, algorithm_config: Any) -> int:
        """Insert the lock record of an experiment, unless it has one; answer how many."""
        try:
            return self._storage.initialize_algorithm_lock(experiment_id, listed(algorithm_config))
        except errors.DuplicateKeyError:  # `orion db upgrade` asks for it every time
            return 0

    def write_algorithm_lock(
        self,
        experiment_id: Any,
        algorithm_config: Any,
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Insert the lock record of an experiment as it is told."""
        config = listed(algorithm_config)
        return self._ask(
            self._storage.write_algorithm_lock, experiment_id, config, locked, state, heartbeat
        )

    def release_algorithm_lock(
        self, experiment: Any = None, uid: Any = None, new_state: Any = None
    ) -> int:
        """Open the lock whoever holds it; answer 1 if it was locked, else 0."""
        return self._ask(self._storage.release_algorithm_lock, experiment, uid, new_state)

    def get_algorithm_lock_info(
        self, experiment: Any = None, uid: Any = None
    ) -> LockedAlgorithmState | None:
        """Answer the lock record without acquiring it."""
        return self._ask(self._storage.get_algorithm_lock_info, experiment, uid)

    def delete_algorithm_lock(self, experiment: Any = None, uid: Any = None) -> int:
        """Delete the lock record; answer how many there were."""
        return self._ask(self._storage.delete_algorithm_lock, experiment, uid)

    @contextmanager
    def acquire_algorithm_lock(
        self, experiment: Any, timeout: float = 600, retry_interval: float = 1
    ) -> Iterator[LockedAlgorithmState]:
        """Hold the experiment's algorithm, alone; save its state afterwards."""
        manager = self._storage.acquire_algorithm_lock(experiment, timeout, retry_interval)
        with _orions_errors():
            state = manager.__enter__()
        try:
            yield state
        except BaseException as error:
            with _orions_errors():
                ended = manager.__exit__(type(error), error, error.__traceback__)
            if not ended:
                raise
        else:
            with _orions_errors():
                manager.__exit__(None, None, None)

    @staticmethod
    def _ask(method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with _orions_errors():
            return method(*args, **kwargs)


class AioStorageDB(orion_database.Database):  # type: ignore[misc]  # Oríon is not typed
    """The collections of a storage, as one of Oríon's databases.

    It is what Oríon's commands call on a storage's ``_db``. As database type ``aiostoragedb`` it
    lets ``orion db test`` look at the storage that is configured::

        storage:
          type: aiostorage
          database:
            type: aiostoragedb
            url: sqlite:///tune.db

    or, by the environment, ``ORION_DB_TYPE=aiostoragedb`` beside ``ORION_DB_ADDRESS``.

    Parameters
    ----------
    host
        The URL, if `url` is not given; see `AioStorage`.
    name
        The database, where `host` is the URL of a MongoDB server and names none.
    port, username, password
        Taken for Oríon's sake: all that is needed stands in the URL.
    options
        As in `AioStorage`.
    """

    def __init__(
        self,
        host: str | None = None,
        name: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        given = {"host": host, "name": name, **options}
        self._storage = AioStorage(given)._storage  # noqa: SLF001  of this module
        super().__init__(self._storage.location, name, port, username, password)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage.location!r})"

    @classmethod
    def get_defaults(cls) -> dict[str, Any]:
        """Answer no defaults."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether the storage answers."""
        try:
            self.count("experiments", {"name": ""})
        except errors.AioStorageError as error:
            log.warning("%s does not answer: %s", self, error)
            return False
        return True

    def initiate_connection(self) -> None:
        """Do nothing: the first call connects."""

    def close_connection(self) -> None:
        """Do nothing: others use the connection too."""

    def ensure_index(self, collection_name: str, keys: Any, unique: bool = False) -> None:
        """Do nothing: the storage has its indexes."""

    def index_information(self, collection_name: str) -> dict[str, bool]:  # noqa: ARG002
        """Answer the indexes that Oríon made, which are none."""
        return {}

    def drop_index(self, collection_name: str, name: str) -> None:
        """Drop none of the storage's own indexes.

        Raises
        ------
        DatabaseError
            Always: Oríon has made none.
        """
        raise orion_database.DatabaseError(f"{collection_name} has no index {name} of Oríon's")

    def write(self, collection_name: str, data: Any, query: Any = None) -> int:
        """Insert `data` (one document or several) or, with a query, set it in what matches."""
        if query is None:
            given = data if isinstance(data, list | tuple) else [data]
            documents = listed(given)
            count = self._ask(CollectionAccess.insert, collection_name, documents)
            for document, stored in zip(given, documents, strict=True):
                document["_id"] = stored["_id"]
            return count
        return self._ask(CollectionAccess.update, collection_name, listed(query), listed(data))

    def read(self, collection_name: str, query: Any = None, selection: Any = None) -> Any:
        """Answer what matches."""
        found = self._ask(CollectionAccess.find, collection_name, listed(query), selection)
        return naive(found)

    def read_and_write(
        self, collection_name: str, query: Any, data: Any, selection: Any = None
    ) -> Any:
        """Set `data` in the first match and answer it."""
        taken = self._ask(CollectionAccess.take, collection_name, listed(query), listed(data))
        return None if taken is None else select(naive(taken), check_selection(selection))

    def count(self, collection_name: str, query: Any = None) -> int:
        """Count what matches."""
        return self._ask(CollectionAccess.count, collection_name, listed(query))

    def remove(self, collection_name: str, query: Any) -> int:
        """Delete what matches; answer how many did."""
        return self._ask(CollectionAccess.delete, collection_name, listed(query))

    def _ask(self, method: Callable[..., Awaitable[T]], *args: Any) -> T:
        with _orions_errors():
            return call_collections(self._storage, method, *args)


def _names_no_database(url: str) -> bool:
    """Tell whether a URL leads to a server whose database has to be named beside it."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("mongodb", "mongodb+srv"):
        return False
    return not rest.partition("?")[0].rpartition("@")[2].partition("/")[2]


def _shared_storage(options: Mapping[str, Any]) -> SyncStorage:
    key = Path.cwd(), repr(sorted(options.items()))  # a path may be relative
    storage = _shared.get(key)
    if storage is None:
        made = SyncStorage(setup_storage(options), in_running_loop=True)
        storage = _shared.setdefault(key, made)  # another thread may have been faster
    return storage


@contextmanager
def _orions_errors() -> Iterator[None]:
    """Raise Oríon's own exceptions."""
    try:
        yield
    except tuple(_TRANSLATED) as error:
        theirs = next(new for old, new in _TRANSLATED.items() if isinstance(error, old))
        raise theirs(str(error)) from error


def _ours(trial: Any) -> Trial:
    return Trial.from_dict(listed(trial.to_dict()))


def _orions(found: Trial | Sequence[Trial] | None) -> Any:
    if found is None:
        return None
    if isinstance(found, Trial):
        return _orions_trial(found)
    return [_orions_trial(trial) for trial in found]


def _orions_trial(trial: Trial) -> Any:
    # without `to_dict`, which computes the id: Oríon asks for all trials all the time
    return OrionTrial(
        _id=trial.id_override,
        experiment=trial.experiment,
        status=trial.status,
        worker=trial.worker,
        submit_time=naive(trial.submit_time),
        start_time=naive(trial.start_time),
        end_time=naive(trial.end_time),
        heartbeat=naive(trial.heartbeat),
        parent=trial.parent,
        exp_working_dir=trial.exp_working_dir,
        params=[naive(param.to_dict()) for param in trial.param_list],
        results=[naive(result.to_dict()) for result in trial.results],
    )
