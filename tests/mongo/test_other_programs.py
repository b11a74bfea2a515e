"""Documents that another program wrote into the database: they do not hide the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient

from aiostorage import EncodingError, Trial, open_storage
from aiostorage.testing import Deployment
from tests.mongo.conftest import PAIRS, UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED, pytest.mark.usefixtures("sockets_collected")]


@pytest.fixture(params=PAIRS)
def place(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Give a library, a URL and the name of the database there."""
    library, fixture = request.param
    deployment: Deployment = request.getfixturevalue(fixture)
    database = str(request.getfixturevalue("mongodb_emptied_database"))
    return library, deployment.url_for(database), database


async def raw(place: tuple[str, str, str], write: Callable[[Any], object]) -> None:
    def connect_and_write() -> None:
        with MongoClient[Any](place[1]) as client:
            write(client[place[2]]["trials"])

    await anyio.to_thread.run_sync(connect_and_write)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "bogus"},
        {"status": {"is": "new"}},
        {"params": "abc"},
        {"params": {"x": 1}},
        {"params.0.type": "nope"},
        {"params.0.name": None},
        {"results": [{"type": "bogus"}]},
    ],
    ids=repr,
)
async def test_what_nobody_can_read(place: tuple[str, str, str], changes: dict[str, Any]) -> None:
    async with open_storage(place[1], client=place[0]) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        trials = await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
        )
        await raw(place, lambda found: found.update_one({"id": trials[1].id}, {"$set": changes}))
        for fetched in (
            await storage.fetch_trials(experiment),
            [trial async for trial in storage.iter_trials(experiment)],
        ):
            assert fetched == [trials[0], trials[2]]
        with pytest.raises(EncodingError, match="cannot be read"):
            await storage.get_trial(trials[1])
        await storage.update_trials(experiment, results=[])  # as a reservation may do
        assert await storage.reserve_trials(experiment, 3) == (
            [trials[0], trials[2]] if "results" not in changes else trials
        )
        assert await storage.count_broken_trials(experiment) == any("params" in n for n in changes)


async def test_what_can_be_read(place: tuple[str, str, str]) -> None:
    """Fields may be missing, there may be others, and BSON has years that Python has not."""
    async with open_storage(place[1], client=place[0]) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        (trial,) = await storage.register_trials([Trial(experiment=experiment.id, params={"x": 1})])
        late = DatetimeMS(400_000_000_000_000)
        await raw(
            place,
            lambda found: found.update_one(
                {"id": trial.id},
                {"$set": {"start_time": late, "more": [late]}, "$unset": {"results": 1}},
            ),
        )
        (found,) = await storage.fetch_pending_trials(experiment)
        assert (found.id, found.results) == (trial.id, [])
        assert found.start_time is not None
        assert found.start_time.year == 9999
        assert found.start_time.tzinfo is not None
        taken = await storage.reserve_trial(experiment)
        assert taken is not None
        await storage.complete_trial(taken, 1.0)


async def test_a_database_that_an_older_server_made(
    mongodb_standalone: Deployment, mongodb_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade of the server it has the indexes of the new one."""
    url = mongodb_standalone.url_for(mongodb_database)
    with monkeypatch.context() as older:
        older.setattr("aiostorage.drivers.mongodb.client.MIN_PARTIAL_IN_VERSION", 10**6)
        async with open_storage(url) as storage:
            experiment = await storage.create_experiment({"name": "e"})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(2)]
            await storage.register_trials(trials)
            assert await storage.reserve_trial(experiment) == trials[0]
    async with open_storage(url) as storage:
        assert await storage.reserve_trial(experiment) == trials[1]
