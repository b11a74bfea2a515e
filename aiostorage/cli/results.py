"""The results of an experiment, read from its stored trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.trial import TrialStatus

__all__ = ["BestTrial", "best_trial", "count_by_status", "objective_of", "status_of"]


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The objective and the parameters of the best completed trial."""

    objective: float
    params: Mapping[str, Any]


async def count_by_status(
    storage: AsyncStorageProtocol, experiment: ExperimentLike
) -> Counter[str]:
    """Count the trials of an experiment by status."""
    counts: Counter[str] = Counter()
    async for document in storage.iter_trials(experiment, selection={"status": 1}):
        counts[status_of(document)] += 1
    return counts


def status_of(document: Mapping[str, Any]) -> str:
    """Return the status of a stored trial, as text even if another program wrote something else."""
    return str(document.get("status", TrialStatus.NEW.value))


async def best_trial(storage: AsyncStorageProtocol, experiment: ExperimentLike) -> BestTrial | None:
    """Return the completed trial with the smallest objective; None before there is one.

    A trial whose objective is NaN is not the best one.
    """
    best: BestTrial | None = None
    completed = {"status": TrialStatus.COMPLETED.value}
    wanted = {"results": 1, "params": 1}
    async for document in storage.iter_trials(experiment, where=completed, selection=wanted):
        value = objective_of(document)
        if value is not None and (best is None or value < best.objective):
            best = BestTrial(value, _params_of(document))
    return best


def objective_of(document: Mapping[str, Any]) -> float | None:
    """Return the objective of a stored trial; None if it has none, or it is not a number."""
    for result in _items(document, "results"):
        if result.get("type") == "objective":
            value = result.get("value")
            is_number = isinstance(value, int | float) and value == value  # noqa: PLR0124  not NaN
            return value if is_number else None
    return None


def _params_of(document: Mapping[str, Any]) -> dict[str, Any]:
    return {str(param.get("name")): param.get("value") for param in _items(document, "params")}


def _items(document: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """Return the dicts in a list; another program may have written something else."""
    found = document.get(field)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
