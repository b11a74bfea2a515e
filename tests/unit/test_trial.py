from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import logging
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, assert_type

import numpy as np
import pytest

from aiostorage.errors import InvalidArgument, InvalidResult, MissingObjective
from aiostorage.experiment import Experiment
from aiostorage.trial import Param, Result, Trial, TrialStatus, as_results, validate_status

START = dt.datetime(2024, 2, 29, 12, 0, tzinfo=dt.UTC)
END = START + dt.timedelta(minutes=5)
BEAT = START + dt.timedelta(minutes=2)

KEYS = {
    *("experiment", "id", "status", "worker", "exp_working_dir", "heartbeat", "submit_time"),
    *("start_time", "end_time", "results", "params", "parent"),
}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def full_trial() -> Trial:
    return Trial(
        experiment=7,
        status="completed",
        params=[
            {"name": "lr", "type": "real", "value": 0.1},
            {"name": "net.layers", "type": "integer", "value": 3},
            {"name": "net.sizes", "type": "integer", "value": [8, 8, 4]},
            {"name": "epochs", "type": "fidelity", "value": 10},
        ],
        results=[
            {"name": "loss", "type": "objective", "value": 0.5},
            {"name": "guess", "type": "lie", "value": 0.4},
            {"name": "slope", "type": "gradient", "value": [0.1, 0.2]},
            {"name": "memory", "type": "constraint", "value": 1},
            {"name": "time", "type": "constraint", "value": 2},
            {"name": "accuracy", "type": "statistic", "value": 0.9},
        ],
        worker="token",
        submit_time=START,
        start_time=START,
        end_time=END,
        heartbeat=BEAT,
        parent="0" * 32,
        exp_working_dir="/data",
        _id="key",
    )


# --------------------------------------------------------------------------------- status


@pytest.mark.parametrize("status", [*TrialStatus, *(status.value for status in TrialStatus)])
def test_statuses_become_plain_strings(status: str) -> None:
    answered = validate_status(status)
    assert type(answered) is str
    assert answered == status


@pytest.mark.parametrize("status", ["NEW", "odd", "", None, 1, ["new"]])
def test_other_statuses_are_refused_with_a_list_of_the_allowed(status: Any) -> None:
    message = "allowed are: new, reserved, suspended, completed, interrupted, broken"
    with pytest.raises(ValueError, match=message):
        validate_status(status)
    with pytest.raises(ValueError, match=message):
        Trial(status=status)
    with pytest.raises(ValueError, match=message):
        Trial.from_dict({"status": status})
    trial = Trial(experiment=1)
    with pytest.raises(ValueError, match=message):
        trial.status = status
    assert trial.status == "new"


def test_a_status_can_be_set() -> None:
    trial = Trial(experiment=1)
    trial.status = TrialStatus.RESERVED
    assert type(trial.status) is str
    assert trial.status == "reserved"


# ------------------------------------------------------------------------- params, results


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (Param, "integer, real, categorical, fidelity"),
        (Result, "objective, constraint, gradient, statistic, lie"),
    ],
)
def test_types_are_checked(kind: type[Param | Result], allowed: str) -> None:
    for name in allowed.split(", "):
        assert kind(name="x", type=name, value=1).type == name
    assert kind(name="x", value=1).type is None
    for odd in ("odd", "", 1, ["real"]):
        with pytest.raises(ValueError, match=f"of 'x'; allowed are: {allowed}"):
            kind(name="x", type=odd, value=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "python"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("word"), "word"),
        (np.array([1, 2]), [1, 2]),
        (np.array(2.5), 2.5),
        ([1, 2], [1, 2]),
    ],
)
def test_numpy_values_become_pythons(value: Any, python: Any) -> None:
    for kind in (Param, Result):
        made = kind(name="x", value=value)
        assert type(made.value) is type(python)
        assert made.value == python


def test_values_are_small_and_compare_by_all_three() -> None:
    param = Param("x", "real", 0.5)
    assert param == Param(name="x", type="real", value=0.5)
    assert param != Param("y", "real", 0.5)
    assert param != Param("x", "fidelity", 0.5)
    assert param != Param("x", "real", 0.6)
    assert param != "x"
    assert param != param.to_dict()
    assert repr(param) == "Param(name='x', type='real', value=0.5)"
    assert repr(Result("x")) == "Result(name='x', type=None, value=None)"
    assert param.to_dict() == {"name": "x", "type": "real", "value": 0.5}
    with pytest.raises(AttributeError):
        param.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        hash(param)


