"""The results of an experiment, read from its stored trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike
from aiostorage.trial import TrialStatus

__all__ = ["BestTrial", "best_trial", "count_by_status", "objective_of"]


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
        counts[document["status"]] += 1
    return counts


async def best_trial(storage: AsyncStorageProtocol, experiment: ExperimentLike) -> BestTrial | None:
    """Return the completed trial with the smallest objective; None before there is one."""
    best: BestTrial | None = None
    completed = {"status": TrialStatus.COMPLETED.value}
    wanted = {"results": 1, "params": 1}
    async for document in storage.iter_trials(experiment, where=completed, selection=wanted):
        value = objective_of(document)
        if value is not None and (best is None or value < best.objective):
            params = {param["name"]: param["value"] for param in document["params"]}
            best = BestTrial(value, params)
    return best


def objective_of(document: Mapping[str, Any]) -> float | None:
    """Return the objective of a stored trial; None if it has none or its objective is NaN."""
    for result in document.get("results") or ():
        if result.get("type") == "objective":
            value: float = result["value"]
            return None if math.isnan(value) else value
    return None
