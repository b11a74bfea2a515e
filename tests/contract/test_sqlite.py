"""The contract on SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.drivers.sqlite import SQLiteDriver, Synchronous
from aiostorage.protocols import Driver
from aiostorage.testing import DriverContract, FakeClock, StorageContract


class TestStorageOnSQLite(StorageContract):
    """The driver's contract below is that of both ways to write to the disk."""

    clock: FakeClock

    def setup_method(self) -> None:
        self.clock = FakeClock()

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        driver = SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL", clock=self.clock)
        storage = Storage(driver, **settings)
        await storage.open()
        return storage


class TestDriverFull(DriverContract):
    synchronous: Synchronous = "FULL"
    condition_seeds = range(10)

    def make_driver(self, tmp_path: Path) -> Driver:
        return SQLiteDriver(tmp_path / "store.db", synchronous=self.synchronous)


class TestDriverNormal(TestDriverFull):
    synchronous = "NORMAL"
    condition_seeds = range(10, 20)
