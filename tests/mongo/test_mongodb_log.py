"""The log of changes on MongoDB: between a change and its row, and between two pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient
from pymongo import errors as pymongo

from aiostorage import (
    CursorExpired,
    Result,
    RetryPolicy,
    Storage,
    TemporaryBackendError,
    open_storage,
)
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.delivery.outbox import Outbox
from aiostorage._core.layout import CHANGES
from aiostorage.drivers.mongodb import (
    MongoDBDriver,
    commands,
    log_head,
    log_reading,
    log_writing,
    noted_changes,
    transactions,
)
from aiostorage.drivers.mongodb.log_ids import id_of, new_suffix, number_at
from aiostorage.testing import Deployment
from aiostorage.testing.contract.change_feed_laws import all_changes, check_chains
from aiostorage.testing.contract.helpers import gather, make_config, make_trial, registered
from aiostorage.trial_change import TrialChange
from tests.mongo.conftest import UNCLOSED
from tests.mongo.test_changes import _kill_streams

pytestmark = [UNCLOSED, pytest.mark.anyio, pytest.mark.usefixtures("sockets_collected")]

Opening = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Opening]:
    async with AsyncExitStack() as stack:

        async def opening(url: str, **options: Any) -> Storage:
            return await stack.enter_async_context(open_storage(url, **options))

        yield opening


@pytest.fixture
def alone(mongodb_standalone: Deployment, mongodb_emptied_database: str) -> str:
    return mongodb_standalone.url_for(mongodb_emptied_database)


@pytest.fixture
def replicated(mongodb_replica_set: Deployment, mongodb_emptied_database: str) -> str:
    return mongodb_replica_set.url_for(mongodb_emptied_database)


def kinds(changes: list[TrialChange]) -> list[tuple[str, str | None]]:
    return [(change.kind, change.after) for change in changes]


# --------------------------------------------------------------------------- a replica set


async def test_a_tracker_and_the_log_share_a_transaction(
    replicated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = NotingDriver(MongoDBDriver(replicated))
    async with Storage(driver, retry=RetryPolicy(attempts=2)) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        outbox = Outbox(storage._gateway)
        await outbox.remove(await outbox.rows(9))
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert [row.trial for row in await outbox.rows(9)] == [trial.id]
        before = await all_changes(storage, experiment)
        assert kinds(before)[-1] == ("reserved", "reserved")

        async def fail(*_: object) -> None:
            raise TemporaryBackendError("not now")

        with monkeypatch.context() as patch:
            patch.setattr(noted_changes, "log_in_transaction", fail)
            patch.setattr(transactions, "log_in_transaction", fail)
            with pytest.raises(TemporaryBackendError):
                async with asyncio.timeout(30):
                    await storage.complete_trial(trial, 1.0)
        stored = await storage.get_trial(trial)
        assert stored is not None
        assert stored.status == "reserved"
        assert await all_changes(storage, experiment) == before
        assert len(await outbox.rows(9)) == 1


async def test_processes_that_want_the_same_trials(replicated: str, opened: Opening) -> None:
    """Each driver has a queue of its own, as if they were in different processes."""
    storages = [await opened(replicated) for _ in range(4)]
    experiment = await storages[0].create_experiment(make_config())
    await registered(storages[0], experiment, 30)
    found = await gather(storages[n % 4].reserve_trial(experiment) for n in range(33))
    trials = [trial for trial in found if trial is not None]
    assert len({trial.id for trial in trials}) == len(trials) == 30
    changes = await all_changes(storages[0], experiment)
    assert len(check_chains(changes)) == 30
    assert len(changes) == 60


@pytest.mark.parametrize("library", ["motor", "pymongo"])
async def test_a_row_that_another_process_has_written(
    replicated: str, opened: Opening, library: str
) -> None:
    """Each driver knows the rows that it has written itself, and checks that they are the last."""
    one, other = [await opened(replicated, client=library) for _ in range(2)]
    experiment = await one.create_experiment(make_config())
    await registered(one, experiment, 1)
    trial = await one.reserve_trial(experiment)
    same = await other.get_trial(trial)
    same.results = [Result("objective", "objective", 1.0)]
    await other.push_trial_results(same)
    await one.complete_trial(trial, 2.0)
    await other.update_trial(uid=trial.id, experiment_uid=experiment.id, status="new", worker=None)
    again = await one.reserve_trial(experiment)
    await one.set_trial_status(again, "interrupted")
    await one.update_trial(uid=trial.id, experiment_uid=experiment.id, worker=None)
    assert (await other.reserve_trial(experiment)).id == trial.id
    history = await one.trial_history(trial)
    check_chains(history)
    assert [(c.kind, c.after, c.attempt) for c in history] == [
        ("inserted", "new", 0),
        ("reserved", "reserved", 1),
        ("results", "reserved", 1),
        ("status", "completed", 1),
        ("status", "new", 1),
        ("reserved", "reserved", 2),
        ("status", "interrupted", 2),
        ("reserved", "reserved", 3),
    ]
    assert [c.worker for c in history[1:4]] == [trial.worker] * 3


async def test_rows_that_another_process_has_written_for_a_batch(
    replicated: str, opened: Opening
) -> None:
    one, other = [await opened(replicated) for _ in range(2)]
    experiment = await one.create_experiment(make_config())
    await registered(one, experiment, 6)
    for trial in await one.reserve_trials(experiment, 6):
        await one.update_trial(
            uid=trial.id, experiment_uid=experiment.id, status="interrupted", worker=None
        )
    found = await gather(other.reserve_trial(experiment) for _ in range(6))
    assert len({trial.id for trial in found}) == 6
    chains = check_chains(await all_changes(one, experiment))
    assert {chain[-1] for chain in chains.values()} == {("reserved", "interrupted", "reserved", 2)}
    assert len(chains) == 6


async def test_a_known_row_that_was_deleted(
    replicated: str, opened: Opening, mongodb_emptied_database: str
) -> None:
    storage = await opened(replicated)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)
    trial = await storage.reserve_trial(experiment)
    begin = await storage.changes_since(experiment)
    async with AsyncMongoClient[dict[str, Any]](replicated) as client:
        await client[mongodb_emptied_database][CHANGES].delete_many({"name": trial.id})
    await storage.complete_trial(trial, 1.0)
    (change,) = await storage.trial_history(trial)
    assert (change.kind, change.after, change.attempt) == ("status", "completed", 0)
    # whoever follows sees it once
    assert await all_changes(storage, experiment, begin.cursor) == [change]


async def test_a_row_of_a_clock_that_is_ahead(
    replicated: str, opened: Opening, mongodb_emptied_database: str
) -> None:
    """As after a failover: the rows of a trial are in the order of its changes all the same."""
    storage = await opened(replicated)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)
    ahead = id_of(number_at(datetime.now(UTC) + timedelta(hours=1)), new_suffix())
    async with AsyncMongoClient[dict[str, Any]](replicated) as client:
        rows = client[mongodb_emptied_database][CHANGES]
        row = await rows.find_one({})
        assert row is not None
        await rows.delete_many({})
        await rows.insert_one({**row, "_id": ahead})
        trial = await storage.reserve_trial(experiment)
        await storage.complete_trial(trial, 1.0)
        ids = [one["_id"] async for one in rows.find({}, sort=[("_id", 1)])]
    history = await storage.trial_history(trial)
    check_chains(history)
    assert len(history) == len(ids) == 3
    assert ids[0] == ahead


async def test_a_row_that_is_committed_while_the_oldest_are_read(
    replicated: str, opened: Opening, mongodb_emptied_database: str
) -> None:
    """Its id is smaller than those of rows that were read already."""
    storage = await opened(replicated)
    experiment = await storage.create_experiment(make_config())
    row = {
        "kind": "inserted",
        "owner": ObjectId(experiment.id),
        "before": None,
        "after": "new",
        "holder": None,
        "attempt": 0,
        "reason": None,
    }

    def at_now(name: str) -> dict[str, Any]:
        time = datetime.now(UTC)
        return {**row, "_id": id_of(number_at(time), new_suffix()), "name": name, "time": time}

    async with AsyncMongoClient[dict[str, Any]](replicated) as client:
        rows = client[mongodb_emptied_database][CHANGES]
        async with client.start_session() as session:
            await session.start_transaction()
            await rows.insert_one(at_now("slow"), session=session)
            await anyio.sleep(0.01)
            for name in "abc":
                await rows.insert_one(at_now(name))
                await anyio.sleep(0.002)
            first = await storage.changes_since(experiment, "oldest", limit=2)
            await session.commit_transaction()
        await rows.insert_one(at_now("d"))
    rest = await all_changes(storage, experiment, first.cursor)
    found = [change.trial for change in (*first.changes, *rest)]
    assert found == ["a", "b", "c", "slow", "d"]
    for number, change in enumerate(first.changes, 1):
        again = await all_changes(await opened(replicated), experiment, change.cursor)
        assert [one.trial for one in again] == found[number:]


@pytest.mark.parametrize("library", ["motor", pytest.param("pymongo", marks=UNCLOSED)])
async def test_a_follower_whose_streams_break(
    replicated: str, opened: Opening, mongodb_emptied_database: str, library: str
) -> None:
    storage = await opened(replicated, client=library)
    experiment = await storage.create_experiment(make_config())
    found: list[TrialChange] = []

    async def follow() -> None:
        async for change in storage.watch_trials(experiment, since="oldest"):
            found.append(change)
            if len(found) == 12:
                return

    following = asyncio.create_task(follow())
    for number in range(4):
        await storage.register_trial(make_trial(experiment, number))
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.complete_trial(trial, 1.0)
        with anyio.fail_after(30):
            while len(found) < 3 * number + 3 and number < 3:
                await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(_kill_streams, replicated, mongodb_emptied_database)
    async with asyncio.timeout(30):
        await following
    assert len(check_chains(found)) == 4


async def test_cursors_that_do_not_hold(
    replicated: str, opened: Opening, mongodb_emptied_database: str
) -> None:
    storage = await opened(replicated)
    experiment = await storage.create_experiment(make_config())
    (trial,) = await registered(storage, experiment, 1)
    end = (await storage.changes_since(experiment)).cursor
    async with AsyncMongoClient[dict[str, Any]](replicated) as client:
        point = {"configureFailPoint": "failCommand", "mode": {"times": 1}}
        data = {
            "failCommands": ["aggregate"],
            "errorCode": 286,
            "namespace": f"{mongodb_emptied_database}.{CHANGES}",
        }
        await client.admin.command({**point, "data": data})
        try:
            with pytest.raises(CursorExpired, match="oplog"):
                await (await opened(f"{replicated}&appname=x")).changes_since(experiment, end)
        finally:
            await client.admin.command({**point, "mode": "off"})
    other = await opened(replicated, database=f"{mongodb_emptied_database}_other")
    with pytest.raises(CursorExpired, match="another store"):
        await other.changes_since(experiment, end)
    await storage.delete_trials(experiment, where={"id": trial.id})
    changes = await all_changes(await opened(replicated), experiment, end)
    assert kinds(changes) == [("deleted", None)]  # rows are gone, but the oplog has them


# --------------------------------------------------------------- a server by itself


async def test_a_writer_that_died_before_its_row(
    alone: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)

    async def die(_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(noted_changes, "log_for_good", die)
        trial = await storage.reserve_trial(experiment)
    assert trial is not None
    assert kinds(await all_changes(storage, experiment)) == [("inserted", "new")]
    await (await opened(alone)).complete_trial(trial, 1.0)
    changes = await all_changes(storage, experiment)
    check_chains(changes)
    assert kinds(changes)[1:] == [("reserved", "reserved"), ("status", "completed")]
    assert changes[1].worker == trial.worker


@pytest.mark.parametrize("place", ["before it looks", "after it has looked"])
async def test_a_writer_that_comes_too_late(
    alone: str, opened: Opening, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    storage, other = await opened(alone), await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)
    stopped, go_on = anyio.Event(), anyio.Event()

    where = noted_changes if place == "before it looks" else log_writing
    name = "log_for_good" if place == "before it looks" else "add_rows"
    write = getattr(where, name)

    async def late(*arguments: Any) -> None:
        stopped.set()
        await go_on.wait()
        await write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, late)
        reserving = asyncio.create_task(storage.reserve_trial(experiment))
        await stopped.wait()
    await other.update_trials(experiment, where={"status": "reserved"}, status="suspended")
    go_on.set()
    assert await reserving is not None
    changes = await all_changes(storage, experiment)
    check_chains(changes)
    assert kinds(changes)[1:] == [("reserved", "reserved"), ("status", "suspended")]


async def test_a_writer_that_died_between_the_number_and_the_row(
    alone: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 2)

    async def die(*_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(log_head, "_copy", die)
        trial = await storage.reserve_trial(experiment)
    assert trial is not None
    seen = await all_changes(storage, experiment)
    assert kinds(seen)[-1] == ("reserved", "reserved")
    assert len(await storage.trial_history(trial)) == 1
    monkeypatch.setattr(log_head, "MAX_HEAD_AGE", 0)
    other = await opened(alone)
    assert await other.reserve_trial(experiment) is not None
    assert len(await storage.trial_history(trial)) == 2
    assert (
        await all_changes(other, experiment, seen[-2].cursor)
        == (await all_changes(other, experiment))[2:]
    )


async def test_a_change_whose_predecessor_is_in_the_head_alone(
    alone: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)

    async def die(*_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(log_head, "_copy", die)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await (await opened(alone)).set_trial_status(trial, "broken", reason="bad luck")
    await (await opened(alone)).update_trials(experiment, status="new")
    changes = await all_changes(storage, experiment)
    check_chains(changes)
    assert [(change.after, change.reason) for change in changes[1:]] == [
        ("reserved", None),
        ("broken", "bad luck"),
        ("new", None),
    ]


async def test_several_that_change_all_trials_in_the_same_way(alone: str, opened: Opening) -> None:
    storages = [await opened(alone) for _ in range(4)]
    experiment = await storages[0].create_experiment(make_config())
    await registered(storages[0], experiment, 40)
    for before, after in (("new", "suspended"), ("suspended", "new")) * 2:
        counts = await gather(
            one.update_trials(experiment, where={"status": before}, status=after)
            for one in storages
        )
        assert sum(counts) == 40
    for storage in storages:  # what was in doubt is logged before anything is read
        changes = await all_changes(storage, experiment)
    assert {len(chain) for chain in check_chains(changes).values()} == {5}


async def test_an_answer_that_was_lost(
    alone: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)
    carry_out = commands.Commands.find_one_and_update
    lost: list[str] = []

    async def lose(self: commands.Commands, *args: Any, **options: Any) -> Any:
        found = await carry_out(self, *args, **options)
        if len(lost) % 2 == 0:
            lost.append("answer")
            raise pymongo.AutoReconnect("lost")
        lost.append("")
        return found

    monkeypatch.setattr(commands.Commands, "find_one_and_update", lose)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    lost.clear()
    await storage.complete_trial(trial, 1.0)
    assert lost
    changes = await all_changes(storage, experiment)
    check_chains(changes)
    assert kinds(changes)[1:] == [("reserved", "reserved"), ("status", "completed")]


async def test_rows_that_cannot_be_written_yet(
    alone: str,
    opened: Opening,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = await opened(alone)
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 2)

    async def fail(*_: object) -> None:
        raise pymongo.AutoReconnect("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(log_writing, "add_rows", fail)
        first = await storage.reserve_trial(experiment)
    assert "still to be logged" in caplog.text
    assert await storage.reserve_trial(experiment) is not None
    assert first is not None
    changes = await all_changes(storage, experiment)
    check_chains(changes)
    assert kinds(changes)[2:] == [("reserved", "reserved")] * 2


@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_history_that_was_off(
    alone: str, replicated: str, opened: Opening, is_alone: bool
) -> None:
    url = alone if is_alone else replicated
    storage = await opened(url)
    experiment = await storage.create_experiment(make_config())
    none = (await storage.changes_since(experiment)).cursor
    await registered(storage, experiment, 2)
    oldest = (await storage.changes_since(experiment, "oldest")).changes
    end = (await storage.changes_since(experiment, oldest[-1].cursor)).cursor
    async with open_storage(url, history="off") as off:
        assert await off.reserve_trial(experiment) is not None
    on = await opened(url, history="1000")
    begin = (await on.changes_since(experiment)).cursor
    assert await on.reserve_trial(experiment) is not None
    for one in (storage, on):  # the first one has followed all the time
        assert kinds(await all_changes(one, experiment, begin)) == [("reserved", "reserved")]
        for cursor in (none, end, *(change.cursor for change in oldest)):
            with pytest.raises(CursorExpired):
                await one.changes_since(experiment, cursor)


@pytest.mark.parametrize("old_enough", [True, False])
async def test_rows_are_deleted_in_front_of_a_reader_of_the_oldest(
    replicated: str, opened: Opening, monkeypatch: pytest.MonkeyPatch, old_enough: bool
) -> None:
    if old_enough:
        monkeypatch.setattr(log_reading, "MAX_ROW_DELAY", -60)
    storage = await opened(replicated, history="3")
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 8)
    first = await storage.changes_since(experiment, "oldest", limit=2)
    rest = await storage.changes_since(experiment, first.cursor, limit=2)
    storage._gateway._trim_at = 0.0
    await storage.count_broken_trials(experiment)
    assert len(await all_changes(storage, experiment)) == 3
    for cursor in (first.cursor, first.changes[0].cursor, rest.cursor):
        with pytest.raises(CursorExpired):
            await storage.changes_since(experiment, cursor)
