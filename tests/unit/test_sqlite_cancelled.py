"""Storages whose opening, or whose first read, is cancelled leave no descriptor of the file."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from pathlib import Path

import pytest

from aiostorage import Storage, open_storage

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc"),
]


async def open_descriptors(file: Path) -> int:
    def count() -> int:
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found += str(link.readlink()).startswith(str(file))
        return found

    return await asyncio.to_thread(count)


async def use(storage: Storage) -> None:
    async with storage:
        await storage.fetch_experiments({})


@pytest.mark.parametrize("opened", [False, True])
async def test_it_leaves_nothing(tmp_path: Path, opened: bool) -> None:
    file = tmp_path / "tune.db"
    for number in range(40):
        storage = open_storage(f"sqlite:///{file}")
        if opened:
            await storage.open()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0002 * number):
                await use(storage)
        await storage.aclose()
    gc.collect()
    for _ in range(100):
        if not (left := await open_descriptors(file)):
            break
        await asyncio.sleep(0.05)
    assert left == 0
