"""Moved to `aiostorage.testing`."""

from aiostorage._moved import warn_moved
from aiostorage.testing.mongodb.mongod import (
    FailPoint,
    Mongod,
    MongodError,
    MongodMissing,
    TlsFiles,
    find_mongod,
)

__all__ = [
    "FailPoint",
    "Mongod",
    "MongodError",
    "MongodMissing",
    "TlsFiles",
    "find_mongod",
]

warn_moved(__name__, "aiostorage.testing")
