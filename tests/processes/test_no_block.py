"""The event loop goes on turning while the store is busy."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from aiostorage import Experiment, Storage, open_storage

from .support import Starter
from .worker_lifetime import make_trials

TASKS = 64
BUSY = 1.0
STALL = 0.5


async def ticker(stalls: list[float]) -> None:
    """Note by how much each short sleep was too long."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        stalls.append(time.perf_counter() - before - 0.001)


async def cycles(storage: Storage, experiment: Experiment, done: list[float]) -> None:
    while trial := await storage.reserve_trial(experiment):
        await storage.update_heartbeat(trial)
        await storage.complete_trial(trial, 0.5)
        done.append(time.monotonic())


def test_no_block(start: Starter, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stalls: list[float] = []
    done: list[float] = []

    async def main() -> None:
        async with open_storage(f"sqlite:///{path}") as storage:
            experiment = await storage.create_experiment({"name": "e"})
            await storage.register_trials(make_trials(experiment.id, range(4000)))
            other = await asyncio.to_thread(start, "worker_lifetime.py", "occupies", path, BUSY)
            await asyncio.to_thread(other.expect, "ready")
            watch = asyncio.create_task(ticker(stalls))
            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(cycles(storage, experiment, done))
                while len(done) < 100:
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(other.tell)
            watch.cancel()
            await asyncio.to_thread(other.expect, "occupied")
            await asyncio.to_thread(other.succeed)
            assert await storage.count_completed_trials(experiment) == 4000

    asyncio.run(main())
    pause = max(after - before for before, after in itertools.pairwise(done))
    rate = len(done) / (done[-1] - done[0] - pause)
    with capsys.disabled():
        print(
            f"\nno block: longest stall of the event loop {max(stalls) * 1000:.0f} ms, nothing "
            f"written for {pause:.2f} s, {rate:.0f} cycles/s of {TASKS} tasks otherwise"
        )
    assert pause > BUSY / 2
    assert max(stalls) < STALL