def test_a_copied_value_shares_nothing() -> None:
    param = Param("x", "categorical", [[1], 2])
    twin = param.copy()
    assert twin == param
    twin.value[0].append(3)
    assert param.value == [[1], 2]


def test_params_are_typed_by_their_python_values() -> None:
    trial = Trial(
        params={
            "lr": 0.1,
            "flag": True,
            "net": {"layers": 3, "inner": {"kind": "relu"}, "empty": {}},
            "sizes": [1, 2],
            "nothing": None,
            "a.b": np.float32(2),
            "n": np.int8(4),
            "np_flag": np.bool_(False),
        }
    )
    assert trial.param_list == [
        Param("lr", "real", 0.1),
        Param("flag", "categorical", True),
        Param("net.layers", "integer", 3),
        Param("net.inner.kind", "categorical", "relu"),
        Param("net.empty", "categorical", {}),
        Param("sizes", "categorical", [1, 2]),
        Param("nothing", "categorical", None),
        Param("a.b", "real", 2.0),
        Param("n", "integer", 4),
        Param("np_flag", "categorical", False),
    ]
    assert trial.params["net"] == {"layers": 3, "inner": {"kind": "relu"}, "empty": {}}
    assert trial.params["a"] == {"b": 2.0}


def test_params_and_results_may_be_objects() -> None:
    param, result = Param("x", "real", 1.5), Result("loss", "objective", 2)
    trial = Trial(params=iter([param]), results=(result,))
    assert trial.param_list[0] is trial._params[0] is param
    assert trial.results[0] is result
    assert trial.objective is result


@pytest.mark.parametrize("item", [1, "x", None, ("x", "real", 1.0)])
def test_other_params_are_refused(item: Any) -> None:
    with pytest.raises(TypeError, match="expected a mapping or a Param, not "):
        Trial(params=[item])


def test_misspelt_keys_of_params_are_refused() -> None:
    with pytest.raises(TypeError, match="'typ'"):
        Trial(params=[{"name": "x", "typ": "real", "value": 1.0}])


def test_the_value_of_the_objective() -> None:
    for value in (2, 2.0, np.float32(2), np.int64(2)):
        trial = Trial(params={"x": 1}, results=2)
        trial.results[0].value = value
        assert trial.objective_value == 2
        assert type(trial.objective_value) is float
    assert math.isnan(Trial(results=math.nan).objective_value)


@pytest.mark.parametrize(
    ("results", "what"),
    [
        ([], "no objective"),
        ([Result("a", "statistic", 1), Result("b", "lie", 1)], "no objective"),
        ([Result("a", "objective", None)], "no objective"),
        ([Result("a", "objective", "low")], "an objective that is not a number: 'low'"),
        ([Result("a", "objective", True)], "an objective that is not a number: True"),
    ],
)
def test_a_trial_without_an_objective_says_so(results: list[Result], what: str) -> None:
    trial = Trial(params={"x": 1}, status="suspended", results=results)
    with pytest.raises(MissingObjective) as raised:
        _ = trial.objective_value
    assert str(raised.value) == f"trial {trial.id} is 'suspended' and has {what}"
    assert (raised.value.uid, raised.value.status) == (trial.id, "suspended")
    assert isinstance(raised.value, ValueError)
    with pytest.raises(MissingObjective, match="a trial without an id is 'new'"):
        _ = Trial().objective_value


def test_constructed_results_need_no_objective_unless_in_short_form() -> None:
    assert Trial().results == []
    assert Trial(results=[{"name": "x", "type": "lie", "value": 1}]).objective is None
    assert Trial(results={"loss": 0.5}).results == [Result("loss", "objective", 0.5)]
    assert Trial(results=3).results == [Result("objective", "objective", 3)]
    with pytest.raises(InvalidResult):
        Trial(results={})


def test_results_by_type() -> None:
    trial = full_trial()
    assert trial.objective == Result("loss", "objective", 0.5)
    assert trial.lie == Result("guess", "lie", 0.4)
    assert trial.gradient == Result("slope", "gradient", [0.1, 0.2])
    assert [result.name for result in trial.constraints] == ["memory", "time"]
    assert [result.name for result in trial.statistics] == ["accuracy"]
    empty = Trial()
    assert (empty.objective, empty.lie, empty.gradient) == (None, None, None)
    assert (empty.constraints, empty.statistics) == ([], [])


