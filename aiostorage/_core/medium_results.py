"""Results from metrics that a script logged on its own, in a file or in an experiment tracker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from aiostorage.errors import InvalidResult
from aiostorage.values import Result

__all__ = ["objective_among", "results_from"]

DEFAULT_OBJECTIVE: Final = "objective"


def objective_among(names: Iterable[str], objective: str | None) -> str | None:
    """Return the name of the metric that is the objective; None if there is none.

    Parameters
    ----------
    names
        The names of the metrics that were logged.
    objective
        The name that was configured. None: a metric called ``objective``, else the only one.
    """
    known = list(names)
    if objective is not None:
        return objective if objective in known else None
    if DEFAULT_OBJECTIVE in known:
        return DEFAULT_OBJECTIVE
    return known[0] if len(known) == 1 else None


def results_from(metrics: Mapping[str, float], objective: str | None, source: str) -> list[Result]:
    """Return the results of a trial: the objective first, and the other metrics as statistics.

    Parameters
    ----------
    metrics
        The last value of each metric, by name.
    objective
        The name of the metric that is the objective; None as for `objective_among`.
    source
        Where the metrics were logged, for the error.

    Raises
    ------
    InvalidResult
        The objective was not logged, or it is unclear which metric is the objective.
    """
    name = objective_among(metrics, objective)
    if name is None:
        logged = ", ".join(map(repr, sorted(metrics))) or "nothing"
        if objective is not None:
            raise InvalidResult(
                f"{source}: the objective {objective!r} was not logged; logged was {logged}"
            )
        raise InvalidResult(
            f"{source}: which metric is the objective? Logged was {logged}; name it with the "
            "option `objective` of the storage"
        )
    statistics = [Result(n, "statistic", value) for n, value in metrics.items() if n != name]
    return [Result(name, "objective", metrics[name]), *statistics]
