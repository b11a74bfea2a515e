"""The same contract once more, through the synchronous facade."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from aiostorage import LockAcquisitionTimeout, Storage, SyncStorage, open_storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing import StorageContract
from aiostorage.testing._contract_tools import Open, make_config
from aiostorage.testing.facade import ThroughFacade


class TestMemory(StorageContract):
    cancels = False
    durable = False
    threads = False
    shared = False

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        facade = SyncStorage(Storage(MemoryDriver(), **settings))
        return cast(AsyncStorageProtocol, ThroughFacade(facade))


class TestSqlite(StorageContract):
    cancels = False

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        storage = open_storage(f"sqlite:///{tmp_path / 'store.db'}", **settings)
        return cast(AsyncStorageProtocol, ThroughFacade(SyncStorage(storage)))

    async def test_an_expired_lease_is_taken_over(self, opening: Open) -> None:
        """Show that a body which blocks its thread does not keep the lease from being renewed."""
        storage, other = await opening(lock_lease=0.4), await opening(lock_lease=0.4)
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            with pytest.raises(LockAcquisitionTimeout):
                async with other.acquire_algorithm_lock(experiment, 1.2, 0.02):
                    pass
            algorithm.set_state("kept")
        info = await other.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state == "kept"
