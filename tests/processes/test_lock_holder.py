"""A process that holds the lock or waits for it may be killed or stopped.

Each test is played on all stores at once, for most of its time is spent waiting.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal

from aiostorage import open_storage

from .support import DEADLINE, PatientClock, Starter, Store, Worker, on_each

LEASE = 1.5
TICKET = LEASE / 3
RETRY = 0.2


@dataclass
class Lock:
    """An experiment's lock, seen from outside."""

    start: Starter
    store: Store
    clock: PatientClock
    portal: BlockingPortal
    experiment: str = ""
    lines: list[str] = field(default_factory=list)

    def make(self) -> None:
        """Make the experiment."""

        async def make() -> str:
            async with open_storage(self.store.url) as storage:
                experiment = await storage.create_experiment(
                    {"name": f"e-{uuid4().hex}"}, algo_state=["nobody"]
                )
                return str(experiment.id)

        self.experiment = self.portal.call(make)

    def worker(self, name: str) -> Worker:
        """Start a process that wants the lock."""
        worker = self.start("worker_lock.py", self.store.url, self.experiment, LEASE, RETRY, name)
        worker.expect("waits")
        return worker

    def waiter(self, name: str) -> Worker:
        """Start one that has to queue up, and wait until it has."""
        before = self.store.waiters(self.experiment)
        worker = self.worker(name)
        end = time.monotonic() + DEADLINE
        while self.store.waiters(self.experiment) <= before:  # only to look there tells
            assert time.monotonic() < end
            time.sleep(0.005)
        return worker

    def state(self) -> list[str]:
        """Return whose holdings were saved."""

        async def state() -> list[str]:
            async with open_storage(self.store.url) as storage:
                info = await storage.get_algorithm_lock_info(uid=self.experiment)
            assert info is not None
            return list(info.state)

        return self.portal.call(state)

    def release(self) -> int:
        """Release it as an operator."""

        async def release() -> int:
            async with open_storage(self.store.url) as storage:
                return await storage.release_algorithm_lock(uid=self.experiment)

        return self.portal.call(release)

    def took(self, since: float, what: str, most: float) -> None:
        """Check how long something took, by the clock, and show it."""
        seconds = self.clock.now() - since
        self.lines.append(f"{what} after {seconds:.2f} s (at most {most:.2f} s wanted)")
        assert seconds < most + self.store.slack, what


Play = Callable[[Callable[[Lock], None]], None]


@pytest.fixture
def on_every_store(
    start: Starter,
    stores: list[Store],
    clock: PatientClock,
    portal: BlockingPortal,
    capsys: pytest.CaptureFixture[str],
) -> Play:
    """Play a scenario on all stores, each with a lock of its own."""

    def play(scenario: Callable[[Lock], None]) -> None:
        locks = {store: Lock(start, store, clock, portal) for store in stores}

        def one(store: Store) -> None:
            locks[store].make()
            scenario(locks[store])

        try:
            on_each(stores, one)
        finally:
            with capsys.disabled():
                for lock in locks.values():
                    for line in lock.lines:
                        print(f"\nlock, lease {LEASE} s, {lock.store.url}: {line}", end="")

    return play


def leave(worker: Worker) -> None:
    worker.tell()
    worker.expect("left")
    worker.succeed()


def holder_killed(lock: Lock) -> None:
    holder = lock.worker("holder")
    assert holder.expect("holds") == ["nobody"]
    waiter = lock.waiter("waiter")
    holder.kill()
    killed = lock.clock.now()
    assert waiter.expect("holds") == ["nobody"]
    lock.took(killed, "a waiter took over from a killed holder", LEASE + RETRY)
    leave(waiter)
    assert lock.state() == ["nobody", "waiter"]
    lock.store.check()


def holder_killed_that_had_queued(lock: Lock) -> None:
    first = lock.worker("first")
    first.expect("holds")
    holder = lock.waiter("holder")
    leave(first)
    assert holder.expect("holds") == ["nobody", "first"]
    holder.kill()
    killed = lock.clock.now()
    newcomer = lock.worker("newcomer")
    assert newcomer.expect("holds") == ["nobody", "first"]
    lock.took(killed, "a newcomer took over from a killed holder", LEASE + RETRY)
    leave(newcomer)


