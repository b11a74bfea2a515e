"""Results beyond what one document of MongoDB holds: the objective is stored all the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from aiostorage import EncodingError, Trial, open_storage
from aiostorage.testing import Deployment

LARGE = b"x" * (17 * 2**20)


@pytest.fixture(params=["mongodb_replica_set", "mongodb_standalone"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    found: Deployment = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(deployment: Deployment, mongodb_emptied_database: str) -> str:
    return deployment.url_for(mongodb_emptied_database)


@pytest.mark.anyio
async def test_the_largest_statistic_is_left_out(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        trials = [Trial(experiment=experiment.id, params={"x": n}) for n in (1, 2)]
        await storage.register_trials(trials)
        with caplog.at_level(logging.WARNING, "aiostorage"):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                results = {"objective": 1.0, "curve": LARGE, "epochs": 3}
                await storage.complete_trial(trial, results)
        assert "'curve'" in caplog.text
        assert (found := await storage.get_trial(trial)) is not None
        assert (found.status, [r.name for r in found.results]) == (
            "completed",
            ["objective", "epochs"],
        )
        held = await storage.reserve_trial(experiment)
        assert held is not None
        large: list[dict[str, Any]] = [
            {"name": "objective", "type": "objective", "value": 1.0},
            {"name": "slope", "type": "gradient", "value": LARGE},
        ]
        with pytest.raises(EncodingError) as raised:
            await storage.complete_trial(held, large)
        assert raised.value.path == "results[1].value"
        assert held.status == "reserved"
