"""The original's names: change ``orion.storage.base`` to ``aiostorage.base`` in an import.

>>> from aiostorage.base import setup_storage
>>> storage = setup_storage({"type": "sqlite", "path": "tune.db"})
>>> storage.create_experiment({"name": "tune"})

The functions here make an `aiostorage.SyncStorage`; the names of the package itself are
asynchronous.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage import factory
from aiostorage._core.ids import get_trial_uid_and_exp, get_uid
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import (
    DuplicateKeyError,
    FailedUpdate,
    LockAcquisitionTimeout,
    MissingArguments,
)
from aiostorage.readonly import ReadOnlyStorageProtocol
from aiostorage.sync.base_protocol import BaseStorageProtocol
from aiostorage.sync.facade import SyncStorage

__all__ = [
    "BaseStorageProtocol",
    "DuplicateKeyError",
    "FailedUpdate",
    "LockAcquisitionTimeout",
    "LockedAlgorithmState",
    "MissingArguments",
    "ReadOnlyStorageProtocol",
    "SyncStorageFactory",
    "get_trial_uid_and_exp",
    "get_uid",
    "setup_storage",
    "storage_factory",
]


class SyncStorageFactory:
    """Makes synchronous storages; see `aiostorage.StorageFactory`."""

    def create(self, of_type: str, **kwargs: Any) -> SyncStorage:
        """Make a storage of a type and its options; see `aiostorage.StorageFactory.create`."""
        return SyncStorage(factory.storage_factory.create(of_type, **kwargs))

    def known(self) -> tuple[str, ...]:
        """Return the names of all types, sorted."""
        return factory.storage_factory.known()


storage_factory: Final[SyncStorageFactory] = SyncStorageFactory()


def setup_storage(
    storage: Mapping[str, Any] | str | None = None, debug: bool = False
) -> SyncStorage:
    """Make the storage that is configured; see `aiostorage.setup_storage`."""
    return SyncStorage(factory.setup_storage(storage, debug))