@pytest.mark.parametrize("value", [1, 0.5, True, float("nan"), float("inf"), np.float32(1)])
def test_a_number_is_an_objective(value: Any) -> None:
    trial = Trial(experiment=1)
    trial.results = [Result("loss", "objective", value), Result("x", "statistic", "any")]
    assert trial.objective is trial.results[0]


@pytest.mark.parametrize("value", [None, "1", [1.0], Decimal(1), 1j, np.array([1.0, 2.0])])
def test_what_is_no_number_is_no_objective(value: Any) -> None:
    trial = Trial(experiment=1, results=1)
    before = trial.results
    with pytest.raises(InvalidResult, match=r"must be an int or a float: .*'loss'"):
        trial.results = [Result("loss", "objective", value)]
    with pytest.raises(InvalidResult, match="'loss'"):
        as_results({"loss": value})
    assert trial.results is before


@pytest.mark.parametrize("results", [[], [Result("x", "statistic", 1)], [Result("x", value=1)]])
def test_results_without_objective_are_refused(results: list[Result]) -> None:
    trial = Trial(experiment=1)
    with pytest.raises(InvalidResult, match="no result is of type objective"):
        trial.results = results
    assert trial.results == []


def test_the_first_of_several_objectives_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "aiostorage.trial"):
        results = as_results([Result("a", "objective", 1), Result("b", "objective", None)])
    assert len(results) == 2
    assert "only the first objective counts" in caplog.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, [("objective", "objective", 3)]),
        (np.float32(0.5), [("objective", "objective", 0.5)]),
        (np.array(2), [("objective", "objective", 2)]),
        ({"loss": 0.5}, [("loss", "objective", 0.5)]),
        (
            {"loss": np.float64(0.5), "acc": [1]},
            [("loss", "objective", 0.5), ("acc", "statistic", [1])],
        ),
        (
            {"acc": 1, "objective": 2, "x": "y"},
            [("acc", "statistic", 1), ("objective", "objective", 2), ("x", "statistic", "y")],
        ),
        (
            [
                {"name": "c", "type": "constraint", "value": 1},
                Result("loss", "objective", 2),
            ],
            [("c", "constraint", 1), ("loss", "objective", 2)],
        ),
    ],
)
def test_short_forms_of_results(value: Any, expected: list[tuple[str, str, Any]]) -> None:
    results = as_results(value)
    assert results == [Result(*fields) for fields in expected]
    assert [type(result.value) for result in results] == [type(fields[2]) for fields in expected]


def test_a_bare_nan_is_an_objective() -> None:
    (result,) = as_results(float("nan"))
    assert math.isnan(result.value)


def test_an_experiment_instead_of_its_id() -> None:
    experiment: Any = Experiment(id=1, name="tune")
    with pytest.raises(InvalidArgument, match=r"; pass its id: experiment\.id$"):
        Trial(experiment=experiment, params={"x": 1})
    with pytest.raises(InvalidArgument, match=r"; pass the `_id` of its config$"):
        Trial(experiment={"_id": 1}, params={"x": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "results must be .* a mapping of names to values or a list of results, not None$"),
        ("0.5", "or a list of results, not '0.5'$"),
        ("", "no result is of type objective"),
        ({}, "no result is of type objective"),
        ([1.0], "expected a mapping or a Result, not 1.0"),
        (np.array([1.0]), "expected a mapping or a Result, not 1.0"),
        (Decimal(1), "results must be a number"),
        ([{"name": "x", "type": "odd", "value": 1}], "allowed are: objective, constraint"),
        ([{"type": "objective", "value": 1}], "'name'"),
        ([{"name": "x", "typ": "objective"}], "'typ'"),
        (Result("x", "objective", 1), "results must be a number"),
    ],
)
def test_other_results_are_refused_with_a_reason(value: Any, message: str) -> None:
    with pytest.raises(InvalidResult, match=message):
        as_results(value)


# ------------------------------------------------------------------------------ construction


def test_defaults() -> None:
    trial = Trial()
    assert trial.status == "new"
    assert (trial.params, trial.param_list, trial.results) == ({}, [], [])
    for name in ("experiment", "worker", "parent", "exp_working_dir", "id_override", "_id"):
        assert getattr(trial, name) is None
    for name in ("submit_time", "start_time", "end_time", "heartbeat"):
        assert getattr(trial, name) is None


