"""Whoever has a trial may be killed or stopped: it is lost to him, and to nobody else."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

import pytest

from aiostorage import Storage, Trial, open_storage

from .support import DEADLINE, Starter, Store, Worker

LOST_AFTER = 1.5


@dataclass
class Work:
    """An experiment with one trial."""

    start: Starter
    store: Store
    experiment: str

    def worker(self, result: float) -> Worker:
        """Start a process that reserves the trial."""
        worker = self.start("worker_trial.py", self.store.url, self.experiment, LOST_AFTER, result)
        worker.expect("has")
        return worker

    def wait_until_it_is_lost(self) -> float:
        """Recover the trial as soon as that goes; answer how long it took."""

        async def recover() -> None:
            async with self.storage() as storage:
                while not await storage.recover_lost_trials({"_id": self.experiment}):
                    assert time.monotonic() < start + DEADLINE
                    await asyncio.sleep(0.05)

        start = time.monotonic()
        asyncio.run(recover())
        return time.monotonic() - start

    def storage(self) -> Storage:
        return open_storage(self.store.url, lost_after=LOST_AFTER)

    def trial(self) -> Trial:
        async def found() -> Trial:
            async with self.storage() as storage:
                return (await storage.fetch_trials(uid=self.experiment) or [])[0]

        return asyncio.run(found())

    def check(self, result: float) -> None:
        trial = self.trial()
        assert trial.status == "completed"
        assert [r.value for r in trial.results] == [result]
        self.store.check()


@pytest.fixture
def work(start: Starter, store: Store) -> Work:
    async def prepare() -> str:
        async with open_storage(store.url) as storage:
            experiment = await storage.create_experiment({"name": "e"})
            await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
            return str(experiment.id)

    return Work(start, store, asyncio.run(prepare()))


def complete(worker: Worker) -> None:
    worker.tell()
    worker.expect("completed")
    worker.succeed()


def test_killed(work: Work) -> None:
    work.worker(1).kill()
    took = work.wait_until_it_is_lost()
    assert took < LOST_AFTER + work.store.slack
    complete(work.worker(2))
    work.check(2)


def test_stopped_and_replaced(work: Work) -> None:
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


def test_stopped_and_somebody_has_completed_it(work: Work) -> None:
    late = work.worker(1)
    late.signal(signal.SIGSTOP)
    work.wait_until_it_is_lost()
    complete(work.worker(2))
    late.tell()
    late.signal(signal.SIGCONT)
    late.expect("lost")
    late.succeed()
    work.check(2)


def test_stopped_and_nobody_noticed(work: Work) -> None:
    late = work.worker(1)
    late.signal(signal.SIGSTOP)
    time.sleep(LOST_AFTER + 0.1)  # this is what is tested: that it could have been lost
    late.signal(signal.SIGCONT)
    complete(late)
    work.check(1)


def test_one_at_work_is_not_lost(work: Work) -> None:
    worker = work.worker(1)

    async def look() -> None:
        async with work.storage() as storage:
            for _ in range(20):
                assert await storage.recover_lost_trials({"_id": work.experiment}) == []
                await asyncio.sleep(LOST_AFTER / 10)

    asyncio.run(look())
    complete(worker)
    work.check(1)
