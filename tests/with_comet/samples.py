"""An experiment and its trials, as a store has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiostorage.experiment import Experiment
from aiostorage.trial import Trial

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def an_experiment(name: str = "tune", uid: str = "e1") -> Experiment:
    """Return an experiment."""
    return Experiment.from_config({"_id": uid, "name": name, "version": 1})


def a_trial(x: float = 1.5, **fields: Any) -> Trial:
    """Return a trial; it is reserved unless `fields` say otherwise."""
    fields = {"status": "reserved", "start_time": START, **fields}
    params = fields.pop("params", {"x": x, "layers": {"width": 64}})
    return Trial(experiment="e1", params=params, submit_time=START, **fields)
