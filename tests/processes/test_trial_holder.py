"""A process that has a trial may be killed or stopped: the trial is lost to it, and to no other.

Each test is played on all stores at once, for most of its time is spent waiting.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal

from aiostorage import Storage, Trial, open_storage

from .support import DEADLINE, PatientClock, Starter, Store, Worker, on_each

LOST_AFTER = 1.5


@dataclass
class Work:
    """An experiment with one trial."""

    start: Starter
    store: Store
    clock: PatientClock
    portal: BlockingPortal
    experiment: str = ""

    def make(self) -> None:
        """Make the experiment."""

        async def make() -> str:
            async with open_storage(self.store.url) as storage:
                experiment = await storage.create_experiment({"name": f"e-{uuid4().hex}"})
                await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
                return str(experiment.id)

        self.experiment = self.portal.call(make)

    def worker(self, result: float) -> Worker:
        """Start a process that reserves the trial."""
        worker = self.start("worker_trial.py", self.store.url, self.experiment, LOST_AFTER, result)
        worker.expect("has")
        return worker

    def wait_until_it_is_lost(self) -> float:
        """Recover the trial as soon as that goes; return how long it took, by the clock."""

        async def recover() -> None:
            async with self.storage() as storage:
                while not await storage.recover_lost_trials({"_id": self.experiment}):
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)

        start, end = self.clock.now(), time.monotonic() + DEADLINE
        self.portal.call(recover)
        return self.clock.now() - start

    def storage(self) -> Storage:
        return open_storage(self.store.url, lost_after=LOST_AFTER)

    def trial(self) -> Trial:
        async def found() -> Trial:
            async with self.storage() as storage:
                return (await storage.fetch_trials(uid=self.experiment) or [])[0]

        return self.portal.call(found)

    def check(self, result: float) -> None:
        trial = self.trial()
        assert trial.status == "completed"
        assert [r.value for r in trial.results] == [result]
        self.store.check()


Play = Callable[[Callable[[Work], None]], None]


@pytest.fixture
def on_every_store(
    start: Starter, stores: list[Store], clock: PatientClock, portal: BlockingPortal
) -> Play:
    """Play a scenario on all stores, each with an experiment of its own."""

    def play(scenario: Callable[[Work], None]) -> None:
        def one(store: Store) -> None:
            work = Work(start, store, clock, portal)
            work.make()
            scenario(work)

        on_each(stores, one)

    return play


def complete(worker: Worker) -> None:
    worker.tell()
    worker.expect("completed")
    worker.succeed()


def killed(work: Work) -> None:
    work.worker(1).kill()
    took = work.wait_until_it_is_lost()
    assert took < LOST_AFTER + work.store.slack
    complete(work.worker(2))
    work.check(2)


def stopped_and_replaced(work: Work) -> None:
    late = work.worker(1)
    late.signal(signal.SIGSTOP)
    work.wait_until_it_is_lost()
    successor = work.worker(2)
    late.tell()  # it wants to write its result as soon as it goes on
    late.signal(signal.SIGCONT)
    late.expect("lost")
    late.succeed()
    complete(successor)
    work.check(2)


def stopped_and_somebody_has_completed_it(work: Work) -> None:
    late = work.worker(1)
    late.signal(signal.SIGSTOP)
    work.wait_until_it_is_lost()
    complete(work.worker(2))
    late.tell()
    late.signal(signal.SIGCONT)
    late.expect("lost")
    late.succeed()
    work.check(2)


def stopped_and_nobody_noticed(work: Work) -> None:
    late = work.worker(1)
    late.signal(signal.SIGSTOP)
    time.sleep(LOST_AFTER + 0.1)  # this is what is tested: that it could have been lost
    late.signal(signal.SIGCONT)
    complete(late)
    work.check(1)


def one_at_work_is_not_lost(work: Work) -> None:
    worker = work.worker(1)

    async def look() -> None:
        async with work.storage() as storage:
            for _ in range(20):
                assert await storage.recover_lost_trials({"_id": work.experiment}) == []
                await asyncio.sleep(LOST_AFTER / 10)

    work.portal.call(look)
    complete(worker)
    work.check(1)


# ------------------------------------------------------------------------------------- tests


def test_killed(on_every_store: Play) -> None:
    on_every_store(killed)


def test_stopped_and_replaced(on_every_store: Play) -> None:
    on_every_store(stopped_and_replaced)


def test_stopped_and_somebody_has_completed_it(on_every_store: Play) -> None:
    on_every_store(stopped_and_somebody_has_completed_it)


def test_stopped_and_nobody_noticed(on_every_store: Play) -> None:
    on_every_store(stopped_and_nobody_noticed)


def test_one_at_work_is_not_lost(on_every_store: Play) -> None:
    on_every_store(one_at_work_is_not_lost)
