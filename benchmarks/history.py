"""What the history costs: a storage that keeps one beside the same storage without, in one run.

The blocks with it and without it alternate. Other work on the machine disturbs the time of a block;
the processor time of this process says the same more exactly, but knows nothing of a server.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from aiostorage import Storage
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.protocols import Driver
from benchmarks.workload import cycle, fill, rate

__all__ = ["HistoryCost", "in_this_process", "on_mongodb"]

TASK_COUNTS = (1, 64)
WARM_UP_TRIALS = 50
DEFAULT_HISTORY = "30d"


@dataclass(frozen=True)
class HistoryCost:
    """One line of the output.

    Attributes
    ----------
    rate
        Cycles per second without a history, the median of the blocks.
    time, processor
        For each block with a history, the ratio of its time, and of the processor time of this
        process, to those of the neighbouring block without one.
    """

    engine: str
    tasks: int
    rate: float
    time: tuple[float, ...]
    processor: tuple[float, ...]


def in_this_process(directory: Path, count: int, rounds: int) -> Iterator[HistoryCost]:
    """Measure on SQLite and in memory; `count` cycles a block, a quarter with one task."""

    def on_sqlite() -> Driver:
        return SQLiteDriver(directory / f"{uuid4().hex}.db")

    makers = (("sqlite", on_sqlite), ("memory", MemoryDriver))
    for name, make in makers:
        yield from _costs(name, make, count, rounds)


def on_mongodb(directory: Path, count: int, rounds: int) -> Iterator[HistoryCost]:
    """Measure on a replica set of one member and on a standalone server, which are started.

    Raises
    ------
    MongodError
        There is no server, and none could be started.
    """
    from aiostorage.drivers.mongodb import MongoDBDriver  # noqa: PLC0415  may not be installed
    from aiostorage.testing.mongodb.deployments import Deployments  # noqa: PLC0415  it needs pytest

    with closing(Deployments(directory.joinpath)) as deployments:
        for kind in ("replica set", "standalone"):
            url = deployments.get(kind).url

            def make(url: str = url) -> Driver:
                return MongoDBDriver(url, database=f"aiostorage_bench_{uuid4().hex[:12]}")

            yield from _costs(f"mongodb, {kind}", make, count, rounds)


def _costs(
    engine: str, make: Callable[[], Driver], count: int, rounds: int
) -> Iterator[HistoryCost]:
    for tasks in TASK_COUNTS:
        share = count if tasks > 1 else count // 4
        yield asyncio.run(_measure(engine, make, tasks, share, rounds))


async def _measure(
    engine: str, make: Callable[[], Driver], tasks: int, count: int, rounds: int
) -> HistoryCost:
    times: tuple[list[float], list[float]] = ([], [])
    processor: tuple[list[float], list[float]] = ([], [])
    async with AsyncExitStack() as stack:
        storages = [
            await stack.enter_async_context(Storage(make(), history=history))
            for history in ("off", DEFAULT_HISTORY)
        ]
        needed = (rounds + 1) * (count + WARM_UP_TRIALS)
        experiments = [await fill(storage, "history", needed) for storage in storages]
        for number in range(rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                storage, experiment = storages[which], experiments[which]
                begin = time.process_time()
                measure = await rate(
                    lambda s=storage, e=experiment: cycle(s, e),  # type: ignore[misc]
                    tasks,
                    count,
                )
                processor[which].append(time.process_time() - begin)
                times[which].append(1 / measure.rate)
    return HistoryCost(
        engine, tasks, 1 / statistics.median(times[0][1:]), _ratios(times), _ratios(processor)
    )


def _ratios(found: tuple[list[float], list[float]]) -> tuple[float, ...]:
    """Return the ratios of neighbouring blocks; the first ones warm everything up."""
    without, with_history = (one[1:] for one in found)
    return tuple(b / a for a, b in zip(without, with_history, strict=True))
