"""Dumps and copies of stores: `dump_storage`, `load_storage` and `copy_storage`.

Nothing here unpickles anything: the states of algorithms are bytes, and remain bytes.
"""

from __future__ import annotations

import importlib
from typing import Any

from aiostorage._moved import warn_moved
from aiostorage.transfer.dumping import dump_storage
from aiostorage.transfer.moving import copy_storage, load_storage
from aiostorage.transfer.tabular import dump_trials
from aiostorage.transfer.transfer_reports import (
    DumpReport,
    MovedExperiment,
    MoveProgress,
    MoveReport,
    Resolve,
    TableReport,
)

__all__ = [
    "DumpReport",
    "MoveProgress",
    "MoveReport",
    "MovedExperiment",
    "Resolve",
    "TableReport",
    "copy_storage",
    "dump_storage",
    "dump_trials",
    "load_storage",
]

_MOVED = frozenset(
    {"Count", "Counts", "Progress", "export_orion", "import_orion", "is_url", "location_of"}
)
"""Names that this module had before they moved to `aiostorage.orion`."""


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        warn_moved(f"{__name__}.{name}", f"aiostorage.orion.{name}")
        return getattr(importlib.import_module("aiostorage.orion"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
