"""The contract in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import Driver
from aiostorage.testing import ApiContract, DriverContract, FakeClock, StorageContract
from aiostorage.testing.contract.fixtures import StorageFixtures


class OpensMemory(StorageFixtures):
    clock: FakeClock
    large_state = 1 << 20
    shared_by_copies = False
    threads = False

    def setup_method(self) -> None:
        self.clock = FakeClock()
        self.driver = MemoryDriver(clock=self.clock)

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        storage = Storage(self.driver, **settings)
        await storage.open()
        return storage


class TestStorageInMemory(OpensMemory, StorageContract): ...


class TestApiInMemory(OpensMemory, ApiContract): ...


class TestDriverInMemory(DriverContract):
    shared = False

    def make_driver(self, tmp_path: Path) -> Driver:
        return MemoryDriver()
