"""The same contract once more, through the synchronous facade, on an engine that does all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.testing import ApiContract, FakeClock
from aiostorage.testing.contract.facade import FacadeContract, OpensFacade


class TestApiOfFacade(OpensFacade, ApiContract):
    clock: FakeClock
    large_state = 1 << 20
    shared_by_copies = False
    threads = False
    shared = False

    def setup_method(self) -> None:
        self.clock = FakeClock()

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return Storage(MemoryDriver(clock=self.clock), **settings)


class TestFacadeOnSQLite(FacadeContract):
    clock: FakeClock
    large_state = 1 << 20

    def setup_method(self) -> None:
        self.clock = FakeClock()

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        driver = SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL", clock=self.clock)
        return Storage(driver, **settings)
