"""The storage type, called as Oríon calls it."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

import orion.core
from orion.core.io.database import DuplicateKeyError, database_factory
from orion.core.worker.trial import Trial
from orion.storage.base import (
    FailedUpdate,
    LockAcquisitionTimeout,
    MissingArguments,
    setup_storage,
    storage_factory,
)

from aiostorage import ConfigurationError, LockLost
from aiostorage.orion import AioStorage, AioStorageDB
from aiostorage.orion.lock_state import OrionLockState


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


class OneExperiment:
    """An experiment, as far as a storage looks at one."""

    def __init__(self, storage: AioStorage, **config: Any) -> None:
        self.config = {"name": "tune", "version": 1, "algorithm": {"random": {}}, **config}
        storage.create_experiment(self.config)
        self.id = self._id = self.config["_id"]


@pytest.fixture
def experiment(storage: AioStorage) -> OneExperiment:
    return OneExperiment(storage)


def trial(experiment: OneExperiment, x: Any = 0.5, **fields: Any) -> Trial:
    fields.setdefault("submit_time", dt.datetime.utcnow())  # noqa: DTZ003  as Oríon does
    params = [{"name": "/x", "type": "real", "value": x}]
    return Trial(experiment=experiment.id, params=params, **fields)


def lock_of(storage: AioStorage, uid: Any) -> OrionLockState:
    info = storage.get_algorithm_lock_info(uid=uid)
    assert info is not None
    return info


# ------------------------------------------------------------------------------ configuration


def test_found_by_its_entry_point(configured: dict[str, Any]) -> None:
    assert isinstance(setup_storage(configured), AioStorage)
    assert isinstance(storage_factory.create("AioStorage", url="memory://"), AioStorage)


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_three_constructions_share_one_connection(configured: dict[str, Any]) -> None:
    one, two, three = (setup_storage(configured) for _ in range(3))
    assert one._storage is two._storage is three._storage
    assert setup_storage({**configured, "setup": False})._storage is one._storage
    other = {"url": configured["database"]["url"], "lock_lease": 7}
    assert AioStorage(other)._storage is not one._storage


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_constructed_in_many_threads(configured: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: AioStorage(configured["database"])._storage, range(64)))
    assert len({id(storage) for storage in made}) == 1


def test_a_relative_path_is_another_one_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = AioStorage(url="sqlite:///tune.db")
    assert here.fetch_experiments({}) == []
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    there = AioStorage(url="sqlite:///tune.db")
    OneExperiment(there)
    assert here.fetch_experiments({}) == []
    assert (tmp_path / "sub" / "tune.db").exists()


def test_options(url: str, engine: str) -> None:
    made = AioStorage({"url": url, "lock_lease": 7, "retry": {"attempts": 2}}, lost_after=3)
    assert made._storage._storage._lost_after == 3
    assert made._storage._storage._gateway.policy.attempts == 2
    its_own = {"synchronous": "normal"} if engine == "sqlite" else {"timeout": 7}
    nested = AioStorage({"url": url, **its_own})
    assert nested.fetch_experiments({}) == []
    assert url.removeprefix("sqlite:///").partition("?")[0] in repr(made)


def test_configured_by_the_environment(environment: None, url: str) -> None:
    """Oríon adds ``type: PickledDB`` and other defaults of its own."""
    database = orion.core.config.storage.database.to_dict()
    assert database == {"name": "orion", "type": "PickledDB", "host": url, "port": 27017}
    made = setup_storage()
    assert isinstance(made, AioStorage)
    assert made._storage is AioStorage(database)._storage is AioStorage({"url": url})._storage


@pytest.mark.parametrize(
    "database",
    [
        None,
        {},
        {"host": ""},
        {"name": "orion", "type": "PickledDB", "host": "tune.pkl", "port": 27017},
        {"url": "tune.db"},
        {"url": "odd://x"},
        {"url": "sqlite:///tune.db", "odd": 1},
        {"url": "sqlite:///tune.db", "lock_lease": -1},
        {"url": "sqlite:///tune.db", "state_codec": "odd"},
    ],
)
def test_a_configuration_that_cannot_work(database: Any) -> None:
    """Oríon turns a ValueError into a TypeError that speaks of something else."""
    with pytest.raises(ConfigurationError) as raised:
        setup_storage({"type": "aiostorage", "database": database})
    assert not isinstance(raised.value, ValueError)


# ------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_orions_trials_in_and_out(storage: AioStorage, experiment: OneExperiment) -> None:
    mine = trial(experiment, 0.25, exp_working_dir="/here")
    assert storage.register_trial(mine) is mine
    assert mine.id_override is not None
    (found,) = storage.fetch_trials(experiment)
    assert type(found) is Trial
    assert found.to_dict() == mine.to_dict()
    assert storage.get_trial(uid=mine.id, experiment_uid=experiment.id).to_dict() == mine.to_dict()
    assert storage.get_trial(uid="odd", experiment_uid=experiment.id) is None
    for fetch in (storage.fetch_pending_trials, storage.fetch_noncompleted_trials):
        assert [type(one) for one in fetch(experiment)] == [Trial]
    assert storage.fetch_trials(uid="odd") == []  # as Oríon's own storage, whatever it documents
    assert storage.retrieve_result(found, "taken", too="taken") is found


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_a_worker_s_way(storage: AioStorage, experiment: OneExperiment) -> None:
    storage.register_trial(trial(experiment))
    mine = storage.reserve_trial(experiment)
    assert storage.reserve_trial(experiment) is None
    assert (type(mine), mine.status) == (Trial, "reserved")
    assert storage.update_heartbeat(mine) == 1
    mine.results = [Trial.Result(name="loss", type="objective", value=1.5)]
    mine.status, mine.end_time = "completed", dt.datetime.utcnow()  # noqa: DTZ003
    assert storage.push_trial_results(mine) == 1
    (found,) = storage.fetch_trials_by_status(experiment, "completed")
    assert found.objective.value == 1.5
    assert storage.count_completed_trials(experiment) == 1
    assert storage.count_broken_trials(experiment) == 0
    with pytest.raises(FailedUpdate):
        storage.push_trial_results(mine)
    with pytest.raises(FailedUpdate):
        storage.set_trial_status(mine, "broken", was="reserved")
    storage.set_trial_status(mine, "broken")
    assert mine.status == "broken"
    assert storage.update_trials(experiment, where={"status": "broken"}, status="new") == 1
    assert storage.delete_trials(experiment) == 1


def test_reserving_a_given_trial(storage: AioStorage, experiment: OneExperiment) -> None:
    """`ExperimentClient.reserve` passes its interval where a heartbeat is meant."""
    mine = storage.register_trial(trial(experiment))
    anything: Any = 60
    storage.set_trial_status(mine, "reserved", heartbeat=anything)
    stored = storage.get_trial(mine)
    assert stored.worker == mine.worker is not None
    assert abs(stored.heartbeat - dt.datetime.utcnow()) < dt.timedelta(seconds=30)  # noqa: DTZ003


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_times_are_naive_and_in_utc(storage: AioStorage, experiment: OneExperiment) -> None:
    when = dt.datetime(2026, 3, 1, 12, 30, 15, 250_000)  # noqa: DTZ001
    storage.register_trial(trial(experiment, submit_time=when))
    mine = storage.reserve_trial(experiment)
    assert mine.submit_time == when
    now = dt.datetime.utcnow()  # noqa: DTZ003
    for time_of in (mine.start_time, mine.heartbeat):
        assert time_of.tzinfo is None
        assert abs(time_of - now) < dt.timedelta(seconds=30)
    storage.update_experiment(uid=experiment.id, metadata={"datetime": when})
    (config,) = storage.fetch_experiments({"metadata.datetime": when})
    assert config["metadata"]["datetime"] == when


# ------------------------------------------------------------------ experiments and benchmarks


def test_create_experiment_puts_the_id_into_the_config(storage: AioStorage) -> None:
    config: dict[str, Any] = {"name": "tune", "version": 1, "algorithm": {"random": {"seed": 1}}}
    storage.create_experiment(config)
    assert config["_id"]
    (found,) = storage.fetch_experiments({"name": "tune"})
    assert found == config
    with pytest.raises(DuplicateKeyError):
        storage.create_experiment({"name": "tune", "version": 1})
    assert lock_of(storage, config["_id"]).configuration == config["algorithm"]


def test_tuples_are_lists(storage: AioStorage) -> None:
    """As in Oríon's MongoDB."""
    config = {"name": "tune", "version": 1, "metadata": {"args": ("-x", ("a", 1))}}
    storage.create_experiment(config)
    assert config["metadata"] == {"args": ("-x", ("a", 1))}
    (found,) = storage.fetch_experiments({})
    assert found["metadata"] == {"args": ["-x", ["a", 1]]}
    assert storage.update_experiment(uid=config["_id"], refers={"path": (1, 2)})
    (found,) = storage.fetch_experiments({"refers.path": (1, 2)})
    assert storage._db.write("experiments", {"name": "two", "shape": (1,)}) == 1
    assert storage._db.read("experiments", {"shape": (1,)})[0]["name"] == "two"


