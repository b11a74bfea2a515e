"""Which metric is the objective."""

from __future__ import annotations

from typing import Any

import pytest

from aiostorage import InvalidResult
from aiostorage._core.medium_results import results_of_metrics


def told(
    metrics: dict[str, Any], objective: str | None = None
) -> list[tuple[str, str | None, Any]]:
    return [(r.name, r.type, r.value) for r in results_of_metrics(metrics, objective)]


def test_the_option_names_the_objective() -> None:
    assert told({"accuracy": 0.5, "loss": 2}, "loss") == [
        ("loss", "objective", 2),
        ("accuracy", "statistic", 0.5),
    ]


def test_without_it_the_name_or_the_only_one_decides() -> None:
    assert told({"loss": 1.5}) == [("loss", "objective", 1.5)]
    assert told({"loss": 1.5, "objective": 3.0})[0] == ("objective", "objective", 3.0)


def test_without_metrics_there_are_no_results() -> None:
    assert told({}) == told({}, "loss") == []


@pytest.mark.parametrize(
    ("metrics", "objective", "words"),
    [
        ({"a": 1.0, "b": 2.0}, None, r"no metric 'objective', but 'a', 'b'; say by the option"),
        ({"a": 1.0}, "loss", r"no metric 'loss', but 'a'$"),
        ({"loss": "low"}, "loss", "no number: 'low'"),
        ({"loss": True}, None, "no number: True"),
        ({"loss": None}, None, "no number: None"),
    ],
)
def test_what_cannot_be_the_objective(
    metrics: dict[str, Any], objective: str | None, words: str
) -> None:
    with pytest.raises(InvalidResult, match=words):
        results_of_metrics(metrics, objective)