def test_unknown_keywords_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="'bogus'"):
        Trial(bogus=1)  # type: ignore[call-arg]


def test_unknown_attributes_are_refused() -> None:
    trial = Trial()
    with pytest.raises(AttributeError):
        trial.bogus = 1  # type: ignore[attr-defined]


def test_legacy_keywords_are_ignored() -> None:
    trial = Trial(params={"x": 1}, id="no", parents=["no"], id_override="no", _id="yes")
    assert trial.id == md5("x:1")
    assert trial.parent is None
    assert trial.id_override == trial._id == "yes"


def test_attributes_have_precise_types() -> None:
    trial = full_trial()
    assert_type(trial.experiment, str | int | None)
    assert_type(trial.start_time, dt.datetime | None)
    assert_type(trial.params, dict[str, Any])
    assert_type(trial.param_list, list[Param])
    assert_type(trial.results, list[Result])
    assert_type(trial.objective, Result | None)
    assert_type(trial.id, str)
    assert_type(trial.copy(), Trial)
    assert_type(Trial.build([]), list[Trial])


# --------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"params": {"lr": 0.1, "layers": 3}}, "lr:0.1,layers:3"),
        ({"params": {"layers": 3, "lr": 0.1}}, "layers:3,lr:0.1"),
        ({"params": {"x": 1e-07, "y": 1.0}}, "x:1e-07,y:1.0"),
        ({"params": {"x": None, "größe": "ü"}}, "x:None,größe:ü"),
        ({"params": {"x": [1, 2.5, "a"]}}, "x:[1, 2.5, 'a']"),
        ({"params": {"x": 1}, "experiment": 9, "worker": "w"}, "x:1"),
        ({"params": {"x": 1}, "parent": "abc"}, "x:1abc"),
        ({"params": {"x": 1}, "parent": ""}, "x:1"),
        (
            {"params": {"x": 1}, "parent": "abc", "results": [Result("l", "lie", 0.5)]},
            "x:1l:0.5abc",
        ),
        ({"params": {"x": 1}, "results": 5}, "x:1"),
        ({"experiment": 9}, ""),
    ],
)
def test_ids_are_those_of_orion(fields: dict[str, Any], text: str) -> None:
    trial = Trial(**fields)
    assert trial.id == trial.hash_name == Trial.compute_trial_hash(trial) == md5(text)


def test_ids_stay_what_they_were() -> None:
    # Worked out by Oríon 0.2.7; a change here orphans every stored trial.
    trial = full_trial()
    assert trial.id == "f98872dea719a162e4d07d1ff5e282f8"
    assert trial.hash_params == "b0fa28fa2f7919bbf181491337bb88f8"


def test_hashes_may_ignore_parts() -> None:
    trial = full_trial()
    params = "lr:0.1,net.layers:3,net.sizes:[8, 8, 4]"
    epochs, lie, parent = ",epochs:10", "guess:0.4", "0" * 32
    compute = Trial.compute_trial_hash
    assert compute(trial) == md5(params + epochs + lie + parent)
    assert compute(trial, ignore_fidelity=True) == md5(params + lie + parent)
    assert compute(trial, ignore_lie=True) == md5(params + epochs + parent)
    assert compute(trial, ignore_parent=True) == md5(params + epochs + lie)
    assert trial.hash_params == md5(params)


@pytest.mark.parametrize(
    "read",
    [
        lambda trial: trial.id,
        lambda trial: trial.hash_name,
        lambda trial: trial.hash_params,
        lambda trial: trial.full_name,
        hash,
        Trial.to_dict,
        Trial.branch,
        lambda trial: trial == Trial(experiment=1),
    ],
)
def test_a_trial_of_nothing_has_no_id(read: Callable[[Trial], object]) -> None:
    with pytest.raises(ValueError, match="a trial without params"):
        read(Trial())


def test_trials_are_equal_when_their_ids_are() -> None:
    trial = full_trial()
    other = Trial(
        params=trial.param_list, parent="0" * 32, results=[Result("guess", "lie", 0.4)], worker="x"
    )
    assert trial == other
    assert hash(trial) == hash(other) == hash(trial.id)
    assert len({trial, other}) == 1
    other.parent = "1"
    assert trial != other
    assert trial != trial.id


def test_the_id_follows_changes() -> None:
    trial = Trial(params={"x": 1})
    trial.param_list[0].value = 2
    assert trial.id == md5("x:2")


