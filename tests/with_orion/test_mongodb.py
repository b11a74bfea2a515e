"""Oríon's own MongoDB storage and ours on one database, at the same time."""

from __future__ import annotations

import datetime as dt
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

if find_spec("pymongo") is None:
    pytest.skip("no client of MongoDB", allow_module_level=True)

import orion.core
from orion.client import build_experiment
from orion.core.io.database import DuplicateKeyError
from orion.core.worker.trial import Trial
from orion.storage.base import (
    BaseStorageProtocol,
    FailedUpdate,
    LockAcquisitionTimeout,
    setup_storage,
)
from orion.storage.legacy import Legacy
from pymongo import MongoClient

from aiostorage import NotADatabaseError
from aiostorage.orion import AioStorage
from aiostorage.testing import Deployment

Processes = Any  # that of conftest.py

TPE = {"tpe": {"seed": 1, "n_initial_points": 3}}
SPACE = {"x": "uniform(0, 1)"}
INDEXES = {
    "experiments": {"name_1_version_1", "metadata.datetime_1"},
    "benchmarks": {"name_1"},
    "trials": {
        *("experiment_1_id_1", "experiment_1", "status_1", "results_1", "start_time_1"),
        "end_time_-1",
    },
    "algo": {"experiment_1"},
}
"""What Oríon makes."""

OURS = {
    "experiments": {"name_1_version_1"},
    "benchmarks": {"name_1"},
    "trials": {"experiment_1_id_1", "experiment_1_submit_time_1_partial", "experiment_1_status_1"},
    "algo": {"experiment_-1"},
}

on_one_server = pytest.mark.parametrize("deployment", ["pymongo on one server"], indirect=True)
"""For what depends neither on the client library nor on the kind of server."""


@dataclass
class Shared:
    """One database, for both."""

    url: str
    database: Any
    library: str
    opened: list[Any] = field(default_factory=list)

    def ours(self, **options: Any) -> AioStorage:
        return AioStorage({"url": self.url, "client": self.library, **options})

    def theirs(self) -> Any:
        storage = Legacy(database={"type": "mongodb", "host": self.url})
        self.opened.append(storage)
        return storage

    @property
    def indexes(self) -> dict[str, set[str]]:
        return {name: set(self.database[name].index_information()) - {"_id_"} for name in INDEXES}


@pytest.fixture(params=["motor on a replica set", "pymongo on one server"])
def deployment(request: pytest.FixtureRequest) -> tuple[str, Deployment]:
    library, _, server = request.param.partition(" on ")
    fixture = "mongodb_replica_set" if server == "a replica set" else "mongodb_standalone"
    return library, request.getfixturevalue(fixture)


@pytest.fixture
def shared(deployment: tuple[str, Deployment], mongodb_database: str) -> Iterator[Shared]:
    library, server = deployment
    url = server.url_for(mongodb_database)
    with MongoClient[dict[str, Any]](url) as client:
        shared = Shared(url, client[mongodb_database], library)
        yield shared
        for storage in shared.opened:
            storage._db.close_connection()


@pytest.fixture
def first(deployment: tuple[str, Deployment]) -> str:
    """Name who comes first: on one deployment Oríon's own storage, on the other one ours."""
    return "theirs" if deployment[0] == "motor" else "ours"


@pytest.fixture
def both(shared: Shared, first: str) -> tuple[Any, Any]:
    """Give both storages on the database, first whoever made it."""
    order = ("theirs", "ours") if first == "theirs" else ("ours", "theirs")
    storages = tuple(getattr(shared, name)() for name in order)
    for storage in storages:
        storage.fetch_experiments({})  # ours opens the database at its first call
    return storages


def loss(x: float, **_: Any) -> list[dict[str, Any]]:
    return [{"name": "loss", "type": "objective", "value": (x - 0.3) ** 2}]


def work(storage: Any, trials: int, **config: Any) -> Any:
    """Let Oríon's client run an experiment up to a number of completed trials."""
    config = {"space": SPACE, "algorithm": TPE, **config}
    client = build_experiment("tune", storage=storage, max_trials=trials, **config)
    client.workon(loss, max_trials=trials)
    client.close()
    return client


