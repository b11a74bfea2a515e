"""Moved to `aiostorage.testing`."""

from aiostorage._moved import warn_moved
from aiostorage.testing.mongodb.replica_set import (
    ReplicaSet,
)

__all__ = [
    "ReplicaSet",
]

warn_moved(__name__, "aiostorage.testing")
