"""Moved to `aiostorage.testing.contract.facade`."""

from aiostorage._moved import warn_moved
from aiostorage.testing.contract.facade import (
    FacadeContract,
    ThroughFacade,
)

__all__ = [
    "FacadeContract",
    "ThroughFacade",
]

warn_moved(__name__, "aiostorage.testing.contract.facade")
