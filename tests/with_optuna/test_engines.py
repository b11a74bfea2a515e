"""What depends on the engine: two processes that do not know of each other's latest trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from aiostorage import DuplicateKeyError
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage.operations import Document, Find, InsertNext
from aiostorage.optuna import OptunaStorage
from aiostorage.optuna.study_ids import parts_of_trial_id
from aiostorage.optuna.trial_records import MIN_TRIED_NUMBERS

UP = [StudyDirection.MAXIMIZE]


def test_numbers_and_ids_are_taken_once(pair: tuple[OptunaStorage, OptunaStorage]) -> None:
    one, other = pair
    assert [s.create_new_study(UP, f"{n}") for n, s in enumerate((one, other, one))] == [1, 2, 3]
    with pytest.raises(DuplicatedStudyError):
        other.create_new_study(UP, "0")
    # so many that the other one has to search for the highest number
    for _ in range(MIN_TRIED_NUMBERS + 3):
        one.create_new_trial(1)
    other.create_new_trial(1)
    waiting = create_trial(state=TrialState.WAITING)
    ids = [s.create_new_trial(1, waiting) for s in (one, other)]
    assert len({*ids}) == 2
    assert [trial.number for trial in one.get_all_trials(1)] == list(range(MIN_TRIED_NUMBERS + 6))
    assert other.get_all_trials(1) == one.get_all_trials(1)
    assert one.set_trial_state_values(ids[0], TrialState.RUNNING)
    assert not other.set_trial_state_values(ids[0], TrialState.RUNNING)
    other.delete_study(3)
    assert one.create_new_study(UP) == 4


def test_many_at_once_get_the_next_number_each(
    pair: tuple[OptunaStorage, OptunaStorage],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    study_id = pair[0].create_new_study(UP)
    refused: list[DuplicateKeyError] = []
    insert_next = Gateway.insert_next

    async def counted(self: Gateway, look: Find, insert: InsertNext) -> list[Document]:
        try:
            return await insert_next(self, look, insert)
        except DuplicateKeyError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(Gateway, "insert_next", counted)
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda n: pair[n % 2].create_new_trial(study_id), range(24)))
    assert sorted(parts_of_trial_id(trial_id)[1] for trial_id in ids) == list(range(24))
    for storage in pair:
        assert [trial.number for trial in storage.get_all_trials(study_id)] == list(range(24))
    # a server may find a number taken that was free when its transaction began
    if not request.node.callspec.params["url"].startswith("mongodb"):
        assert not refused, "none is inserted in vain"


def test_a_handed_back_trial_is_its_next_workers(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    one, other = pair
    study_id = one.create_new_study(UP)
    trial_id = one.create_new_trial(study_id)
    one.set_trial_param(trial_id, "a.b", 0.5, FloatDistribution(0, 1))
    one.set_trial_intermediate_value(trial_id, 3, 0.1)
    other.set_trial_state_values(trial_id, TrialState.WAITING)
    assert one.get_all_trials(study_id)[0].state == TrialState.WAITING
    assert other.set_trial_state_values(trial_id, TrialState.RUNNING)
    with pytest.raises(UpdateFinishedTrialError):
        one.set_trial_user_attr(trial_id, "late", True)
    with pytest.raises(UpdateFinishedTrialError):
        one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    other.set_trial_state_values(trial_id, TrialState.PRUNED, [2.0])
    for storage in pair:
        trial = storage.get_trial(trial_id)
        assert (trial.state, trial.values) == (TrialState.PRUNED, [2.0])
        assert (trial.params, trial.intermediate_values) == ({"a.b": 0.5}, {})
        assert trial.user_attrs == {}
        with pytest.raises(ValueError, match="No trials"):
            storage.get_best_trial(study_id)


def test_stale_trials_are_those_with_an_old_heartbeat(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    one, other = pair
    study_id = one.create_new_study(UP)
    ids = [one.create_new_trial(study_id) for _ in range(3)]
    for trial_id in ids[:2]:
        one.record_heartbeat(trial_id)
    other.heartbeat_interval = 60
    assert other._get_stale_trial_ids(study_id) == []
    other.grace_period = 1e-9  # type: ignore[assignment]  # every heartbeat is older
    while other._get_stale_trial_ids(study_id) != ids[:2]:
        time.sleep(0.001)  # that of this very millisecond is not old yet
    one.set_trial_state_values(ids[0], TrialState.FAIL)
    assert other._get_stale_trial_ids(study_id) == ids[1:2]


def found_stale(storage: OptunaStorage, study_id: int) -> list[int]:
    """Return the trials that are silent; a heartbeat of this very millisecond is not old yet."""
    storage.heartbeat_interval, storage.grace_period = 60, 1e-9  # type: ignore[assignment]
    while not (found := storage._get_stale_trial_ids(study_id)):
        time.sleep(0.001)
    return found


def test_a_trial_that_was_found_stale_is_not_failed_under_its_next_worker(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    """Between the two calls of `fail_stale_trials` it may have been handed back and begun again."""
    one, other = pair
    study_id = one.create_new_study(UP)
    trial_id = one.create_new_trial(study_id)
    one.record_heartbeat(trial_id)
    assert found_stale(other, study_id) == [trial_id]
    one.set_trial_state_values(trial_id, TrialState.WAITING)
    assert one.set_trial_state_values(trial_id, TrialState.RUNNING)
    with pytest.raises(UpdateFinishedTrialError, match="another worker"):
        other.set_trial_state_values(trial_id, TrialState.FAIL)
    one.set_trial_intermediate_value(trial_id, 1, 0.5)
    one.record_heartbeat(trial_id)
    assert found_stale(other, study_id) == [trial_id]
    assert other.set_trial_state_values(trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    for storage in pair:
        trial = storage.get_trial(trial_id)
        assert (trial.state, trial.intermediate_values) == (TrialState.FAIL, {1: 0.5})


def test_a_process_that_finds_its_own_trial_stale_fails_it_and_writes_no_more(
    storage: OptunaStorage,
) -> None:
    study_id = storage.create_new_study(UP)
    trial_id = storage.create_new_trial(study_id)
    storage.record_heartbeat(trial_id)
    assert found_stale(storage, study_id) == [trial_id]
    storage.set_trial_user_attr(trial_id, "still", "here")
    assert storage.set_trial_state_values(trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, "late", True)
    assert storage.get_trial(trial_id).user_attrs == {"still": "here"}


def test_a_study_that_another_process_has_deleted_is_gone(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    one, other = pair
    asks: list[Callable[[int], object]] = [
        one.delete_study,
        one.get_study_user_attrs,
        lambda study_id: one.set_study_user_attr(study_id, "a", 1),
        one.get_all_trials,
    ]
    for ask in asks:
        study_id = one.create_new_study(UP)
        other.delete_study(study_id)
        with pytest.raises(KeyError, match="no study"):
            ask(study_id)


def test_two_processes_set_params_of_one_trial(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    """As an objective does that gives its trial to a helper."""
    one, other = pair
    study_id = one.create_new_study(UP)
    trial_id = one.create_new_trial(study_id)
    for number, storage in enumerate((one, other, one, other, one)):
        storage.set_trial_param(trial_id, f"x{number}", number, FloatDistribution(0, 9))
    one.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    for storage in pair:
        assert storage.get_trial(trial_id).params == {f"x{n}": n for n in range(5)}


def test_a_trial_that_waits_is_handed_back_already(
    pair: tuple[OptunaStorage, OptunaStorage],
) -> None:
    one, other = pair
    study_id = one.create_new_study(UP)
    trial_id = one.create_new_trial(study_id)
    for storage in (one, other, one):
        assert storage.set_trial_state_values(trial_id, TrialState.WAITING)
    assert one.get_trial(trial_id).state == TrialState.WAITING
