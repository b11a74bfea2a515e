"""The loop that the documentation shows, in a process with several workers.

Arguments: the URL, the experiment, after how long a trial is lost, how long an evaluation takes,
how long to wait for a trial. Prints ``has`` and ``completed`` with the trial, and ends as the loop
does.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from aiostorage import Storage, TrialLost, open_storage

WORKERS = 2


async def work(storage: Storage, experiment: str, seconds: float, wait: float) -> None:
    while True:
        with suppress(TrialLost):
            async with storage.reserved_trial({"_id": experiment}, wait=wait) as trial:
                if trial is None:
                    return
                print("has", trial.id, flush=True)
                await asyncio.sleep(seconds)
                await storage.complete_trial(trial, 1.0)
                print("completed", trial.id, flush=True)


async def main() -> None:
    url, experiment, *numbers = sys.argv[1:]
    lost_after, seconds, wait = map(float, numbers)
    async with open_storage(url, lost_after=lost_after) as storage, asyncio.TaskGroup() as tasks:
        for _ in range(WORKERS):
            tasks.create_task(work(storage, experiment, seconds, wait))


if __name__ == "__main__":
    asyncio.run(main())
