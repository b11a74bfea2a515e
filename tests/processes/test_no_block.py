"""The event loop goes on turning while the store is busy."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiostorage import Experiment, Storage, open_storage

from .support import PatientClock, Starter
from .worker_lifetime import make_trials

TASKS = 64
BUSY = 1.0
STALL = 0.5


@dataclass
class LongestTurn:
    """The longest turn of an event loop.

    What other processes do to this one is in neither figure: `blocked` is counted by a thread of
    this process, which goes on while the loop waits for something, and `busy` is processor time.
    """

    blocked: float = 0.0
    busy: float = 0.0

    async def watch(self, clock: PatientClock) -> None:
        """Go round with the loop."""
        while True:
            before, cpu = clock.now(), time.thread_time()
            await asyncio.sleep(0.001)
            self.blocked = max(self.blocked, clock.now() - before)
            self.busy = max(self.busy, time.thread_time() - cpu)


async def cycles(storage: Storage, experiment: Experiment, done: list[float]) -> None:
    while trial := await storage.reserve_trial(experiment):
        await storage.update_heartbeat(trial)
        await storage.complete_trial(trial, 0.5)
        done.append(time.monotonic())


def test_no_block(
    start: Starter, path: Path, clock: PatientClock, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = LongestTurn()
    done: list[float] = []

    async def main() -> None:
        async with open_storage(f"sqlite:///{path}") as storage:
            experiment = await storage.create_experiment({"name": "e"})
            await storage.register_trials(make_trials(experiment.id, range(2000)))
            other = await asyncio.to_thread(start, "worker_lifetime.py", "occupies", path, BUSY)
            await asyncio.to_thread(other.expect, "ready")
            watch = asyncio.create_task(longest.watch(clock))
            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(cycles(storage, experiment, done))
                while len(done) < 100:
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(other.tell)
            watch.cancel()
            await asyncio.to_thread(other.expect, "occupied")
            await asyncio.to_thread(other.succeed)
            assert await storage.count_completed_trials(experiment) == 2000

    asyncio.run(main())
    pause = max(after - before for before, after in itertools.pairwise(done))
    rate = len(done) / (done[-1] - done[0] - pause)
    with capsys.disabled():
        print(
            f"\nno block: the event loop was blocked for {longest.blocked * 1000:.0f} ms and busy "
            f"for {longest.busy * 1000:.0f} ms at most, nothing written for {pause:.2f} s, "
            f"{rate:.0f} cycles/s of {TASKS} tasks otherwise"
        )
    assert pause > BUSY / 2
    assert longest.blocked < STALL
    assert longest.busy < STALL
