"""The same contract once more, through the synchronous facade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiostorage import Storage, open_storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.testing.contract.facade import FacadeContract


class TestMemory(FacadeContract):
    durable = False
    threads = False
    shared = False

    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return Storage(MemoryDriver(), **settings)


class TestSqlite(FacadeContract):
    def make_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        return open_storage(f"sqlite:///{tmp_path / 'store.db'}", **settings)
