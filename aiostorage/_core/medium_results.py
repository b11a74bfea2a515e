"""Results from a medium: the values that a user's script logged become the results of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage.errors import InvalidResult
from aiostorage.values import Result

__all__ = ["results_of_metrics"]

OBJECTIVE: Final = "objective"
"""The name of the metric that is the objective, where nobody says which one is."""


def results_of_metrics(
    metrics: Mapping[str, Any], objective: str | None = None, *, where: str = "the run"
) -> list[Result]:
    """Return the results that the last values of some metrics are; none if there are no metrics.

    Parameters
    ----------
    metrics
        The values by name.
    objective
        The name of the metric that is the objective. The others are statistics. Default: the one
        that is called ``objective``, or else the only one.
    where
        What has the metrics, for the error.

    Raises
    ------
    InvalidResult
        There is no such metric, its value is no number, or there are several and none is called
        ``objective``.
    """
    if not metrics:
        return []
    name = objective
    if name is None:
        name = OBJECTIVE if OBJECTIVE in metrics or len(metrics) > 1 else next(iter(metrics))
    there = ", ".join(map(repr, sorted(metrics)))
    if name not in metrics:
        advice = "" if objective else "; say by the option `objective` which one is the objective"
        raise InvalidResult(f"{where} has no metric {name!r}, but {there}{advice}")
    value = metrics[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidResult(f"the metric {name!r} of {where} is no number: {value!r:.60}")
    others = (Result(other, "statistic", metrics[other]) for other in metrics if other != name)
    return [Result(name, "objective", value), *others]
