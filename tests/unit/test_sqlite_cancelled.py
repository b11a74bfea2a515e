"""Storages whose opening, or whose first read, is cancelled leave no descriptor of the file."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiosqlite
import pytest

from aiostorage import Storage, open_storage
from aiostorage.drivers.sqlite import connection

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


async def test_a_reader_that_could_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no caller waits any more when the opening fails, the next read opens it again."""
    file, away = tmp_path / "tune.db", tmp_path / "away.db"
    begin = threading.Event()
    make = connection._proxy_of

    def make_later(connect: Callable[[], connection.Connection]) -> aiosqlite.Connection:
        begin.wait(10)
        return make(connect)

    async with open_storage(f"sqlite:///{file}") as storage:
        readers = storage._gateway.driver._readers  # type: ignore[attr-defined]
        await readers.aclose()
        monkeypatch.setattr(connection, "_proxy_of", make_later)
        await asyncio.to_thread(file.rename, away)
        reading = asyncio.create_task(storage.fetch_experiments({}))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        begin.set()
        (thread,) = readers._threads
        await asyncio.wait([thread._opening])
        await asyncio.to_thread(away.rename, file)
        assert await storage.fetch_experiments({}) == []