def plain(value: Any) -> Any:
    """Write ids as we do."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if type(value).__name__ == "ObjectId" else value


def stored(storage: Any) -> Any:
    """Return everything that a storage reads, the ids as we write them."""
    experiments = plain(storage.fetch_experiments({}))
    trials = [
        plain(trial.to_dict())
        for config in storage.fetch_experiments({})
        for trial in storage.fetch_trials(uid=config["_id"])
    ]
    return experiments, trials, plain(storage.fetch_benchmark({}))


class SharedExperiment:
    """An experiment, as far as a storage looks at one."""

    def __init__(self, storage: Any) -> None:
        (config,) = storage.fetch_experiments({"name": "tune"})
        self.id = self._id = config["_id"]

    @classmethod
    def made(cls, storage: Any) -> SharedExperiment:
        storage.create_experiment({"name": "tune", "version": 1, "algorithm": {"random": {}}})
        return cls(storage)


def cut(when: dt.datetime) -> dt.datetime:
    """Return a time as MongoDB keeps it."""
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def trial(experiment: SharedExperiment, x: float) -> Trial:
    params = [{"name": "/x", "type": "real", "value": x}]
    return Trial(experiment=experiment.id, params=params, submit_time=dt.datetime.utcnow())  # noqa: DTZ003


# ------------------------------------------------------------------- a database of the other's


def test_each_goes_on_where_the_other_was(both: tuple[Any, Any], shared: Shared) -> None:
    """Experiments, trials, results, times and the algorithm's state are the same to both."""
    first, second = both
    work(first, 4)
    client = work(second, 8)
    assert len(client.fetch_trials_by_status("completed")) == 8
    assert stored(first) == stored(second)
    work(first, 9)
    assert stored(first) == stored(second)
    info = [storage.get_algorithm_lock_info(uid=SharedExperiment(storage).id) for storage in both]
    np.testing.assert_equal(info[0].state, info[1].state)
    assert info[0].configuration == info[1].configuration
    assert not info[0].locked
    assert not info[1].locked
    assert len({t.id for t in client.fetch_trials()}) == len(client.fetch_trials()) == 9
    for storage in both:
        for one in storage.fetch_trials(uid=SharedExperiment(storage).id):
            assert all(t.tzinfo is None for t in (one.submit_time, one.start_time, one.end_time))
            age = dt.datetime.utcnow() - one.end_time  # noqa: DTZ003
            assert dt.timedelta() <= age < dt.timedelta(minutes=2)
    assert shared.indexes == {name: INDEXES[name] | OURS[name] for name in INDEXES}


@on_one_server
def test_the_state_is_the_same_whoever_wrote_it(shared: Shared) -> None:
    """A run that both take part in suggests what either alone would have suggested."""
    mixed = [shared.theirs(), shared.ours()]
    for number in range(1, 9):
        client = work(mixed[number % 2], number)
    suggested = [t.params for t in client.fetch_trials()]
    shared.database.client.drop_database(shared.database.name)
    client = work(shared.theirs(), 8)
    assert [t.params for t in client.fetch_trials()] == suggested


def test_branches_of_the_other_s_experiments(both: tuple[Any, Any]) -> None:
    first, second = both
    parent = work(first, 3)
    wider = {**SPACE, "y": "uniform(0, 1, default_value=0.5)"}
    branch = work(second, 5, space=wider, branching={"enable": True})
    assert (branch.version, branch.node.parent.item.version) == (2, 1)
    assert len(branch.fetch_trials()) == 2
    for storage in both:
        child = build_experiment("tune", storage=storage)
        assert str(child.refers["parent_id"]) == str(child.refers["root_id"]) == str(parent.id)
        tree = child.fetch_trials(with_evc_tree=True)
        assert len(tree) == 5
        child.close()


def test_benchmarks(both: tuple[Any, Any]) -> None:
    first, second = both
    first.create_benchmark({"name": "bench", "algorithms": ["random"], "targets": [{"a": 1}]})
    second.create_benchmark({"name": "other", "algorithms": [{"tpe": {"seed": 1}}]})
    assert stored(first) == stored(second)
    assert len(stored(first)[2]) == 2


@on_one_server
def test_locks_that_are_there_twice(shared: Shared) -> None:
    """``orion db upgrade`` makes another record each time; with two, two could hold the lock."""
    theirs = shared.theirs()
    experiment = SharedExperiment.made(theirs)
    theirs.initialize_algorithm_lock(experiment.id, {"random": {}})
    with pytest.raises(
        NotADatabaseError, match=r"algo has records with experiment=.* more than once"
    ) as raised:
        shared.ours().fetch_experiments({})
    assert str(experiment.id) in str(raised.value)
    shared.database["algo"].delete_one({})
    assert len(shared.ours().fetch_experiments({})) == 1
    with pytest.raises(DuplicateKeyError):  # from now on it cannot happen
        theirs.initialize_algorithm_lock(experiment.id, {"random": {}})


# ---------------------------------------------------------------------------------- trials


