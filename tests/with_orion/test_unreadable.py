"""What Oríon may write can be read again, and what it cannot read does not hide the rest."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.core.worker.trial import Trial as OrionTrial
from orion.storage.base import FailedUpdate

from aiostorage._core.documents import equal
from aiostorage._core.layout import TRIALS
from aiostorage.operations import Update
from aiostorage.orion import AioStorage

from .stored_experiment import MinimalExperiment, trial_of


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


def spoil(storage: AioStorage, trial: Any, changes: dict[str, Any]) -> None:
    """Write as another program does."""
    shared = storage._storage
    update = Update(TRIALS, equal(id=trial.id), changes)
    assert shared._portal.call(shared._storage._gateway.execute, update) == 1


def test_what_is_refused(storage: AioStorage, experiment: MinimalExperiment) -> None:
    trial = storage.register_trial(trial_of(experiment))
    before = storage.get_trial(trial).to_dict()
    allowed = str(OrionTrial.allowed_stati)
    for status in ("bogus", 3, ["new"]):
        with pytest.raises(ValueError, match="not one of") as raised:
            storage.update_trial(trial, status=status)
        assert allowed in str(raised.value)
        with pytest.raises(ValueError, match="not one of"):
            storage.update_trials(experiment, status=status)
    for changes in ({"params": "abc"}, {"results": [{"type": "bogus"}]}, {"params.0.type": "no"}):
        with pytest.raises(ValueError, match=r"params|results"):
            storage.update_trial(trial, **changes)
        with pytest.raises(ValueError, match=r"params|results"):
            storage._db.write("trials", changes, {"_id": trial.id_override})
    with pytest.raises(ValueError, match="unknown trial status"):
        storage._db.write("trials", {"status": "bogus"}, {"_id": trial.id_override})
    assert storage.get_trial(trial).to_dict() == before
    for locked in (5, "yes"):
        with pytest.raises(ValueError, match="locked"):
            storage._db.write("algo", {"locked": locked}, {"experiment": experiment.id})
    with storage.acquire_algorithm_lock(experiment, timeout=1):
        pass


def test_what_orion_itself_writes(storage: AioStorage, experiment: MinimalExperiment) -> None:
    """Oríon's own tests have results without a name and a value."""
    results = [{"name": None, "type": "objective", "value": None}]
    storage._db.write("trials", trial_of(experiment, 0.1, results=results).to_dict())
    storage.register_trial(trial_of(experiment, 0.2, results=results))
    assert [trial.objective.value for trial in storage.fetch_trials(experiment)] == [None, None]


def test_the_others_are_found(storage: AioStorage, experiment: MinimalExperiment) -> None:
    trials = [storage.register_trial(trial_of(experiment, x)) for x in (0.1, 0.2, 0.3)]
    spoil(storage, trials[0], {"params.0.type": "bogus"})
    others = [trial.id for trial in trials[1:]]
    for fetch in (
        storage.fetch_trials,
        storage.fetch_pending_trials,
        storage.fetch_noncompleted_trials,
    ):
        assert [trial.id for trial in fetch(experiment)] == others
    assert storage.reserve_trial(experiment).id == others[0]
    assert storage.count_broken_trials(experiment) == 1
    with pytest.raises(ValueError, match="cannot be read"):
        storage.get_trial(trials[0])


def test_a_nan_stays_completed(
    url: str, storage: AioStorage, experiment: MinimalExperiment, caplog: pytest.LogCaptureFixture
) -> None:
    for options, status in (({}, "completed"), ({"nan": "broken"}, "broken")):
        storage = AioStorage({"url": url, **options})
        storage.register_trial(trial_of(experiment, len(status) / 10))
        trial = storage.reserve_trial(experiment)
        trial.results = [OrionTrial.Result(name="o", type="objective", value=float("nan"))]
        trial.status = "completed"
        storage.push_trial_results(trial)
        assert (trial.status, storage.get_trial(trial).status) == (status, status)
    assert not [message for message in caplog.messages if "NaN" in message]
    with pytest.raises(FailedUpdate):
        storage.push_trial_results(trial)
