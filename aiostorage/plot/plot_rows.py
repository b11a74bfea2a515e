"""The values of each trial that are plotted, and why trials are left out. No I/O, and no plotly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiostorage.summary import Direction
from aiostorage.trial import TrialStatus

__all__ = [
    "PlotRow",
    "PlotRows",
    "PlotRowsBuilder",
    "best_so_far",
    "log_priors",
    "thin_rows",
]

_LOG_PRIORS: Final = ("loguniform", "reciprocal")
"""Prefixes of the priors that are uniform on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class PlotRow:
    """A completed trial with a finite objective.

    Parameters
    ----------
    number
        Its position among the trials of the experiment, by insertion, from 1.
    ended
        When it was completed; None if the store does not say.
    params
        Values by dotted name.
    """

    number: int
    trial: str
    ended: datetime | None
    objective: float
    params: Mapping[str, Any]


@dataclass(frozen=True)
class PlotRows:
    """The trials of one experiment that can be plotted, in the order in which they ended.

    Parameters
    ----------
    experiment
        The name and the version.
    objective
        The name of the objective in the store.
    left_out
        The number of trials that are not among the rows, by reason.
    params
        The names of the parameters, in the order in which they were found.
    log_params
        Those whose prior is uniform on a logarithmic scale.
    """

    experiment: str
    objective: str
    rows: Sequence[PlotRow]
    left_out: Mapping[str, int] = field(default_factory=dict)
    params: Sequence[str] = ()
    log_params: frozenset[str] = frozenset()

    @property
    def has_times(self) -> bool:
        """Whether the store has the end time of every row."""
        return all(row.ended is not None for row in self.rows)


class PlotRowsBuilder:
    """Makes `PlotRows` from stored trials that are added one by one.

    Parameters
    ----------
    experiment
        The name of the experiment in titles.
    space
        The priors of its config.
    """

    FIELDS: Final[Mapping[str, int]] = {
        "status": 1,
        "end_time": 1,
        "params": 1,
        "results": 1,
        "id": 1,
    }
    """The parts of a stored trial that are read."""

    def __init__(self, experiment: str, space: object = None) -> None:
        self._experiment = experiment
        self._log = log_priors(space)
        self._rows: list[PlotRow] = []
        self._left_out: Counter[str] = Counter()
        self._names: dict[str, None] = {}
        self._objectives: Counter[str] = Counter()
        self._seen = 0

    def add(self, document: Mapping[str, Any]) -> None:
        """Add a stored trial, or count why it cannot be plotted."""
        self._seen += 1
        status = str(document.get("status", TrialStatus.NEW.value))
        if status != TrialStatus.COMPLETED:
            self._left_out[status] += 1
            return
        found = _objective(document)
        if found is None:
            self._left_out["without an objective"] += 1
            return
        name, objective = found
        if not math.isfinite(objective):
            self._left_out["with a NaN" if math.isnan(objective) else "with an infinity"] += 1
            return
        params = {
            str(item.get("name")).lstrip("/"): item.get("value")
            for item in _mappings(document, "params")
        }
        self._names.update(dict.fromkeys(params))
        self._objectives[name] += 1
        trial = str(document.get("id", document.get("_id")))
        ended = _utc(document.get("end_time"))
        self._rows.append(PlotRow(self._seen, trial, ended, objective, params))

    def build(self) -> PlotRows:
        """Return the rows; those without an end time keep their positions."""
        rows = self._rows
        if all(row.ended is not None for row in rows):
            rows = sorted(rows, key=lambda row: (row.ended, row.number))
        common = self._objectives.most_common(1)
        return PlotRows(
            experiment=self._experiment,
            objective=common[0][0] if common else "objective",
            rows=rows,
            left_out=dict(self._left_out),
            params=list(self._names),
            log_params=self._log.intersection(self._names),
        )


def best_so_far(objectives: Iterable[float], direction: Direction) -> Iterator[float]:
    """Yield the best objective so far after each objective."""
    better = min if direction == "minimize" else max
    best: float | None = None
    for value in objectives:
        best = value if best is None else better(best, value)
        yield best


def thin_rows(rows: Sequence[PlotRow], limit: int, direction: Direction) -> list[PlotRow]:
    """Return at most `limit` rows in order: each new best one, the best ones, and every n-th.

    Parameters
    ----------
    limit
        At least 4.
    """
    if len(rows) <= limit:
        return list(rows)
    quarter = limit // 4
    bests = list(best_so_far((row.objective for row in rows), direction))
    kept = {0}
    records = [i for i in range(1, len(rows)) if bests[i] != bests[i - 1]]
    kept.update(records[-quarter:])
    ranked = sorted(range(len(rows)), key=lambda i: rows[i].objective)
    kept.update(ranked[:quarter] if direction == "minimize" else ranked[-quarter:])
    free = limit - len(kept)
    rest = [i for i in range(len(rows)) if i not in kept]
    kept.update(rest[i * len(rest) // free] for i in range(free))
    return [rows[i] for i in sorted(kept)]


def log_priors(space: object, prefix: str = "") -> frozenset[str]:
    """Return the dotted names of the parameters that a space samples on a logarithmic scale."""
    found: set[str] = set()
    if isinstance(space, Mapping):
        for name, prior in space.items():
            path = f"{prefix}{str(name).lstrip('/')}"
            if isinstance(prior, str) and prior.startswith(_LOG_PRIORS):
                found.add(path)
            found |= log_priors(prior, f"{path}.")
    return frozenset(found)


def _objective(document: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the name and the value of the objective; None if it is not a number."""
    for result in _mappings(document, "results"):
        if result.get("type") == "objective":
            value = result.get("value")
            if not isinstance(value, int | float):
                return None
            try:
                return str(result.get("name", "objective")), float(value)
            except OverflowError:  # an int that no float can hold
                return str(result.get("name", "objective")), math.inf if value > 0 else -math.inf
    return None


def _mappings(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the dicts in a list; another program may have written something else."""
    found = document.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _utc(value: object) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
