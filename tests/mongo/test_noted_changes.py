"""What the outbox costs on MongoDB in commands, and that workers who wait together share them."""

from __future__ import annotations

from collections import Counter

import pytest
from motor.frameworks import asyncio as motor_threads
from pymongo import monitoring

from aiostorage import Storage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.delivery.outbox import Outbox
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.errors import TemporaryBackendError
from aiostorage.testing import Deployment
from aiostorage.testing.contract.helpers import gather, make_config, registered
from tests.mongo.conftest import UNCLOSED
from tests.mongo.heard_commands import CommandHearer, hear

pytestmark = [UNCLOSED, pytest.mark.anyio, pytest.mark.usefixtures("sockets_collected")]

WRITES = ("findAndModify", "update", "insert", "commitTransaction")


class Commands(CommandHearer):
    """Counts the commands that write."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in WRITES:
            self.counts[event.command_name] += 1


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    listener = Commands()
    hear(listener, monkeypatch)
    return listener


async def _reserve(opened: Storage, commands: Commands, tasks: int) -> Counter[str]:
    async with opened as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, tasks + 1)
        await storage.reserve_trial(experiment)
        commands.counts.clear()
        taken = await gather(storage.reserve_trial(experiment) for _ in range(tasks))
        assert len({trial.id for trial in taken}) == tasks
        return +commands.counts


async def test_commands_with_an_outbox_and_without(
    commands: Commands, mongodb_replica_set: Deployment, mongodb_emptied_database: str
) -> None:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    off = Storage(MongoDBDriver(url), history="off")
    assert await _reserve(off, commands, 1) == {"findAndModify": 1}
    logged = {"findAndModify": 1, "update": 1, "commitTransaction": 1}
    first = mongodb_replica_set.url_for(f"{mongodb_emptied_database}_logged")
    assert await _reserve(Storage(MongoDBDriver(first)), commands, 1) == logged
    other = mongodb_replica_set.url_for(f"{mongodb_emptied_database}_told")
    told = Storage(NotingDriver(MongoDBDriver(other)))
    expected = {"findAndModify": 1, "update": 2, "commitTransaction": 1}
    assert await _reserve(told, commands, 1) == expected
    many = Storage(
        NotingDriver(MongoDBDriver(f"{other}", database=f"{mongodb_emptied_database}_many"))
    )
    counts = await _reserve(many, commands, 32)
    assert counts["commitTransaction"] <= 8  # not 32
    assert counts["findAndModify"] == 0


async def test_what_could_not_be_noted_is_noted_later(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mongodb_standalone: Deployment,
    mongodb_emptied_database: str,
) -> None:
    from aiostorage.drivers.mongodb.commands import Commands as Carrier

    url = mongodb_standalone.url_for(mongodb_emptied_database)
    async with Storage(NotingDriver(MongoDBDriver(url))) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        outbox = Outbox(storage._gateway)
        await outbox.remove(await outbox.rows(9))

        async def fail(*_: object) -> None:
            raise TemporaryBackendError("no answer", ambiguous=True)

        with monkeypatch.context() as patch:
            patch.setattr(Carrier, "note", fail)
            first = await storage.reserve_trial(experiment)
        assert "still to be noted" in caplog.text
        assert await outbox.rows(9) == []
        second = await storage.reserve_trial(experiment)
        assert first is not None
        assert second is not None
        assert [row.trial for row in await outbox.rows(9)] == [first.id, second.id]


async def test_a_logged_change_leaves_the_event_loop_once(
    monkeypatch: pytest.MonkeyPatch,
    mongodb_replica_set: Deployment,
    mongodb_emptied_database: str,
) -> None:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    async with Storage(MongoDBDriver(url, client="motor")) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        trial = await storage.reserve_trial(experiment)
        trips: list[object] = []
        real = motor_threads.run_on_executor

        def counted(loop: object, work: object, *args: object, **options: object) -> object:
            trips.append(work)
            return real(loop, work, *args, **options)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(motor_threads, "run_on_executor", counted)
        assert trial is not None
        await storage.complete_trial(trial, 0.5)
        assert len(trips) == 1
        assert await storage.reserve_trial(experiment) is not None
        assert len(trips) == 2