def test_what_a_worker_does_is_seen_by_the_other(shared: Shared, first: str) -> None:
    mine, other = shared.ours(), shared.theirs()
    if first == "theirs":
        mine, other = other, mine
    experiment, there = SharedExperiment.made(mine), SharedExperiment(other)
    registered = [other.register_trial(trial(there, x)) for x in (0.1, 0.2)]
    pending = mine.fetch_pending_trials(experiment)
    assert [plain(t.to_dict()) for t in pending] == [
        # Oríon's own tells the time as it was before it was stored
        {**plain(t.to_dict()), "submit_time": cut(t.submit_time)}
        for t in registered
    ]
    held = mine.reserve_trial(experiment)
    (seen,) = other.fetch_trials_by_status(there, "reserved")
    assert plain(seen.to_dict()) == plain(held.to_dict())
    now = dt.datetime.utcnow()  # noqa: DTZ003
    assert abs(seen.heartbeat - now) < dt.timedelta(seconds=30)
    assert other.fetch_lost_trials(there) == mine.fetch_lost_trials(experiment) == []

    # a heartbeat keeps it from being lost
    long_ago = now.replace(year=2020)
    other.update_trial(seen, heartbeat=long_ago)
    for storage, its in ((other, there), (mine, experiment)):
        assert [lost.id for lost in storage.fetch_lost_trials(its)] == [held.id]
    assert mine.update_heartbeat(held) == 1
    assert other.fetch_lost_trials(there) == []
    assert other.get_trial(seen).heartbeat > long_ago

    held.results = [Trial.Result(name="loss", type="objective", value=1.5)]
    held.status, held.end_time = "completed", now.replace(microsecond=0)
    mine.push_trial_results(held)
    done = other.get_trial(uid=held.id, experiment_uid=there.id)
    assert (done.status, done.objective.value, done.end_time) == ("completed", 1.5, held.end_time)
    assert other.count_completed_trials(there) == 1
    with pytest.raises(FailedUpdate):
        other.push_trial_results(done)

    held = mine.reserve_trial(experiment)
    assert mine.reserve_trial(experiment) is other.reserve_trial(there) is None
    with pytest.raises(FailedUpdate):
        other.set_trial_status(
            other.get_trial(uid=held.id, experiment_uid=there.id), "broken", was="new"
        )
    mine.set_trial_status(held, "interrupted", was="reserved")
    again = other.reserve_trial(there)
    assert again.id == held.id
    other.set_trial_status(again, "broken")
    assert mine.count_broken_trials(experiment) == 1
    assert {t.status for t in mine.fetch_trials(experiment)} == {"completed", "broken"}


def test_no_trial_is_given_to_two(shared: Shared) -> None:
    ours = shared.ours()
    experiment = SharedExperiment.made(ours)
    for number in range(120):
        ours.register_trial(trial(experiment, number / 120))
    begin = threading.Barrier(6)

    def reserve(make: Callable[[], Any]) -> list[str]:
        storage = make()
        its = SharedExperiment(storage)
        storage.fetch_trials(its)  # connected, so that none of them comes too late
        begin.wait(30)
        held = []
        for _ in range(20):  # a share each: Oríon's, without a history, would be first mostly
            one = storage.reserve_trial(its)
            assert one is not None
            held.append(one.id)
        return held

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(reserve, [shared.ours, shared.theirs] * 3))
    every = [uid for some in got for uid in some]
    assert len(every) == len(set(every)) == 120


# ------------------------------------------------------------------------------ algorithm lock


def hold(storage: Any, timeout: float = 0.5) -> Any:
    its = SharedExperiment(storage)
    return storage.acquire_algorithm_lock(its, timeout=timeout, retry_interval=0.02)


def test_the_lock_of_one_is_a_lock_for_the_other(shared: Shared) -> None:
    theirs, ours = shared.theirs(), shared.ours()
    experiment = SharedExperiment.made(theirs)
    with hold(ours) as algorithm:
        algorithm.set_state({"seed": (1, 2)})
        assert theirs.get_algorithm_lock_info(uid=experiment.id).locked
        with pytest.raises(LockAcquisitionTimeout), hold(theirs):
            pytest.fail("two hold it")
    with hold(theirs) as algorithm:
        assert algorithm.state == {"seed": (1, 2)}
        algorithm.set_state({"seed": 3})
        info = ours.get_algorithm_lock_info(uid=str(experiment.id))
        assert info is not None
        assert info.locked
        assert (info.owner, info.since) == (None, None)
        with (
            pytest.raises(LockAcquisitionTimeout, match="an unknown process has"),
            hold(ours),
        ):
            pytest.fail("two hold it")
    with hold(ours) as algorithm:
        assert algorithm.state == {"seed": 3}


