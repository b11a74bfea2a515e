"""The Track engine beside SQLite: cycles of reserving and completing, by the size of the file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiostorage import open_storage
from benchmarks.workload import Measure, cycle, fill, rate

__all__ = ["TrackRates", "beside_sqlite"]

SIZES = (100, 1000, 5000)
TASK_COUNTS = (1, 64)


@dataclass(frozen=True)
class TrackRates:
    """One line of the output: how many trials the file has, how many tasks work, and the rates."""

    trials: int
    tasks: int
    track: Measure
    sqlite: Measure


def beside_sqlite(directory: Path, count: int) -> Iterator[TrackRates]:
    """Measure both engines, each on a fresh file, with synchronous FULL."""
    for trials in SIZES:
        for tasks in TASK_COUNTS:
            cycles = min(trials * 8 // 10, count if tasks > 1 else max(count // 4, 20))
            name = f"{trials}-{tasks}"
            urls = (f"track:///{directory}/{name}.json", f"sqlite:///{directory}/{name}.db")
            found = [asyncio.run(_measured(url, trials, tasks, cycles)) for url in urls]
            yield TrackRates(trials, tasks, *found)


async def _measured(url: str, trials: int, tasks: int, cycles: int) -> Measure:
    async with open_storage(url) as storage:
        experiment = await fill(storage, "bench", trials)
        return await rate(partial(cycle, storage, experiment), tasks, cycles)
