"""Oríon on aiostorage: its plug-in, and copies of its databases to a storage and back.

Oríon itself is imported only when `AioStorage`, `AioStorageDB` or a copy is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiostorage.orion.import_export import (
    Count,
    Counts,
    Progress,
    export_orion,
    import_orion,
    is_url,
    location_of,
)

if TYPE_CHECKING:
    from aiostorage.orion.plugin import AioStorage, AioStorageDB

__all__ = [
    "AioStorage",
    "AioStorageDB",
    "Count",
    "Counts",
    "Progress",
    "export_orion",
    "import_orion",
    "is_url",
    "location_of",
]


def __getattr__(name: str) -> Any:
    if name in ("AioStorage", "AioStorageDB"):
        from aiostorage.orion import plugin  # noqa: PLC0415  it imports Oríon

        return getattr(plugin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
