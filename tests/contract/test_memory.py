"""The contract in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import Driver
from aiostorage.testing import DriverContract, StorageContract


class TestStorage(StorageContract):
    durable = False
    threads = False

    def setup_method(self) -> None:
        self.driver = MemoryDriver()

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        storage = Storage(self.driver, **settings)
        await storage.open()
        return storage


class TestDriver(DriverContract):
    shared = False

    def make_driver(self, tmp_path: Path) -> Driver:
        return MemoryDriver()
