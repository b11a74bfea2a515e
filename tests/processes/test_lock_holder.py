"""Whoever holds the lock or waits for it may be killed or stopped."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from aiostorage import open_storage

from .support import DEADLINE, Starter, Store, Worker

LEASE = 1.5
TICKET = LEASE / 3
RETRY = 0.2


@dataclass
class Lock:
    """An experiment's lock, seen from outside."""

    start: Starter
    store: Store
    experiment: str
    show: Callable[[str], None]

    def worker(self, name: str) -> Worker:
        """Start a process that wants the lock."""
        worker = self.start("worker_lock.py", self.store.url, self.experiment, LEASE, RETRY, name)
        worker.expect("waits")
        return worker

    def waiter(self, name: str) -> Worker:
        """Start one that has to queue up, and wait until it has."""
        before = self.store.waiters()
        worker = self.worker(name)
        end = time.monotonic() + DEADLINE
        while self.store.waiters() <= before:  # only to look there tells
            assert time.monotonic() < end
            time.sleep(0.005)
        return worker

    def state(self) -> list[str]:
        """Answer whose holdings were saved."""

        async def state() -> list[str]:
            async with open_storage(self.store.url) as storage:
                info = await storage.get_algorithm_lock_info(uid=self.experiment)
            assert info is not None
            return list(info.state)

        return asyncio.run(state())

    def release(self) -> int:
        """Release it as an operator."""

        async def release() -> int:
            async with open_storage(self.store.url) as storage:
                return await storage.release_algorithm_lock(uid=self.experiment)

        return asyncio.run(release())

    def took(self, since: float, what: str, most: float) -> None:
        """Check how long something took, and show it."""
        seconds = time.monotonic() - since
        self.show(f"{what} after {seconds:.2f} s (at most {most:.2f} s wanted)")
        assert seconds < most + self.store.slack


@pytest.fixture
def lock(start: Starter, store: Store, capsys: pytest.CaptureFixture[str]) -> Lock:
    async def prepare() -> str:
        async with open_storage(store.url) as storage:
            experiment = await storage.create_experiment({"name": "e"}, algo_state=["nobody"])
            return str(experiment.id)

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\nlock, lease {LEASE} s: {line}")

    return Lock(start, store, asyncio.run(prepare()), show)


def leave(worker: Worker) -> None:
    worker.tell()
    worker.expect("left")
    worker.succeed()


def test_holder_killed(lock: Lock) -> None:
    holder = lock.worker("holder")
    assert holder.expect("holds") == ["nobody"]
    waiter = lock.waiter("waiter")
    holder.kill()
    killed = time.monotonic()
    assert waiter.expect("holds") == ["nobody"]
    lock.took(killed, "a waiter took over from a killed holder", LEASE + RETRY)
    leave(waiter)
    assert lock.state() == ["nobody", "waiter"]
    lock.store.check()


def test_holder_killed_that_had_queued(lock: Lock) -> None:
    first = lock.worker("first")
    first.expect("holds")
    holder = lock.waiter("holder")
    leave(first)
    assert holder.expect("holds") == ["nobody", "first"]
    holder.kill()
    killed = time.monotonic()
    newcomer = lock.worker("newcomer")
    assert newcomer.expect("holds") == ["nobody", "first"]
    lock.took(killed, "a newcomer took over from a killed holder", LEASE + RETRY)
    leave(newcomer)


@pytest.mark.parametrize("still_held", [True, False])
def test_holder_stopped_for_longer_than_its_lease(lock: Lock, still_held: bool) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    stopped = time.monotonic()
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


def test_holder_stopped_and_nobody_wanted_the_lock(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    time.sleep(LEASE + 0.1)  # this is what is tested: that the lease runs out
    holder.tell()
    holder.signal(signal.SIGCONT)
    holder.expect("left")
    holder.succeed()
    assert lock.state() == ["nobody", "holder"]


def test_waiter_killed(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    dead, waiter = lock.waiter("dead"), lock.waiter("waiter")
    dead.kill()
    killed = time.monotonic()
    leave(holder)
    assert waiter.expect("holds") == ["nobody", "holder"]
    lock.took(killed, "a waiter got by a killed one", TICKET + RETRY)
    leave(waiter)
    assert lock.state() == ["nobody", "holder", "waiter"]


def test_waiter_stopped(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    stopped, waiter = lock.waiter("stopped"), lock.waiter("waiter")
    stopped.signal(signal.SIGSTOP)
    since = time.monotonic()
    leave(holder)
    assert waiter.expect("holds") == ["nobody", "holder"]
    lock.took(since, "a waiter got by a stopped one", TICKET + RETRY)
    stopped.signal(signal.SIGCONT)
    leave(waiter)
    assert stopped.expect("holds") == ["nobody", "holder", "waiter"]
    leave(stopped)


def test_released_by_an_operator(lock: Lock) -> None:
    holder = lock.worker("holder")
    holder.expect("holds")
    released = time.monotonic()
    assert lock.release() == 1
    holder.expect("lost")
    lock.took(released, "a holder heard that an operator had released its lock", LEASE / 3)
    holder.succeed()
    assert lock.release() == 0
    assert lock.state() == ["nobody"]


def test_released_by_an_operator_and_taken(lock: Lock) -> None:
    first = lock.worker("first")
    first.expect("holds")
    holder = lock.waiter("holder")  # holds with a ticket, which must not hold up the next one
    leave(first)
    holder.expect("holds")
    holder.signal(signal.SIGSTOP)
    waiter = lock.waiter("waiter")
    released = time.monotonic()
    assert lock.release() == 1
    assert waiter.expect("holds") == ["nobody", "first"]
    lock.took(released, "a waiter took a lock that an operator had released", TICKET + RETRY)
    holder.signal(signal.SIGCONT)
    holder.expect("lost")
    holder.succeed()
    leave(waiter)
    assert lock.state() == ["nobody", "first", "waiter"]
