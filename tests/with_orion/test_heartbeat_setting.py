"""A trial is lost five of Oríon's heartbeats after its last one, whatever these are now."""

from __future__ import annotations

import datetime as dt
import pickle
import sys

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

import orion.core

from aiostorage.orion import AioStorage

from .stored_experiment import MinimalExperiment, trial_of


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


def reserved_since(storage: AioStorage, experiment: MinimalExperiment, seconds: float) -> str:
    storage.register_trial(trial_of(experiment))
    trial = storage.reserve_trial(experiment)
    past = dt.datetime.utcnow() - dt.timedelta(seconds=seconds)  # noqa: DTZ003  as Oríon does
    storage.update_trial(trial, heartbeat=past)
    return str(trial.id)


def test_the_setting_is_read_at_each_call(
    storage: AioStorage, experiment: MinimalExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = reserved_since(storage, experiment, 50)
    copy = pickle.loads(pickle.dumps(storage))
    sync_copy = pickle.loads(pickle.dumps(storage._storage))
    assert storage.fetch_lost_trials(experiment) == []  # after 5 x 120 s
    for heartbeat, found in (("9", [lost]), ("11", []), ("1", [lost])):
        monkeypatch.setenv("ORION_HEARTBEAT", heartbeat)
        for each in (storage, copy):
            assert [trial.id for trial in each.fetch_lost_trials(experiment)] == found
        assert [trial.id for trial in sync_copy.fetch_lost_trials(experiment)] == found
    sync_copy.close()


def test_the_setting_in_the_configuration(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    lost = reserved_since(storage, experiment, 50)
    before = orion.core.config.worker.heartbeat
    try:
        orion.core.config.worker.heartbeat = 9
        assert [trial.id for trial in storage.fetch_lost_trials(experiment)] == [lost]
        orion.core.config.worker.heartbeat = 11
        assert storage.fetch_lost_trials(experiment) == []
    finally:
        orion.core.config.worker.heartbeat = before


def test_an_option_of_the_storage_takes_precedence(
    url: str, experiment: MinimalExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = AioStorage({"url": url, "lost_after": 40})
    lost = reserved_since(quick, experiment, 50)
    monkeypatch.setenv("ORION_HEARTBEAT", "1000")
    assert [trial.id for trial in quick.fetch_lost_trials(experiment)] == [lost]
