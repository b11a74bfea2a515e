"""The SQLite engine beside plain ``sqlite3`` doing the same statements, one commit each."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiostorage import Experiment, Storage, open_storage
from aiostorage._core.documents import equal
from aiostorage._core.layout import LAYOUT, PENDING, TRIALS
from aiostorage.drivers.sqlite.clock import StoreClock
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.execution import moment
from aiostorage.drivers.sqlite.sql import Table
from aiostorage.operations import And, Compare, StoreTime, Take, Update
from benchmarks.workload import Measure, cycle, fill, rate, reserve

__all__ = ["SqliteRates", "depth", "throughput"]

TASK_COUNTS = (1, 8, 64)


@dataclass(frozen=True)
class SqliteRates:
    """One line of the output: the rates of plain sqlite3, or of ours with some number of tasks."""

    who: str
    synchronous: str
    reservations: Measure
    cycles: Measure


def throughput(directory: Path, count: int) -> Iterator[SqliteRates]:
    """Measure plain sqlite3, then ours with 1, 8 and 64 tasks, each on a fresh file."""
    for synchronous in ("FULL", "NORMAL"):
        few = max(count // 8, 200)
        yield SqliteRates("plain sqlite3", synchronous, *_plain(directory, synchronous, few))
        for tasks in TASK_COUNTS:
            share = count if tasks > 8 else few
            yield SqliteRates(
                f"aiostorage, {tasks}",
                synchronous,
                *asyncio.run(_ours(directory, synchronous, tasks, share)),
            )


async def _ours(
    directory: Path, synchronous: str, tasks: int, count: int
) -> tuple[Measure, Measure]:
    measures = []
    for name, action in (("reserve", reserve), ("cycle", cycle)):
        path = directory / f"{name}-{synchronous}-{tasks}.db"
        async with open_storage(f"sqlite:///{path}", synchronous=synchronous) as storage:
            experiment = await fill(storage, "bench", count + 64)
            measures.append(
                await rate(lambda a=action, e=experiment: a(storage, e), tasks, count)  # type: ignore[misc]
            )
    return measures[0], measures[1]


def _plain(directory: Path, synchronous: str, count: int) -> tuple[Measure, Measure]:
    path = directory / f"plain-{synchronous}.db"
    asyncio.run(_filled(path, count * 2))
    connection = sqlite3.connect(path, isolation_level=None, factory=Connection)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    uid = connection.execute("SELECT _id FROM experiments").fetchone()[0]
    table = Table(next(c for c in LAYOUT.collections if c.name == TRIALS))

    kept, clock = connection.kept, StoreClock()
    where = And((Compare("experiment", "eq", uid), PENDING))
    take = Take(TRIALS, where, {}, order=("submit_time",))
    reserved = {"status": "reserved", "worker": "w", "start_time": NOW, "heartbeat": NOW}

    def reserve_one() -> object:
        now = moment(clock)
        changes: dict[str, list[list[object]]] = {}
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(*table.chosen(take, 1, now, kept)).fetchall()
        (document,) = table.changed(rows, reserved, now, kept, changes)
        for change, (values,) in changes.items():
            connection.execute(change, values)
        connection.execute("COMMIT")
        return document["id"]

    def update_one(update: Update) -> None:
        statement, params = table.update(update, moment(clock), kept)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement, params)
        connection.execute("COMMIT")
        kept.clear()  # as the driver does after a statement

    results = [{"name": "objective", "type": "objective", "value": 0.5}]
    completed = {"results": results, "status": "completed", "end_time": NOW, "heartbeat": NOW}
    begin = time.perf_counter()
    for _ in range(count):
        reserve_one()
    middle = time.perf_counter()
    for _ in range(count):
        held = equal(experiment=uid, id=reserve_one(), status="reserved", worker="w")
        update_one(Update(TRIALS, held, {"heartbeat": NOW}))
        update_one(Update(TRIALS, held, completed))
    end = time.perf_counter()
    connection.close()
    return Measure(count / (middle - begin), 0.0), Measure(count / (end - middle), 0.0)


async def _filled(path: Path, count: int) -> None:
    async with open_storage(f"sqlite:///{path}") as storage:
        await fill(storage, "bench", count)


NOW = StoreTime()


async def depth(directory: Path, sizes: tuple[int, ...], count: int) -> dict[int, float]:
    """Measure the seconds of one reservation with each of these numbers of trials in the file.

    The files are measured in turn, several times, so that noise affects all of them alike.
    """
    storages: dict[int, tuple[Storage, Experiment]] = {}
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        storage = open_storage(f"sqlite:///{directory / f'depth-{size}.db'}", synchronous="NORMAL")
        storages[size] = storage, await fill(storage, "bench", size)
    for _ in range(7):
        for size, (storage, experiment) in storages.items():
            begin = time.perf_counter()
            for _ in range(count // 7):
                await storage.reserve_trial(experiment)
            seconds[size].append((time.perf_counter() - begin) / (count // 7))
    for storage, _ in storages.values():
        await storage.aclose()
    return {size: statistics.median(times) for size, times in seconds.items()}
