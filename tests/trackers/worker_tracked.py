"""Workers of one process, which evaluate trials until there are none for a while.

worker_tracked.py URL EXPERIMENT TRACKER_DIRECTORY TASKS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiostorage import open_storage
from aiostorage._core.delivery.deliverer import DeliverySettings
from tests.trackers.file_tracker import FileTracker

SETTINGS = DeliverySettings(lease=2.0, call_limit=0.8, linger=0.1, initial=0.02, maximum=0.1)


async def main(url: str, experiment: str, directory: str, tasks: str) -> None:
    storage = open_storage(url, tracker=FileTracker(Path(directory)), lost_after=1.5)
    assert storage._mirror is not None
    storage._mirror.deliverer.settings = SETTINGS
    async with storage:
        print("ready", flush=True)

        async def work() -> None:
            while True:
                async with storage.reserved_trial(
                    {"_id": experiment}, heartbeat=0.4, wait=0.2
                ) as trial:
                    if trial is None:
                        if (Path(directory) / "stop").exists():
                            return
                        continue
                    await asyncio.sleep(0.01)
                    await storage.complete_trial(trial, trial.params["x"] ** 2)

        await asyncio.gather(*(work() for _ in range(int(tasks))))
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
