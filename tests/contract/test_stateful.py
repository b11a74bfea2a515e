"""Memory, SQLite and a plain model, compared through random operations."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import Phase, settings

from aiostorage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.testing.contract.stateful import machine_for
from aiostorage.testing.faults import FakeClock


class StorageInFolder(Storage):
    """A storage in a folder of its own, which is removed with it."""

    folder: tempfile.TemporaryDirectory[str]


def in_memory(clock: FakeClock) -> Storage:
    return Storage(MemoryDriver(clock=clock))


def on_sqlite(clock: FakeClock) -> Storage:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "store.db"
    storage = StorageInFolder(SQLiteDriver(path, synchronous="NORMAL", clock=clock))
    storage.folder = folder
    return storage


class MemoryAndSQLite(machine_for({"memory": in_memory, "sqlite": on_sqlite})):  # type: ignore[misc]
    def teardown(self) -> None:
        super().teardown()
        self.storages["sqlite"].folder.cleanup()


TestStorages = MemoryAndSQLite.TestCase
TestStorages.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would outlast the time limit
)
