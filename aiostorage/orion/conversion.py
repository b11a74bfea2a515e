"""Conversions between the values and trials of Oríon and those of aiostorage.

Nothing here reads or writes a store, and nothing imports Oríon.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiostorage.trial import Trial

__all__ = ["naive_utc", "orion_trial_fields", "trial_from_orion", "without_tuples"]

_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values are the same on both sides; most values are of these."""


def without_tuples(value: Any) -> Any:
    """Return a copy with lists in place of tuples, as Oríon's own MongoDB storage makes them."""
    if value.__class__ in _ATOMS:  # the fast path: Oríon fetches all trials again and again
        return value
    if isinstance(value, Mapping):
        return {key: without_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_tuples(item) for item in value]
    return value


def naive_utc(value: Any) -> Any:
    """Return a copy with naive UTC times in place of aware ones, as Oríon expects them."""
    if value.__class__ in _ATOMS:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive_utc(item) for key, item in value.items()}
    if isinstance(value, list):
        return [naive_utc(item) for item in value]
    return value


def trial_from_orion(trial: Any) -> Trial:
    """Return one of Oríon's trials as a `Trial`."""
    return Trial.from_dict(without_tuples(trial.to_dict()))


def orion_trial_fields(trial: Trial) -> dict[str, Any]:
    """Return the arguments that make the same trial as one of Oríon's."""
    # Not by `to_dict`, which computes the id: Oríon fetches all trials again and again.
    return {
        "_id": trial.id_override,
        "experiment": trial.experiment,
        "status": trial.status,
        "worker": trial.worker,
        "submit_time": naive_utc(trial.submit_time),
        "start_time": naive_utc(trial.start_time),
        "end_time": naive_utc(trial.end_time),
        "heartbeat": naive_utc(trial.heartbeat),
        "parent": trial.parent,
        "exp_working_dir": trial.exp_working_dir,
        "params": [naive_utc(param.to_dict()) for param in trial.param_list],
        "results": [naive_utc(result.to_dict()) for result in trial.results],
    }
