"""The whole engine of the guide passes the contracts."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from aiostorage import Driver, Storage, engine, operations
from aiostorage.testing import DriverContract, StorageContract

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-an-engine.md"


def engine_of_the_guide() -> ModuleType:
    """Return the module that the guide shows."""
    pattern = r"^```python runnable file=(notebook_engine)\.py\n(.*?)^```$"
    [(name, text)] = re.findall(
        pattern, GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    module = ModuleType(name)
    sys.modules[name] = module  # a storage is pickled
    exec(compile(text, f"{GUIDE.name}:{name}", "exec"), vars(module))
    return module


ENGINE: Final = engine_of_the_guide()


class TestEngineOfTheGuide(DriverContract):
    shared = False
    condition_seeds = range(5)

    def make_driver(self, tmp_path: Path) -> Driver:
        driver: Driver = ENGINE.NotebookDriver()
        return driver


class TestStorageOfTheGuide(StorageContract):
    shared = False
    shared_by_copies = False
    threads = False
    logs = False
    large_state = 1 << 20

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        storage = Storage(ENGINE.NotebookDriver(), **settings)
        await storage.open()
        return storage


def test_it_imports_what_is_public() -> None:
    imported = re.findall(r"^from (aiostorage\S*)", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert "aiostorage.engine" in imported
    assert not [name for name in imported if "._" in name]


def test_an_engine_can_import_all_records() -> None:
    assert set(operations.__all__) <= set(engine.__all__)


def test_the_old_name_of_a_capability() -> None:
    with pytest.warns(DeprecationWarning, match="shared_by_copies"):

        class Old(StorageContract):
            durable = False

    assert not Old.shared_by_copies
    assert StorageContract.shared_by_copies
