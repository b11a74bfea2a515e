from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aiostorage import experiment as module
from aiostorage.experiment import Experiment, ExperimentConfig, PartialExperimentConfig

CONFIG: dict[str, Any] = {
    "_id": 3,
    "name": "sweep",
    "version": 2,
    "space": {"x": "uniform(0, 1)"},
    "algorithm": {"random": {"seed": 1}},
    "metadata": {"user": "me", "user_args": ["--lr", "1"]},
}


def test_from_config() -> None:
    experiment = Experiment.from_config(CONFIG)
    assert (experiment.id, experiment._id) == (3, 3)
    assert (experiment.name, experiment.version) == ("sweep", 2)
    assert experiment.config == CONFIG
    assert repr(experiment) == "Experiment(id=3, name='sweep', version=2)"


@pytest.mark.parametrize("rest", [{}, {"version": None}])
def test_the_version_defaults_to_1(rest: dict[str, Any]) -> None:
    assert Experiment.from_config({"_id": "a", "name": "n", **rest}).version == 1


def test_an_id_of_0_is_one() -> None:
    assert Experiment.from_config({"_id": 0, "name": "n"}).id == 0


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({"name": "n"}, "needs _id$"),
        ({"_id": None, "name": "n"}, "needs _id$"),
        ({"_id": 1}, "needs name$"),
        ({}, "needs _id and name$"),
    ],
)
def test_a_config_needs_id_and_name(config: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        Experiment.from_config(config)


def test_the_config_is_private() -> None:
    config = copy.deepcopy(CONFIG)
    experiment = Experiment.from_config(config)
    config["space"]["y"] = "uniform(0, 2)"
    config["name"] = "other"
    assert experiment.config == CONFIG


def test_it_cannot_be_changed() -> None:
    experiment = Experiment.from_config(CONFIG)
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        experiment.config["name"] = "other"  # type: ignore[index]
    # Before Python 3.12 a frozen dataclass with slots stumbles over its own check here.
    with pytest.raises((AttributeError, TypeError)):
        experiment.extra = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rest", "algorithm"),
    [
        ({"algorithm": {"random": {}}}, {"random": {}}),
        ({"algorithms": {"tpe": {}}}, {"tpe": {}}),
        ({"algorithm": {"random": {}}, "algorithms": {"tpe": {}}}, {"random": {}}),
        ({"algorithm": None, "algorithms": {"tpe": {}}}, {"tpe": {}}),
        ({"algorithm": None}, {}),
        ({}, {}),
    ],
)
def test_algorithm(rest: dict[str, Any], algorithm: dict[str, Any]) -> None:
    assert Experiment(1, "n", config=rest).algorithm == algorithm


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda experiment: dataclasses.replace(experiment, name=experiment.name),
        lambda experiment: Experiment.from_config(experiment.config),
        *(
            lambda experiment, protocol=protocol: pickle.loads(pickle.dumps(experiment, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_copies_are_equal_and_independent(duplicate: Callable[[Experiment], Experiment]) -> None:
    experiment = Experiment.from_config(CONFIG)
    twin = duplicate(experiment)
    assert type(twin) is Experiment
    assert twin == experiment
    assert hash(twin) == hash(experiment)
    twin.config["space"]["y"] = "changed"
    assert twin != experiment
    assert experiment.config == CONFIG


def test_configs_have_the_keys_of_orion() -> None:
    if sys.version_info >= (3, 12):
        original = pytest.importorskip("orion.core.worker.experiment_config", exc_type=ImportError)
    else:
        from orion.core.worker import experiment_config as original

    for name in ("ExperimentConfig", "PartialExperimentConfig", "MetaData", "RefersConfig"):
        ours, theirs = getattr(module, name), getattr(original, name)
        assert set(ours.__annotations__) == set(theirs.__annotations__), name


def test_partial_configs_require_nothing() -> None:
    partial: PartialExperimentConfig = {"max_trials": 10}
    assert PartialExperimentConfig.__required_keys__ == frozenset()
    assert partial.keys() <= ExperimentConfig.__required_keys__
    assert ExperimentConfig.__optional_keys__ == frozenset()