def holder_stopped_for_longer_than_its_lease(lock: Lock, *, still_held: bool) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    stopped = lock.clock.now()
    successor = lock.worker("successor")
    assert successor.expect("holds") == ["nobody"]
    lock.took(stopped, "a successor took over from a stopped holder", LEASE + RETRY)
    if not still_held:
        leave(successor)
    holder.tell()  # it wants to leave, and to save its state, as soon as it goes on
    holder.signal(signal.SIGCONT)
    holder.expect("lost")
    holder.succeed()
    if still_held:
        leave(successor)
    assert lock.state() == ["nobody", "successor"]
    lock.store.check()


def holder_stopped_and_nobody_wanted_the_lock(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    time.sleep(LEASE + 0.1)  # this is what is tested: that the lease runs out
    holder.tell()
    holder.signal(signal.SIGCONT)
    holder.expect("left")
    holder.succeed()
    assert lock.state() == ["nobody", "holder"]


def waiter_killed(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    dead, waiter = lock.waiter("dead"), lock.waiter("waiter")
    dead.kill()
    killed = lock.clock.now()
    leave(holder)
    assert waiter.expect("holds") == ["nobody", "holder"]
    lock.took(killed, "a waiter got by a killed one", TICKET + RETRY)
    leave(waiter)
    assert lock.state() == ["nobody", "holder", "waiter"]


def waiter_stopped(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    stopped, waiter = lock.waiter("stopped"), lock.waiter("waiter")
    stopped.signal(signal.SIGSTOP)
    since = lock.clock.now()
    leave(holder)
    assert waiter.expect("holds") == ["nobody", "holder"]
    lock.took(since, "a waiter got by a stopped one", TICKET + RETRY)
    stopped.signal(signal.SIGCONT)
    leave(waiter)
    assert stopped.expect("holds") == ["nobody", "holder", "waiter"]
    leave(stopped)


def released_by_an_operator(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    released = lock.clock.now()
    assert lock.release() == 1
    holder.expect("lost")
    lock.took(released, "a holder heard that an operator had released its lock", LEASE / 3)
    holder.succeed()
    assert lock.release() == 0
    assert lock.state() == ["nobody"]


def released_by_an_operator_and_taken(lock: Lock) -> None:
    first = lock.worker("first")
    first.expect("holds")
    holder = lock.waiter("holder")  # holds with a ticket, which must not hold up the next one
    leave(first)
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    waiter = lock.waiter("waiter")
    released = lock.clock.now()
    assert lock.release() == 1
    assert waiter.expect("holds") == ["nobody", "first"]
    lock.took(released, "a waiter took a lock that an operator had released", TICKET + RETRY)
    holder.signal(signal.SIGCONT)
    holder.expect("lost")
    holder.succeed()
    leave(waiter)
    assert lock.state() == ["nobody", "first", "waiter"]


# ------------------------------------------------------------------------------------- tests


def test_holder_killed(on_every_store: Play) -> None:
    on_every_store(holder_killed)


def test_holder_killed_that_had_queued(on_every_store: Play) -> None:
    on_every_store(holder_killed_that_had_queued)


def test_holder_stopped_and_nobody_wanted_the_lock(on_every_store: Play) -> None:
    on_every_store(holder_stopped_and_nobody_wanted_the_lock)


def test_waiter_killed(on_every_store: Play) -> None:
    on_every_store(waiter_killed)


def test_waiter_stopped(on_every_store: Play) -> None:
    on_every_store(waiter_stopped)


def test_released_by_an_operator(on_every_store: Play) -> None:
    on_every_store(released_by_an_operator)


def test_released_by_an_operator_and_taken(on_every_store: Play) -> None:
    on_every_store(released_by_an_operator_and_taken)


@pytest.mark.parametrize("still_held", [True, False])
def test_holder_stopped_for_longer_than_its_lease(on_every_store: Play, still_held: bool) -> None:
    on_every_store(partial(holder_stopped_for_longer_than_its_lease, still_held=still_held))
