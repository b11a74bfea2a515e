"""The id of a trial goes by what is stored, and stays what it was in the store."""

from __future__ import annotations

import copy
import enum
import pickle
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from aiostorage import Param, Result, Trial
from tests.unit.subclasses import Colour, OldColour, Ratio

MOMENT = datetime(2024, 2, 29, 12, 0, 0, 123456)  # noqa: DTZ001 -- as Oríon's are


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ([np.float64(0.5), np.float32(0.25)], [0.5, 0.25]),
        ([np.int8(1), np.bool_(True), np.str_("a")], [1, True, "a"]),
        ([[np.array([1, 2])], np.array(3)], [[[1, 2]], 3]),
        (np.array([0.1, 0.2]), [0.1, 0.2]),
        (np.array([]), []),
        (np.array([[1], [2]]), [[1], [2]]),
        (MOMENT, MOMENT),
        (MOMENT.replace(tzinfo=UTC), MOMENT),
        (MOMENT.replace(tzinfo=timezone(timedelta(hours=2))), MOMENT - timedelta(hours=2)),
        ([MOMENT.replace(tzinfo=UTC)], [MOMENT]),
        (np.datetime64(MOMENT), MOMENT),
        (np.datetime64(MOMENT, "ns"), MOMENT),
        ([np.datetime64(MOMENT, "ns")], [MOMENT]),
        (np.array([MOMENT], "datetime64[ns]"), [MOMENT]),
        (np.datetime64("NaT", "ns"), None),
        (Colour.RED, Colour.RED.value),
        (OldColour.RED, OldColour.RED.value),
        ([OldColour.RED], [OldColour.RED.value]),
        (Ratio(0.5), 0.5),
        ([Ratio(0.5)], [0.5]),
        ([OrderedDict(b=1, a=np.float64(2))], [{"b": 1, "a": 2.0}]),
        ((1, 2), (1, 2)),  # cannot be stored, and has Oríon's id
        ({"a": {1: 2}}, {"a": {1: 2}}),
    ],
    ids=repr,
)
def test_the_id_is_that_of_the_stored_values(value: Any, stored: Any) -> None:
    trial = Trial(params=[{"name": "x", "value": value}])
    assert trial.id == Trial(params=[{"name": "x", "value": stored}]).id
    assert trial.params_repr() == f"x:{stored}"
    if not isinstance(value, dict):
        assert Trial(params={"x": value}).id == trial.id


def test_a_lie_goes_by_its_stored_value() -> None:
    lies = [[Result("l", "lie", [number(0.5)])] for number in (np.float64, float)]
    assert len({Trial(params={"x": 1}, results=lie).id for lie in lies}) == 1


def test_values_do_not_change_by_asking_for_the_id() -> None:
    value = [np.float64(0.5)]
    trial = Trial(params={"x": value})
    assert trial.id
    assert trial.param_list[0].value is value
    assert type(value[0]) is np.float64


class Level(enum.Enum):
    LOW = 1


def test_what_cannot_be_stored_has_an_id() -> None:
    assert Trial(params={"x": Level.LOW}).id
    assert Trial(params={"x": [object]}).id


# ------------------------------------------------------------------------------- the stored id


def stored(**changes: Any) -> dict[str, Any]:
    return Trial(experiment=1, params={"x": 1}, _id=7).to_dict() | {"id": "f" * 32} | changes


def test_a_stored_id_stays() -> None:
    trial = Trial.from_dict(stored())
    assert trial.id == trial.hash_name == trial.to_dict()["id"] == "f" * 32
    trial.param_list[0].value = 2
    trial.results.append(Result("l", "lie", 1.0))
    trial.parent = "0" * 32
    assert trial.id == "f" * 32
    assert Trial.compute_trial_hash(trial) != trial.id
    assert trial == Trial.from_dict(stored(params=[]))
    assert trial != Trial.from_dict(stored(id="e" * 32))
    assert hash(trial) == hash("f" * 32)


@pytest.mark.parametrize(
    "duplicate",
    [
        Trial.copy,
        copy.copy,
        copy.deepcopy,
        lambda trial: pickle.loads(pickle.dumps(trial)),
        lambda trial: Trial.from_dict(trial.to_dict()),
    ],
)
def test_copies_have_the_stored_id(duplicate: Callable[[Trial], Trial]) -> None:
    assert duplicate(Trial.from_dict(stored())).id == "f" * 32


def test_a_branch_refers_to_the_stored_id_and_has_one_of_its_own() -> None:
    branch = Trial.from_dict(stored()).branch()
    assert branch.parent == "f" * 32
    assert branch.id == Trial.compute_trial_hash(branch)


def test_the_directory_is_that_of_the_stored_id() -> None:
    trial = Trial.from_dict(stored(exp_working_dir="/data"))
    assert trial.working_dir == f"/data/{'f' * 32}"
    assert trial.get_working_dir(ignore_lie=True) == f"/data/{Trial.compute_trial_hash(trial)}"


@pytest.mark.parametrize("uid", [None, "", "other", 5, b"f" * 32])
def test_without_an_md5_the_id_is_computed(uid: Any) -> None:
    trial = Trial.from_dict(stored(id=uid))
    assert trial.id == Trial.compute_trial_hash(trial)


# ---------------------------------------------------------------------------- names of params


@pytest.mark.parametrize(
    "params",
    [
        {"a": {"b": 1}, "a.b": 2},
        {"a.b": 2, "a": {"b": 1}},
        {"a.b": 2, "a": 1},
        {"a.b": 2, "a": {}},
        {"a": {"b.c": 1}, "a.b": 2},
        {"a": {1: 1}, "a.1": 2},
        {"a": 1, "a.b": 2},
        {"a": {}, "a.b": 1},
    ],
)
def test_params_that_would_be_lost_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"two params have the name|leads into the value of"):
        Trial(params=params)


@pytest.mark.parametrize("params", [{"a": {"b": 1}, "a.c": 2}, {"a.b": 1, "ab": 2, "a_b": 3}])
def test_other_names_lose_nothing(params: dict[str, Any]) -> None:
    trial = Trial(params=params)
    again = Trial(params=trial.params)
    found = {param.name: param.value for param in trial.param_list if param.value != {}}
    assert {param.name: param.value for param in again.param_list} == found


def test_params_in_a_list_keep_their_names() -> None:
    twins = [Param("x", "integer", 1), Param("x", "integer", 2)]
    assert Trial(params=twins).param_list == twins
