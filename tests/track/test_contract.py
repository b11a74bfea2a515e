"""The contract on a Track file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.drivers.track import TrackDriver
from aiostorage.protocols import Driver
from aiostorage.testing import DriverContract, FakeClock, StorageContract


class TestStorageOnTrack(StorageContract):
    clock: FakeClock
    large_state = 1 << 20

    def setup_method(self) -> None:
        self.clock = FakeClock()

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        storage = Storage(TrackDriver(tmp_path / "store.json", clock=self.clock), **settings)
        await storage.open()
        return storage


class TestDriverTrack(DriverContract):
    condition_seeds = range(5)

    def make_driver(self, tmp_path: Path) -> Driver:
        return TrackDriver(tmp_path / "store.json")
