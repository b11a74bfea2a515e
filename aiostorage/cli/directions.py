"""Which objective of an experiment is the best one: as a command was told, or as the study says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage.summary import Direction

__all__ = ["SELECTION", "direction_of"]

SELECTION: Final = {"optuna.directions": 1}
"""What `direction_of` needs of a config."""


def direction_of(config: Mapping[str, Any], asked: Direction | None = None) -> Direction:
    """Return the direction that was asked for, else that of the study of Optuna, if it is one."""
    if asked is not None:
        return asked
    study = config.get("optuna")
    directions = study.get("directions") if isinstance(study, Mapping) else None
    first = directions[0] if isinstance(directions, list) and directions else None
    return "maximize" if first == "maximize" else "minimize"
