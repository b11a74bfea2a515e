"""What a store contains, read by the public methods, as JSON that keeps every difference.

This is run by aiostorage 0.1.0 as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

__all__ = ["TRIAL_FIELDS", "content_of", "tagged"]

TRIAL_FIELDS = (
    *("id_override", "id", "experiment", "status", "worker", "parent", "exp_working_dir"),
    *("submit_time", "start_time", "end_time", "heartbeat"),
)


async def content_of(storage: Any) -> dict[str, Any]:
    """Read everything in a storage."""
    experiments = await storage.fetch_experiments({})
    found: dict[str, Any] = {
        "experiments": experiments,
        "trials": {},
        "locks": {},
        "benchmarks": await storage.fetch_benchmark({}),
    }
    for config in experiments:
        name = repr(config["_id"])
        found["trials"][name] = [
            {
                **{field: getattr(trial, field) for field in TRIAL_FIELDS},
                "params": [param.to_dict() for param in trial.param_list],
                "results": [result.to_dict() for result in trial.results],
            }
            for trial in await storage.fetch_trials(config)
        ]
        info = await storage.get_algorithm_lock_info(config)
        found["locks"][name] = {
            "state": info.state,
            "configuration": info.configuration,
            "locked": bool(info.locked),
        }
    made: dict[str, Any] = tagged(found)
    return made


def tagged(value: Any) -> Any:
    """Return a value as JSON in which no two different values are the same."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": repr(value)}
        case datetime():
            return {"time": value.isoformat()}
        case bytes():
            return {"bytes": value.hex()}
        case np.ndarray():
            return {"array": [str(value.dtype), tagged(value.tolist())]}
        case np.generic():
            return {"scalar": [str(value.dtype), tagged(value.item())]}
        case tuple():
            return {"tuple": [tagged(item) for item in value]}
        case list():
            return [tagged(item) for item in value]
        case dict():
            return {"dict": [[key, tagged(item)] for key, item in sorted(value.items())]}
        case _:
            raise TypeError(f"{type(value).__name__} is not expected in a store")