def test_update_and_delete_experiments(storage: AioStorage, experiment: OneExperiment) -> None:
    assert storage.update_experiment(experiment, max_trials=3)
    assert not storage.update_experiment(uid="odd", max_trials=3)
    assert storage.fetch_experiments({}, {"max_trials": 1, "_id": 0}) == [{"max_trials": 3}]
    with pytest.raises(MissingArguments):
        storage.delete_experiment()
    with pytest.raises(MissingArguments):
        storage.get_trial(uid="x")
    assert storage.delete_experiment(experiment) == 1
    assert storage.delete_experiment(uid=experiment.id) == 0


def test_benchmarks(storage: AioStorage) -> None:
    config: dict[str, Any] = {"name": "bench", "algorithms": ("random",)}
    assert storage.create_benchmark(config) == 1
    assert config["_id"]
    with pytest.raises(DuplicateKeyError):
        storage.create_benchmark({"name": "bench"})
    (found,) = storage.fetch_benchmark({"name": "bench"})
    assert found["algorithms"] == ["random"]
    assert storage.delete_benchmark({"name": "bench"}) == 1


# ------------------------------------------------------------------------------ algorithm lock


class State:
    """What only pickle can hold."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and other.seed == self.seed

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_state_is_pickled_as_orion_does(storage: AioStorage, experiment: OneExperiment) -> None:
    state = {"rng": (1, (2.5, None)), "trials": {"a"}, "own": State(7)}
    with storage.acquire_algorithm_lock(experiment) as algorithm:
        assert algorithm.state is None
        assert algorithm.configuration == {"random": {}}
        algorithm.set_state(state)
    (record,) = storage._db.read("algo", {"experiment": experiment.id})
    assert pickle.loads(record["state"]) == state
    storage._db.write("algo", {"state": pickle.dumps([1])}, {"experiment": experiment.id})
    with storage.acquire_algorithm_lock(experiment=experiment, timeout=5, retry_interval=1) as held:
        assert held.state == [1]
    assert storage.release_algorithm_lock(experiment) == 0
    assert storage.delete_algorithm_lock(uid=experiment.id) == 1
    assert storage.initialize_algorithm_lock(experiment.id, {"random": ("x",)}) == 1
    assert storage.initialize_algorithm_lock(experiment.id, {}) == 0  # `db upgrade` asks again
    assert lock_of(storage, experiment.id).configuration == {"random": ["x"]}
    storage.delete_algorithm_lock(experiment)
    assert storage.write_algorithm_lock(experiment.id, {}, locked=0, state={"seed": 1}) == 1
    assert lock_of(storage, experiment.id).state == {"seed": 1}


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_errors_of_the_lock(url: str, experiment: OneExperiment) -> None:
    storage = AioStorage({"url": url, "lock_lease": 0.3})
    with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"seed": 1})
        with (
            pytest.raises(LockAcquisitionTimeout, match="has held it since"),
            storage.acquire_algorithm_lock(experiment, timeout=0.1, retry_interval=0.05),
        ):
            pytest.fail("two hold it")

    error = ValueError("the body's own")
    with pytest.raises(ValueError) as raised, storage.acquire_algorithm_lock(experiment) as held:
        held.state["seed"] = 2
        raise error
    assert raised.value is error

    # Oríon's own saves what a Ctrl-C left half done
    with pytest.raises(KeyboardInterrupt), storage.acquire_algorithm_lock(experiment) as held:
        held.set_state({"seed": 4})
        raise KeyboardInterrupt
    assert lock_of(storage, experiment.id).state == {"seed": 1}
    assert not lock_of(storage, experiment.id).locked

    def lose() -> None:
        with storage.acquire_algorithm_lock(experiment) as held:
            held.set_state({"seed": 3})
            storage.release_algorithm_lock(experiment)
            time.sleep(0.3)

    # Oríon's workers try again after a timeout, and die of anything else
    with pytest.raises(LockAcquisitionTimeout) as lost:
        lose()
    assert isinstance(lost.value.__cause__, LockLost)
    assert lock_of(storage, experiment.id).state == {"seed": 1}


# --------------------------------------------------------------------- processes, and the rest


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_pickled(storage: AioStorage, experiment: OneExperiment) -> None:
    copy = pickle.loads(pickle.dumps(storage))
    assert copy._storage is storage._storage
    assert copy.fetch_experiments({}) == storage.fetch_experiments({})


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_forked(storage: AioStorage, experiment: OneExperiment) -> None:
    storage.register_trial(trial(experiment))
    pid = os.fork()
    if not pid:
        done = 1
        try:
            mine = storage.reserve_trial(experiment)
            storage.set_trial_status(mine, "completed")
            done = 0
        finally:
            os._exit(done)
    storage.register_trial(trial(experiment, 0.75))
    deadline = time.monotonic() + 30
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert storage.count_completed_trials(experiment) == 1


@pytest.mark.parametrize("engine", ["sqlite", "motor", "pymongo"], indirect=True)
def test_what_orions_commands_reach_for(storage: AioStorage, experiment: OneExperiment) -> None:
    database = storage._db
    assert type(database).__name__ == "AioStorageDB"
    data: dict[str, Any] = {"name": "other", "version": 2}
    assert database.write("experiments", data) == 1
    assert data["_id"]
    more: list[dict[str, Any]] = [{"name": "c"}, {"name": "d"}]
    assert database.write("benchmarks", more) == 2
    assert database.count("benchmarks", {"name": {"$in": ["c", "d", "e"]}}) == 2
    with pytest.raises(DuplicateKeyError):
        database.write("benchmarks", {"name": "c"})
    assert database.write("experiments", {"version": 3}, {"name": "other"}) == 1
    assert database.read("experiments", {"name": "other"}, {"version": 1, "_id": 0}) == [
        {"version": 3}
    ]
    found = database.read_and_write("experiments", {"name": "other"}, {"version": 4})
    assert found["version"] == 4
    assert database.read_and_write("experiments", {"name": "none"}, {"version": 4}) is None
    assert database.remove("experiments", {"name": "other"}) == 1
    assert database.count("experiments") == 1
    stored = storage.register_trial(trial(experiment))
    document = stored.to_dict()
    assert database.write("trials", data=document, query={"_id": stored.id_override}) == 1
    assert storage.get_trial(stored).to_dict() == document


def test_a_database_of_orions(url: str) -> None:
    made = database_factory.create("aiostoragedb", host=url, name="orion", port=27017)
    assert isinstance(made, AioStorageDB)
    assert made.is_connected
    made.initiate_connection()
    made.close_connection()
    made.ensure_index("experiments", "name", unique=True)
    assert made.index_information("experiments") == {}
    with pytest.raises(RuntimeError, match="name_1"):
        made.drop_index("experiments", "name_1")
    Path("file").touch()
    assert AioStorageDB("sqlite:///file/tune.db").is_connected is False


def test_in_a_notebook(storage: AioStorage) -> None:
    """Where an event loop always runs; to block it is what was asked for."""

    async def cell() -> None:
        storage._storage._portal.check_caller("fetch_experiments")

    anyio.run(cell)
