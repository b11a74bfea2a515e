"""Trials here and trials of the real Oríon 0.2.7 agree about everything that both of them say."""

from __future__ import annotations

import copy
import datetime as dt
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiostorage.trial import Param, Result, Trial, TrialStatus

if sys.version_info >= (3, 12):
    # Oríon 0.2.7 ends at Python 3.11. There it has to be installed: its lack is an error.
    orion_trial = pytest.importorskip("orion.core.worker.trial", exc_type=ImportError)
else:
    from orion.core.worker import trial as orion_trial


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Oríon logs, on every read, that there are several results of a type."""
    logger = logging.getLogger(orion_trial.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


# ------------------------------------------------------------------------------ documents

FLOATS = st.floats() | st.floats(0, 1) | st.integers(-308, 308).map(lambda power: 10.0**power)
INTEGERS = st.integers() | st.integers(-9, 9)
NUMPY_INTEGERS = st.integers(-128, 127).flatmap(
    lambda number: st.sampled_from(
        [np.int8(number), np.int32(number), np.int64(number), np.array(number)]
    )
)
NUMPY_FLOATS = st.floats(width=32).flatmap(
    lambda number: st.sampled_from(
        [np.float64(number), np.float32(number), np.array([number, 0.1]), np.array(number)]
    )
)
REALS = FLOATS | NUMPY_FLOATS | st.lists(FLOATS, max_size=3)
WHOLES = INTEGERS | NUMPY_INTEGERS | st.lists(INTEGERS, max_size=3)
CATEGORIES = (
    st.text(max_size=8)
    | st.booleans()
    | st.none()
    | st.lists(st.text(max_size=3) | FLOATS, max_size=3)
    | st.dictionaries(st.text(max_size=3), INTEGERS | FLOATS, max_size=2)
    | st.tuples(INTEGERS, st.text(max_size=3))
    | st.text(max_size=4).map(np.str_)
    | st.booleans().map(np.bool_)
)
VALUES: dict[str | None, st.SearchStrategy[Any]] = {
    "real": REALS,
    "integer": WHOLES,
    "categorical": CATEGORIES,
    "fidelity": INTEGERS | FLOATS | NUMPY_INTEGERS,
    None: REALS | WHOLES | CATEGORIES,
}

TIMES = st.none() | st.datetimes(
    dt.datetime(2000, 1, 1),  # noqa: DTZ001 -- the strategy adds the timezone
    dt.datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)


@st.composite
def params(draw: st.DrawFn) -> list[dict[str, Any]]:
    types = draw(st.lists(st.sampled_from(list(VALUES)), max_size=6))
    found = []
    for number, kind in enumerate(types):
        group = draw(st.sampled_from(["", "", "model.", "model.layers.", "größe."]))
        # The digit at the end keeps one name from leading into the value of another.
        word = draw(st.text(st.characters(exclude_characters=".", codec="utf-8"), max_size=5))
        name = f"{group}{word}{number}"
        found.append({"name": name, "type": kind, "value": draw(VALUES[kind])})
    return found


RESULTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(max_size=6),
            "type": st.sampled_from(
                ["objective", "lie", "constraint", "gradient", "statistic", "objective", "lie"]
            ),
            "value": REALS | WHOLES,
        }
    ),
    max_size=4,
)

DOCUMENTS = st.fixed_dictionaries(
    {"params": params(), "results": RESULTS},
    optional={
        "experiment": st.none() | st.integers(0, 3) | st.text(max_size=3),
        "status": st.sampled_from([status.value for status in TrialStatus]),
        "worker": st.none() | st.text(max_size=4),
        "submit_time": TIMES,
        "start_time": TIMES,
        "end_time": TIMES,
        "heartbeat": TIMES,
        "parent": st.none()
        | st.text("0123456789abcdef", min_size=32, max_size=32)
        | st.sampled_from(["", 0]),
        "exp_working_dir": st.none() | st.sampled_from(["/data/größe", "here/", ""]),
        "_id": st.none() | st.integers(0, 9) | st.text(max_size=4),
        "id": st.just("ignored"),
        "parents": st.just(["ignored"]),
        "id_override": st.just("ignored"),
    },
)

# ----------------------------------------------------------------------------- comparison


def shown(value: Any) -> Any:
    """Replace what belongs to either library by text that shows every bit of it.

    Unlike ``==`` this tells 1 from 1.0 and from True, and has NaN equal to itself.
    """
    if isinstance(value, Trial | orion_trial.Trial):
        return shown(value.to_dict())
    if isinstance(value, Mapping):
        return {key: shown(item) for key, item in value.items()}
    return repr(value)


def outcome(call: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """Return what a call answers, or the class of the error that it raises."""
    try:
        return "answers", shown(call(*args))
    except ValueError:
        return "raises", ValueError
    except (RuntimeError, TypeError) as error:
        return "raises", type(error)


READS: dict[str, Callable[[Any], Any]] = {
    "id": lambda trial: trial.id,
    "hash_name": lambda trial: trial.hash_name,
    "hash_params": lambda trial: trial.hash_params,
    "full_name": lambda trial: trial.full_name,
    "status": lambda trial: trial.status,
    "params": lambda trial: trial.params,
    "_params": lambda trial: trial._params,
    "results": lambda trial: trial.results,
    "objective": lambda trial: trial.objective,
    "lie": lambda trial: trial.lie,
    "gradient": lambda trial: trial.gradient,
    "constraints": lambda trial: trial.constraints,
    "statistics": lambda trial: trial.statistics,
    "duration": lambda trial: trial.duration,
    "execution_interval": lambda trial: trial.execution_interval,
    "exp_working_dir": lambda trial: trial.exp_working_dir,
    "working_dir": lambda trial: trial.working_dir,
    "id_override": lambda trial: trial.id_override,
    "no fidelity": lambda trial: trial.get_working_dir(ignore_fidelity=True),
    "no lie": lambda trial: trial.get_working_dir(ignore_lie=True),
    "no parent": lambda trial: trial.get_working_dir(ignore_parent=True),
    "hash": lambda trial: trial.compute_trial_hash(trial, ignore_fidelity=True, ignore_lie=True),
    "params_repr": lambda trial: trial.params_repr(" | "),
    "format_params": lambda trial: trial.format_params(trial._params, ";", ignore_fidelity=True),
    "repr": repr,
    "branch": lambda trial: trial.branch(),
    "branch, status": lambda trial: trial.branch(status="reserved"),
    "branch, bad status": lambda trial: trial.branch(status="odd"),
    "branch, unknown": lambda trial: trial.branch(params={"never there": 1}),
    "document": lambda trial: trial.to_dict(),
}


def compare(ours: Trial, theirs: Any) -> None:
    for name, read in READS.items():
        assert outcome(read, ours) == outcome(read, theirs), name


@settings(
    max_examples=120,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(DOCUMENTS, st.data())
def test_any_trial_is_the_same_in_both(document: dict[str, Any], data: st.DataObject) -> None:
    theirs = orion_trial.Trial(**document)
    for ours in (Trial(**document), Trial.from_dict(document)):
        compare(ours, theirs)

    if not document["params"] and not document.get("experiment"):
        return  # neither has an id, and so neither has a stored form
    assert ours == theirs
    assert theirs == ours

    # Each is made of what the other stores, and nothing is lost on the way.
    # (Nothing but an `_id` like 0 or "", which neither writes.)
    ours.id_override = theirs.id_override = ours.id_override or None
    compare(Trial.from_dict(theirs.to_dict()), theirs)
    compare(Trial(**theirs.to_dict()), theirs)
    compare(ours, orion_trial.Trial(**ours.to_dict()))

    names = [param["name"] for param in document["params"]]
    changed = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    changes = {name: data.draw(REALS | WHOLES | CATEGORIES) for name in changed}
    branch, counterpart = ours.branch("suspended", changes), theirs.branch("suspended", changes)
    compare(branch, counterpart)
    assert branch.parent == ours.id


@pytest.mark.parametrize("kind", ["objective", "statistic", None, "odd"])
@pytest.mark.parametrize(
    "value", [1, 0.5, True, float("nan"), None, "1", [1.0], np.float32(2), np.array([1.0])]
)
def test_setting_results_is_checked_alike(kind: str | None, value: Any) -> None:
    document: dict[str, Any] = {"name": "loss", "type": kind, "value": value}

    def set_results(trial: Any, result_class: Any) -> Any:
        trial.results = [result_class(**document)]
        return trial

    ours = outcome(set_results, Trial(experiment=1), Result)
    assert ours == outcome(set_results, orion_trial.Trial(experiment=1), orion_trial.Trial.Result)


def test_orions_own_values_are_taken() -> None:
    theirs = orion_trial.Trial(
        params=[{"name": "x", "type": "real", "value": 0.5}],
        results=[{"name": "loss", "type": "objective", "value": 2}],
    )
    ours = Trial(params=theirs._params, results=theirs.results)
    assert type(ours.param_list[0]) is Param
    assert type(ours.results[0]) is Result
    assert ours.param_list[0] == theirs._params[0]
    compare(ours, theirs)


def test_allowed_words_are_orions() -> None:
    assert tuple(TrialStatus) == orion_trial.Trial.allowed_stati
    assert Param.allowed_types == orion_trial.Trial.Param.allowed_types
    assert Result.allowed_types == orion_trial.Trial.Result.allowed_types


@pytest.mark.parametrize(
    "names", [("a", "a.b"), ("a.b", "a"), ("a.b.c", "a.b.d", "a.e"), ("a..b", ".c", "d.", "", ".")]
)
@pytest.mark.parametrize("value", [1, "text", [1], {"k": 1}])
def test_odd_names_nest_alike(names: tuple[str, ...], value: Any) -> None:
    def document() -> list[dict[str, Any]]:
        return [{"name": name, "type": "categorical", "value": copy.copy(value)} for name in names]

    ours, theirs = Trial(params=document()), orion_trial.Trial(params=document())
    # Oríon's puts the value of a.b into the dict that is the value of a, and so changes the id.
    before = ours.id
    nested = outcome(lambda: theirs.params)
    if nested == ("raises", TypeError):  # one name leads into the value of another
        assert ours.params.keys() >= set(names[-1:])
    else:
        assert outcome(lambda: ours.params) == nested
    assert ours.id == before
