"""A call that is cancelled while another process writes, before it began, is dropped at once."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import filelock
import pytest

from aiostorage import Experiment, Storage, Trial, open_storage

pytestmark = pytest.mark.anyio

Call: TypeAlias = Callable[[Storage, Experiment], Awaitable[object]]

LIMIT = 0.2
"""Seconds that a call may take."""

MAX_CALL_SECONDS = 1.5
"""Seconds after which it is late; the engines wait for five."""


def to_reserve(storage: Storage, experiment: Experiment) -> Awaitable[object]:
    trial = Trial(experiment=experiment.id, params={"x": 0}, status="interrupted")
    return storage.set_trial_status(trial, "reserved")


CALLS: dict[str, Call] = {
    "reserve": lambda storage, experiment: storage.reserve_trial(experiment),
    "wait": lambda storage, experiment: storage.reserve_trial(experiment, wait=60),
    "several": lambda storage, experiment: storage.reserve_trials(experiment, 3),
    "block": lambda storage, experiment: storage.reserved_trial(experiment).__aenter__(),
    "lock": lambda storage, experiment: storage.acquire_algorithm_lock(experiment).__aenter__(),
    "status": to_reserve,
    "create": lambda storage, _: storage.create_experiment({"name": "other"}),
    "delete": lambda storage, experiment: storage.delete_experiment(experiment),
    "recover": lambda storage, experiment: storage.recover_lost_trials(experiment),
}


def hold(engine: str, file: Path) -> Callable[[], object]:
    """Begin to write as another process would; return what ends it."""
    if engine == "track":
        lock = filelock.FileLock(f"{file}.lock", thread_local=False)
        lock.acquire()
        return lock.release
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    return connection.close


@asynccontextmanager
async def foreign_writer(engine: str, file: Path) -> AsyncIterator[None]:
    end = await asyncio.to_thread(hold, engine, file)
    try:
        yield
    finally:
        await asyncio.to_thread(end)


async def limited(call: Awaitable[object]) -> float:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMIT):
            await call
    return time.monotonic() - start


@pytest.fixture(params=["sqlite", "track"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(tmp_path: Path, engine: str) -> AsyncIterator[tuple[Storage, Experiment, Path]]:
    file = tmp_path / "tune"
    storage = open_storage(f"{engine}:///{file}")
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
    )
    yield storage, experiment, file
    await storage.aclose()


async def test_every_call(store: tuple[Storage, Experiment, Path], engine: str) -> None:
    storage, experiment, file = store
    async with foreign_writer(engine, file):
        took = await asyncio.gather(*(limited(c(storage, experiment)) for c in CALLS.values()))
        assert max(took) < MAX_CALL_SECONDS, dict(zip(CALLS, took, strict=True))
    async with asyncio.timeout(MAX_CALL_SECONDS):  # no call waits for the other process any more
        trials = await storage.fetch_trials(experiment) or []
        assert [trial.status for trial in trials] == ["new"] * 3
        assert len(await storage.fetch_experiments({})) == 1
        async with storage.acquire_algorithm_lock(experiment, timeout=1):
            pass


async def test_the_storage_is_closed(store: tuple[Storage, Experiment, Path], engine: str) -> None:
    storage, experiment, file = store
    async with foreign_writer(engine, file):
        await limited(storage.reserve_trial(experiment))
        start = time.monotonic()
        await storage.aclose()
        assert time.monotonic() - start < MAX_CALL_SECONDS


async def test_the_first_call_makes_the_file(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "new"
    storage = open_storage(f"{engine}:///{file}")
    async with foreign_writer(engine, file):
        assert await limited(storage.reserve_trial({"_id": 1})) < MAX_CALL_SECONDS
    assert await storage.fetch_experiments({}) == []
    await storage.aclose()


async def test_what_waits_goes_on(store: tuple[Storage, Experiment, Path], engine: str) -> None:
    """One of those who share a write is cancelled."""
    storage, experiment, file = store
    async with foreign_writer(engine, file):
        other: asyncio.Task[Any] = asyncio.create_task(storage.reserve_trial(experiment))
        assert await limited(storage.reserve_trial(experiment)) < MAX_CALL_SECONDS
        assert not other.done()
    trial = await other
    assert trial is not None
    assert len(await storage.fetch_trials_by_status(experiment, "reserved")) == 1
