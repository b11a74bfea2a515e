"""The contract on trials: registered, found, changed and counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import cut, make_config, make_trial, registered, stored
from aiostorage.trial import Trial

__all__ = ["IterationLaws", "TrialLaws"]


def _xs(trials: list[Trial] | None) -> list[Any]:
    assert trials is not None
    return [trial.params["x"] for trial in trials]


class TrialLaws:
    """Trials, without the question who has them."""

    async def test_register(self, storage: AsyncStorageProtocol, resolution: timedelta) -> None:
        experiment = await storage.create_experiment(make_config())
        before = cut(datetime.now(UTC), resolution)
        passed = make_trial(experiment, 1)
        trial = await storage.register_trial(passed)
        assert passed.id_override is None
        assert passed.submit_time is None
        assert trial.id_override is not None
        assert trial.submit_time is not None
        assert before <= trial.submit_time <= datetime.now(UTC)
        found = await stored(storage, trial)
        assert found.to_dict() == trial.to_dict()
        assert (found.status, found.worker, found.results) == ("new", None, [])

    async def test_register_duplicate(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        other = await storage.create_experiment(make_config("other"))
        trial = await storage.register_trial(make_trial(experiment, 1))
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.register_trial(make_trial(experiment, 1, status="broken"))
        assert raised.value.values == (experiment.id, trial.id)
        await storage.register_trial(make_trial(other, 1))
        assert _xs(await storage.fetch_trials(experiment)) == [1]

    async def test_register_trials_all_or_none(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        assert await storage.register_trials([]) == []
        await storage.register_trial(make_trial(experiment, 5))
        for numbers in (range(10), (7, 8, 7)):
            with pytest.raises(DuplicateKeyError):
                await storage.register_trials([make_trial(experiment, x) for x in numbers])
            assert _xs(await storage.fetch_trials(experiment)) == [5]
        many = await storage.register_trials([make_trial(experiment, x) for x in range(100, 400)])
        assert _xs(many) == list(range(100, 400))
        assert _xs(await storage.fetch_trials(experiment)) == [5, *range(100, 400)]

    async def test_fetch_trials_by_submit_time(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        start = datetime(2026, 1, 1, tzinfo=UTC)
        for x, seconds in enumerate((3, 1, 2, 1)):
            submitted = start + timedelta(seconds=seconds)
            await storage.register_trial(make_trial(experiment, x, submit_time=submitted))
        assert _xs(await storage.fetch_trials(experiment)) == [1, 3, 2, 0]
        assert _xs(await storage.fetch_pending_trials(experiment)) == [1, 3, 2, 0]
        where = {"submit_time": {"$gt": datetime(2026, 1, 1, 0, 0, 1)}}  # noqa: DTZ001  is UTC
        assert _xs(await storage.fetch_trials(experiment, where=where)) == [2, 0]

    async def test_fetch_trials_of_nothing(self, storage: AsyncStorageProtocol) -> None:
        assert await storage.fetch_trials(uid="nobody") is None
        experiment = await storage.create_experiment(make_config())
        assert await storage.fetch_trials(experiment) == []
        await storage.register_trial(make_trial("orphan's", 1))
        assert _xs(await storage.fetch_trials(uid="orphan's")) == [1]
        assert await storage.fetch_trials(uid="orphan's", where={"status": "broken"}) == []

    async def test_get_trial_of_nothing(self, storage: AsyncStorageProtocol) -> None:
        assert await storage.get_trial(uid="t", experiment_uid="e") is None

    async def test_by_status_and_counts(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        statuses = ["new", "reserved", "suspended", "completed", "interrupted", "broken", "broken"]
        for x, status in enumerate(statuses):
            await storage.register_trial(make_trial(experiment, x, status=status))
        for status in statuses:
            found = await storage.fetch_trials_by_status(experiment, status)
            assert _xs(found) == [x for x, s in enumerate(statuses) if s == status]
        assert _xs(await storage.fetch_pending_trials(experiment)) == [0, 2, 4]
        assert _xs(await storage.fetch_noncompleted_trials(experiment)) == [0, 1, 2, 4, 5, 6]
        assert await storage.count_completed_trials(experiment) == 1
        assert await storage.count_broken_trials(experiment) == 2
        with pytest.raises(ValueError, match="finished"):
            await storage.fetch_trials_by_status(experiment, "finished")
        nobody = {"_id": "nobody"}
        assert await storage.fetch_pending_trials(nobody) == []
        assert await storage.count_broken_trials(nobody) == 0

    async def test_update_trial(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        first, second = await registered(storage, experiment, 2)
        assert await storage.update_trial(first, worker="me", extra={"a": 1}) == 1
        assert await storage.update_trial(first, where={"worker": "you"}, status="broken") == 0
        dotted: Any = {"extra.b": 2}
        assert await storage.update_trial(first, where={"worker": "me"}, **dotted) == 1
        assert (await stored(storage, first)).worker == "me"
        where = {"extra": {"a": 1, "b": 2}}
        assert await storage.fetch_trials(experiment, where=where) == [first]
        assert (await stored(storage, second)).worker is None
        assert await storage.update_trial(uid="nobody", experiment_uid=experiment.id, x=1) == 0

    async def test_update_and_delete_trials_count(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        other = await storage.create_experiment(make_config("other"))
        await registered(storage, experiment, 6)
        await registered(storage, other, 6)
        where = {"params.value": {"$lt": 4}}
        assert await storage.update_trials(experiment, where=where, status="broken") == 4
        assert await storage.count_broken_trials(experiment) == 4
        assert await storage.update_trials(experiment, parent="p") == 6
        assert await storage.update_trials(uid="nobody", parent="p") == 0
        assert await storage.delete_trials(experiment, where={"status": "broken"}) == 4
        assert _xs(await storage.fetch_trials(experiment)) == [4, 5]
        assert await storage.delete_trials(uid=experiment.id) == 2
        assert await storage.delete_trials(experiment) == 0
        assert len(await storage.fetch_trials(other) or ()) == 6


class IterationLaws:
    """Trials one by one, a page at a time."""

    async def test_iter_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, await storage.create_experiment(make_config("other")), 3)
        trials = await registered(storage, experiment, 25)
        for size in (1, 5, 24, 25, 26):
            found = [t async for t in storage.iter_trials(experiment, batch_size=size)]
            assert _xs(found) == list(range(25))
            assert found[0].to_dict() == trials[0].to_dict()
        where = {"params.value": {"$gte": 20}}
        found = [t async for t in storage.iter_trials(experiment, where=where, batch_size=2)]
        assert _xs(found) == [20, 21, 22, 23, 24]
        selection = {"_id": 0, "id": 1}
        documents = [d async for d in storage.iter_trials(experiment, selection=selection)]
        assert documents == [{"id": trial.id} for trial in trials]
        nobody = {"_id": "nobody"}
        assert [t async for t in storage.iter_trials(nobody)] == []
        with pytest.raises(ValueError, match="batch_size"):
            _ = [t async for t in storage.iter_trials(experiment, batch_size=0)]

    async def test_iter_trials_left_early(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 25)
        async for _ in storage.iter_trials(experiment, batch_size=2):
            break
        await storage.update_trials(experiment, status="broken")
        assert await storage.count_broken_trials(experiment) == 25

    async def test_iter_trials_while_others_write(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        trials = await registered(storage, experiment, 40)
        seen: list[Any] = []
        async for trial in storage.iter_trials(experiment, batch_size=3):
            seen.append(trial.params["x"])
            number = len(seen)
            if number <= 40:
                await storage.register_trial(make_trial(experiment, 1000 + number))
                await storage.update_trial(trials[number - 1], submit_time=datetime.now(UTC))
                gone = trials[-number]
                await storage.delete_trials(experiment, where={"id": gone.id})
        assert len(set(seen)) == len(seen)
        assert set(range(18)) <= set(seen)
        assert seen == sorted(seen)
