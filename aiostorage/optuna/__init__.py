"""Optuna on aiostorage: a storage for its studies, and objectives that are coroutines.

This is the one package that imports Optuna. Importing the package does not: Optuna is imported when
something of it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiostorage.optuna.async_objectives.async_trial import AsyncTrial
    from aiostorage.optuna.async_objectives.optimization import optimize
    from aiostorage.optuna.moves.study_exports import export_optuna
    from aiostorage.optuna.moves.study_imports import import_optuna
    from aiostorage.optuna.storage import OptunaStorage

__all__ = ["AsyncTrial", "OptunaStorage", "export_optuna", "import_optuna", "optimize"]

_MODULES = {
    "AsyncTrial": "aiostorage.optuna.async_objectives.async_trial",
    "OptunaStorage": "aiostorage.optuna.storage",
    "export_optuna": "aiostorage.optuna.moves.study_exports",
    "import_optuna": "aiostorage.optuna.moves.study_imports",
    "optimize": "aiostorage.optuna.async_objectives.optimization",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
