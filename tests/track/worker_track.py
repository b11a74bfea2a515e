"""A process that works on the trials of a Track file, and prints what it has completed."""

from __future__ import annotations

import asyncio
import sys

from aiostorage import FailedUpdate, LockLost, Storage, TrialLost
from aiostorage.drivers.track import TrackDriver

TASKS = 2


async def work(storage: Storage, uid: str) -> None:
    while True:
        trial = await storage.reserve_trial({"_id": uid})
        if trial is None:
            if await storage.count_completed_trials({"_id": uid}) == int(sys.argv[3]):
                return
            await asyncio.sleep(0.05)
            continue
        try:
            async with storage.acquire_algorithm_lock({"_id": uid}) as algorithm:
                algorithm.set_state((algorithm.state or 0) + 1)
            await storage.complete_trial(trial, {"loss": trial.params["x"]})
        except (TrialLost, FailedUpdate, LockLost):
            continue  # another one has it, or this one was too slow
        print("done", trial.id, flush=True)


async def main() -> None:
    driver = TrackDriver(sys.argv[1], busy_timeout=30)
    async with Storage(driver, lost_after=0.8, lock_lease=0.5) as storage:
        await asyncio.gather(*(work(storage, sys.argv[2]) for _ in range(TASKS)))


asyncio.run(main())
