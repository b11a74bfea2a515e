"""Lost trials on a server: the index that finds them, and what other programs wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import pytest
from bson import ObjectId
from pymongo import MongoClient

from aiostorage import Trial, open_storage
from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage._core.lost_trials import LostTrials
from aiostorage.cli.store_summary import summarise
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.operations import And, Compare
from aiostorage.testing import Deployment

pytestmark = pytest.mark.anyio

SCHEMA = CollectionSchema(next(c for c in LAYOUT.collections if c.name == TRIALS))


async def test_an_index_finds_them(mongodb_standalone: Deployment, mongodb_database: str) -> None:
    url = mongodb_standalone.url_for(mongodb_database)
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(200)]
        await storage.register_trials(trials)  # enough for the server to compare its plans
        await storage.reserve_trials(experiment, 3)
    lost = And((Compare("experiment", "eq", experiment.id), *LostTrials(120).conditions))

    def explain() -> str:
        with MongoClient[dict[str, Any]](url) as client:
            found = client.get_default_database()[TRIALS].find(SCHEMA.filter(lost))
            return str(found.explain()["queryPlanner"]["winningPlan"])

    plan = await anyio.to_thread.run_sync(explain)
    assert "'indexName': 'experiment_1_status_1'" in plan
    assert "COLLSCAN" not in plan


async def test_those_of_other_programs(
    mongodb_standalone: Deployment, mongodb_database: str
) -> None:
    """Fields may be missing there, or null."""
    url = mongodb_standalone.url_for(mongodb_database)
    now = datetime.now(UTC)
    old = now - timedelta(hours=1)
    times: list[dict[str, Any]] = [
        {},
        {"heartbeat": None, "start_time": None, "submit_time": old},
        {"submit_time": old},
        {"start_time": old, "submit_time": now},
        {"heartbeat": None, "start_time": now, "submit_time": old},
        {"heartbeat": now, "start_time": old, "submit_time": old},
    ]
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        made = [
            {
                "experiment": ObjectId(str(experiment.id)),
                "id": f"{x:032}",
                "status": "reserved",
                "params": [{"name": "x", "type": "integer", "value": x}],
                **fields,
            }
            for x, fields in enumerate(times)
        ]

        def write() -> None:
            with MongoClient[dict[str, Any]](url) as client:
                client.get_default_database()[TRIALS].insert_many(made)

        await anyio.to_thread.run_sync(write)
        async with open_storage(url, read_only=True) as reader:
            [summary] = await summarise(reader)
        assert (summary.counts, summary.lost) == ({"reserved": 6}, 4)
        lost = await storage.fetch_lost_trials(experiment)
        assert sorted(trial.params["x"] for trial in lost) == [0, 1, 2, 3]
        found = [await storage.reserve_trial(experiment) for _ in range(5)]
        assert found[4] is None
        assert sorted(trial.params["x"] for trial in found if trial) == [0, 1, 2, 3]
