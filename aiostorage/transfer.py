"""Moved to `aiostorage.orion`."""

from aiostorage._moved import warn_moved
from aiostorage.orion import (
    Count,
    Counts,
    Progress,
    export_orion,
    import_orion,
    is_url,
    location_of,
)

__all__ = [
    "Count",
    "Counts",
    "Progress",
    "export_orion",
    "import_orion",
    "is_url",
    "location_of",
]

warn_moved(__name__, "aiostorage.orion")
