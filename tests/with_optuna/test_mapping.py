"""A study and a trial, as documents and back."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import _generate_trial
from optuna.trial import FrozenTrial, TrialState, create_trial

from aiostorage import EncodingError
from aiostorage._core.normalise import normalise
from aiostorage.optuna.field_names import field_name, name_of_field
from aiostorage.optuna.study_document import frozen_study, is_study, study_document
from aiostorage.optuna.study_ids import (
    MAX_STUDIES,
    parts_of_trial_id,
    study_id_of,
    trial_id_of,
)
from aiostorage.optuna.trial_document import frozen_trial, trial_document

STARTED = datetime(2026, 3, 29, 2, 30, 0, 123456)  # noqa: DTZ001  as Optuna has it


def there_and_back(trial: FrozenTrial, number: int = 0) -> FrozenTrial:
    document = normalise(trial_document(7, number, trial))
    for name in ("start_time", "end_time"):  # as the coarsest engine keeps them
        if document[name] is not None:
            moment = document[name]
            document[name] = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return frozen_trial(document)


def expected(trial: FrozenTrial, number: int = 0) -> FrozenTrial:
    trial.number, trial._trial_id = number, trial_id_of(7, number)
    return trial


def test_trials_of_all_states_come_back_as_they_were() -> None:
    generator = random.Random(7)
    for number in range(200):
        trial = _generate_trial(generator)
        assert there_and_back(trial, number) == expected(trial, number)


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (FloatDistribution(0, 1), 0.5),
        (FloatDistribution(1e-8, 1e8, log=True), 3e7),
        (FloatDistribution(0, 1, step=0.25), 0.75),
        (IntDistribution(-5, 5), -5),
        (IntDistribution(1, 1024, log=True), 512),
        (IntDistribution(0, 100, step=5), 95),
        (IntDistribution(-(2**62), 2**62), 2**61 + 1),
        (CategoricalDistribution((1, True, 1.0)), True),
        (CategoricalDistribution((None, "a", 2)), None),
        (CategoricalDistribution((math.nan, math.inf, -math.inf)), -math.inf),
    ],
)
def test_distributions_come_back_with_the_value_and_its_type(
    distribution: BaseDistribution, value: object
) -> None:
    trial = create_trial(
        state=TrialState.COMPLETE,
        value=1.0,
        params={"a.b": value},
        distributions={"a.b": distribution},
    )
    back = there_and_back(trial)
    assert back.distributions == {"a.b": distribution}
    expected = value
    if not isinstance(distribution, IntDistribution):  # a choice may be equal to another one
        expected = distribution.to_external_repr(distribution.to_internal_repr(value))
    assert (back.params["a.b"], type(back.params["a.b"])) == (expected, type(expected))


@pytest.mark.parametrize("name", ["", "a", "a.b", "%", "%2e", "$set", "01", "0", "\0", "ä", "a%b."])
def test_every_name_of_an_attribute_has_a_field_of_its_own(name: str) -> None:
    field = field_name(name)
    assert name_of_field(field) == name
    assert field
    assert not any(mark in field for mark in ".$\0")
    trial = create_trial(state=TrialState.FAIL, user_attrs={name: 1}, system_attrs={name: [2]})
    assert there_and_back(trial) == expected(trial)


def test_values_that_are_no_objectives_come_back() -> None:
    for state in (TrialState.PRUNED, TrialState.FAIL):
        trial = create_trial(state=state)
        trial.values = [1.5, math.inf]
        document = trial_document(7, 0, trial)
        assert [result["type"] for result in document["results"]] == ["statistic"] * 2
        assert there_and_back(trial).values == [1.5, math.inf]


def test_constraints_are_results_of_a_finished_trial() -> None:
    attributes = {"constraints": [-1.0], "constraints:size": 2.5, "constraints:text": "x"}
    trial = create_trial(state=TrialState.COMPLETE, value=0.5, system_attrs=attributes)
    results = trial_document(7, 0, trial)["results"]
    assert [(one["name"], one["type"], one["value"]) for one in results] == [
        ("objective", "objective", 0.5),
        ("constraint_0", "constraint", -1.0),
        ("constraint_size", "constraint", 2.5),
    ]
    assert there_and_back(trial) == expected(trial)


def test_the_status_decides_whatever_optuna_has_written() -> None:
    trial = create_trial(state=TrialState.PRUNED)
    document = trial_document(7, 0, trial)
    for status in ("new", "suspended", "interrupted"):
        assert frozen_trial({**document, "status": status}).state == TrialState.WAITING
    assert frozen_trial({**document, "status": "reserved"}).state == TrialState.RUNNING
    assert frozen_trial(document).state == TrialState.PRUNED
    by_a_worker = [{"name": "loss", "type": "objective", "value": 3}]
    back = frozen_trial({**document, "results": by_a_worker})
    assert (back.state, back.values) == (TrialState.COMPLETE, [3.0])
    nothing = [{"name": "loss", "type": "objective", "value": math.nan}]
    document = trial_document(7, 0, create_trial(state=TrialState.COMPLETE, value=1.0))
    assert frozen_trial({**document, "results": nothing}).state == TrialState.FAIL
    assert frozen_trial({**document, "status": "broken"}).state == TrialState.FAIL


def test_a_time_that_another_program_has_set_is_seen() -> None:
    trial = create_trial(state=TrialState.COMPLETE, value=1.0)
    trial.datetime_start = STARTED
    assert there_and_back(trial).datetime_start == STARTED
    document = trial_document(7, 0, trial)
    document["start_time"] += timedelta(hours=1)
    assert frozen_trial(document).datetime_start == STARTED + timedelta(hours=1)


def test_a_trial_of_another_program_has_distributions_of_its_values_alone() -> None:
    document = {
        "id": "a" * 32,
        "experiment": "6a0000000000000000000000",
        "status": "completed",
        "submit_time": datetime(2026, 1, 1, tzinfo=UTC),
        "params": [
            {"name": "lr", "type": "real", "value": 0.5},
            {"name": "layers", "type": "integer", "value": 3},
            {"name": "kind", "type": "categorical", "value": "adam"},
            {"name": "shape", "type": "real", "value": [1.0, 2.0]},
        ],
        "results": [{"name": "loss", "type": "objective", "value": 3}],
    }
    trial = frozen_trial(document, number=4)
    assert trial.params == {"lr": 0.5, "layers": 3, "kind": "adam", "shape": "[1.0, 2.0]"}
    assert trial.distributions["lr"] == FloatDistribution(0.5, 0.5)
    assert trial.distributions["layers"] == IntDistribution(3, 3)
    assert trial.distributions["kind"] == CategoricalDistribution(("adam",))
    assert trial.datetime_complete is not None
    trial._validate()
    with pytest.raises(ValueError, match="no number"):
        frozen_trial(document)


def test_a_study_comes_back_as_it_was() -> None:
    directions = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    config = study_document(3, "tune", directions, {"a.b": (1, 2)}, {"": {"1": None}})
    assert is_study(config)
    study = frozen_study(config)
    assert (study.study_name, study.directions, study._study_id) == ("tune", directions, 3)
    assert study.user_attrs == {"a.b": [1, 2]}
    assert study.system_attrs == {"": {"1": None}}
    assert not is_study({"name": "tune", "version": 1})


@pytest.mark.parametrize("value", [2**63, {"deep": [2**80]}])
def test_an_attribute_that_no_engine_can_store_says_which(value: object) -> None:
    with pytest.raises(EncodingError, match="big"):
        study_document(3, "tune", [StudyDirection.MINIMIZE], {"big": value})


def test_ids_of_trials_are_ints_that_javascript_knows() -> None:
    for uid in (1, MAX_STUDIES - 1, MAX_STUDIES, "6a0000000000000000000000", -1):
        study_id = study_id_of(uid)
        trial_id = trial_id_of(study_id, 2**28 - 1)
        assert parts_of_trial_id(trial_id) == (study_id, 2**28 - 1)
        assert trial_id < 2**53
    with pytest.raises(OverflowError):
        trial_id_of(1, 2**28)
