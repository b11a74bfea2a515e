"""Moved to `aiostorage.testing.contract.stateful`."""

from aiostorage._moved import warn_moved
from aiostorage.testing.contract.stateful import (
    Model,
    StorageMachine,
    machine_for,
)

__all__ = [
    "Model",
    "StorageMachine",
    "machine_for",
]

warn_moved(__name__, "aiostorage.testing.contract.stateful")
