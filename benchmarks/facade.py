"""The cost of a call through the facade, beyond that of the coroutine it awaits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiostorage import Experiment, Storage, SyncStorage, open_storage

__all__ = ["FacadeOverhead", "overhead"]


@dataclass(frozen=True)
class FacadeOverhead:
    """Median seconds of one call, awaited and through the facade."""

    engine: str
    awaited: float
    called: float


def overhead(directory: Path, count: int) -> list[FacadeOverhead]:
    """Measure the cheapest calls, in alternating blocks."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{directory / 'facade.db'}"}
    return [_measured(engine, url, count) for engine, url in urls.items()]


def _measured(engine: str, url: str, count: int) -> FacadeOverhead:
    awaited: list[float] = []
    called: list[float] = []
    with SyncStorage(open_storage(url)) as facade:
        experiment = facade.create_experiment({"name": "bench"})
        for _ in range(5):
            awaited += asyncio.run(_awaited(url, experiment, count // 5))
            for _ in range(count // 5):
                begin = time.perf_counter()
                facade.count_completed_trials(experiment)
                called.append(time.perf_counter() - begin)
    return FacadeOverhead(engine, statistics.median(awaited), statistics.median(called))


async def _awaited(url: str, experiment: Experiment, count: int) -> list[float]:
    async with open_storage(url) as storage:
        return await _timed(storage, storage.count_completed_trials, experiment, count)


async def _timed(
    storage: Storage,
    call: Callable[[Experiment], Awaitable[int]],
    experiment: Experiment,
    count: int,
) -> list[float]:
    await storage.open()
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        await call(experiment)
        seconds.append(time.perf_counter() - begin)
    return seconds
