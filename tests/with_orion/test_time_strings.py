"""Times as ISO strings, as YAML, JSON and fixtures have them, and paths: all that is written."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from aiostorage import EncodingError
from aiostorage.orion import AioStorage
from aiostorage.testing.contract.helpers import case

from .stored_experiment import MinimalExperiment, trial_of


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


SUBMITTED = "2024-03-01T10:20:30"
MOMENT = dt.datetime(2024, 3, 1, 10, 20, 30)  # noqa: DTZ001  as Oríon does

SAME = [
    SUBMITTED,
    "2024-03-01 10:20:30",
    "2024-03-01T10:20:30Z",
    "2024-03-01T12:20:30+02:00",
    "2024-03-01T10:20:30.000000",
    MOMENT,
]


def test_of_a_trial(storage: AioStorage) -> None:
    for number, text in enumerate(SAME):
        with case(text):
            check_time_of_trial(storage, MinimalExperiment(storage, name=str(number)), text)


def check_time_of_trial(storage: AioStorage, experiment: MinimalExperiment, text: Any) -> None:
    trial = storage.register_trial(trial_of(experiment, submit_time=text))
    assert trial.submit_time == MOMENT
    (found,) = storage.fetch_trials(experiment)
    assert found.submit_time == MOMENT
    assert storage.update_trial(trial, end_time=text, start_time=text) == 1
    assert storage.update_trials(experiment, where={"submit_time": text}, heartbeat=text) == 1
    found = storage.get_trial(trial)
    assert (found.start_time, found.end_time, found.heartbeat) == (MOMENT,) * 3


def test_of_a_reserved_trial(storage: AioStorage, experiment: MinimalExperiment) -> None:
    storage.register_trial(trial_of(experiment, submit_time=SUBMITTED))
    trial = storage.reserve_trial(experiment)
    trial.start_time = trial.heartbeat = SUBMITTED
    assert storage.update_heartbeat(trial) == 1
    trial.results = [type(trial).Result(name="loss", type="objective", value=1.0)]
    trial.end_time, trial.status = SUBMITTED, "completed"
    assert storage.push_trial_results(trial) == 1
    assert storage.get_trial(trial).end_time == MOMENT
    storage.set_trial_status(trial, "broken", heartbeat=SUBMITTED)  # type: ignore[arg-type]
    assert storage.get_trial(trial).heartbeat == MOMENT


def test_what_was_submitted_first_is_reserved_first(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    """Oríon's own storage takes what was written first."""
    for x, submitted in ((0.1, "2024-03-02"), (0.2, "2024-03-01"), (0.3, "2024-03-03")):
        storage.register_trial(trial_of(experiment, x, submit_time=submitted))
    reserved = [storage.reserve_trial(experiment).params["/x"] for _ in range(3)]
    assert reserved == [0.2, 0.1, 0.3]


def test_a_day(storage: AioStorage, experiment: MinimalExperiment) -> None:
    """YAML makes a date of what has no time."""
    day = dt.datetime(2024, 3, 1)  # noqa: DTZ001
    for x, value in ((0.1, "2024-03-01"), (0.2, dt.date(2024, 3, 1))):
        trial = storage.register_trial(trial_of(experiment, x, submit_time=value))
        assert storage.get_trial(trial).submit_time == day


def test_in_queries(storage: AioStorage, experiment: MinimalExperiment) -> None:
    trial = storage.register_trial(trial_of(experiment, submit_time=SUBMITTED))
    for where, found in (
        ({"submit_time": SUBMITTED}, 1),
        ({"submit_time": {"$lt": SUBMITTED}}, 0),
        ({"submit_time": {"$in": ["2020-01-01", SUBMITTED]}}, 1),
        ({"$or": [{"submit_time": {"$gte": "2024-03-02"}}, {"status": "broken"}]}, 0),
    ):
        assert len(storage.fetch_trials(experiment, where=where)) == found
        assert storage._db.count("trials", where) == found
    assert storage.delete_trials(experiment, where={"submit_time": {"$lt": SUBMITTED}}) == 0
    assert storage._db.write("trials", {"end_time": SUBMITTED}, {"submit_time": SUBMITTED}) == 1
    assert storage.get_trial(trial).end_time == MOMENT


def test_of_a_lock(storage: AioStorage) -> None:
    config: dict[str, Any] = {"name": "tune", "version": 1, "algorithm": {}}
    beat: Any = SUBMITTED
    storage.create_experiment(config, algo_heartbeat=beat)
    for _ in range(2):
        info = storage.get_algorithm_lock_info(uid=config["_id"])
        assert info is not None
        assert info.heartbeat == MOMENT
        storage.write_algorithm_lock(config["_id"], {}, heartbeat=beat)


def test_elsewhere_text_stays_text(storage: AioStorage) -> None:
    config: dict[str, Any] = {"name": "tune", "metadata": {"datetime": SUBMITTED, "heartbeat": "2"}}
    storage.create_experiment(config)
    (found,) = storage.fetch_experiments({"metadata.datetime": SUBMITTED})
    assert found["metadata"] == config["metadata"]


def test_what_is_no_time_is_refused(storage: AioStorage, experiment: MinimalExperiment) -> None:
    with pytest.raises(EncodingError, match="submit_time is a datetime, not 'yesterday'"):
        storage.register_trial(trial_of(experiment, submit_time="yesterday"))
    assert storage.fetch_trials(experiment) == []


def test_paths_are_text(storage: AioStorage) -> None:
    here = Path("/work/dir")
    config: dict[str, Any] = {"name": "tune", "working_dir": here, "metadata": {"args": [here]}}
    storage.create_experiment(config)
    assert config["working_dir"] is here
    (found,) = storage.fetch_experiments({"working_dir": here})
    assert (found["working_dir"], found["metadata"]) == ("/work/dir", {"args": ["/work/dir"]})
    assert storage.update_experiment(uid=config["_id"], working_dir=Path("/else"))
    assert storage.fetch_experiments({})[0]["working_dir"] == "/else"
    experiment = MinimalExperiment(storage, name="two")
    trial = storage.register_trial(trial_of(experiment, exp_working_dir=here))
    assert storage.get_trial(trial).exp_working_dir == "/work/dir"
    assert storage.update_trial(trial, exp_working_dir=Path("/else")) == 1
    assert storage.get_trial(trial).exp_working_dir == "/else"
    assert storage.create_benchmark({"name": "bench", "storage": here}) == 1
    assert storage.fetch_benchmark({})[0]["storage"] == "/work/dir"
