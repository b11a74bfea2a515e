"""The time of day is set while several processes work on one file: none of them is disturbed.

After a reboot, on the other hand, no worker counts as alive.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal

from aiostorage import Trial, open_storage

from .support import DEADLINE, PatientClock, SQLiteStore, Starter, Worker

HOUR = 3600.0
LONG = 60.0
"""Seconds that no test here takes, so that nothing but a step of the clock makes it pass."""

SHORT = 1.5


class Clock:
    """A time of day for some of the processes."""

    def __init__(self, file: Path, seconds: float = 0.0) -> None:
        self.file = file
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Set it: so many seconds ahead of the right time."""
        new = self.file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.file)


@dataclass
class Place:
    """A file with an experiment, and the clocks of those who work on it."""

    start: Starter
    store: SQLiteStore
    portal: BlockingPortal
    experiment: str = ""

    def make(self, trials: int) -> None:
        async def make() -> str:
            async with open_storage(self.store.url) as storage:
                config = {"name": f"e-{uuid4().hex}"}
                experiment = await storage.create_experiment(config, algo_state=["nobody"])
                await storage.register_trials(
                    [Trial(experiment=experiment.id, params={"x": x}) for x in range(trials)]
                )
                return str(experiment.id)

        self.experiment = self.portal.call(make)

    def clock(self, name: str, seconds: float = 0.0) -> Clock:
        return Clock(self.store.path.with_name(name), seconds)

    def process(self, clock: Clock, script: str, *arguments: object) -> Worker:
        where = (self.store.url, self.experiment)
        return self.start("worker_stepped.py", clock.file, script, *where, *arguments)

    def worker(self, clock: Clock, lost_after: float, result: float) -> Worker:
        worker = self.process(clock, "worker_trial.py", lost_after, result)
        worker.expect("has")
        return worker

    def watcher(self, clock: Clock, lost_after: float) -> Worker:
        watcher = self.process(clock, "worker_recover.py", lost_after)
        watcher.expect("looks")
        return watcher

    def holder(self, clock: Clock, lease: float, name: str) -> Worker:
        worker = self.process(clock, "worker_lock.py", lease, 0.1, name)
        worker.expect("waits")
        return worker

    def waiter(self, clock: Clock, lease: float, name: str) -> Worker:
        before, end = self.store.waiters(self.experiment), time.monotonic() + DEADLINE
        worker = self.holder(clock, lease, name)
        while self.store.waiters(self.experiment) <= before:
            assert time.monotonic() < end
            time.sleep(0.005)
        return worker

    def reboot(self) -> None:
        """Have the file believe that it was last open before a reboot."""
        with closing(sqlite3.connect(self.store.path, isolation_level=None)) as connection:
            found = connection.execute("UPDATE aiostorage_boot SET id = 'another'")
            assert found.rowcount == 1


@pytest.fixture
def place(start: Starter, path: Path, portal: BlockingPortal) -> Place:
    return Place(start, SQLiteStore(path), portal)


def lost(watcher: Worker) -> list[str]:
    watcher.tell()
    return watcher.expect("lost")


def test_no_live_worker_is_lost(place: Place) -> None:
    place.make(3)
    ours, theirs, right = place.clock("ours"), place.clock("theirs"), place.clock("right")
    workers = [place.worker(clock, LONG, n) for n, clock in enumerate((ours, theirs, right))]
    watchers = [place.watcher(clock, LONG) for clock in (ours, right)]
    for first, second in ((HOUR, 0.0), (HOUR, HOUR), (-HOUR, HOUR), (-HOUR, -HOUR), (0.0, 0.0)):
        ours.set(first)
        theirs.set(second)
        assert [lost(watcher) for watcher in watchers] == [[], []], (first, second)
    ours.set(-HOUR)
    for worker in workers:
        worker.tell()
        worker.expect("completed")
        worker.succeed()
    place.store.check()


def test_one_that_reserved_by_a_wrong_clock_is_not_lost(place: Place) -> None:
    place.make(2)
    workers = [
        place.worker(place.clock(str(n), wrong), LONG, n) for n, wrong in enumerate((HOUR, -HOUR))
    ]
    assert lost(place.watcher(place.clock("right"), LONG)) == []
    for worker in workers:
        worker.tell()
        worker.expect("completed")
        worker.succeed()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_killed_worker_is_found_in_time(
    place: Place, clock: PatientClock, seconds: float
) -> None:
    place.make(1)
    theirs = place.clock("theirs", -seconds)
    worker = place.worker(theirs, SHORT, 1)
    watcher = place.watcher(place.clock("right"), SHORT)
    theirs.set(seconds)
    time.sleep(SHORT / 3)  # until its heart has beaten by the clock that was set
    worker.kill()
    killed, end = clock.now(), time.monotonic() + DEADLINE
    while not lost(watcher):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert clock.now() - killed < SHORT + place.store.slack


def test_no_lease_is_taken_over_and_tickets_keep_their_order(place: Place) -> None:
    place.make(0)
    theirs = place.clock("theirs", -HOUR)
    holder = place.holder(theirs, LONG, "holder")
    holder.expect("holds")
    # by the time of day, the last to come would be the first
    first = place.waiter(place.clock("first", HOUR), LONG, "first")
    second = place.waiter(place.clock("second"), LONG, "second")
    third = place.waiter(place.clock("third", -HOUR), LONG, "third")
    for seconds in (HOUR, -HOUR):
        theirs.set(seconds)
        time.sleep(0.3)  # the waiters look every tenth of a second
    waiting = ["nobody"]
    for name, worker in (("holder", holder), ("first", first), ("second", second)):
        worker.tell()
        worker.expect("left")
        worker.succeed()
        waiting.append(name)
        following = {"holder": first, "first": second, "second": third}[name]
        assert following.expect("holds") == waiting
    third.tell()
    third.expect("left")
    third.succeed()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_killed_holder_is_replaced_in_time(
    place: Place, clock: PatientClock, seconds: float
) -> None:
    place.make(0)
    theirs = place.clock("theirs", seconds)
    holder = place.holder(theirs, SHORT, "holder")
    holder.expect("holds")
    waiter = place.waiter(place.clock("right"), SHORT, "waiter")
    holder.kill()
    killed = clock.now()
    assert waiter.expect("holds") == ["nobody"]
    assert clock.now() - killed < SHORT + 0.2 + place.store.slack
    waiter.tell()
    waiter.expect("left")


def test_after_a_reboot_nobody_lives(place: Place) -> None:
    place.make(2)
    right = place.clock("right")
    workers = [place.worker(right, LONG, 1), place.holder(right, LONG, "holder")]
    workers[1].expect("holds")
    workers.append(place.waiter(right, LONG, "waiter"))
    for worker in workers:
        worker.kill()
    place.reboot()
    early = place.clock("early", -HOUR)  # the machine has lost the time of day as well
    assert len(lost(place.watcher(early, LONG))) == 1
    successor = place.holder(early, LONG, "successor")
    assert successor.expect("holds", within=LONG / 3) == ["nobody"]
    successor.tell()
    successor.expect("left")
    successor.succeed()
    place.store.check()