# ---------------------------------------------------------------------------- directories


def test_working_dir() -> None:
    trial = full_trial()
    assert trial.working_dir == f"/data/{trial.id}"
    trial.exp_working_dir = "/other/"
    assert trial.working_dir == trial.get_working_dir() == f"/other/{trial.id}"
    for ignored in ("ignore_fidelity", "ignore_lie", "ignore_parent"):
        name = Trial.compute_trial_hash(trial, **{ignored: True})
        assert trial.get_working_dir(**{ignored: True}) == f"/other/{name}"
        assert name != trial.id


def test_a_path_will_do_as_directory() -> None:
    trial = Trial(params={"x": 1}, exp_working_dir=PurePosixPath("/p"))  # type: ignore[arg-type]
    assert trial.working_dir == f"/p/{trial.id}"


def test_no_working_dir_without_that_of_the_experiment() -> None:
    with pytest.raises(RuntimeError, match="exp_working_dir"):
        _ = Trial(params={"x": 1}).working_dir


# ------------------------------------------------------------------------------- duration


@pytest.mark.parametrize(
    ("times", "interval"),
    [
        ({}, None),
        ({"start_time": START}, None),
        ({"end_time": END, "heartbeat": BEAT}, None),
        ({"start_time": START, "heartbeat": BEAT}, (START, BEAT)),
        ({"start_time": START, "heartbeat": BEAT, "end_time": END}, (START, END)),
    ],
)
def test_duration(
    times: dict[str, dt.datetime], interval: tuple[dt.datetime, dt.datetime] | None
) -> None:
    trial = Trial(**times)  # type: ignore[arg-type]
    assert trial.execution_interval == interval
    assert trial.duration == (interval[1] - interval[0] if interval else dt.timedelta(0))


# ---------------------------------------------------------------------------- descriptions


def test_descriptions() -> None:
    trial = Trial(experiment="e", params={"a/b": "c/d", "n": 1})
    assert trial.full_name == "a.b:c.d-n:1"
    assert trial.params_repr() == "a/b:c/d,n:1"
    assert repr(trial) == "Trial(experiment='e', status='new', params=a/b:c/d,n:1)"
    assert repr(Trial()) == "Trial(experiment=None, status='new', params=)"
    full = full_trial()
    assert full.params_repr("; ", ignore_fidelity=True) == Trial.format_params(
        full.param_list[:3], "; "
    )
    assert full.params_repr().endswith(",epochs:10")


@pytest.mark.parametrize("fields", [{"params": {"x": 1}}, {"experiment": 1}])
def test_a_full_name_needs_params_and_experiment(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="full name"):
        _ = Trial(**fields).full_name


def test_names_that_lead_into_values_keep_their_dots() -> None:
    trial = Trial.from_dict({"params": [{"name": "a", "value": 1}, {"name": "a.b", "value": 2}]})
    assert trial.params == {"a": 1, "a.b": 2}
    deeper = [{"name": "p.a", "value": 1}, {"name": "p.a.b.c", "value": 2}]
    assert Trial.from_dict({"params": deeper}).params == {"p": {"a": 1}, "p.a.b.c": 2}


# --------------------------------------------------------------------------------- branch


def test_branch() -> None:
    trial = full_trial()
    sizes = [1, [2]]
    branch = trial.branch("reserved", {"net.layers": np.int64(4), "net.sizes": sizes})
    assert branch.status == "reserved"
    assert branch.parent == trial.id
    assert (branch.experiment, branch.exp_working_dir) == (7, "/data")
    assert [param.to_dict() for param in branch.param_list] == [
        {"name": "lr", "type": "real", "value": 0.1},
        {"name": "net.layers", "type": "integer", "value": 4},
        {"name": "net.sizes", "type": "integer", "value": [1, [2]]},
        {"name": "epochs", "type": "fidelity", "value": 10},
    ]
    assert type(branch.params["net"]["layers"]) is int
    assert branch.results == []
    for name in ("worker", "submit_time", "start_time", "end_time", "heartbeat", "id_override"):
        assert getattr(branch, name) is None
    sizes.append(3)
    assert branch.params["net"]["sizes"] == [1, [2]]
    assert trial.params["net"] == {"layers": 3, "sizes": [8, 8, 4]}


