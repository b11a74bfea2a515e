"""An experiment and its trials, made without Oríon's client."""

from __future__ import annotations

from typing import Any

from orion.core.worker.trial import Trial

from aiostorage.orion import AioStorage

__all__ = ["MinimalExperiment", "trial_of"]


class MinimalExperiment:
    """An experiment, as far as a storage looks at one; stored unless there is no storage."""

    def __init__(self, storage: AioStorage | None, **config: Any) -> None:
        self.config = {"name": "tune", "version": 1, "algorithm": {"random": {}}, **config}
        if storage is not None:
            storage.create_experiment(self.config)
        self.id = self._id = self.config.get("_id")


def trial_of(experiment: MinimalExperiment, x: float = 0.5, **fields: Any) -> Trial:
    params = [{"name": "/x", "type": "real", "value": x}]
    return Trial(experiment=experiment.id, params=params, **fields)
