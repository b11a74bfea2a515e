"""Workers that evaluate trials, four in this process, and tell MLflow by the way.

Arguments: the storage, the tracker, and the id of the experiment. Prints a line for each trial.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import anyio

from aiostorage import open_storage


async def main(url: str, tracker: str, uid: str) -> None:
    storage = open_storage(url, tracker=tracker, lost_after=2.0)
    mirror = storage._mirror
    assert mirror is not None
    # a killed deliverer is followed sooner than after a minute, and a server that is back is
    # noticed sooner than after half of one
    mirror.deliverer.settings = replace(
        mirror.deliverer.settings, lease=6.0, call_limit=5.0, linger=0.2, maximum=1.0
    )
    async with storage:

        async def work() -> None:
            experiment = {"_id": uid}
            while True:
                async with storage.reserved_trial(experiment, heartbeat=0.5, wait=0.2) as trial:
                    if trial is None:
                        if not await storage.fetch_noncompleted_trials(experiment):
                            return
                        continue
                    await anyio.sleep(0.15)
                    x = trial.params["x"]
                    await storage.complete_trial(trial, {"objective": x * x, "twice": 2 * x})
                    print(trial.id, flush=True)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work)
        await storage.flush_tracker(80)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
