"""aiostorage handing the algorithm lock on, and keeping the state of an algorithm."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.definitions import Figures, Setting, Span
from benchmarks.sides.ours import HOLD_SECONDS, Engine, in_loop, opened
from benchmarks.workload import measured, stall_watched

__all__ = ["handovers", "states"]


@in_loop
@asynccontextmanager
async def handovers(
    setting: Setting, engine: Engine = "sqlite"
) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Hand the algorithm lock from task to task, or from process to process."""
    async with opened(setting, engine) as (ours, experiment):

        async def one(spans: list[Span], holder: str) -> None:
            for _ in range(setting.count // setting.tasks):
                async with ours.acquire_algorithm_lock(experiment):
                    acquired = time.perf_counter()
                    await asyncio.sleep(HOLD_SECONDS)
                    released = time.perf_counter()
                spans.append((holder, acquired, released))

        async def block() -> Figures:
            spans: list[Span] = []
            async with stall_watched() as stall:
                begin, used = time.perf_counter(), time.process_time()
                async with asyncio.TaskGroup() as group:
                    for number in range(setting.tasks):
                        group.create_task(one(spans, f"{os.getpid()} {number}"))
                took, processor = time.perf_counter() - begin, time.process_time() - used
            return Figures(len(spans), took, processor, stall(), tuple(spans))

        yield block


@in_loop
@asynccontextmanager
async def states(
    setting: Setting, size: int, engine: Engine = "sqlite", *, write: bool
) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Store an algorithm's state of so many bytes, or read it."""
    async with opened(setting, engine) as (ours, experiment):
        state = {"weights": os.urandom(size)}

        async def save() -> None:
            async with ours.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state(state)

        async def load() -> None:
            found = await ours.get_algorithm_lock_info(experiment)
            if found is None or found.state is None:
                raise AssertionError("the state was not stored")

        await save()
        yield partial(measured, save if write else load, 1, setting.count)
