"""The contract on lost trials, and on workers that come back too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from aiostorage._core.holders import fingerprint
from aiostorage.errors import FailedUpdate, TrialLost
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
    reserved,
    stored,
)
from aiostorage.testing.faults import FakeClock
from aiostorage.trial import Result, Trial

__all__ = ["FencingLaws"]

Change = Callable[[AsyncStorageProtocol, Trial], Awaitable[Any]]

CHANGES: Final[dict[str, Change]] = {
    "update_heartbeat": lambda storage, trial: storage.update_heartbeat(trial),
    "push_trial_results": lambda storage, trial: storage.push_trial_results(trial),
    "complete_trial": lambda storage, trial: storage.complete_trial(trial, 2.0),
    "set_trial_status": lambda storage, trial: storage.set_trial_status(trial, "broken"),
}
"""The four methods that only the holder of a reservation may call."""


def _experiment_of(trial: Trial) -> dict[str, Any]:
    return {"_id": trial.experiment}


class FencingLaws:
    """Laws 7 and 8: lost trials, and workers that come back too late."""

    async def test_who_was_replaced_writes_nothing(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        for name, change in CHANGES.items():
            with case(name):
                await self._replaced(storage, other, name, change)

    async def _replaced(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol, name: str, change: Change
    ) -> None:
        late = await reserved(storage, name)
        await lose(storage, late)
        await other.recover_lost_trials(_experiment_of(late))
        successor = await other.reserve_trial(_experiment_of(late))
        assert successor is not None
        late.results = [Result("o", "objective", 1)]
        before, mine = (await stored(other, late)).to_dict(), late.to_dict()
        with pytest.raises(TrialLost) as raised:
            await change(storage, late)
        assert raised.value.uid == late.id
        assert raised.value.holder == successor.worker
        assert raised.value.status == "reserved"
        assert raised.value.token == late.worker
        assert fingerprint(str(successor.worker)) in str(raised.value)
        assert str(successor.worker) not in str(raised.value)
        assert str(late.worker) not in str(raised.value)
        assert (await stored(other, late)).to_dict() == before
        assert late.to_dict() == mine
        await change(other, successor)

    async def test_who_was_declared_lost_writes_nothing(
        self, storage: AsyncStorageProtocol
    ) -> None:
        for name, change in CHANGES.items():
            with case(name):
                late = await reserved(storage, name)
                await lose(storage, late)
                await storage.recover_lost_trials(_experiment_of(late))
                before = (await stored(storage, late)).to_dict()
                with pytest.raises(TrialLost) as raised:
                    await change(storage, late)
                assert (raised.value.holder, raised.value.status) == (None, "interrupted")
                assert (await stored(storage, late)).to_dict() == before

    async def test_what_was_deleted_is_not_written(self, storage: AsyncStorageProtocol) -> None:
        for name, change in CHANGES.items():
            with case(name):
                trial = await reserved(storage, name)
                await storage.delete_trials(_experiment_of(trial))
                with pytest.raises(TrialLost) as raised:
                    await change(storage, trial)
                assert (raised.value.uid, raised.value.status) == (trial.id, None)
                assert raised.value.token == trial.worker
                assert await storage.get_trial(trial) is None

    async def test_a_trial_without_token_is_not_fenced(self, storage: AsyncStorageProtocol) -> None:
        for name, change in CHANGES.items():
            with case(name):
                held = await reserved(storage, name)
                bare = make_trial(str(held.experiment), 0, status="reserved")
                bare.results = [Result("o", "objective", 1)]
                await change(storage, bare)
                found = await stored(storage, held)
                assert found.worker == held.worker
                if name == "update_heartbeat":
                    await storage.set_trial_status(bare, "completed")
                    assert await storage.update_heartbeat(bare) == 0

    async def test_heartbeat(self, storage: AsyncStorageProtocol, now: Clock) -> None:
        trial = await reserved(storage)
        await lose(storage, trial)
        assert await storage.fetch_lost_trials(_experiment_of(trial)) == [trial]
        assert await storage.update_heartbeat(trial) == 1
        assert await storage.fetch_lost_trials(_experiment_of(trial)) == []
        found = await stored(storage, trial)
        assert found.heartbeat is not None
        assert abs(found.heartbeat - now()) < timedelta(seconds=30)
        assert (found.status, found.worker) == ("reserved", trial.worker)
        await storage.complete_trial(trial, 1)
        with pytest.raises(FailedUpdate) as raised:
            await storage.update_heartbeat(trial)
        assert raised.value.status == "completed"

    async def test_lost_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 6)
        trials = await storage.reserve_trials(experiment, 6)
        for trial in trials[:4]:
            await lose(storage, trial)
        await storage.complete_trial(trials[0], 1)
        await storage.set_trial_status(
            trials[1], "suspended", heartbeat=datetime(2026, 1, 1, tzinfo=UTC)
        )
        lost = await storage.fetch_lost_trials(experiment)
        assert lost == trials[2:4]
        assert [t.status for t in lost] == ["reserved", "reserved"]
        recovered = await storage.recover_lost_trials(experiment)
        assert recovered == trials[2:4]
        assert {(t.status, t.worker) for t in recovered} == {("interrupted", None)}
        assert [(await stored(storage, t)).status for t in trials] == [
            "completed",
            "suspended",
            "interrupted",
            "interrupted",
            "reserved",
            "reserved",
        ]
        assert await storage.recover_lost_trials(experiment) == []
        assert await storage.fetch_lost_trials(experiment) == []

    async def test_lost_after(
        self, opening: Open, pass_time: PassTime, store_clock: FakeClock | None
    ) -> None:
        patient = await opening(lost_after=3600 * 2)
        trial = await reserved(patient)
        await lose(patient, trial)
        assert await patient.fetch_lost_trials(_experiment_of(trial)) == []
        assert await patient.recover_lost_trials(_experiment_of(trial)) == []
        hasty = await opening(lost_after=0.05)
        trial = (await hasty.register_trials([make_trial("e", 1)]))[0]
        late = await hasty.reserve_trial({"_id": "e"})
        assert late is not None
        if store_clock is not None:
            store_clock.advance(0.049)
            assert await hasty.fetch_lost_trials({"_id": "e"}) == []
        await pass_time(0.1)
        assert await hasty.fetch_lost_trials({"_id": "e"}) == [late]

    async def test_each_lost_trial_is_recovered_once(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 50)
        for trial in await storage.reserve_trials(experiment, 50):
            await lose(storage, trial)
        calls = [(storage, other)[n % 2].recover_lost_trials(experiment) for n in range(16)]
        recovered = [trial for trials in await gather(calls) for trial in trials]
        assert Counter(t.params["x"] for t in recovered) == Counter(range(50))
