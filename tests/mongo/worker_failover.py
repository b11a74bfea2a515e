"""A worker that lives through elections: works off trials, and logs what it has done and when.

Arguments: the URL, the client library, the experiment, the log, a name, how many trials there are.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from aiostorage import Storage, Trial, open_storage

TASKS = 4


class FailoverLog:
    """A file of lines, each with the time at which something had just succeeded."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, *words: object) -> None:
        line = " ".join(map(str, (time.monotonic(), *words)))
        os.write(self._file, (line + "\n").encode())


class FailoverWorker:
    """One of the tasks.

    It never recovers lost trials: a reservation without an owner would never be completed.
    """

    def __init__(self, storage: Storage, experiment: str, log: FailoverLog, name: str) -> None:
        self._storage = storage
        self._experiment = {"_id": experiment}
        self._log = log
        self._name = name
        self._draw = random.Random(name)
        self._number = 0

    async def run(self, total: int) -> None:
        """Work until all trials are completed."""
        while True:
            worked = await (self._beating() if self._draw.random() < 0.5 else self._silent())
            if not worked:
                self._log("idle", self._name)
                if await self._storage.count_completed_trials(self._experiment) == total:
                    return

    async def _beating(self) -> bool:
        async with self._storage.reserved_trial(
            self._experiment, heartbeat=0.05, wait=0.5
        ) as trial:
            if trial is not None:
                await self._work(trial)
            return trial is not None

    async def _silent(self) -> bool:
        trial = await self._storage.reserve_trial(self._experiment, wait=0.5)
        if trial is not None:
            await self._work(trial)
        return trial is not None

    async def _work(self, trial: Trial) -> None:
        self._log("began", self._name, trial.id)
        await asyncio.sleep(self._draw.uniform(0.02, 0.05))
        if self._draw.random() < 0.3:
            await self._count()
        self._number += 1
        who = f"{self._name}.{self._number}"
        await self._storage.complete_trial(trial, {"objective": self._number, "who": who})
        self._log("completed", self._name, trial.id, who)
        print("completed", flush=True)

    async def _count(self) -> None:
        async with self._storage.acquire_algorithm_lock(self._experiment, timeout=60) as algorithm:
            self._log("holds", self._name)
            count = algorithm.state["count"]
            await asyncio.sleep(self._draw.uniform(0.0, 0.01))
            algorithm.set_state({"count": count + 1})
        self._log("held", self._name)


async def main() -> None:
    url, client, experiment, log, name, total = sys.argv[1:]
    async with open_storage(url, client=client) as storage:
        lines = FailoverLog(log)
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                worker = FailoverWorker(storage, experiment, lines, f"{name}.{task}")
                group.create_task(worker.run(int(total)))


if __name__ == "__main__":
    asyncio.run(main())
