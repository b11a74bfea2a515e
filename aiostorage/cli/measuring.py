"""The speed of a store on this machine, measured in a place that is deleted afterwards."""

from __future__ import annotations

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import anyio
import anyio.to_thread

from aiostorage import Experiment, Storage, Trial
from aiostorage._core.documents import equal
from aiostorage._core.layout import CHANGES, LAYOUT, WAITERS
from aiostorage._core.named_store import NamedStore
from aiostorage.errors import PermissionDenied
from aiostorage.factory import storage_of
from aiostorage.operations import Delete
from aiostorage.protocols import ExaminableDriver

__all__ = ["Measure", "Scratch", "measure", "scratch_of"]

TASKS: Final = (1, 8, 64)
"""Numbers of tasks that run cycles at the same time."""

PARTS: Final = 5 + len(TASKS)
"""The number of measurements that share the time."""

BATCH_SIZE: Final = 200
"""Trials that are registered in one call, to be reserved."""

CLEAN_UP_TIMEOUT: Final = 10.0
"""Seconds that removing everything may take, at most."""

FILES: Final = ("sqlite", "track")
"""Engines that keep a file."""

IN_STORE: Final = "in an experiment of its own, since the server and its indexes are what counts"
"""Why the measurements are made in the store itself."""

BESIDE: Final = ("-wal", "-shm", "-journal", ".lock")
"""Suffixes of the files beside the file of a store."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The result of a measurement.

    Attributes
    ----------
    name
        The name of the measurement.
    value
        The result.
    unit
        Its unit, such as ``/s``.
    count
        The number of repetitions.
    """

    name: str
    value: float
    unit: str
    count: int


@dataclass(frozen=True, slots=True)
class Scratch:
    """The place of the measurements.

    Attributes
    ----------
    location
        The location of the store whose speed is measured.
    named
        The store in which the measurements are made.
    why
        Why the measurements are made there.
    file
        A new file, which is deleted afterwards.
    beside
        The store itself, if the measurements are made in a new database, which is deleted
        afterwards.

    If there is neither, the measurements are made with an experiment in the store itself.
    """

    location: str
    named: NamedStore
    why: str
    file: Path | None = None
    beside: NamedStore | None = None


def scratch_of(named: NamedStore) -> Scratch:
    """Return the place for the measurements of a store.

    Raises
    ------
    ConfigurationError
        An option is invalid.
    """
    there = NamedStore(named.without_tracker().options, named.origin)
    driver = storage_of(there)._gateway.driver  # noqa: SLF001  as an adapter of this package
    if driver.name == "mongodb":
        there = there.for_reading().with_own_options()
        database = f"aiostorage_bench_{secrets.token_hex(4)}"
        new = NamedStore({**there.options, "database": database}, there.origin)
        why = "in a new database on the same server: the store does not grow"
        return Scratch(driver.location, new, why, beside=there)
    if driver.name not in FILES:
        return Scratch(driver.location, there.for_reading(), IN_STORE)
    file = Path(driver.location).absolute().parent / f"aiostorage-bench-{secrets.token_hex(4)}.tmp"
    options = {k: v for k, v in there.options.items() if k not in ("url", "path", "database")}
    options |= {"type": driver.name, "path": str(file)} | _query(str(there.options.get("url", "")))
    why = (
        "in a new file beside it: that is on the same disk, and the store does not grow, nor do "
        "its workers wait"
    )
    return Scratch(driver.location, NamedStore(options), why, file)


def _query(url: str) -> dict[str, str]:
    """Return the options in the query of a URL, which an engine has accepted."""
    return dict(parse_qsl(urlsplit(url).query))


async def measure(
    scratch: Scratch, seconds: float, told: Callable[[str], object]
) -> tuple[str, list[Measure]]:
    """Measure for some seconds, and remove everything afterwards, also after Ctrl-C.

    Parameters
    ----------
    told
        Called with the name of each measurement before it begins.

    Returns
    -------
    tuple
        Why it was measured there, and the results.
    """
    scratch = await _permitted(scratch)
    share = seconds / PARTS
    found: list[Measure] = []
    async with _experiment(scratch) as (storage, other, experiment):
        work = _Work(storage, experiment)
        if scratch.file is not None:
            told("fsync")
            folder = scratch.file.parent
            found.append(await anyio.to_thread.run_sync(_fsync, folder, share))
        told("read")
        found.append(await _median("read", work.read, share))
        told("register")
        found.append(await _rate("register", (work.register,), share))
        told("reserve")
        found.append(await work.reservations(share))
        for tasks in TASKS:
            told(f"cycle, {tasks} tasks")
            one = await _rate("cycle", (work.cycle,) * tasks, share)
            found.append(replace(one, name=f"cycle, {tasks} {'task' if tasks == 1 else 'tasks'}"))
        told("lock hand-over")
        hand_over = (work.hold, _Work(other, experiment).hold)
        found.append(await _rate("lock hand-over", hand_over, share))
    return scratch.why, found


