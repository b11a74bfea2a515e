"""What becomes of the runs of a tracker in an import."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from aiostorage import InvalidResult
from aiostorage.trackers import TrackerRun
from aiostorage.trackers.imported_runs import trial_of, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("0", 0),
        ("7.0", 7.0),
        ("1e-05", 1e-05),
        ("-2.5E+3", -2500.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("True", True),
        ("False", False),
        ("None", None),
        ("[1, 2.5]", [1, 2.5]),
        ('{"a": null}', {"a": None}),
    ],
)
def test_a_text_without_doubt(text: str, value: Any) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_nan() -> None:
    assert math.isnan(value_of("nan"))
    assert math.isnan(value_of("NaN"))


DOUBTFUL = ["", "007", "+7", "-0", "1_000", "true", " 7", "7 ", "0x10", "1.", ".5", "[1, 2", "{a}"]
DOUBTFUL += ["\N{ARABIC-INDIC DIGIT SEVEN}", "9223372036854775808", "1e999", "1" * 50, "infinity"]


DOUBTFUL += ["[9223372036854775808]", "[" * 101 + "]" * 101, '["\\ud800"]', '{"a\\u0000": 1}']


@pytest.mark.parametrize("text", [*DOUBTFUL, "[" * 10_000])
def test_a_text_with_doubt(text: str) -> None:
    assert value_of(text) == text


def run(**fields: Any) -> TrackerRun:
    made: dict[str, Any] = {"key": "r1", "status": "completed", "params": {"x": "1"}}
    return TrackerRun(**{**made, "metrics": {"loss": 0.5}, **fields})


def test_a_finished_run() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    metrics = {"loss": 0.5, "accuracy": 0.9}
    params = {"b.c": "2.5", "a": "1", "b.d": "relu"}
    made = trial_of(
        run(params=params, metrics=metrics, start_time=start, end_time=end), "e1", "loss"
    )
    trial = made.trial
    assert trial.params == {"a": 1, "b": {"c": 2.5, "d": "relu"}}
    assert [param.type for param in trial.param_list] == ["integer", "real", "categorical"]
    assert trial.objective is not None
    assert (trial.objective.name, trial.objective.value) == ("loss", 0.5)
    assert [(one.name, one.value) for one in trial.statistics] == [("accuracy", 0.9)]
    assert (trial.status, trial.start_time, trial.end_time) == ("completed", start, end)
    assert not made.unfinished
    assert not made.without_objective


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        ("reserved", "interrupted"),
        ("new", "interrupted"),
        ("interrupted", "interrupted"),
        ("broken", "broken"),
        ("completed", "completed"),
    ],
)
def test_the_status(status: str, becomes: str) -> None:
    made = trial_of(run(status=status), "e1", None)
    assert made.trial.status == becomes
    assert made.unfinished == (status in ("reserved", "new"))
    assert bool(made.trial.results) == (status == "completed")


@pytest.mark.parametrize(("metrics", "objective"), [({}, None), ({"other": 1.0}, "loss")])
def test_a_finished_run_without_the_objective(
    metrics: dict[str, float], objective: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made = trial_of(run(metrics=metrics), "e1", objective)
    assert made.without_objective
    assert made.trial.status == "broken"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "r1" in caplog.text


def test_several_metrics_and_no_objective() -> None:
    with pytest.raises(InvalidResult, match="'accuracy', 'loss'"):
        trial_of(run(metrics={"loss": 1.0, "accuracy": 0.5}), "e1", None)


def test_names_that_lead_into_each_other(caplog: pytest.LogCaptureFixture) -> None:
    made = trial_of(run(params={"a": "1", "a.b": "2", "a-c": "3"}), "e1", None)
    assert made.trial.params == {"a": 1, "a/b": 2, "a-c": 3}
    assert "slashes" in caplog.text
    made = trial_of(run(params={"a": "1", "a.b": "2", "a/b": "3"}), "e1", None)
    assert made.trial.params == {"a": 1, "a//b": 2, "a/b": 3}


def test_the_id_does_not_depend_on_the_order_of_the_params() -> None:
    one = trial_of(run(params={"a": "1", "b": "2"}), "e1", None).trial
    other = trial_of(run(params={"b": "2", "a": "1"}), "e1", None).trial
    assert one.id == other.id
