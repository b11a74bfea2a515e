"""What MongoDB refuses for its size: the error says which document it is, and what is large."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from aiostorage import EncodingError, Result, Trial, open_storage
from aiostorage.testing import Deployment

pytestmark = pytest.mark.anyio

LARGE = "x" * (17 * 2**20)
HALF = "y" * (9 * 2**20)


async def check(call: Awaitable[object], name: str, path: str) -> None:
    with pytest.raises(EncodingError) as caught:
        await call
    message = str(caught.value)
    assert name in message
    assert f"is {path}, with " in message
    assert "16,777,216 bytes that MongoDB allows" in message
    assert caught.value.path == path
    assert len(message) < 400


@pytest.fixture(params=["standalone", "replica_set"])
def url(request: pytest.FixtureRequest) -> str:
    deployment: Deployment = request.getfixturevalue(f"mongodb_{request.param}")
    return deployment.url_for(request.getfixturevalue("mongodb_emptied_database"))


async def test_too_large(url: str) -> None:
    async with open_storage(url) as storage:
        huge = {"name": "huge", "version": 3, "metadata": {"user": "me", "notes": {"log": LARGE}}}
        await check(
            storage.create_experiment(huge), "(name 'huge', version 3)", "metadata.notes.log"
        )
        experiment = await storage.create_experiment({"name": "tune"})
        ours = f"_id {experiment.id!r}"
        await check(storage.update_experiment(experiment, notes=[1, LARGE]), ours, "notes[1]")
        await storage.update_experiment(experiment, first=HALF)
        await check(storage.update_experiment(experiment, second=HALF), ours, "second")
        small, large = (Trial(experiment=experiment.id, params={"x": x}) for x in (1, LARGE))
        await check(storage.register_trials([small, large]), f"id {large.id!r}", "params[0].value")
        await storage.register_trial(small)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        results = [Result("loss", "objective", 1.0), Result("log", "gradient", LARGE)]
        await check(storage.complete_trial(trial, results), f"id {trial.id!r}", "results[1].value")
        await check(storage.create_benchmark({"name": "b", "task": LARGE}), "(name 'b')", "task")
        await check(storage.fetch_experiments({"metadata.a": LARGE}), "experiments", "metadata.a")
