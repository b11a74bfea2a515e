"""Calls of the memory engine let the event loop turn, but not each of them."""

from __future__ import annotations

import asyncio

import pytest

from aiostorage import Storage, open_storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.testing import cancelled_at_every_await

pytestmark = pytest.mark.anyio


async def test_a_loop_of_calls_keeps_nobody_from_their_turn() -> None:
    async with open_storage("memory://") as storage:
        experiment = await storage.create_experiment({"name": "e"})
        calls = turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        while calls < 2_000:
            await storage.update_experiment(experiment, used=1)
            calls += 1
        counting.cancel()
    assert calls / turns < 500


async def test_many_tasks_keep_nobody_from_their_turn() -> None:
    """Not a millisecond each: the calls of all of them in one turn are few."""
    async with open_storage("memory://") as storage:
        experiment = await storage.create_experiment({"name": "e"})
        calls = turns = 0

        async def call() -> None:
            nonlocal calls
            for _ in range(200):
                await storage.update_experiment(experiment, used=1)
                calls += 1

        async def count() -> None:
            nonlocal turns
            while calls < 64 * 200:
                turns += 1
                await asyncio.sleep(0)

        await asyncio.gather(count(), *(call() for _ in range(64)))
    assert calls / turns < 500


async def test_a_turn_that_never_came_is_forgotten() -> None:
    driver = MemoryDriver()
    driver._turning = asyncio.new_event_loop()
    driver._turning.close()
    async with Storage(driver) as storage:
        await storage.create_experiment({"name": "e"})
        await asyncio.sleep(0)
        assert driver._turning is None


async def test_a_loop_of_calls_can_be_cancelled() -> None:
    async with open_storage("memory://") as storage:
        experiment = await storage.create_experiment({"name": "e"})

        async def call() -> None:
            while True:
                await storage.update_experiment(experiment, used=1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.05)


async def test_a_call_need_not_let_the_loop_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDriver, "turn_interval", 60.0)
    async with Storage(MemoryDriver()) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        turned = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turned.set_result, None)
        await storage.update_experiment(experiment, used=1)
        assert not turned.done()


async def test_each_call_can_be_cancelled_where_that_is_tested() -> None:
    interval = MemoryDriver.turn_interval
    async with Storage(MemoryDriver()) as storage:
        experiment = await storage.create_experiment({"name": "e"})

        async def call() -> None:
            await storage.update_experiment(experiment, used=1)

        async def check() -> None:
            assert MemoryDriver.turn_interval == 0.0

        assert await cancelled_at_every_await(call, check) >= 4
    assert MemoryDriver.turn_interval == interval