class _Work:
    """The repeated operations on one experiment."""

    def __init__(self, storage: Storage, experiment: Experiment) -> None:
        self._storage = storage
        self._experiment = experiment
        self._numbers = count()

    def _trial(self) -> Trial:
        number = float(next(self._numbers))
        param = {"name": "/x", "type": "real", "value": number}
        return Trial(experiment=self._experiment.id, params=[param])

    async def read(self) -> None:
        await self._storage.count_trials(self._experiment)

    async def register(self) -> None:
        await self._storage.register_trial(self._trial())

    async def cycle(self) -> None:
        """Register a trial, reserve one and complete it."""
        await self.register()
        trial = await self._storage.reserve_trial(self._experiment)
        if trial is not None:
            await self._storage.complete_trial(trial, 1.0)

    async def hold(self) -> None:
        """Get the lock of the algorithm and release it, in turn with another storage."""
        async with self._storage.acquire_algorithm_lock(self._experiment, timeout=60):
            pass

    async def reservations(self, seconds: float) -> Measure:
        """Reserve trials that are there already."""
        spent, done = 0.0, 0
        while spent < seconds:
            await self._storage.register_trials([self._trial() for _ in range(BATCH_SIZE)])
            begin = time.perf_counter()
            for _ in range(BATCH_SIZE):
                await self._storage.reserve_trial(self._experiment)
                done += 1
                if spent + time.perf_counter() - begin > seconds:
                    break
            spent += time.perf_counter() - begin
        return Measure("reserve", done / spent, "/s", done)


@asynccontextmanager
async def _experiment(scratch: Scratch) -> AsyncIterator[tuple[Storage, Storage, Experiment]]:
    """Make an experiment, with two storages as of two processes; remove everything afterwards."""
    make = storage_of
    storage = await anyio.to_thread.run_sync(make, scratch.named)
    other = storage  # what one has in memory, another one does not see
    if scratch.named.engine != "memory":
        other = await anyio.to_thread.run_sync(make, scratch.named)
    experiment: Experiment | None = None
    try:
        async with storage, other:
            try:
                name = f"aiostorage-bench-{secrets.token_hex(4)}"
                experiment = await storage.create_experiment({"name": name})
                yield storage, other, experiment
            finally:
                if experiment is not None and scratch.file is None and scratch.beside is None:
                    with anyio.move_on_after(CLEAN_UP_TIMEOUT, shield=True):
                        await _remove(storage, experiment)
    finally:
        if scratch.file is not None:
            with anyio.move_on_after(CLEAN_UP_TIMEOUT, shield=True):
                await anyio.to_thread.run_sync(_delete, scratch.file)
        if scratch.beside is not None:
            with anyio.move_on_after(CLEAN_UP_TIMEOUT, shield=True):
                await _drop(scratch.named)


async def _permitted(scratch: Scratch) -> Scratch:
    """Return where to measure: in the store itself if the user may not create a database.

    Raises
    ------
    ConfigurationError
        There is no such database; opening would create it.
    """
    if scratch.file is not None:
        return scratch
    driver = storage_of(scratch.beside or scratch.named)._gateway.driver  # noqa: SLF001  as above
    if isinstance(driver, ExaminableDriver):
        reader = driver.reader()
        try:
            await reader.open(LAYOUT)
        finally:
            await reader.aclose()
    if scratch.beside is None:
        return scratch
    try:
        await _drop(scratch.named)  # which is not there yet
    except PermissionDenied:
        return Scratch(scratch.location, scratch.beside, IN_STORE)
    return scratch


async def _drop(named: NamedStore) -> None:
    """Delete the database that was made to measure in."""
    from aiostorage.drivers.mongodb import MongoDBDriver  # noqa: PLC0415  an extra

    driver = storage_of(named)._gateway.driver  # noqa: SLF001  as above
    if isinstance(driver, MongoDBDriver):
        await driver.drop_database()


async def _remove(storage: Storage, experiment: Experiment) -> None:
    await storage.delete_experiment(experiment)
    for left in (
        Delete(WAITERS, equal(experiment=experiment.id)),
        Delete(CHANGES, equal(owner=experiment.id)),
    ):
        await storage._gateway.execute(left)  # noqa: SLF001  as above


def _delete(file: Path) -> None:
    for name in (str(file), *(f"{file}{suffix}" for suffix in BESIDE)):
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108  a text is at hand


def _fsync(folder: Path, seconds: float) -> Measure:
    """Measure how long the disk takes to keep a page; it blocks."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            file.write(b"\0" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return Measure("fsync", statistics.median(times) * 1000, "ms", len(times))


async def _median(name: str, act: Callable[[], Awaitable[object]], seconds: float) -> Measure:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        await act()
        times.append(time.perf_counter() - begin)
    return Measure(name, statistics.median(times) * 1000, "ms", len(times))


async def _rate(
    name: str, acts: tuple[Callable[[], Awaitable[object]], ...], seconds: float
) -> Measure:
    """Measure how often tasks do something per second, each the action at its position."""
    done = 0
    begin = time.perf_counter()

    async def repeat(act: Callable[[], Awaitable[object]]) -> None:
        nonlocal done
        while True:
            await act()
            done += 1
            if time.perf_counter() - begin > seconds:
                return

    async with anyio.create_task_group() as tasks:
        for act in acts:
            tasks.start_soon(repeat, act)
    return Measure(name, done / (time.perf_counter() - begin), "/s", done)
