"""The workload: trials like those of a real search, and two loops over them."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiostorage import Experiment, Storage, Trial
from benchmarks.definitions import Figures

__all__ = [
    "Measure",
    "add_trials",
    "cycle",
    "fill",
    "make_trials",
    "measured",
    "measured_calls",
    "rate",
    "reserve",
    "stall_watched",
]

PARAM_COUNT = 8


@dataclass(frozen=True)
class Measure:
    """Operations per second, and the longest time that the event loop was blocked, in seconds."""

    rate: float
    stall: float


def make_trials(experiment: str | int, count: int, seed: int = 0) -> list[Trial]:
    """Make distinct trials of 8 params each."""
    draw = random.Random(seed)  # noqa: S311  no secret
    return [
        Trial(
            experiment=experiment,
            params={f"x{n}": draw.uniform(-5, 5) for n in range(PARAM_COUNT - 1)}
            | {"number": number},
        )
        for number in range(count)
    ]


async def fill(storage: Storage, name: str, count: int) -> Experiment:
    """Make an experiment with pending trials."""
    experiment = await storage.create_experiment({"name": name, "version": 1})
    await add_trials(storage, experiment, count)
    return experiment


async def add_trials(storage: Storage, experiment: Experiment, count: int) -> None:
    """Register pending trials."""
    trials = make_trials(experiment.id, count)
    for start in range(0, count, 5000):
        await storage.register_trials(trials[start : start + 5000])


async def reserve(storage: Storage, experiment: Experiment) -> None:
    """Reserve one trial."""
    if await storage.reserve_trial(experiment) is None:
        raise AssertionError("the experiment ran out of trials; make more")


async def cycle(storage: Storage, experiment: Experiment) -> None:
    """Take one trial from its reservation to its completion."""
    trial = await storage.reserve_trial(experiment)
    if trial is None:
        raise AssertionError("the experiment ran out of trials; make more")
    await storage.update_heartbeat(trial)
    await storage.complete_trial(trial, 0.5)


async def rate(action: Callable[[], Awaitable[object]], tasks: int, count: int) -> Measure:
    """Do an action `count` times from `tasks` tasks at once, and watch the event loop."""
    for _ in range(min(count // 10, 50)):  # warm up: connections, statements, caches
        await action()
    figures = await measured(action, tasks, count)
    return Measure(figures.count / figures.seconds, figures.stall or 0.0)


async def measured(action: Callable[[], Awaitable[object]], tasks: int, count: int) -> Figures:
    """Do an action `count` times from `tasks` tasks at once, and watch the event loop."""

    async def work() -> None:
        for _ in range(count // tasks):
            await action()

    async with stall_watched() as stall:
        begin, used = time.perf_counter(), time.process_time()
        if tasks == 1:
            await work()
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(tasks):
                    group.create_task(work())
        seconds, processor = time.perf_counter() - begin, time.process_time() - used
    return Figures(count // tasks * tasks, seconds, processor, stall())


def measured_calls(action: Callable[[], object], count: int) -> Figures:
    """Do an action `count` times, one after another, without an event loop."""
    begin, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        action()
    return Figures(count, time.perf_counter() - begin, time.process_time() - used)


@asynccontextmanager
async def stall_watched() -> AsyncIterator[Callable[[], float]]:
    """Watch the event loop; yield a function that returns its longest blocked time, in seconds."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)

    # the garbage collector's scans of what the benchmark has made are not stalls of the storage
    gc.collect()
    gc.freeze()
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield lambda: longest
    finally:
        watcher.cancel()
