"""Who waits for trials of an experiment that is deleted meanwhile is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from aiostorage import FailedUpdate, Storage, Trial
from aiostorage._core import reservations
from aiostorage.protocols import Driver
from tests.contract.conftest import UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED]


async def test_it_is_deleted_meanwhile(
    make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "CHECK_INTERVAL", 0.1)
    async with Storage(make_driver()) as storage:
        experiment = await storage.create_experiment({"name": "tune"})

        async def wait() -> None:
            with anyio.fail_after(10), pytest.raises(FailedUpdate, match="deleted"):
                async with storage.reserved_trial(experiment, wait=60):
                    pytest.fail("there is nothing to reserve")

        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in waiting)
        await storage.delete_experiment(experiment)
        await asyncio.gather(*waiting)


async def test_a_trial_comes_between_two_looks(
    make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "CHECK_INTERVAL", 0.01)
    async with Storage(make_driver()) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        waiting = asyncio.create_task(storage.reserve_trial(experiment, wait=10))
        await asyncio.sleep(0.2)
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        assert await waiting is not None
