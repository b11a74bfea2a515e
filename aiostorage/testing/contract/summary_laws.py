"""The contract on whole experiments: made once, summarised, the best trial, tables of trials."""

from __future__ import annotations

import math
from datetime import timedelta
from importlib.util import find_spec

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.summary import Direction
from aiostorage.testing.contract.helpers import (
    Clock,
    case,
    document,
    gather,
    lose,
    make_config,
    make_trial,
    registered,
)
from aiostorage.trial import Result

__all__ = ["SummaryLaws"]


class SummaryLaws:
    """What a storage says of a whole experiment."""

    async def test_an_experiment_is_made_once(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        config = {"name": "tune", "metadata": {"user": "me"}}
        made = await gather(
            (storage, other)[n % 2].get_or_create_experiment(config) for n in range(10)
        )
        assert len({experiment.id for experiment in made}) == 1
        assert config == {"name": "tune", "metadata": {"user": "me"}}  # it is not changed
        first = made[0]
        assert (first.name, first.version) == ("tune", 1)
        assert first.config["metadata"] == {"user": "me"}
        assert await storage.get_algorithm_lock_info(first) is not None
        again = await storage.get_or_create_experiment({"name": "tune", "version": 1, "space": {}})
        assert again == first
        assert await document(storage, first.id) == dict(first.config)
        second = await storage.get_or_create_experiment({"name": "tune", "version": 2})
        assert (second.version, second.id == first.id) == (2, False)
        with pytest.raises(DuplicateKeyError):
            await storage.get_or_create_experiment({"name": "other", "_id": first.id})
        assert len(await storage.fetch_experiments({})) == 2

    async def test_the_best_trial(self, storage: AsyncStorageProtocol) -> None:
        directions: tuple[Direction, ...] = ("minimize", "maximize")
        cases = (
            ((), None, None),
            ((math.nan,), None, None),
            ((math.nan, 2, 1.0, 1, -0.5, 3.5, 3.5), 4, 5),
            ((math.inf, math.nan), 0, 0),
            ((0.0, -math.inf, math.inf, math.nan), 1, 2),
        )
        for values, least, greatest in cases:
            with case(values):
                experiment = await storage.create_experiment(make_config(f"e{values}"))
                await registered(storage, experiment, len(values) + 1)
                for trial, value in zip(
                    await storage.reserve_trials(experiment, len(values) or 1), values, strict=False
                ):
                    await storage.complete_trial(trial, {"other": -9, "objective": value})
                results = [Result("loss", "objective", -99.0)]  # of no completed trial
                await storage.register_trial(make_trial(experiment, 99, results=results))
                for direction, wanted in zip(directions, (least, greatest), strict=True):
                    best = await storage.best_trial(experiment, direction)
                    assert (None if best is None else best.params["x"]) == wanted

    async def test_a_summary(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol, now: Clock
    ) -> None:
        experiment = await storage.create_experiment(make_config(max_trials=8))
        elsewhere = await storage.create_experiment(make_config("elsewhere"))
        await registered(storage, elsewhere, 3)
        empty = await storage.summary(elsewhere)
        assert empty is not None
        assert (empty.counts, empty.best, empty.rate, empty.eta) == ({"new": 3}, None, 0.0, None)
        await registered(storage, experiment, 9)
        trials = await storage.reserve_trials(experiment, 7)
        for trial, value in zip(trials[:4], (3.0, 1.0, math.nan, 2.0), strict=True):
            await storage.complete_trial(trial, value)
        long_ago = now() - timedelta(hours=2)
        await storage.update_trial(trials[0], end_time=long_ago)
        await storage.set_trial_status(trials[4], "broken")
        await lose(storage, trials[5])
        async with storage.acquire_algorithm_lock(experiment):
            found = await other.summary(experiment, direction="maximize")
        assert found is not None
        assert found.counts == {"new": 2, "reserved": 2, "completed": 4, "broken": 1}
        assert (found.total, found.completed, found.lost, found.workers) == (9, 4, 1, 1)
        assert (found.id, found.name, found.version) == (experiment.id, "tune", 1)
        assert found.best is not None
        assert (found.best.id, found.direction) == (trials[0].id, "maximize")
        assert (found.recent, found.max_trials, found.remaining) == (3, 8, 4)
        assert timedelta() < found.window <= timedelta(minutes=10)
        assert found.rate == pytest.approx(3 / (found.window / timedelta(minutes=1)))
        assert found.eta is not None
        assert found.eta.total_seconds() == pytest.approx(4 / found.rate * 60)
        assert abs(found.time - now()) < timedelta(minutes=1)
        assert found.oldest_heartbeat is not None
        assert found.oldest_heartbeat > now() - timedelta(minutes=2)
        assert found.lock is not None
        assert found.lock.locked
        assert found.waiting == 0
        shown = found.to_dict()
        assert shown["trials"] == found.counts
        assert (shown["best"], shown["best_trial"]) == (3.0, trials[0].id)
        after = await storage.summary(experiment, window=1e9)
        assert after is not None
        assert after.lock is not None
        assert (after.recent, after.lock.locked) == (4, False)
        await storage.delete_experiment(experiment)
        assert await storage.summary(experiment) is None

    @pytest.mark.skipif(
        not (find_spec("pandas") and find_spec("pyarrow")), reason="pandas and pyarrow are extras"
    )
    async def test_tables(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        fixed = ["id", "status", "submit_time", "start_time", "end_time", "objective"]
        assert list(await storage.to_dataframe(experiment)) == fixed
        assert (await storage.to_arrow(experiment)).schema.names == fixed
        trials = await registered(storage, experiment, 2)
        trials.append(await storage.register_trial(make_trial(experiment, "text")))
        (trial,) = await storage.reserve_trials(experiment, 1)
        await storage.complete_trial(trial, {"loss": 1, "status": "fine", "parts": [1, 2]})
        frame = await storage.to_dataframe(experiment)
        assert list(frame) == [*fixed, "params.x", "results.status", "results.parts"]
        assert list(frame["id"]) == [one.id for one in trials]
        assert list(frame["params.x"]) == [0, 1, "text"]
        assert list(frame["objective"].isna()) == [False, True, True]
        assert frame["results.parts"][0] == [1, 2]
        assert frame["submit_time"][0] == trials[0].submit_time
        table = await storage.to_arrow(experiment, where={"status": "new"})
        assert table.column("params.x").to_pylist() == ["1", '"text"']
        table = await storage.to_arrow(experiment, params={"x": {"$gte": 0}})
        assert table.column("params.x").to_pylist() == [0, 1]
        assert table.column("objective").to_pylist() == [1.0, None]
        assert table.column("results.status").to_pylist() == ["fine", None]
        assert table.column("start_time").null_count == 1