def test_an_unchanged_branch_shares_no_values() -> None:
    trial = full_trial()
    branch = trial.branch()
    assert branch.status == "new"
    assert branch.hash_params == trial.hash_params
    assert branch.id != trial.id
    branch.params["net"]["sizes"].append(1)
    assert trial.params["net"]["sizes"] == [8, 8, 4]


def test_branch_refuses_unknown_params_by_name() -> None:
    with pytest.raises(ValueError, match="no params 'layers', 'odd'"):
        full_trial().branch(params={"layers": 1, "lr": 1.0, "odd": 2})


# ---------------------------------------------------------------------------- stored form


def test_to_dict() -> None:
    trial = full_trial()
    document = trial.to_dict()
    assert document.keys() == KEYS | {"_id"}
    assert document["id"] == trial.id
    assert document["_id"] == "key"
    assert document["params"][0] == {"name": "lr", "type": "real", "value": 0.1}
    assert document["results"][0] == {"name": "loss", "type": "objective", "value": 0.5}
    assert type(document["status"]) is str
    assert (document["start_time"], document["end_time"]) == (START, END)
    assert Trial(experiment=1).to_dict().keys() == KEYS
    json.dumps(Trial(experiment=1, params={"x": np.int8(1)}, status=TrialStatus.NEW).to_dict())


def test_from_dict_is_the_inverse_of_to_dict() -> None:
    document = full_trial().to_dict()
    for trial in (Trial.from_dict(document), Trial(**document), *Trial.build([document])):
        assert trial.to_dict() == document
        assert type(trial) is Trial


def test_from_dict_ignores_what_others_have_added() -> None:
    document = full_trial().to_dict()
    more = copy.deepcopy(document) | {"added": 1, "parents": [], "id_override": "no", "id": "no"}
    more["params"][0]["added"] = more["results"][0]["added"] = 2
    assert Trial.from_dict(more).to_dict() == document


@pytest.mark.parametrize(
    "document", [{}, {"params": None, "results": None}, {"params": [{"name": "x"}]}]
)
def test_from_dict_takes_partial_documents(document: dict[str, Any]) -> None:
    trial = Trial.from_dict(document)
    assert trial.status == "new"
    assert trial.param_list == ([Param("x")] if document.get("params") else [])


@pytest.mark.parametrize("param", [{}, {"name": None, "value": 1}, {"name": 3}])
def test_from_dict_needs_the_names_of_params(param: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Trial.from_dict({"params": [param]})


def test_a_type_that_was_changed_is_checked() -> None:
    param, result = Param("x", "real", 1.0), Result("o", "objective", 1)
    param.type = result.type = "bogus"
    with pytest.raises(ValueError, match="'bogus' of 'x'"):
        Trial(params=[param])
    with pytest.raises(InvalidResult, match="'bogus' of 'o'"):
        as_results([result])


@pytest.mark.parametrize("results", [{3: 1.0}, {"objective": 1, None: 2, int: 3}])
def test_names_of_results_are_text(results: Any) -> None:
    with pytest.raises(InvalidResult, match="name of a result"):
        as_results(results)


def test_from_dict_checks_types() -> None:
    with pytest.raises(ValueError, match="'odd'"):
        Trial.from_dict({"params": [{"name": "x", "type": "odd", "value": 1}]})


def test_subclasses_make_their_own_kind() -> None:
    class MyTrial(Trial):
        pass

    mine = MyTrial.from_dict(full_trial().to_dict())
    for made in (mine, mine.copy(), mine.branch(), copy.deepcopy(mine)):
        assert type(made) is MyTrial
    assert repr(mine).startswith("MyTrial(")
    assert mine == full_trial()


@pytest.mark.parametrize(
    "duplicate",
    [
        Trial.copy,
        copy.deepcopy,
        *(
            lambda trial, protocol=protocol: pickle.loads(pickle.dumps(trial, protocol))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_copies_are_independent(duplicate: Callable[[Trial], Trial]) -> None:
    trial = full_trial()
    before = copy.deepcopy(trial.to_dict())
    twin = duplicate(trial)
    assert twin.to_dict() == before
    twin.status = "broken"
    twin.param_list[0].value = 9
    twin.param_list[2].value.append(9)
    twin.param_list.pop()
    assert twin.gradient is not None
    twin.gradient.value.append(9)
    twin.results[0].value = 9
    twin.results.pop()
    twin.worker = "other"
    assert trial.to_dict() == before


def test_a_trial_without_id_can_be_copied() -> None:
    assert Trial().copy().params == {}
