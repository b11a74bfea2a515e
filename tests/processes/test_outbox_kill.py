"""A worker that is killed at any moment leaves no change without its row, and no row too many."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiostorage import Storage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.delivery.outbox import Outbox
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.testing.contract.helpers import make_config, registered

WORKER = """
import asyncio, sys
from aiostorage import Storage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage.drivers.sqlite import SQLiteDriver

async def main():
    async with Storage(NotingDriver(SQLiteDriver(sys.argv[1], synchronous="NORMAL"))) as storage:
        [experiment] = await storage.fetch_experiments({})

        async def work():
            while (trial := await storage.reserve_trial(experiment)) is not None:
                print(flush=True)
                await storage.complete_trial(trial, 1.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())

asyncio.run(main())
"""


@pytest.mark.anyio
async def test_a_killed_worker_leaves_a_row_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with Storage(NotingDriver(SQLiteDriver(path, synchronous="NORMAL"))) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 4000)
        outbox = Outbox(storage._gateway)
        await outbox.remove(await outbox.rows(5000))
        await asyncio.to_thread(_work_and_die, path)
        trials = await storage.fetch_trials(experiment) or []
        expected = [
            (trial.id, change, trial.worker)
            for trial in trials
            for change in {"reserved": ["reserved"], "completed": ["reserved", "changed"]}.get(
                trial.status, []
            )
        ]
        rows = await outbox.rows(10_000)
        assert len(expected) > 50
        assert sorted((r.trial, r.change, r.worker) for r in rows) == sorted(expected)


def _work_and_die(path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None
        for _ in range(50):
            worker.stdout.readline()
        time.sleep(0.05)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
