"""aiostorage as a side: its stores by engine, and its loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial, wraps
from typing import Any, Literal

from aiostorage import Experiment, Storage, SyncStorage, open_storage
from benchmarks.definitions import Block, Figures, Setting
from benchmarks.sides.filling import fill_quickly
from benchmarks.workload import add_trials, cycle, make_trials, measured, measured_calls, reserve

__all__ = [
    "HOLD_SECONDS",
    "NAME",
    "Engine",
    "cycles",
    "cycles_by_facade",
    "in_loop",
    "opened",
    "reservations",
    "storage",
]

Engine = Literal["memory", "sqlite", "motor", "pymongo"]
"""``motor`` and ``pymongo`` are MongoDB by either client library."""

NAME = "bench"
"""The name of every experiment."""

HOLD_SECONDS = 0.002
"""Seconds for which a lock is held while others come to wait for it."""

MIN_DIRECT_FILL = 20_000
"""From so many trials on a store is filled past the storage."""


def in_loop(
    begin: Callable[..., AbstractAsyncContextManager[Callable[[], Awaitable[Figures]]]],
) -> Callable[..., Any]:
    """Make a side of one whose store is opened, and whose blocks are done, in an event loop.

    The loop stands still between blocks, so that nothing disturbs the sides whose turn it is.
    """

    @wraps(begin)
    @contextmanager
    def begun(setting: Setting, *args: Any, **options: Any) -> Iterator[Block]:
        with asyncio.Runner() as runner:
            context = begin(setting, *args, **options)
            block = runner.run(context.__aenter__())
            try:
                yield lambda: runner.run(_awaited(block))
            finally:
                runner.run(context.__aexit__(None, None, None))

    return begun


async def _awaited(block: Callable[[], Awaitable[Figures]]) -> Figures:
    return await block()


def storage(setting: Setting, engine: Engine, **options: Any) -> Storage:
    """Return the storage of a side, which has yet to be opened."""
    if engine == "memory":
        return open_storage("memory://", **options)
    if engine == "sqlite":
        return open_storage(f"sqlite:///{setting.directory / setting.store}.db", **options)
    if setting.mongodb is None:
        raise AssertionError("the runner leaves out what has no server")
    return open_storage(setting.mongodb, database=setting.store, client=engine, **options)


@asynccontextmanager
async def opened(
    setting: Setting, engine: Engine, **options: Any
) -> AsyncIterator[tuple[Storage, Experiment]]:
    """Yield a side's storage and its experiment, which is made and filled if there is none."""
    async with storage(setting, engine, **options) as ours:
        # code of 0.1, which may be measured beside this, lacks both methods
        make = getattr(ours, "get_or_create_experiment", ours.create_experiment)
        experiment = await make({"name": NAME})
        filled = hasattr(ours, "count_trials") and await ours.count_trials(experiment)
        if setting.size and not filled:
            if setting.size < MIN_DIRECT_FILL or engine == "memory":
                await add_trials(ours, experiment, setting.size)
            else:
                await add_trials(ours, experiment, 1)
                fill_quickly(setting, engine, setting.size - 1)
        yield ours, experiment


@in_loop
@asynccontextmanager
async def reservations(
    setting: Setting, engine: Engine = "sqlite", **options: Any
) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Reserve trials."""
    async with opened(setting, engine, **options) as (ours, experiment):
        yield partial(measured, partial(reserve, ours, experiment), setting.tasks, setting.count)


@in_loop
@asynccontextmanager
async def cycles(
    setting: Setting, engine: Engine = "sqlite", **options: Any
) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Reserve a trial, send a heartbeat, complete it."""
    async with opened(setting, engine, **options) as (ours, experiment):
        yield partial(measured, partial(cycle, ours, experiment), setting.tasks, setting.count)


@contextmanager
def cycles_by_facade(setting: Setting, engine: Engine = "sqlite") -> Iterator[Block]:
    """Do the same without an event loop, by the facade."""
    with SyncStorage(storage(setting, engine)) as facade:
        experiment = facade.get_or_create_experiment({"name": NAME})
        facade.register_trials(make_trials(experiment.id, setting.size))

        def one() -> None:
            trial = facade.reserve_trial(experiment)
            if trial is None:
                raise AssertionError("the experiment ran out of trials; make more")
            facade.update_heartbeat(trial)
            facade.complete_trial(trial, 0.5)

        yield partial(measured_calls, one, setting.count)
