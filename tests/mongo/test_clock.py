"""A worker whose clock is wrong steals nothing and loses nothing: the server's clock decides."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient, monitoring

from aiostorage import LockAcquisitionTimeout, Storage, Trial, open_storage
from aiostorage.testing import Deployment
from tests.mongo.conftest import PAIRS

OWN = {"submit_time"}
"""What a worker tells by its own clock: when it had the idea. Nothing is lost or leased by that."""

SKEWS = {"motor": timedelta(hours=1), "pymongo": timedelta(hours=-1)}


class CommandLog(monitoring.CommandListener):
    """Collects the times in what the libraries send."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.times: list[tuple[str, str, datetime]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.add(event.command_name)
        self._walk(event.command_name, "", event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    def _walk(self, command: str, name: str, value: Any) -> None:
        if isinstance(value, datetime):
            self.times.append((command, name, value.replace(tzinfo=value.tzinfo or UTC)))
        elif isinstance(value, dict):
            for key, inner in value.items():
                self._walk(command, name if key.startswith("$") else key, inner)
        elif isinstance(value, list):
            for inner in value:
                self._walk(command, name, inner)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> CommandLog:
    listeners = monitoring._Listeners([], [], [], [], [])
    monkeypatch.setattr(monitoring, "_LISTENERS", listeners)
    commands = CommandLog()
    monitoring.register(commands)
    return commands


class _AnyTime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Give a library and a deployment: with one pair the clock is fast, with the other slow."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def skew(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """Put the clock of all modules of the library forward, or back."""
    by = SKEWS[pair[0]]

    class Skewed(datetime, metaclass=_AnyTime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "aiostorage" and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Skewed)
    return by


@pytest.fixture
def library(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture
def url(pair: tuple[str, str], request: pytest.FixtureRequest) -> str:
    deployment: Deployment = request.getfixturevalue(pair[1])
    return deployment.url_for(request.getfixturevalue("mongodb_emptied_database"))


@pytest.fixture
def found(url: str) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        yield client.get_default_database()


async def everything(storage: Storage) -> Any:
    """Write everything that has a time: trials, their hearts, leases, tickets, a large state."""
    experiment = await storage.create_experiment({"name": "e"}, algo_locked=0, algo_state="s")
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": x}) for x in range(6)]
    )
    async with storage.reserved_trial(experiment, heartbeat=0.02) as trial:
        assert trial is not None
        await asyncio.sleep(0.1)
        await storage.complete_trial(trial, 1)
    reserved = await storage.reserve_trials(experiment, 2)
    assert len(reserved) == 2
    await storage.update_heartbeat(reserved[0])
    await storage.set_trial_status(reserved[1], "broken")
    assert await storage.fetch_lost_trials(experiment) == []
    assert await storage.recover_lost_trials(experiment) == []
    async with storage.acquire_algorithm_lock(experiment, timeout=10) as algorithm:

        async def vainly() -> None:
            with pytest.raises(LockAcquisitionTimeout):
                async with storage.acquire_algorithm_lock(experiment, timeout=0.05):
                    pass

        await asyncio.gather(*(vainly() for _ in range(3)))
        algorithm.set_state(bytes(13 * 2**20))
    return experiment


@pytest.mark.anyio
async def test_no_time_of_the_worker_is_sent(
    commands: CommandLog, skew: timedelta, url: str, found: Any, library: str
) -> None:
    async with open_storage(url, client=library, lock_lease=5) as storage:
        await everything(storage)
    assert {"findAndModify", "insert", "update", "find"} <= commands.names
    wrong = [
        (command, name)
        for command, name, time in commands.times
        if abs(time - datetime.now(UTC) - skew) < timedelta(minutes=10)
    ]
    assert {name for _, name in wrong} == OWN  # so the clock is wrong, and nothing else shows it

    def kept() -> None:
        for trial in found["trials"].find({"heartbeat": {"$ne": None}}):
            assert abs(trial["heartbeat"] - datetime.now(UTC)) < timedelta(minutes=10)
        (lock,) = found["algo"].find()
        assert abs(lock["heartbeat"] - datetime.now(UTC)) < timedelta(minutes=10)

    await asyncio.to_thread(kept)


@pytest.mark.anyio
async def test_nothing_is_stolen_or_lost(skew: timedelta, url: str, library: str) -> None:
    options: dict[str, Any] = {"client": library, "lost_after": 30.0, "lock_lease": 30.0}
    # the clock of this process is wrong, for both of them; that of the server is right
    async with open_storage(url, **options) as storage, open_storage(url, **options) as other:
        experiment = await storage.create_experiment({"name": "e"})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(2)]
        )
        mine = await storage.reserve_trial(experiment)
        assert mine is not None
        assert await other.recover_lost_trials(experiment) == []
        assert await storage.fetch_lost_trials(experiment) == []
        # the server's clock says when it is lost
        long_ago = datetime.now(UTC) - timedelta(seconds=60)
        await storage.update_trial(mine, heartbeat=long_ago)
        assert [t.id for t in await other.fetch_lost_trials(experiment)] == [mine.id]
        async with storage.acquire_algorithm_lock(experiment):
            with pytest.raises(LockAcquisitionTimeout):
                async with other.acquire_algorithm_lock(experiment, 0.2, 0.05):
                    pass
