"""What Comet's REST interface answers, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["current_values", "is_users_metric", "numbers"]

_OF_COMET: Final = frozenset({"process duration"})
"""What ``comet_ml`` logs at the end of a script."""


def current_values(summary: Any) -> dict[str, Any]:
    """Return the last values by name, of a summary of params, metrics or others."""
    values = summary.get("values") if isinstance(summary, Mapping) else None
    return {
        value["name"]: value.get("valueCurrent")
        for value in values or ()
        if isinstance(value, Mapping) and "name" in value
    }


def is_users_metric(name: str) -> bool:
    """Return whether a metric is not one of those that ``comet_ml`` logs on its own."""
    return name not in _OF_COMET and not name.startswith("sys.")


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers; Comet sends them as text."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue
    return found
