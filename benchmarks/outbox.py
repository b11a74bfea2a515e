"""A storage with an outbox beside the same storage without one, in alternating blocks of one run.

No process empties the outbox meanwhile: what is measured is what a worker pays for writing to it.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from aiostorage import Storage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.protocols import Driver
from benchmarks.workload import cycle, fill, rate, reserve

__all__ = ["OutboxCost", "on_mongodb", "on_sqlite"]

TASK_COUNTS = (1, 64)
WARM_UP_TRIALS = 50


@dataclass(frozen=True)
class OutboxCost:
    """One line of the output.

    Attributes
    ----------
    with_outbox, without
        Operations per second, medians of the blocks.
    ratios
        The ratio of each block with an outbox to the neighbouring one without.
    """

    engine: str
    what: str
    tasks: int
    with_outbox: float
    without: float
    ratios: tuple[float, ...]


def on_sqlite(directory: Path, count: int, rounds: int) -> list[OutboxCost]:
    """Measure with files in a directory; `count` operations a block, a quarter with one task."""

    def make() -> Driver:
        return SQLiteDriver(directory / f"{uuid4().hex}.db", synchronous="FULL")

    return asyncio.run(_measure("sqlite", make, count, rounds))


def on_mongodb(url: str, count: int, rounds: int) -> list[OutboxCost]:
    """Measure with databases on a server, which are left there; otherwise as `on_sqlite`."""
    from aiostorage.drivers.mongodb import MongoDBDriver  # noqa: PLC0415  may not be installed

    def make() -> Driver:
        return MongoDBDriver(url, database=f"aiostorage_bench_{uuid4().hex[:12]}")

    return asyncio.run(_measure("mongodb", make, count, rounds))


@asynccontextmanager
async def _pair(make: Callable[[], Driver]) -> AsyncIterator[tuple[Storage, Storage]]:
    async with AsyncExitStack() as stack:
        noting = await stack.enter_async_context(Storage(NotingDriver(make())))
        plain = await stack.enter_async_context(Storage(make()))
        yield noting, plain


async def _measure(
    engine: str, make: Callable[[], Driver], count: int, rounds: int
) -> list[OutboxCost]:
    costs = []
    for tasks in TASK_COUNTS:
        share = count if tasks > 1 else count // 4
        for what, action in (("reserve", reserve), ("cycle", cycle)):
            async with _pair(make) as pair:
                needed = (rounds + 1) * (share + WARM_UP_TRIALS)
                experiments = [await fill(storage, what, needed) for storage in pair]
                rates: tuple[list[float], list[float]] = ([], [])
                for number in range(rounds + 1):
                    for which in (0, 1) if number % 2 else (1, 0):
                        storage, experiment = pair[which], experiments[which]
                        measure = await rate(
                            lambda a=action, s=storage, e=experiment: a(s, e),  # type: ignore[misc]
                            tasks,
                            share,
                        )
                        rates[which].append(measure.rate)
            noting, plain = (one[1:] for one in rates)  # the first block warms everything up
            costs.append(
                OutboxCost(
                    engine,
                    what,
                    tasks,
                    statistics.median(noting),
                    statistics.median(plain),
                    tuple(a / b for a, b in zip(noting, plain, strict=True)),
                )
            )
    return costs
