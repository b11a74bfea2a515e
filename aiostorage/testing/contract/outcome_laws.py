"""The contract on results and statuses of trials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Clock,
    case,
    cut,
    gather,
    make_config,
    make_trial,
    registered,
    reserved,
    stored,
)
from aiostorage.trial import Result

__all__ = ["ResultLaws", "StatusLaws"]

RESULTS: Final[list[tuple[Any, list[Any]]]] = [
    (1.5, [("objective", "objective", 1.5)]),
    (
        {"time": 3, "objective": 2},
        [("time", "statistic", 3), ("objective", "objective", 2)],
    ),
    ({"loss": 2.0, "n": 1}, [("loss", "objective", 2.0), ("n", "statistic", 1)]),
    (
        [
            Result("o", "objective", 1),
            {"name": "g", "type": "gradient", "value": [1.0, 1.0]},
        ],
        [("o", "objective", 1), ("g", "gradient", [1.0, 1.0])],
    ),
    (float("inf"), [("objective", "objective", float("inf"))]),
]
"""What is passed to `complete_trial`, and what the trial has then."""


class ResultLaws:
    """Results, and the completion of a trial."""

    async def test_complete_trial(self, storage: AsyncStorageProtocol) -> None:
        for number, (results, stored_as) in enumerate(RESULTS):
            with case(results):
                await self._complete(storage, f"e{number}", results, stored_as)

    async def _complete(
        self, storage: AsyncStorageProtocol, name: str, results: Any, stored_as: list[Any]
    ) -> None:
        trial = await reserved(storage, name)
        await storage.complete_trial(trial, results)
        found = await stored(storage, trial)
        for one in (found, trial):
            assert [(r.name, r.type, r.value) for r in one.results] == stored_as
            assert one.status == "completed"
            assert one.end_time is not None
        assert await storage.count_completed_trials({"_id": trial.experiment}) == 1
        with pytest.raises(FailedUpdate) as raised:
            await storage.complete_trial(trial, 3)
        assert (raised.value.uid, raised.value.status) == (trial.id, "completed")
        assert (await stored(storage, trial)).to_dict() == found.to_dict()

    async def test_push_and_retrieve(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        trial.results = [Result("o", "objective", 3)]
        trial.end_time = datetime(2026, 1, 1)  # noqa: DTZ001  is UTC
        assert await storage.push_trial_results(trial) == 1
        found = await stored(storage, trial)
        assert (found.status, found.results) == ("reserved", trial.results)
        assert found.end_time == datetime(2026, 1, 1, tzinfo=UTC)
        bare = make_trial(experiment, 0)
        assert await storage.retrieve_result(bare, "ignored", also="ignored") is bare
        assert bare.results == trial.results
        unknown = make_trial(experiment, 99)
        assert (await storage.retrieve_result(unknown)).results == []

    async def test_push_needs_a_reserved_trial(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        trial.results = [Result("o", "objective", 3)]
        with pytest.raises(FailedUpdate) as raised:
            await storage.push_trial_results(trial)
        assert not isinstance(raised.value, TrialLost)
        assert (await stored(storage, trial)).results == []
        with pytest.raises(FailedUpdate) as raised:
            await storage.push_trial_results(make_trial(experiment, 99))
        assert raised.value.status is None


class StatusLaws:
    """The status of a trial."""

    async def test_set_trial_status(
        self, storage: AsyncStorageProtocol, resolution: timedelta, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        before = cut(now(), resolution)
        await storage.set_trial_status(trial, "suspended")
        assert trial.status == "suspended"
        found = await stored(storage, trial)
        assert found.status == "suspended"
        assert found.heartbeat is not None
        assert found.heartbeat >= before - timedelta(seconds=1)
        moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
        await storage.set_trial_status(trial, "interrupted", heartbeat=moment, was="suspended")
        assert (await stored(storage, trial)).heartbeat == moment
        naive = datetime(2026, 1, 2, 12)  # noqa: DTZ001  is UTC
        await storage.set_trial_status(trial, "broken", heartbeat=naive)
        assert (await stored(storage, trial)).heartbeat == naive.replace(tzinfo=UTC)

    async def test_set_trial_status_checks_what_it_was(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        before = (await stored(storage, trial)).to_dict()
        with pytest.raises(FailedUpdate) as raised:
            await storage.set_trial_status(trial, "broken", was="reserved")
        assert raised.value.status == "new"
        assert trial.status == "new"
        trial.status = "completed"
        with pytest.raises(FailedUpdate):
            await storage.set_trial_status(trial, "broken")
        for status, was in (("finished", None), ("broken", "finished")):
            with pytest.raises(ValueError, match="finished"):
                await storage.set_trial_status(trial, status, was=was)
        with pytest.raises(FailedUpdate):
            await storage.set_trial_status(make_trial(experiment, 99), "broken")
        assert (await stored(storage, trial)).to_dict() == before

    async def test_setting_reserved_writes_a_fresh_token(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        await storage.set_trial_status(trial, "reserved")
        first = trial.worker
        assert first
        assert (await stored(storage, trial)).worker == first
        await storage.set_trial_status(trial, "suspended")
        await storage.set_trial_status(trial, "reserved")
        assert trial.worker not in (None, first)
        assert (await stored(storage, trial)).worker == trial.worker
        await storage.complete_trial(trial, 1)

    async def test_only_one_of_many_sets_a_status(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)

        async def grab(number: int) -> bool:
            mine = trial.copy()
            try:
                await (storage, other)[number % 2].set_trial_status(mine, "reserved")
            except FailedUpdate:
                return False
            assert (await stored(storage, trial)).worker == mine.worker
            return True

        assert sum(await gather(map(grab, range(20)))) == 1
