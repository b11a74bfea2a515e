"""What a type checker infers for callers. mypy reads this file; the tests only run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

import anyio

from aiostorage import (
    AsyncStorageProtocol,
    Driver,
    Experiment,
    LockedAlgorithmState,
    Storage,
    SyncStorage,
    Trial,
    UpgradeReport,
    base,
    open_storage,
    upgrade_storage,
)
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import ExperimentLike
from aiostorage.readonly import ReadOnlyStorage
from aiostorage.sync import BaseStorageProtocol


@dataclass
class WithId:
    """As an experiment of another library may be."""

    id: int


@dataclass
class WithStoredId:
    """Likewise."""

    _id: str


def experiments(experiment: Experiment) -> list[ExperimentLike]:
    return [experiment, {"_id": 1}, dict(experiment.config), WithId(1), WithStoredId("1")]


async def asynchronous() -> None:
    assert_type(await upgrade_storage("memory://", backup=False), UpgradeReport)
    async with open_storage("memory://") as storage:
        assert_type(storage, Storage)
        protocol: AsyncStorageProtocol = storage
        experiment = await protocol.create_experiment({"name": "tune"})
        assert_type(experiment, Experiment)
        assert len(experiments(experiment)) == 5

        trial = await protocol.register_trial(Trial(experiment=experiment.id, params={"x": 1.0}))
        assert_type(trial, Trial)
        assert_type(await protocol.fetch_trials(experiment), list[Trial] | None)
        assert_type(await protocol.reserve_trial(experiment), Trial | None)
        assert_type(await protocol.get_trial(trial), Trial | None)
        assert_type(await protocol.count_completed_trials(experiment), int)
        assert_type(await protocol.fetch_experiments({}), list[dict[str, Any]])

        assert_type(protocol.iter_trials(experiment), AsyncIterator[Trial])
        documents = storage.iter_trials(experiment, selection={"status": 1})
        assert_type(documents, AsyncIterator[dict[str, Any]])
        async for found in storage.iter_trials(experiment):
            assert_type(found, Trial)

        held = protocol.acquire_algorithm_lock(experiment)
        assert_type(held, AbstractAsyncContextManager[LockedAlgorithmState])
        async with held as algorithm:
            assert_type(algorithm, LockedAlgorithmState)
        reserved = protocol.reserved_trial(experiment)
        assert_type(reserved, AbstractAsyncContextManager[Trial | None])
        async with reserved as mine:
            assert_type(mine, Trial | None)

        completed = await protocol.register_trial(Trial(experiment=experiment.id, params={"x": 2}))
        await protocol.set_trial_status(completed, "reserved")
        await protocol.complete_trial(completed, {"objective": 1.0, "seconds": 2})
        ReadOnlyStorage(storage)


def synchronous() -> None:
    with SyncStorage(open_storage("memory://")) as storage:
        assert_type(storage, SyncStorage)
        original: BaseStorageProtocol = storage
        experiment = original.create_experiment({"name": "tune"})
        assert_type(experiment, Experiment)
        trial = storage.register_trial(Trial(experiment=experiment.id, params={"x": 1.0}))
        assert_type(trial, Trial)
        assert_type(original.fetch_trials(experiment), list[Trial] | None)
        assert_type(storage.reserve_trial(experiment), Trial | None)
        assert_type(storage.iter_trials(experiment), Iterator[Trial])
        documents = storage.iter_trials(experiment, selection={"status": 1})
        assert_type(documents, Iterator[dict[str, Any]])
        either: Mapping[str, Any] | None = None
        assert list(storage.iter_trials(experiment, selection=either)) != list(documents)
        assert_type(
            original.acquire_algorithm_lock(experiment),
            AbstractContextManager[LockedAlgorithmState, bool | None],
        )
        with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert_type(algorithm, LockedAlgorithmState)
        with storage.reserved_trial(experiment) as mine:
            assert_type(mine, Trial | None)
        assert_type(storage.location, str)
    assert_type(base.setup_storage(debug=True), SyncStorage)


def engines() -> None:
    driver: Driver = MemoryDriver()
    assert_type(driver.resolution, timedelta)
    assert_type(Storage(driver), Storage)


def test_it_runs_too() -> None:
    anyio.run(asynchronous)
    synchronous()
    engines()
