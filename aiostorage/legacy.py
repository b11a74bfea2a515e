"""Moved to `aiostorage.sync`."""

from aiostorage._moved import warn_moved
from aiostorage.sync.base_protocol import (
    BaseStorageProtocol,
)

__all__ = [
    "BaseStorageProtocol",
]

warn_moved(__name__, "aiostorage.sync")
