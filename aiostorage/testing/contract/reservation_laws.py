"""The contract on reservations: one pending trial to one caller, the oldest first."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Clock,
    cut,
    gather,
    make_config,
    make_trial,
    registered,
    stored,
)
from aiostorage.trial import Trial

__all__ = ["ReservationLaws"]


class ReservationLaws:
    """Law 6: each pending trial goes to one caller, the oldest first."""

    async def test_reserve(
        self, storage: AsyncStorageProtocol, resolution: timedelta, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        assert await storage.reserve_trial(experiment) is None
        await registered(storage, experiment, 1)
        before = cut(now(), resolution) - timedelta(seconds=1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert trial.status == "reserved"
        assert trial.worker
        assert trial.start_time is not None
        assert trial.heartbeat is not None
        assert trial.start_time.utcoffset() == timedelta(0)
        # MongoDB looks at its clock for each time of an operation
        assert before <= trial.start_time <= trial.heartbeat + resolution
        assert (await stored(storage, trial)).to_dict() == trial.to_dict()
        assert await storage.reserve_trial(experiment) is None
        assert await storage.reserve_trial({"_id": "nobody"}) is None

    async def test_waiting_for_a_pending_trial(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        start = anyio.current_time()
        assert await storage.reserve_trial(experiment, wait=0.2) is None
        async with storage.reserved_trial(experiment, wait=0.1) as nothing:
            assert nothing is None
        assert 0.3 <= anyio.current_time() - start < 5
        for writer in (storage, other):
            waiting = [
                asyncio.create_task(storage.reserve_trial(experiment, wait=60)) for _ in range(4)
            ]
            await anyio.sleep(0.2)
            first = 0 if writer is storage else 4
            await writer.register_trials(
                [make_trial(experiment, x) for x in range(first, first + 4)]
            )
            with anyio.fail_after(10):
                trials = await gather(waiting)
            assert len({trial.id for trial in trials if trial is not None}) == 4
            assert all(trial.status == "reserved" for trial in trials if trial is not None)
            if other is storage:
                break
        with anyio.fail_after(5):
            await storage.register_trial(make_trial(experiment, 9))
            async with storage.reserved_trial(experiment, wait=60) as trial:
                assert trial is not None
        for wait in (-1, float("nan")):
            with pytest.raises(ValueError, match="wait"):
                await storage.reserve_trial(experiment, wait=wait)

    async def test_the_oldest_pending_one_first(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        start = datetime(2026, 1, 1, tzinfo=UTC)
        pending = ("new", "suspended", "interrupted")
        statuses = [*pending, "completed", "broken", "reserved", *reversed(pending)]
        for x, status in enumerate(statuses):
            submitted = start - timedelta(seconds=x)
            await storage.register_trial(
                make_trial(experiment, x, status=status, submit_time=submitted)
            )
        await storage.register_trial(make_trial("other", 99, submit_time=start))
        order = []
        while (trial := await storage.reserve_trial(experiment)) is not None:
            order.append(trial.params["x"])
        assert order == [8, 7, 6, 2, 1, 0, 5]  # the reserved one is lost

    async def test_ties_go_by_insertion(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        for x in (3, 1, 2, 0):
            await storage.register_trial(make_trial(experiment, x, submit_time=moment))
        order = [(await storage.reserve_trial(experiment)) for _ in range(4)]
        assert [t.params["x"] for t in order if t] == [3, 1, 2, 0]

    async def test_exactly_once_under_many_tasks(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 200)
        got: list[Trial] = []

        async def work(number: int) -> None:
            mine = (storage, other)[number % 2]
            while (trial := await mine.reserve_trial(experiment)) is not None:
                got.append(trial)

        await gather(map(work, range(64)))
        assert Counter(t.params["x"] for t in got) == Counter(range(200))
        assert len({t.worker for t in got}) == 200

    async def test_reserve_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 10)
        first = await storage.reserve_trials(experiment, 4)
        assert [t.params["x"] for t in first] == [0, 1, 2, 3]
        assert len({t.worker for t in first}) == 1
        rest = await storage.reserve_trials(experiment, 100)
        assert [t.params["x"] for t in rest] == [4, 5, 6, 7, 8, 9]
        assert rest[0].worker != first[0].worker
        assert await storage.reserve_trials(experiment, 1) == []
        for trial in (*first, *rest):
            await storage.complete_trial(trial, 1)
        with pytest.raises(ValueError, match="count"):
            await storage.reserve_trials(experiment, 0)
