"""Comparisons of imported documents with those that the storage already has.

Nothing here reads or writes a store, and nothing imports Oríon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from aiostorage.orion.references import parent_of
from aiostorage.values import FINAL_STATUSES

__all__ = ["differing_field", "differing_trial", "same_benchmark"]

_TIME_RESOLUTION: Final = timedelta(milliseconds=1)
"""The coarsest resolution of stored times among the engines."""


def differing_field(config: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Return the difference of two experiments of one name and version; None if they are equal.

    They are the same if they were created at the same time and have the same space, algorithm and
    parent. Each worker that starts rewrites the rest of a config. Fields that older versions of
    Oríon did not write are not compared.
    """
    pairs = {
        "time of creation": (_created(config), _created(stored)),
        "space": (config.get("space"), stored.get("space")),
        "algorithm": (config.get("algorithm"), stored.get("algorithm")),
    }
    for name, (imported, present) in pairs.items():
        if imported is not None and not _equal(imported, present):
            return name
    return None if parent_of(config) == parent_of(stored) else "parent"


def differing_trial(trial: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Return how two trials of one id differ; None if the stored one may stay.

    Their params are equal, because the id is computed from them. If the imported trial is completed
    or broken, the stored one must have the same status and results. In any other status the stored
    one may have changed since; one that was reserved was stored as interrupted.
    """
    if trial["status"] not in FINAL_STATUSES:
        return None
    if trial["status"] != stored.get("status"):
        return f"{trial['status']!r}, not {stored.get('status')!r}"
    return None if _equal(trial["results"], stored.get("results") or []) else "of other results"


def same_benchmark(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two benchmarks differ in nothing but their ``_id``."""
    return _equal({**one, "_id": None}, {**other, "_id": None})


def _created(config: Mapping[str, Any]) -> Any:
    return (config.get("metadata") or {}).get("datetime")


def _equal(one: Any, other: Any) -> bool:
    """Compare normalised values as any engine returns them; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) < _TIME_RESOLUTION
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
