"""Many callers that wait for the same opening: each waits as long as one would."""

from __future__ import annotations

import asyncio

import pytest

from aiostorage import BackendError, Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Layout

pytestmark = pytest.mark.anyio


class Unreachable(MemoryDriver):
    """Cannot be opened, which it finds out after a while, until it is `there`."""

    openings = 0
    there = False

    async def open(self, layout: Layout) -> None:
        self.openings += 1
        await asyncio.sleep(0.05)
        if not self.there:
            raise BackendError(f"no server answers ({self.openings})")
        await super().open(layout)


async def test_callers_share_the_failure_of_an_opening() -> None:
    driver = Unreachable()
    storage = Storage(driver)
    calls = [asyncio.create_task(storage.fetch_experiments({})) for _ in range(20)]
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(storage.fetch_experiments({})) for _ in range(20)]
    errors = await asyncio.gather(*calls, *late, return_exceptions=True)
    assert [str(error) for error in errors] == 20 * ["no server answers (1)"] + 20 * [
        "no server answers (2)"  # of one that began when they were waiting
    ]
    assert len(set(map(id, errors))) == 40
    assert all(type(error) is BackendError for error in errors)
    driver.there = True
    assert await storage.fetch_experiments({}) == []
    assert driver.openings == 3
    await storage.aclose()


async def test_the_next_caller_opens_when_the_first_is_cancelled() -> None:
    driver = Unreachable()
    storage = Storage(driver)
    first, *others = [asyncio.create_task(storage.fetch_experiments({})) for _ in range(9)]
    await asyncio.sleep(0.01)
    first.cancel()
    driver.there = True
    assert await asyncio.gather(*others) == 8 * [[]]
    assert driver.openings == 2
    await storage.aclose()
