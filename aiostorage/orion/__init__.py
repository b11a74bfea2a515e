"""Oríon on aiostorage: the plug-in, and copies of Oríon's databases to a storage and back.

This is the one package that imports Oríon. Importing the package does not: Oríon is imported when
`AioStorage` or `AioStorageDB` is first used, or an import or export is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiostorage.orion.exports import export_orion
from aiostorage.orion.imports import import_orion, is_url, location_of
from aiostorage.orion.progress import CollectionCounts, Progress, SkippedRecord, TransferCounts

if TYPE_CHECKING:
    from aiostorage.orion.database import AioStorageDB
    from aiostorage.orion.storage_type import AioStorage

__all__ = [
    "AioStorage",
    "AioStorageDB",
    "CollectionCounts",
    "Count",
    "Counts",
    "Progress",
    "SkippedRecord",
    "TransferCounts",
    "export_orion",
    "import_orion",
    "is_url",
    "location_of",
]

Count = CollectionCounts
"""The old name of `CollectionCounts`."""

Counts = TransferCounts
"""The old name of `TransferCounts`."""


def __getattr__(name: str) -> Any:
    if name == "AioStorage":
        from aiostorage.orion.storage_type import AioStorage  # noqa: PLC0415  it imports Oríon

        return AioStorage
    if name == "AioStorageDB":
        from aiostorage.orion.database import AioStorageDB  # noqa: PLC0415  it imports Oríon

        return AioStorageDB
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
