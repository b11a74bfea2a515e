"""Processes that want the lock all the time get it about as often as one another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from aiostorage import open_storage

from .support import DEADLINE, SQLiteStore, Starter, Worker, integrity


async def prepare(path: Path) -> str:
    async with open_storage(f"sqlite:///{path}") as storage:
        experiment = await storage.create_experiment({"name": "e"}, algo_state={"count": 0})
    return str(experiment.id)


async def counted(path: Path, experiment: str) -> int:
    async with open_storage(f"sqlite:///{path}") as storage:
        info = await storage.get_algorithm_lock_info(uid=experiment)
    assert info is not None
    count: int = info.state["count"]
    return count


async def begun_at_once(started: list[Worker], path: Path, experiment: str) -> None:
    """Let processes begin while the lock is held, until all of them wait for it."""
    store = SQLiteStore(path)
    async with open_storage(store.url) as storage:
        async with storage.acquire_algorithm_lock({"_id": experiment}):
            for worker in started:
                await asyncio.to_thread(worker.tell)
            end = time.monotonic() + DEADLINE
            while await asyncio.to_thread(store.waiters, experiment) < len(started):
                assert time.monotonic() < end
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", [(1, 8, 80), (2, 1, 600), (8, 1, 160), (8, 4, 200)])
def test_fairness(
    start: Starter, path: Path, capsys: pytest.CaptureFixture[str], workers: tuple[int, int, int]
) -> None:
    processes, tasks, total = workers
    experiment = asyncio.run(prepare(path))
    started = [start("worker_hammer.py", path, experiment, tasks, total) for _ in range(processes)]
    for worker in started:
        worker.expect("ready")
    begin = time.monotonic()
    asyncio.run(begun_at_once(started, path, experiment))
    counts = [[int(count) for count in worker.expect("held")] for worker in started]
    seconds = time.monotonic() - begin
    for worker in started:
        worker.succeed()
    shares = [sum(each) for each in counts]
    each_task = sorted(count for each in counts for count in each)
    with capsys.disabled():
        print(
            f"\nfairness: {processes} processes with {tasks} tasks: {sum(shares) / seconds:.0f}/s; "
            f"each process {sorted(shares)}; each task {each_task[0]} to {each_task[-1]}"
        )
    # every holding was alone, and was saved
    assert asyncio.run(counted(path, experiment)) == sum(shares) == total
    assert max(shares) <= 2 * min(shares)
    assert each_task[-1] <= 2 * each_task[0] + 2
    assert integrity(path) == "ok"
