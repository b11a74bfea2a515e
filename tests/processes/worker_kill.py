"""A worker that may be killed at any moment: works off trials, and logs what it has done.

Arguments: the file, the experiment, the log, a name, how many trials there are, a seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from aiostorage import LockLost, Storage, Trial, TrialLost, open_storage

TASKS = 3
LOST_AFTER = 1.0
LEASE = 1.8
RETRY = 0.2


class KillLog:
    """A file that has every line that was written, whenever we are killed."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, *words: str) -> None:
        os.write(self._file, (" ".join(words) + "\n").encode())


class KillWorker:
    """One of the tasks."""

    def __init__(
        self, storage: Storage, experiment: str, log: KillLog, name: str, seed: str
    ) -> None:
        self._storage = storage
        self._experiment = {"_id": experiment}
        self._log = log
        self._name = name
        self._draw = random.Random(seed)
        self._number = 0

    async def run(self, total: int) -> None:
        """Work until all trials are completed."""
        while True:
            try:
                worked = await (self._beating() if self._draw.random() < 0.7 else self._silent())
            except TrialLost:
                self._log("trial-lost")
                continue
            if not worked or self._draw.random() < 0.2:
                await self._storage.recover_lost_trials(self._experiment)
            if not worked:
                if await self._storage.count_completed_trials(self._experiment) == total:
                    return
                await asyncio.sleep(0.05)

    async def _beating(self) -> bool:
        async with self._storage.reserved_trial(
            self._experiment, heartbeat=0.2, on_lost="raise"
        ) as trial:
            if trial is None:
                return False
            await asyncio.sleep(self._draw.uniform(0.001, 0.008))
            if self._draw.random() < 0.5:
                await self._count()
            await self._complete(trial)
        return True

    async def _silent(self) -> bool:
        trial = await self._storage.reserve_trial(self._experiment)
        if trial is None:
            return False
        await asyncio.sleep(self._draw.uniform(0.001, 0.008))
        await self._complete(trial)
        return True

    async def _count(self) -> None:
        try:
            async with self._storage.acquire_algorithm_lock(
                self._experiment, timeout=60, retry_interval=RETRY
            ) as algorithm:
                print("holds", flush=True)
                count = algorithm.state["count"]
                await asyncio.sleep(self._draw.uniform(0.0, 0.005))
                algorithm.set_state({"count": count + 1})
        except LockLost:
            self._log("lock-lost")
        else:
            self._log("held")

    async def _complete(self, trial: Trial) -> None:
        self._number += 1
        who = f"{self._name}.{self._number}"
        await self._storage.complete_trial(trial, {"objective": 1.0, "who": who})
        self._log("completed", str(trial.id), who)
        print("completed", flush=True)


async def main() -> None:
    path, experiment, log, name, total, seed = sys.argv[1:]
    async with open_storage(
        f"sqlite:///{path}", lost_after=LOST_AFTER, lock_lease=LEASE
    ) as storage:
        lines = KillLog(log)
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                who = f"{name}.{task}"
                worker = KillWorker(storage, experiment, lines, who, f"{seed} {who}")
                group.create_task(worker.run(int(total)))


if __name__ == "__main__":
    asyncio.run(main())
