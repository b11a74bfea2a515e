"""The laws of the outbox, as tests of a storage on one engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import anyio
import pytest

from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.delivery.outbox import Backlog, Outbox, OutboxRow
from aiostorage._core.driver_calls.retry import RetryPolicy
from aiostorage._core.storage import Storage
from aiostorage.errors import DuplicateKeyError, FailedUpdate
from aiostorage.experiment import Experiment
from aiostorage.protocols import Driver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.helpers import gather, lose, make_config, make_trial, registered
from aiostorage.testing.faults import Fault, FaultyDriver
from aiostorage.values import Result

__all__ = ["OutboxLaws"]

QUICK = RetryPolicy(initial=0.001, maximum=0.01)


class _Told:
    """A storage with an outbox, on an engine that fails on demand."""

    def __init__(self, driver: Driver) -> None:
        self.faulty: FaultyDriver = FaultyDriver(driver)
        self.storage: Storage = Storage(NotingDriver(self.faulty), retry=QUICK)
        gateway = self.storage._gateway  # noqa: SLF001  the storage has no outbox yet
        self.outbox: Outbox = Outbox(gateway)

    async def rows(self) -> list[OutboxRow]:
        """Return all rows, and remove them."""
        rows = await self.outbox.rows(1000)
        await self.outbox.remove(rows)
        return rows

    async def changes(self) -> list[tuple[str | None, str]]:
        """Return the changes in the rows, sorted, and remove the rows."""
        rows = await self.rows()
        return sorted((row.trial or "", row.change) for row in rows)

    async def started(self, trials: int) -> tuple[Experiment, list[str]]:
        """Make an experiment with trials, of which the outbox says nothing more."""
        experiment = await self.storage.create_experiment(make_config())
        ids = [trial.id for trial in await registered(self.storage, experiment, trials)]
        await self.rows()
        return experiment, ids


class OutboxLaws:
    """What stands in the outbox after each change, and that nothing else does.

    Runs under AnyIO's pytest plugin, on asyncio. A subclass has a fixture `make_driver`, a function
    that makes a driver, not opened, on the data of the test.

    Attributes
    ----------
    workers : int
        How many tasks work at the same time.
    """

    pytestmark: ClassVar[Any] = pytest.mark.anyio

    workers: int = 8

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run on asyncio alone."""
        return "asyncio"

    @pytest.fixture(name="open_told")
    async def fixture_open_told(
        self, make_driver: Callable[[], Driver]
    ) -> AsyncIterator[Callable[[], Any]]:
        """Give a function that opens one more storage with an outbox."""
        async with AsyncExitStack() as stack:

            async def open_told() -> _Told:
                told = _Told(make_driver())
                await stack.enter_async_context(told.storage)
                return told

            yield open_told

    @pytest.fixture(name="told")
    async def fixture_told(self, open_told: Callable[[], Any]) -> _Told:
        """Give a storage with an outbox."""
        one: _Told = await open_told()
        return one

    # ------------------------------------------------------------------------------- changes

    async def test_each_change_of_a_trial_is_noted(self, told: _Told) -> None:
        storage = told.storage
        experiment = await storage.create_experiment(make_config())
        assert await told.changes() == [("", "inserted")]
        a, b, c, d = (t.id for t in await registered(storage, experiment, 4))
        assert await told.changes() == sorted((uid, "inserted") for uid in (a, b, c, d))

        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        [row] = await told.rows()
        assert (row.experiment, row.trial, row.change) == (experiment.id, a, "reserved")
        assert row.worker == trial.worker
        await storage.update_heartbeat(trial)
        assert await told.rows() == []
        await storage.complete_trial(trial, 1.0)
        [row] = await told.rows()
        assert (row.trial, row.change, row.worker) == (a, "changed", trial.worker)

        two = await storage.reserve_trials(experiment, 2)
        assert await told.changes() == sorted([(b, "reserved"), (c, "reserved")])
        for one in two:
            one.results = [Result(name="objective", type="objective", value=1.0)]
        await storage.push_trial_results(two[0])
        await storage.set_trial_status(two[1], "interrupted")
        assert await told.changes() == sorted([(b, "changed"), (c, "changed")])
        await storage.set_trial_status(two[1], "reserved", was="interrupted")
        assert await told.changes() == [(c, "reserved")]

        await storage.update_trial(uid=d, experiment_uid=experiment.id, note="x")
        await storage.update_trial(uid=d, experiment_uid=experiment.id, heartbeat=trial.heartbeat)
        assert await told.changes() == [(d, "changed")]
        await storage.update_trials(experiment, where={"status": "new"}, note="y")
        assert await told.changes() == [(d, "changed")]
        await lose(storage, two[1])
        await storage.recover_lost_trials(experiment)
        assert (c, "changed") in await told.changes()
        await storage.delete_trials(experiment, where={"id": {"$in": [a, d]}})
        assert await told.changes() == sorted([(a, "deleted"), (d, "deleted")])

    async def test_each_change_of_an_experiment_is_noted(self, told: _Told) -> None:
        storage = told.storage
        experiment, _ = await told.started(2)
        await storage.update_experiment(experiment, max_trials=7)
        assert await told.changes() == [("", "changed")]
        async with storage.acquire_algorithm_lock(experiment):
            pass
        assert await told.changes() == []  # a lock is nothing to tell
        await storage.reserve_trial(experiment)
        await storage.delete_experiment(experiment)
        assert await told.changes() == [("", "deleted")]
        assert await storage.delete_experiment(uid=experiment.id) == 0
        assert await told.changes() == []

    async def test_an_experiment_without_its_trials(self, told: _Told) -> None:
        experiment, ids = await told.started(2)
        await told.storage.delete_experiment(experiment, cascade=False)
        assert await told.changes() == [("", "deleted")]
        await told.storage.delete_trials(uid=experiment.id)
        assert await told.changes() == sorted((uid, "deleted") for uid in ids)

    async def test_the_block_of_a_worker_is_noted(self, told: _Told) -> None:
        experiment, [uid] = await told.started(1)
        async with told.storage.reserved_trial(experiment) as trial:
            assert trial is not None
        assert await told.changes() == sorted([(uid, "reserved"), (uid, "changed")])
        with pytest.raises(ZeroDivisionError):
            async with told.storage.reserved_trial(experiment):
                raise ZeroDivisionError
        assert await told.changes() == sorted([(uid, "reserved"), (uid, "changed")])

    async def test_what_is_refused_is_not_noted(self, told: _Told) -> None:
        storage = told.storage
        experiment, _ = await told.started(1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.complete_trial(copy(trial), 1.0)
        await told.rows()
        assert await storage.reserve_trial(experiment) is None
        with pytest.raises(FailedUpdate):
            await storage.complete_trial(trial, 2.0)
        with pytest.raises(FailedUpdate):
            await storage.set_trial_status(trial, "broken", was="reserved")
        with pytest.raises(DuplicateKeyError):
            await storage.register_trials([make_trial(experiment, 7), make_trial(experiment, 0)])
        with pytest.raises(DuplicateKeyError):
            await storage.create_experiment(make_config())
        assert await storage.update_trials(experiment, where={"status": "new"}, note=1) == 0
        assert await storage.delete_trials(experiment, where={"status": "new"}) == 0
        assert not await storage.update_experiment(uid="nowhere", max_trials=1)
        assert await told.rows() == []

    # -------------------------------------------------------------------------------- faults

    @pytest.mark.parametrize("when", ["before", "lost", "after"])
    async def test_a_repeated_change_is_noted_once(self, told: _Told, when: Fault) -> None:
        storage = told.storage
        experiment, [a, b] = await told.started(2)

        def fail() -> None:
            told.faulty.fail_next(when, matching=lambda ops: any(map(_changes, ops)))

        fail()
        await storage.register_trial(make_trial(experiment, 7))
        [(other, change)] = await told.changes()
        assert change == "inserted"
        fail()
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert await told.changes() == [(a, "reserved")]
        fail()
        await storage.complete_trial(trial, 1.0)
        assert await told.changes() == [(a, "changed")]
        fail()
        assert await storage.update_trials(experiment, where={"status": "new"}, note=1) == 2
        assert await told.changes() == sorted([(b, "changed"), (other, "changed")])
        fail()
        assert await storage.delete_trials(experiment, where={"id": other}) == 1
        assert await told.changes() == [(other, "deleted")]
        assert told.faulty.planned == 0

    async def test_a_released_reservation_is_noted(self, told: _Told) -> None:
        experiment, [uid] = await told.started(1)

        async def call() -> None:
            await told.storage.reserve_trial(experiment)

        async def check() -> None:
            rows = await told.rows()
            [trial] = await told.storage.fetch_trials(experiment) or []
            assert {row.trial for row in rows} <= {uid}
            if trial.status != before[0]:
                assert rows
            if trial.status == "reserved":
                assert [row.worker for row in rows] == [trial.worker]
                await told.storage.set_trial_status(trial, "new")
                await told.rows()
            before[0] = trial.status if trial.status != "reserved" else "new"

        before = ["new"]
        assert await cancelled_at_every_await(call, check, hows=("pending", "answered")) > 0

    async def test_reservations_are_counted_exactly(self, open_told: Callable[[], Any]) -> None:
        first, second = await open_told(), await open_told()
        experiment, ids = await first.started(12)
        tokens: dict[str, list[str | None]] = {uid: [] for uid in ids}

        async def work(told: _Told) -> None:
            while (trial := await told.storage.reserve_trial(experiment)) is not None:
                tokens[trial.id].append(trial.worker)
                if len(tokens[trial.id]) == 1:
                    await told.storage.set_trial_status(trial, "interrupted")
                else:
                    await told.storage.complete_trial(trial, 0.0)

        await gather(work((first, second)[n % 2]) for n in range(self.workers))
        rows = await first.rows()
        for uid in ids:
            mine = [row for row in rows if row.trial == uid]
            counted = (await first.outbox.record(experiment.id, uid)).counted(mine)
            assert counted.attempts == len(tokens[uid]) == 2
            assert Counter(row.change for row in mine) == {"reserved": 2, "changed": 2}

    # -------------------------------------------------------------- rows, records, the lease

    async def test_rows_and_their_backlog(self, told: _Told) -> None:
        outbox = told.outbox
        assert await outbox.backlog() == Backlog()
        experiment, ids = await told.started(0)
        await outbox.add(experiment.id, ["a", "b", None])
        await outbox.add("other", ["a"])
        backlog = await outbox.backlog()
        assert backlog.length == 4
        assert backlog.oldest is not None
        assert 0 <= backlog.age < 60
        rows = await outbox.rows(3)
        assert [(r.experiment, r.trial) for r in rows] == [
            (experiment.id, "a"),
            (experiment.id, "b"),
            (experiment.id, None),
        ]
        assert len(await outbox.rows(9, experiment.id)) == 3
        assert [r.trial for r in await outbox.rows(9, experiment.id, "b")] == ["b"]
        await outbox.remove(rows)
        assert [r.experiment for r in await outbox.rows(9)] == ["other"]
        assert ids == []

    async def test_records(self, told: _Told) -> None:
        outbox = told.outbox
        await outbox.add("e", ["t"])
        record = await outbox.record("e", "t")
        assert (record.stored, record.key, record.uncertain) == (False, None, False)
        begun = await outbox.begin(record)
        assert not begun.uncertain
        assert (await outbox.record("e", "t")).uncertain
        rows = await outbox.rows(9)
        await outbox.confirm(rows, replace(begun, key="run", attempts=2))
        record = await outbox.record("e", "t")
        assert (record.key, record.uncertain, record.attempts) == ("run", False, 2)
        assert await outbox.rows(9) == []
        whole = await outbox.begin(await outbox.record("e", None))
        await outbox.confirm((), replace(whole, key="all"))
        assert [one.key for one in await outbox.records("e")] == ["run", "all"]
        await outbox.confirm((), record, remove_record=True)
        assert [one.key for one in await outbox.records("e")] == ["all"]
        await outbox.begin(await outbox.record("e", "u"))
        await outbox.confirm((), await outbox.record("e", None), remove_record=True)
        assert await outbox.records("e") == []

    async def test_one_has_the_lease(self, open_told: Callable[[], Any]) -> None:
        one, other = (await open_told()).outbox, (await open_told()).outbox
        assert (
            sum(await gather(box.acquire_lease(f"{n}", 60) for n, box in enumerate((one, other))))
            == 1
        )
        holder = await one.lease_holder()
        assert holder in ("0", "1")
        assert await one.acquire_lease(holder, 60)
        assert not await other.acquire_lease("2", 60)
        assert not await other.renew_lease("2", 60)
        await other.release_lease("2")
        assert await one.renew_lease(holder, 0.05)
        await anyio.sleep(0.1)
        assert await other.lease_holder() is None
        assert await other.acquire_lease("2", 60)
        assert not await one.renew_lease(holder, 60)
        await other.release_lease("2")
        assert await one.acquire_lease("3", 60)

    async def test_new_rows_wake_who_waits(self, told: _Told) -> None:
        experiment, _ = await told.started(1)
        await told.outbox.wait(0.1)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(told.outbox.wait, 30)
                await anyio.sleep(0.1)
                await told.storage.reserve_trial(experiment)


def _changes(operation: Any) -> bool:
    return type(operation).__name__ in ("Insert", "Take", "Update", "Delete")
