"""aiostorage inserting, counting and fetching trials."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

from aiostorage import Experiment, Storage, SyncStorage
from benchmarks.definitions import Block, Figures, Setting
from benchmarks.sides.ours import NAME, Engine, in_loop, opened, storage
from benchmarks.workload import make_trials, measured, measured_calls, stall_watched

__all__ = ["awaited_counts", "called_counts", "fetch", "inserts", "iterate", "project", "reads"]

AsyncBlock = Callable[[], Awaitable[Figures]]


@in_loop
@asynccontextmanager
async def inserts(
    setting: Setting, engine: Engine = "sqlite", *, at_a_time: int = 1
) -> AsyncIterator[AsyncBlock]:
    """Register trials: each by itself, or many with one call."""
    async with opened(setting, engine) as (ours, experiment):
        seeds = itertools.count(1)

        async def block() -> Figures:
            trials = iter(make_trials(experiment.id, setting.count, next(seeds)))
            if at_a_time == 1:
                return await measured(
                    lambda: ours.register_trial(next(trials)), setting.tasks, setting.count
                )
            figures = await measured(
                lambda: ours.register_trials(list(itertools.islice(trials, at_a_time))),
                setting.tasks,
                max(setting.count // at_a_time, 1),
            )
            return replace(figures, count=setting.count)

        yield block


@in_loop
@asynccontextmanager
async def awaited_counts(setting: Setting, engine: Engine = "sqlite") -> AsyncIterator[AsyncBlock]:
    """Count the completed trials."""
    async with opened(setting, engine) as (ours, experiment):
        count = partial(ours.count_completed_trials, experiment)
        yield partial(measured, count, setting.tasks, setting.count)


@contextmanager
def called_counts(setting: Setting, engine: Engine = "sqlite") -> Iterator[Block]:
    """Count the completed trials by the facade."""
    with SyncStorage(storage(setting, engine)) as facade:
        experiment = facade.get_or_create_experiment({"name": NAME})
        count = partial(facade.count_completed_trials, experiment)
        yield partial(measured_calls, count, setting.count)


@in_loop
@asynccontextmanager
async def reads(
    setting: Setting, read: Callable[[Storage, Experiment], Awaitable[int]], engine: Engine
) -> AsyncIterator[AsyncBlock]:
    """Read all trials by one of the functions below, which return how many there are."""
    async with opened(setting, engine) as (ours, experiment):

        async def block() -> Figures:
            async with stall_watched() as stall:
                begin, used = time.perf_counter(), time.process_time()
                count = await read(ours, experiment)
                seconds, processor = time.perf_counter() - begin, time.process_time() - used
            return Figures(count, seconds, processor, stall())

        yield block


async def fetch(ours: Storage, experiment: Experiment) -> int:
    """Fetch all trials at once."""
    return len(await ours.fetch_trials(experiment) or ())


async def iterate(ours: Storage, experiment: Experiment) -> int:
    """Iterate over the trials."""
    count = 0
    async for _ in ours.iter_trials(experiment):
        count += 1
    return count


async def project(ours: Storage, experiment: Experiment) -> int:
    """Iterate over two fields of the trials."""
    count = 0
    async for _ in ours.iter_trials(experiment, selection={"id": 1, "status": 1}):
        count += 1
    return count
