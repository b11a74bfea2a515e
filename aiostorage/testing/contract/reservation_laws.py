"""The contract on reservations: who has a trial, for how long, and who no longer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import pytest

from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Open,
    cut,
    gather,
    lose,
    make_config,
    make_trial,
    registered,
    stored,
)
from aiostorage.trial import Result, Trial

__all__ = ["FencingLaws", "ReservationLaws", "WorkerLaws"]


async def _reserved(storage: AsyncStorageProtocol) -> Trial:
    """Make an experiment with one trial, and reserve that."""
    experiment = await storage.create_experiment(make_config())
    await registered(storage, experiment, 1)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    return trial


def _experiment_of(trial: Trial) -> dict[str, Any]:
    return {"_id": trial.experiment}


class ReservationLaws:
    """Law 6: one pending trial to one caller, the oldest first."""

    async def test_reserve(self, storage: AsyncStorageProtocol, resolution: timedelta) -> None:
        experiment = await storage.create_experiment(make_config())
        assert await storage.reserve_trial(experiment) is None
        await registered(storage, experiment, 1)
        before = cut(datetime.now(UTC), resolution) - timedelta(seconds=1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert trial.status == "reserved"
        assert trial.worker
        assert trial.start_time is not None
        assert trial.heartbeat is not None
        assert trial.start_time.utcoffset() == timedelta(0)
        assert before <= trial.start_time <= trial.heartbeat
        assert (await stored(storage, trial)).to_dict() == trial.to_dict()
        assert await storage.reserve_trial(experiment) is None
        assert await storage.reserve_trial({"_id": "nobody"}) is None

    async def test_waiting_for_a_pending_trial(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        start = anyio.current_time()
        assert await storage.reserve_trial(experiment, wait=0.2) is None
        async with storage.reserved_trial(experiment, wait=0.1) as nothing:
            assert nothing is None
        assert 0.3 <= anyio.current_time() - start < 5
        for writer in (storage, other):
            waiting = [
                asyncio.create_task(storage.reserve_trial(experiment, wait=60)) for _ in range(4)
            ]
            await anyio.sleep(0.2)
            first = 0 if writer is storage else 4
            await writer.register_trials(
                [make_trial(experiment, x) for x in range(first, first + 4)]
            )
            with anyio.fail_after(10):
                trials = await gather(waiting)
            assert len({trial.id for trial in trials if trial is not None}) == 4
            assert all(trial.status == "reserved" for trial in trials if trial is not None)
            if other is storage:
                break
        with anyio.fail_after(5):
            await storage.register_trial(make_trial(experiment, 9))
            async with storage.reserved_trial(experiment, wait=60) as trial:
                assert trial is not None
        for wait in (-1, float("nan")):
            with pytest.raises(ValueError, match="wait"):
                await storage.reserve_trial(experiment, wait=wait)

    async def test_the_oldest_pending_one_first(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        start = datetime(2026, 1, 1, tzinfo=UTC)
        pending = ("new", "suspended", "interrupted")
        statuses = [*pending, "completed", "broken", "reserved", *reversed(pending)]
        for x, status in enumerate(statuses):
            submitted = start - timedelta(seconds=x)
            await storage.register_trial(
                make_trial(experiment, x, status=status, submit_time=submitted)
            )
        await storage.register_trial(make_trial("other", 99, submit_time=start))
        order = []
        while (trial := await storage.reserve_trial(experiment)) is not None:
            order.append(trial.params["x"])
        assert order == [8, 7, 6, 2, 1, 0]

    async def test_ties_go_by_insertion(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        for x in (3, 1, 2, 0):
            await storage.register_trial(make_trial(experiment, x, submit_time=moment))
        order = [(await storage.reserve_trial(experiment)) for _ in range(4)]
        assert [t.params["x"] for t in order if t] == [3, 1, 2, 0]

    async def test_exactly_once_under_many_tasks(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 200)
        got: list[Trial] = []

        async def work(number: int) -> None:
            mine = (storage, other)[number % 2]
            while (trial := await mine.reserve_trial(experiment)) is not None:
                got.append(trial)

        await gather(map(work, range(64)))
        assert Counter(t.params["x"] for t in got) == Counter(range(200))
        assert len({t.worker for t in got}) == 200

    async def test_reserve_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 10)
        first = await storage.reserve_trials(experiment, 4)
        assert [t.params["x"] for t in first] == [0, 1, 2, 3]
        assert len({t.worker for t in first}) == 1
        rest = await storage.reserve_trials(experiment, 100)
        assert [t.params["x"] for t in rest] == [4, 5, 6, 7, 8, 9]
        assert rest[0].worker != first[0].worker
        assert await storage.reserve_trials(experiment, 1) == []
        for trial in (*first, *rest):
            await storage.complete_trial(trial, 1)
        with pytest.raises(ValueError, match="count"):
            await storage.reserve_trials(experiment, 0)


CHANGES: Final[dict[str, Callable[[AsyncStorageProtocol, Trial], Awaitable[Any]]]] = {
    "update_heartbeat": lambda storage, trial: storage.update_heartbeat(trial),
    "push_trial_results": lambda storage, trial: storage.push_trial_results(trial),
    "complete_trial": lambda storage, trial: storage.complete_trial(trial, 2.0),
    "set_trial_status": lambda storage, trial: storage.set_trial_status(trial, "broken"),
}
"""The four methods that only the holder of a reservation may call."""


class FencingLaws:
    """Laws 7 and 8: lost trials, and workers that come back too late."""

    @pytest.mark.parametrize("name", CHANGES)
    async def test_who_was_replaced_writes_nothing(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol, name: str
    ) -> None:
        late = await _reserved(storage)
        await lose(storage, late)
        await other.recover_lost_trials(_experiment_of(late))
        successor = await other.reserve_trial(_experiment_of(late))
        assert successor is not None
        late.results = [Result("o", "objective", 1)]
        before, mine = (await stored(other, late)).to_dict(), late.to_dict()
        with pytest.raises(TrialLost) as raised:
            await CHANGES[name](storage, late)
        assert raised.value.uid == late.id
        assert raised.value.holder == successor.worker
        assert raised.value.status == "reserved"
        assert str(successor.worker) in str(raised.value)
        assert (await stored(other, late)).to_dict() == before
        assert late.to_dict() == mine
        await CHANGES[name](other, successor)

    @pytest.mark.parametrize("name", CHANGES)
    async def test_who_was_declared_lost_writes_nothing(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        late = await _reserved(storage)
        await lose(storage, late)
        await storage.recover_lost_trials(_experiment_of(late))
        before = (await stored(storage, late)).to_dict()
        with pytest.raises(TrialLost) as raised:
            await CHANGES[name](storage, late)
        assert (raised.value.holder, raised.value.status) == (None, "interrupted")
        assert (await stored(storage, late)).to_dict() == before

    @pytest.mark.parametrize("name", CHANGES)
    async def test_what_was_deleted_is_not_written(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        trial = await _reserved(storage)
        await storage.delete_trials(_experiment_of(trial))
        with pytest.raises(FailedUpdate) as raised:
            await CHANGES[name](storage, trial)
        assert (raised.value.uid, raised.value.status) == (trial.id, None)
        assert await storage.get_trial(trial) is None

    @pytest.mark.parametrize("name", CHANGES)
    async def test_a_trial_without_token_is_not_fenced(
        self, storage: AsyncStorageProtocol, name: str
    ) -> None:
        reserved = await _reserved(storage)
        bare = make_trial(str(reserved.experiment), 0, status="reserved")
        bare.results = [Result("o", "objective", 1)]
        await CHANGES[name](storage, bare)
        found = await stored(storage, reserved)
        assert found.worker == reserved.worker
        if name == "update_heartbeat":
            await storage.set_trial_status(bare, "completed")
            assert await storage.update_heartbeat(bare) == 0

    async def test_heartbeat(self, storage: AsyncStorageProtocol) -> None:
        trial = await _reserved(storage)
        await lose(storage, trial)
        assert await storage.fetch_lost_trials(_experiment_of(trial)) == [trial]
        assert await storage.update_heartbeat(trial) == 1
        assert await storage.fetch_lost_trials(_experiment_of(trial)) == []
        found = await stored(storage, trial)
        assert found.heartbeat is not None
        assert abs(found.heartbeat - datetime.now(UTC)) < timedelta(seconds=30)
        assert (found.status, found.worker) == ("reserved", trial.worker)
        await storage.complete_trial(trial, 1)
        with pytest.raises(FailedUpdate) as raised:
            await storage.update_heartbeat(trial)
        assert raised.value.status == "completed"

    async def test_lost_trials(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 6)
        trials = await storage.reserve_trials(experiment, 6)
        for trial in trials[:4]:
            await lose(storage, trial)
        await storage.complete_trial(trials[0], 1)
        await storage.set_trial_status(
            trials[1], "suspended", heartbeat=datetime(2026, 1, 1, tzinfo=UTC)
        )
        lost = await storage.fetch_lost_trials(experiment)
        assert lost == trials[2:4]
        assert [t.status for t in lost] == ["reserved", "reserved"]
        recovered = await storage.recover_lost_trials(experiment)
        assert recovered == trials[2:4]
        assert {(t.status, t.worker) for t in recovered} == {("interrupted", None)}
        assert [(await stored(storage, t)).status for t in trials] == [
            "completed",
            "suspended",
            "interrupted",
            "interrupted",
            "reserved",
            "reserved",
        ]
        assert await storage.recover_lost_trials(experiment) == []
        assert await storage.fetch_lost_trials(experiment) == []

    async def test_lost_after(self, opening: Open) -> None:
        patient = await opening(lost_after=3600 * 2)
        trial = await _reserved(patient)
        await lose(patient, trial)
        assert await patient.fetch_lost_trials(_experiment_of(trial)) == []
        assert await patient.recover_lost_trials(_experiment_of(trial)) == []
        hasty = await opening(lost_after=0.05)
        trial = (await hasty.register_trials([make_trial("e", 1)]))[0]
        reserved = await hasty.reserve_trial({"_id": "e"})
        assert reserved is not None
        await anyio.sleep(0.1)
        assert await hasty.fetch_lost_trials({"_id": "e"}) == [reserved]

    async def test_each_lost_trial_is_recovered_once(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 50)
        for trial in await storage.reserve_trials(experiment, 50):
            await lose(storage, trial)
        calls = [(storage, other)[n % 2].recover_lost_trials(experiment) for n in range(16)]
        recovered = [trial for trials in await gather(calls) for trial in trials]
        assert Counter(t.params["x"] for t in recovered) == Counter(range(50))


class WorkerLaws:
    """`reserved_trial`: a worker's turn."""

    async def test_nothing_pending(self, storage: AsyncStorageProtocol) -> None:
        async with storage.reserved_trial({"_id": "nobody"}) as trial:
            assert trial is None

    async def test_completed(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            assert (await stored(storage, trial)).status == "reserved"
            await storage.complete_trial(trial, 1)
        assert (await stored(storage, trial)).status == "completed"

    @pytest.mark.parametrize("status", ["suspended", "broken", "completed"])
    async def test_what_the_body_made_of_it_stays(
        self, storage: AsyncStorageProtocol, status: str
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(LookupError):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.set_trial_status(trial, status)
                raise LookupError
        assert trial is not None
        assert (await stored(storage, trial)).status == status

    async def test_left_without_completing(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            pass
        assert trial is not None
        assert trial.status == "interrupted"
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_the_body_raises(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(ZeroDivisionError):
            async with storage.reserved_trial(experiment) as trial:
                raise ZeroDivisionError
        assert trial is not None
        assert trial.status == "broken"
        assert (await stored(storage, trial)).status == "broken"

    @pytest.mark.parametrize("native", [True, False])
    async def test_the_body_is_cancelled(self, storage: AsyncStorageProtocol, native: bool) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        inside = anyio.Event()
        scope = anyio.CancelScope()

        async def work() -> None:
            with scope:
                async with storage.reserved_trial(experiment):
                    inside.set()
                    await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel() if native else scope.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is native
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_a_base_exception(self, storage: AsyncStorageProtocol) -> None:
        class Stop(BaseException):
            pass

        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        with pytest.raises(Stop):
            async with storage.reserved_trial(experiment):
                raise Stop
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_its_heart_beats(self, opening: Open) -> None:
        storage = await opening(lost_after=0.5)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:  # beats every 0.1 s
            assert trial is not None
            await anyio.sleep(1.2)
            assert await storage.recover_lost_trials(experiment) == []
            await storage.complete_trial(trial, 1)

    @pytest.mark.usefixtures("cancels")
    async def test_taken_over(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        cancelled = False

        async def take_over(trial: Trial) -> Trial | None:
            await lose(storage, trial)
            while not await storage.recover_lost_trials(experiment):
                await lose(storage, trial)  # its heart had beaten in between
            return await storage.reserve_trial(experiment)

        with pytest.raises(TrialLost) as raised, anyio.fail_after(10):
            async with storage.reserved_trial(experiment, heartbeat=0.5) as trial:
                assert trial is not None
                taking = asyncio.create_task(take_over(trial))  # over before the next beat
                try:
                    await anyio.sleep_forever()
                except asyncio.CancelledError:
                    cancelled = True
                    raise
        assert cancelled
        successor = await taking
        assert successor is not None
        assert raised.value.holder == successor.worker
        found = await stored(storage, successor)
        assert (found.status, found.worker) == ("reserved", successor.worker)

    async def test_completed_through_another_copy(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment, heartbeat=0.02) as trial:
            assert trial is not None
            await storage.complete_trial(trial.copy(), 1)
            await anyio.sleep(0.1)
        assert (await stored(storage, trial)).status == "completed"

    async def test_many_workers_do_all_the_work(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 60)
        done: list[int] = []

        async def work(number: int) -> None:
            mine = (storage, other)[number % 2]
            while True:
                async with mine.reserved_trial(experiment) as trial:
                    if trial is None:
                        return
                    done.append(trial.params["x"])
                    await mine.complete_trial(trial, trial.params["x"])

        await gather(map(work, range(16)))
        assert sorted(done) == list(range(60))
        assert await storage.count_completed_trials(experiment) == 60

    async def test_heartbeat_must_be_positive(self, storage: AsyncStorageProtocol) -> None:
        with pytest.raises(Exception, match="heartbeat"):
            async with storage.reserved_trial({"_id": "e"}, heartbeat=0):
                pass