@on_one_server
def test_its_holder_has_no_lease_that_could_run_out(shared: Shared) -> None:
    """Whatever ours left behind: it held the lock before, or it died with it."""
    theirs, ours = shared.theirs(), shared.ours(lock_lease=0.3)
    experiment = SharedExperiment.made(theirs)
    with hold(ours):
        pass
    with hold(theirs), pytest.raises(LockAcquisitionTimeout), hold(ours, 1):
        pytest.fail("two hold it")

    past = dt.datetime.utcnow() - dt.timedelta(minutes=1)  # noqa: DTZ003
    beat = past - dt.timedelta(seconds=30)
    died = {"locked": 1, "owner": "dead", "since": beat, "heartbeat": beat, "expires": past}
    patient = shared.ours(lock_lease=30)
    for _ in range(2):
        shared.database["algo"].update_one({}, {"$set": died})
        with pytest.raises(LockAcquisitionTimeout), hold(theirs):
            pytest.fail("ours has not opened it")
        theirs.release_algorithm_lock(uid=experiment.id)  # which is `orion db release`
        with hold(theirs), pytest.raises(LockAcquisitionTimeout), hold(patient, 1):
            pytest.fail("two hold it")
    shared.database["algo"].update_one({}, {"$set": died})
    with hold(patient, 5):
        pass
    with hold(theirs):
        pass


@on_one_server
def test_both_change_the_state_in_turn(shared: Shared) -> None:
    theirs = shared.theirs()
    SharedExperiment.made(theirs)

    def count(make: Callable[[], Any]) -> None:
        storage = make()
        for _ in range(8):
            with hold(storage, 60) as algorithm:
                algorithm.set_state({"count": (algorithm.state or {"count": 0})["count"] + 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [shared.ours, shared.theirs] * 2))
    with hold(theirs) as algorithm:
        assert algorithm.state == {"count": 32}


# --------------------------------------------------------------------------------- hunts


HUNT = """
experiment: {{name: tune, max_trials: 12, algorithm: {{gridsearch: {{n_values: 12}}}}}}
storage:
  type: {storage}
  database: {{type: {database}, {address}: {url!r}, name: {name}}}
"""


@on_one_server
def test_hunts_of_both_at_once(
    shared: Shared,
    processes: Processes,
    objective: Path,
    run_log: Callable[[], list[str]],
    tmp_path: Path,
) -> None:
    kinds = {
        "theirs": {"storage": "legacy", "database": "mongodb", "address": "host"},
        "ours": {"storage": "aiostorage", "database": "aiostoragedb", "address": "url"},
    }
    for name, words in kinds.items():
        text = HUNT.format(url=shared.url, name=shared.database.name, **words)
        (tmp_path / f"{name}.yaml").write_text(text)
    hunts = [
        processes.orion("hunt", "-c", f"{name}.yaml", str(objective), "-x~uniform(0,1)")
        for name in kinds
    ]
    for hunt in hunts:
        processes.finish(hunt)
    runs = run_log()
    assert len(runs) == len(set(runs)) == 12
    assert stored(shared.ours()) == stored(shared.theirs())
    assert {one["status"] for one in stored(shared.ours())[1]} == {"completed"}


@on_one_server
def test_the_database_that_orion_would_take(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oríon names the database beside the address, and says ``orion`` where none is named."""
    server, _, options = shared.url.partition("?")
    server = server.removesuffix(f"/{shared.database.name}")
    monkeypatch.setenv("ORION_DB_ADDRESS", f"{server}/?{options}")
    monkeypatch.setenv("ORION_DB_NAME", shared.database.name)
    made = []
    for kind, database in (("legacy", "mongodb"), ("aiostorage", "mongodb")):
        monkeypatch.setenv("ORION_STORAGE_TYPE", kind)
        monkeypatch.setenv("ORION_DB_TYPE", database)
        config = {"type": kind, "database": orion.core.config.storage.database.to_dict()}
        made.append(setup_storage(config))
    theirs, ours = made
    shared.opened.append(theirs)
    assert isinstance(ours, AioStorage)
    SharedExperiment.made(theirs)
    assert str(SharedExperiment(ours).id) == str(SharedExperiment(theirs).id)
    assert repr(ours).endswith(f"/{shared.database.name}')")
    assert ours._db.count("experiments") == 1
    assert isinstance(theirs, BaseStorageProtocol)
    with_path = AioStorage({"host": f"{server}/other?{options}", "name": "orion", "port": 27017})
    assert repr(with_path).endswith("/other')")
