"""What is not there: a status, an experiment that was never stored, an id; as in Oríon."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.core.io.space_builder import SpaceBuilder
from orion.core.worker.experiment import Experiment
from orion.storage.base import FailedUpdate, MissingArguments
from orion.storage.legacy import Legacy

from aiostorage.orion import AioStorage

from .stored_experiment import MinimalExperiment, trial_of


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


NEVER_STORED = MinimalExperiment(None)


# ---------------------------------------------------------------------------------- statuses


def test_an_unknown_status_finds_nothing(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    storage.register_trial(trial_of(experiment))
    unknown: tuple[Any, ...] = ("finished", "", "Completed", None, 3, ["new"])
    for status in unknown:
        assert storage.fetch_trials_by_status(experiment, status) == [], status
        assert storage.fetch_trials(experiment, where={"status": status}) == [], status
    assert storage.fetch_trials(experiment, where={"params.x": 1}) == []


def test_an_unknown_status_is_not_set(storage: AioStorage, experiment: MinimalExperiment) -> None:
    trial = storage.register_trial(trial_of(experiment))
    unknown: tuple[dict[str, Any], ...] = (
        {"status": "finished"},
        {"status": "new", "was": "begun"},
    )
    for given in unknown:
        with pytest.raises(ValueError) as orions:
            Legacy({"type": "ephemeraldb"}).set_trial_status(trial_of(experiment), **given)
        with pytest.raises(ValueError) as ours:
            storage.set_trial_status(trial, **given)
        assert str(ours.value) == str(orions.value)
        assert (trial.status, storage.get_trial(trial).status) == ("new", "new")


# ---------------------------------------------------------------------- an unsaved experiment


def test_of_an_experiment_that_was_never_stored(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    """Oríon's own would change and delete the trials of all experiments; ours, of none."""
    storage.register_trial(trial_of(experiment))
    for fetch in (
        storage.fetch_trials,
        storage.fetch_lost_trials,
        storage.fetch_pending_trials,
        storage.fetch_noncompleted_trials,
    ):
        assert fetch(NEVER_STORED) == []
    assert storage.fetch_trials(NEVER_STORED, where={"status": "new"}) == []
    assert storage.fetch_trials_by_status(NEVER_STORED, "new") == []
    assert storage.reserve_trial(NEVER_STORED) is None
    assert storage.count_completed_trials(NEVER_STORED) == 0
    assert storage.count_broken_trials(NEVER_STORED) == 0
    assert storage.update_trials(NEVER_STORED, status="broken") == 0
    assert storage.delete_trials(NEVER_STORED) == 0
    assert not storage.update_experiment(NEVER_STORED, max_trials=3)
    assert storage.delete_experiment(NEVER_STORED) == 0
    assert storage.get_algorithm_lock_info(NEVER_STORED) is None
    assert not storage.release_algorithm_lock(NEVER_STORED)
    assert storage.delete_algorithm_lock(NEVER_STORED) == 0
    assert [trial.status for trial in storage.fetch_trials(experiment)] == ["new"]
    assert "max_trials" not in storage.fetch_experiments({})[0]
    with pytest.raises(AssertionError):
        storage.fetch_trials(NEVER_STORED, uid=experiment.id)
    anything: Any = "no experiment"
    with pytest.raises(MissingArguments):
        storage.fetch_pending_trials(anything)
    with pytest.raises(MissingArguments):
        storage.fetch_trials()


def test_of_a_trial_without_an_experiment(storage: AioStorage) -> None:
    trial = trial_of(NEVER_STORED)
    assert storage.get_trial(uid=trial.id, experiment_uid="x") is None
    assert storage.get_trial(trial) is None
    assert storage.update_trial(trial, status="broken") == 0
    with pytest.raises(FailedUpdate):
        storage.set_trial_status(trial, "broken")


def test_orions_own_experiment(storage: AioStorage) -> None:
    space = SpaceBuilder().build({"x": "uniform(0, 1)"})
    experiment = Experiment("unsaved", space=space, mode="x", storage=storage)
    assert experiment.id is None
    assert experiment.fetch_trials() == []
    assert len(experiment.to_pandas()) == 0
    assert experiment.reserve_trial() is None


# ---------------------------------------------------------------------------------------- ids


def test_zero_is_an_id_and_no_mismatch(storage: AioStorage) -> None:
    zero, other = MinimalExperiment(storage, _id=0), MinimalExperiment(storage, name="other")
    own = storage.register_trial(trial_of(zero))
    elsewhere = storage.register_trial(trial_of(other))
    assert storage.get_trial(own, experiment_uid=0).id == own.id
    assert storage.get_trial(uid=own.id, experiment_uid=0).id == own.id
    assert storage.get_trial(elsewhere, experiment_uid=0).id == elsewhere.id
    assert storage.update_trial(elsewhere, experiment_uid=0, status="broken") == 1
    assert storage.update_trial(own, experiment_uid=None, status="suspended") == 1
    assert storage.get_trial(trial_of(zero, 0.75), experiment_uid=0) is None
    assert [trial.status for trial in storage.fetch_trials(zero)] == ["suspended"]
    assert storage.reserve_trial(zero).id == own.id
    with storage.acquire_algorithm_lock(uid=0, timeout=5) as held:
        held.set_state(1)
    assert storage.delete_trials(uid=0) == 1


def test_a_mismatch_of_ids(storage: AioStorage, experiment: MinimalExperiment) -> None:
    trial = storage.register_trial(trial_of(experiment))
    for given in ({"experiment_uid": "elsewhere"}, {"uid": "another"}):
        with pytest.raises(AssertionError):
            storage.get_trial(trial, **given)
        with pytest.raises(AssertionError):
            storage.update_trial(trial, **given, status="broken")
    with pytest.raises(AssertionError):
        storage.fetch_trials(experiment, uid="elsewhere")
    for too_few in ({}, {"uid": trial.id}, {"experiment_uid": experiment.id}):
        with pytest.raises(MissingArguments):
            storage.get_trial(**too_few)
        with pytest.raises(MissingArguments):
            storage.update_trial(**too_few, status="broken")
    assert storage.get_trial(trial).status == "new"
