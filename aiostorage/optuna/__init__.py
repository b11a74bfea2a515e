"""Optuna on aiostorage: a storage for its studies, and objectives that are coroutines.

This is the one package that imports Optuna. Importing the package does not: Optuna is imported when
something of it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiostorage.optuna.async_trial import AsyncTrial
    from aiostorage.optuna.optimization import optimize
    from aiostorage.optuna.storage import OptunaStorage

__all__ = ["AsyncTrial", "OptunaStorage", "optimize"]

_MODULES = {
    "AsyncTrial": "aiostorage.optuna.async_trial",
    "OptunaStorage": "aiostorage.optuna.storage",
    "optimize": "aiostorage.optuna.optimization",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
