"""The contract on lost trials that come back: which are lost, who gets them, and how they begin."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
import pytest

from aiostorage.errors import ConfigurationError, TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Clock,
    Open,
    PassTime,
    case,
    gather,
    lose,
    make_config,
    make_trial,
    registered,
    stored,
)
from aiostorage.trial import Result, Trial

__all__ = ["FreshStartLaws", "RecoveryLaws"]

TIMES: Final[list[tuple[dict[str, int], bool]]] = [
    ({"submit_time": 2}, True),
    ({"submit_time": 0}, False),
    ({"submit_time": 2, "start_time": 0}, False),
    ({"submit_time": 0, "start_time": 2}, True),
    ({"submit_time": 2, "start_time": 2, "heartbeat": 0}, False),
    ({"submit_time": 0, "start_time": 0, "heartbeat": 2}, True),
    ({}, True),
]
"""The times that a reserved trial has, in hours before now, and whether it is lost after one."""


def _xs(trials: list[Trial]) -> list[Any]:
    return [trial.params["x"] for trial in trials]


class RecoveryLaws:
    """Law 8: which trials are lost, and that they are reserved again."""

    async def test_which_trials_are_lost(self, opening: Open, now: Clock) -> None:
        storage = await opening(lost_after=3600)
        experiment = await storage.create_experiment(make_config())
        expected = []
        for x, (hours, is_lost) in enumerate(TIMES):
            times: dict[str, Any] = {
                name: now() - timedelta(hours=hours) for name, hours in hours.items()
            }
            made = make_trial(experiment, x, status="reserved", **times)
            trial = await storage.register_trial(made)
            if "submit_time" not in hours:
                await storage.update_trial(trial, submit_time=None)
            expected += [x] if is_lost else []
        assert sorted(_xs(await storage.fetch_lost_trials(experiment))) == expected
        assert sorted(_xs(await storage.recover_lost_trials(experiment))) == expected
        assert await storage.fetch_lost_trials(experiment) == []
        left = await storage.fetch_trials_by_status(experiment, "reserved")
        assert len(left) == len(TIMES) - len(expected)

    async def test_reserved_by_an_update(
        self, opening: Open, now: Clock, pass_time: PassTime
    ) -> None:
        seconds = 3600.0
        storage = await opening(lost_after=lambda: seconds)
        experiment = await storage.create_experiment(make_config())
        old = now() - timedelta(hours=2)
        for x in range(4):
            made = make_trial(experiment, x, submit_time=old, start_time=old, heartbeat=old)
            await storage.register_trial(made)
        one, two, three, four = await storage.fetch_pending_trials(experiment)
        assert await storage.update_trial(one, status="reserved") == 1
        where = {"params.value": 1}
        assert await storage.update_trials(experiment, where=where, status="reserved") == 1
        await storage.update_trial(three, status="reserved", heartbeat=old)
        await storage.update_trial(four, status="reserved", heartbeat=None)
        assert await storage.fetch_lost_trials(experiment) == [three, four]
        assert (await stored(storage, three)).heartbeat == three.heartbeat
        for trial in (one, two):
            beat = (await stored(storage, trial)).heartbeat
            assert beat is not None
            assert abs(beat - now()) < timedelta(seconds=30)
        seconds = 0.05
        await pass_time(0.1)
        assert len(await storage.fetch_lost_trials(experiment)) == 4

    async def test_lost_trials_are_reserved_when_none_is_pending(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 4)
        late = await storage.reserve_trials(experiment, 3)
        for trial in late[:2]:
            await lose(storage, trial)
        assert _xs([t for t in [await other.reserve_trial(experiment)] if t]) == [3]
        assert await other.reserve_trial(experiment, recover=False) is None
        assert await other.reserve_trials(experiment, 5, recover=False) == []
        async with other.reserved_trial(experiment, recover=False) as nothing:
            assert nothing is None
        again = await other.reserve_trial(experiment)
        assert again is not None
        assert again.id == late[0].id
        assert again.status == "reserved"
        assert again.worker not in (None, late[0].worker)
        assert (await stored(storage, again)).to_dict() == again.to_dict()
        async with other.reserved_trial(experiment) as second:
            assert second is not None
            assert second.id == late[1].id
            await other.complete_trial(second, 1)
        assert await other.reserve_trial(experiment) is None  # the third one is alive
        for trial, holder in ((late[0], again.worker), (late[1], second.worker)):
            with pytest.raises(TrialLost) as raised:
                await storage.complete_trial(trial, 99)
            assert raised.value.holder == holder
        await other.complete_trial(again, 2)
        assert await storage.update_heartbeat(late[2]) == 1

    async def test_lost_trials_fill_up(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 8)
        for trial in await storage.reserve_trials(experiment, 5):
            await lose(storage, trial)
        trials = await storage.reserve_trials(experiment, 6)
        assert _xs(trials) == [5, 6, 7, 0, 1, 2]
        assert len({trial.worker for trial in trials}) == 1
        assert _xs(await storage.reserve_trials(experiment, 6)) == [3, 4]
        for trial in trials:
            await storage.complete_trial(trial, 1)
        assert await storage.count_completed_trials(experiment) == 6

    async def test_one_of_many_gets_a_lost_trial(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 9)
        for trial in await storage.reserve_trials(experiment, 7):
            await lose(storage, trial)

        async def reserve(number: int) -> list[Trial]:
            mine = (storage, other)[number % 2]
            if number % 3:
                return await mine.reserve_trials(experiment, number % 3)
            trial = await mine.reserve_trial(experiment)
            return [] if trial is None else [trial]

        got = [trial for trials in await gather(map(reserve, range(24))) for trial in trials]
        assert Counter(_xs(got)) == Counter(range(9))
        for trial in got:
            assert (await stored(storage, trial)).worker == trial.worker

    async def test_lost_after_is_asked_each_time(self, opening: Open, pass_time: PassTime) -> None:
        seconds = 3600.0
        storage = await opening(lost_after=lambda: seconds)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        assert await storage.reserve_trial(experiment) is not None
        await pass_time(0.1)
        assert await storage.reserve_trial(experiment) is None
        seconds = 0.05
        assert await storage.reserve_trial(experiment) is not None

    async def test_no_time_is_too_long(self, opening: Open) -> None:
        storage = await opening(lost_after=1e300)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        assert await storage.reserve_trial(experiment) is not None
        assert await storage.reserve_trial(experiment) is None
        assert await storage.recover_lost_trials(experiment) == []

    async def test_waiting_for_a_trial_to_be_lost(self, opening: Open, pass_time: PassTime) -> None:
        storage = await opening(lost_after=0.8)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        late = await storage.reserve_trial(experiment)
        assert late is not None
        waiting = asyncio.create_task(storage.reserve_trial(experiment, wait=60))
        await anyio.sleep(0.15)
        assert not waiting.done()
        await pass_time(0.8)  # without any change in the store
        with anyio.fail_after(10):
            trial = await waiting
        assert trial is not None
        assert trial.heartbeat is not None
        assert trial.id == late.id
        assert trial.worker != late.worker
        await storage.update_trial(trial, heartbeat=trial.heartbeat - timedelta(minutes=1))
        assert await storage.reserve_trial(experiment, wait=0.1, recover=False) is None
        patient = await opening(lost_after=3600)
        if await patient.fetch_experiments({"_id": experiment.id}):  # it has the same data
            assert await patient.reserve_trial(experiment, wait=0.1) is None

    async def test_a_heartbeat_that_is_too_slow(self, opening: Open) -> None:
        storage = await opening(lost_after=2.0)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        for heartbeat in (2.0, 30.0):
            with case(heartbeat), pytest.raises(ConfigurationError, match="heartbeat"):
                async with storage.reserved_trial(experiment, heartbeat=heartbeat):
                    pass
        async with storage.reserved_trial(experiment, heartbeat=1.9) as trial:
            assert trial is not None


class FreshStartLaws:
    """A new reservation begins clean, whatever an earlier one has left."""

    async def test_reserved_again(self, storage: AsyncStorageProtocol, now: Clock) -> None:
        async def reserve_one(experiment: Any) -> Trial | None:
            return await storage.reserve_trial(experiment)

        async def reserve_several(experiment: Any) -> Trial | None:
            return (await storage.reserve_trials(experiment, 3))[0]

        async def set_reserved(experiment: Any) -> Trial | None:
            [trial] = await storage.fetch_pending_trials(experiment)
            assert trial.objective is not None
            await storage.set_trial_status(trial, "reserved")
            return trial

        for reserve in (reserve_one, reserve_several, set_reserved):
            with case(reserve.__name__):
                experiment = await storage.create_experiment(make_config(reserve.__name__))
                old = now() - timedelta(days=1)
                made = make_trial(experiment, 1, submit_time=old)
                await storage.register_trial(made)
                first = await storage.reserve_trial(experiment)
                assert first is not None
                await storage.complete_trial(first, {"objective": 1.5, "epochs": 3})
                await storage.set_trial_status(first, "interrupted")
                await storage.update_trial(first, start_time=old, end_time=old)
                trial = await reserve(experiment)
                assert trial is not None
                for one in (trial, await stored(storage, trial)):
                    self._check(one, now())
                await storage.complete_trial(trial, 2.5)
                found = await stored(storage, trial)
                assert [(r.name, r.value) for r in found.results] == [("objective", 2.5)]
                assert timedelta(0) <= found.duration < timedelta(seconds=30)

    async def test_what_a_lost_worker_pushed_is_gone(
        self, storage: AsyncStorageProtocol, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 3)
        late = await storage.reserve_trials(experiment, 3)
        for trial in late[::2]:
            trial.results = [Result("o", "objective", 1)]
            trial.end_time = now() - timedelta(hours=1)
            assert await storage.push_trial_results(trial) == 1
        for trial in late:
            await lose(storage, trial)
        again = await storage.reserve_trials(experiment, 3)
        assert _xs(again) == [0, 1, 2]
        for trial in again:
            self._check(trial, now())
            assert (await stored(storage, trial)).to_dict() == trial.to_dict()

    @staticmethod
    def _check(trial: Trial, now: datetime) -> None:
        assert trial.status == "reserved"
        assert trial.worker is not None
        assert (trial.results, trial.objective, trial.end_time) == ([], None, None)
        assert trial.start_time is not None
        assert trial.heartbeat is not None
        assert abs(trial.start_time - now) < timedelta(seconds=30)
        assert abs(trial.heartbeat - now) < timedelta(seconds=30)
        assert timedelta(0) <= trial.duration < timedelta(seconds=30)
