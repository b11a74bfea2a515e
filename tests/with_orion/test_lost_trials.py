"""Trials that dead workers of Oríon's leave behind, and those that are reserved once more."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.client import build_experiment
from orion.core.worker.trial import Trial

from aiostorage.orion import AioStorage

from .stored_experiment import MinimalExperiment, trial_of


def now() -> dt.datetime:
    return dt.datetime.utcnow()  # noqa: DTZ003  as Oríon does


OLD = now() - dt.timedelta(hours=1)


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


def test_one_without_a_heartbeat(storage: AioStorage, experiment: MinimalExperiment) -> None:
    for x, submitted in ((0.1, OLD), (0.2, now())):
        made = trial_of(experiment, x, status="reserved", submit_time=submitted)
        storage.register_trial(made)
        assert storage.get_trial(made).heartbeat is None  # as Oríon's own storage has it
    [lost] = storage.fetch_lost_trials(experiment)
    assert lost.submit_time == OLD.replace(microsecond=lost.submit_time.microsecond)
    storage.set_trial_status(lost, "interrupted")
    assert storage.fetch_lost_trials(experiment) == []
    storage.update_trials(experiment, where={"status": "interrupted"}, status="reserved")
    assert storage.fetch_lost_trials(experiment) == []  # reserved just now


def test_reserving_leaves_lost_trials_to_orion(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    storage.register_trial(trial_of(experiment))
    lost = storage.reserve_trial(experiment)
    storage.update_trial(lost, heartbeat=OLD)
    assert storage.reserve_trial(experiment) is None
    assert [one.id for one in storage.fetch_lost_trials(experiment)] == [lost.id]


def test_what_a_client_inserted_and_never_evaluated(configured: dict[str, Any]) -> None:
    client = build_experiment(
        "lost", space={"x": "uniform(0, 1)"}, storage=configured, max_trials=3
    )
    inserted = client.insert({"x": 0.5}, reserve=True)
    client._pacemakers.pop(inserted.id).stop()  # as if the process had died before its first beat
    client.storage.update_trial(inserted, heartbeat=None, submit_time=OLD)
    other = build_experiment("lost", storage=configured)
    again = other.suggest()
    assert again.id == inserted.id
    other.observe(again, 1.0)
    assert other.get_trial(again).status == "completed"
    other.close()


def test_results_of_a_trial_that_was_never_evaluated_stay(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    """As in Oríon's own storage, whose tests insert such trials."""
    result = {"name": "loss", "type": "objective", "value": 2}
    storage.register_trial(trial_of(experiment, results=[result]))
    mine = storage.reserve_trial(experiment)
    for one in (mine, storage.get_trial(mine)):
        assert (one.status, one.objective.value) == ("reserved", 2)


def test_a_new_reservation_begins_clean(storage: AioStorage, experiment: MinimalExperiment) -> None:
    storage.register_trial(trial_of(experiment))
    trial = storage.reserve_trial(experiment)
    trial.results = [Trial.Result(name="loss", type="objective", value=1.5)]
    trial.status, trial.end_time = "completed", OLD
    storage.push_trial_results(trial)
    for way in ("reserve_trial", "set_trial_status"):
        storage.update_trials(experiment, status="interrupted", start_time=OLD, heartbeat=OLD)
        if way == "reserve_trial":
            again = storage.reserve_trial(experiment)
        else:
            again = storage.get_trial(trial)
            storage.set_trial_status(again, "reserved")
        for one in (again, storage.get_trial(trial)):
            assert (one.status, one.worker) == ("reserved", again.worker)
            assert (one.results, one.objective, one.end_time) == ([], None, None)
            assert abs(one.start_time - now()) < dt.timedelta(minutes=5)
            assert dt.timedelta(0) <= one.duration < dt.timedelta(minutes=5)
        again.results = [Trial.Result(name="loss", type="objective", value=2.5)]
        again.status = "completed"
        storage.push_trial_results(again)
        assert storage.get_trial(trial).objective.value == 2.5
