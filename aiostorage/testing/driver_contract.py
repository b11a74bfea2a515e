"""Moved to `aiostorage.testing`."""

from aiostorage._moved import warn_moved
from aiostorage.testing.contract.driver import (
    DriverContract,
)

__all__ = [
    "DriverContract",
]

warn_moved(__name__, "aiostorage.testing")
