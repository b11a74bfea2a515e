"""Results that the store did not take in time are written at the end of the block, or reported."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import pytest

from aiostorage import (
    BackendError,
    Experiment,
    Result,
    RetryPolicy,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    Trial,
    open_storage,
)
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Operation, Update
from aiostorage.protocols import Driver
from aiostorage.testing import FaultyDriver
from aiostorage.testing.contract.helpers import case
from tests.contract.conftest import UNCLOSED

pytestmark = UNCLOSED

T = TypeVar("T")

ONCE = RetryPolicy(attempts=1, total=5)

When = Literal["before", "after"]


def completes(operations: Sequence[Operation[Any]]) -> bool:
    """Return whether this completes a trial."""
    operation = operations[0]
    return isinstance(operation, Update) and operation.changes.get("status") == "completed"


class Outage:
    """A storage whose engine fails on demand, and another one that shows what is stored."""

    def __init__(self, driver: Driver, policy: RetryPolicy = ONCE, **settings: Any) -> None:
        self.faulty = FaultyDriver(driver)
        self.storage = Storage(self.faulty, retry=policy, **settings)
        self.truth = Storage(driver)
        self.experiment: Experiment

    async def make(self, name: str = "tune") -> Experiment:
        self.experiment = await self.truth.create_experiment({"name": name})
        await self.truth.register_trial(Trial(experiment=self.experiment.id, params={"x": 1}))
        return self.experiment

    async def stored(self) -> Trial:
        (trial,) = await self.truth.fetch_trials(self.experiment) or []
        return trial


async def complete(storage: Storage, trial: Trial) -> None:
    await storage.complete_trial(trial, {"objective": 1.5, "epochs": 3})


async def push(storage: Storage, trial: Trial) -> None:
    trial.results = [Result("objective", "objective", 1.5), Result("epochs", "statistic", 3)]
    trial.status = "completed"
    await storage.push_trial_results(trial)


async def push_and_set(storage: Storage, trial: Trial) -> None:
    trial.results = [Result("objective", "objective", 1.5), Result("epochs", "statistic", 3)]
    await storage.push_trial_results(trial)
    await storage.set_trial_status(trial, "completed")


def shown(trial: Trial) -> tuple[str, list[Any]]:
    return trial.status, [result.value for result in trial.results]


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_written_at_the_end(make_driver: Callable[[], Driver], when: When) -> None:
    outage = Outage(make_driver())
    async with outage.truth:
        for finish in (complete, push, push_and_set):
            with case(finish.__name__):
                await outage.make(finish.__name__)
                with pytest.raises(TemporaryBackendError, match="injected") as raised:
                    async with outage.storage.reserved_trial(outage.experiment) as trial:
                        assert trial is not None
                        outage.faulty.fail_next(when, count=2, matching=completes)
                        await finish(outage.storage, trial)
                outage.faulty.cancel_planned()
                error = raised.value
                carried = [] if finish is push_and_set else [1.5, 3]
                assert [result.value for result in error.results] == carried
                assert any("is completed after all" in note for note in error.__notes__)
                assert trial is not None
                assert shown(trial) == shown(await outage.stored()) == ("completed", [1.5, 3])


@pytest.mark.anyio
async def test_a_body_that_swallows_the_error(make_driver: Callable[[], Driver]) -> None:
    outage = Outage(make_driver())
    async with outage.truth:
        await outage.make()
        async with outage.storage.reserved_trial(outage.experiment) as trial:
            assert trial is not None
            outage.faulty.fail_next("before", matching=completes)
            with pytest.raises(TemporaryBackendError):
                await complete(outage.storage, trial)
        assert shown(trial) == shown(await outage.stored()) == ("completed", [1.5, 3])


@pytest.mark.anyio
async def test_a_body_that_raises_an_error_of_its_own(make_driver: Callable[[], Driver]) -> None:
    outage = Outage(make_driver())
    async with outage.truth:
        await outage.make()
        with pytest.raises(LookupError):
            async with outage.storage.reserved_trial(outage.experiment) as trial:
                assert trial is not None
                outage.faulty.fail_next("before", matching=completes)
                try:
                    await complete(outage.storage, trial)
                except TemporaryBackendError as error:
                    raise LookupError from error
        assert shown(await outage.stored()) == ("broken", [])


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["time", "scope"])
async def test_a_completion_that_was_cut_off(make_driver: Callable[[], Driver], limit: str) -> None:
    outage = Outage(make_driver())
    async with outage.truth:
        await outage.make()
        timed_out = False
        try:
            with anyio.CancelScope() as scope:
                async with outage.storage.reserved_trial(outage.experiment) as trial:
                    assert trial is not None
                    outage.faulty.latency = 30
                    try:
                        with anyio.fail_after(0.05) as cut:
                            if limit == "scope":
                                cut.deadline += 30
                                scope.deadline = anyio.current_time() + 0.05
                            await complete(outage.storage, trial)
                    finally:
                        outage.faulty.latency = 0
        except TimeoutError:
            timed_out = True
        assert timed_out is (limit == "time")
        assert shown(await outage.stored()) == ("completed", [1.5, 3])


@pytest.mark.anyio
async def test_the_store_takes_no_result(
    make_driver: Callable[[], Driver], caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(make_driver(), RetryPolicy(attempts=1, total=60), lost_after=0.5)
    caplog.set_level(logging.WARNING, "aiostorage")
    async with outage.truth:
        await outage.make()
        with anyio.fail_after(20), pytest.raises(TemporaryBackendError) as raised:
            async with outage.storage.reserved_trial(outage.experiment) as trial:
                assert trial is not None
                outage.faulty.fail_next("before", count=1000, matching=completes)
                await complete(outage.storage, trial)
        assert [result.value for result in raised.value.results] == [1.5, 3]
        assert not hasattr(raised.value, "__notes__")
        assert shown(await outage.stored()) == ("interrupted", [])
        assert [r.getMessage() for r in caplog.records if "could not be written" in r.getMessage()]


@pytest.mark.anyio
async def test_an_error_of_the_engines_own() -> None:
    class NodeError(TemporaryBackendError):
        def __init__(self, node: int, reason: str) -> None:
            super().__init__(f"node {node}: {reason}")
            self.node = node

    class Failing(FaultyDriver):
        async def execute(self, operation: Operation[T]) -> T:
            if completes((operation,)):
                raise NodeError(3, "full")
            return await super().execute(operation)

    outage = Outage(MemoryDriver())
    outage.storage = Storage(Failing(outage.faulty.driver), retry=ONCE)
    async with outage.truth:
        await outage.make()
        trial = await outage.storage.reserve_trial(outage.experiment)
        assert trial is not None
        with pytest.raises(NodeError, match=r"^node 3: full$") as raised:
            await complete(outage.storage, trial)
        assert raised.value.node == 3
        assert [result.value for result in raised.value.results] == [1.5, 3]


@pytest.mark.anyio
async def test_cancelled_while_it_is_written_again(make_driver: Callable[[], Driver]) -> None:
    """The store refuses the result for good: the trial is handed back all the same."""

    attempts: list[object] = []
    again = asyncio.Event()

    class Refusing(FaultyDriver):
        async def execute(self, operation: Operation[T]) -> T:
            if completes((operation,)):
                attempts.append(operation)
                if len(attempts) > 1:
                    again.set()
                await anyio.sleep(0.05)
                raise BackendError("too large")
            return await super().execute(operation)

    outage = Outage(make_driver())
    outage.storage = Storage(Refusing(outage.faulty.driver), retry=ONCE)

    async def work() -> None:
        async with outage.storage.reserved_trial(outage.experiment) as trial:
            assert trial is not None
            await complete(outage.storage, trial)

    async with outage.truth:
        await outage.make()
        task = asyncio.create_task(work())
        with anyio.fail_after(20):
            await again.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert shown(await outage.stored()) == ("interrupted", [])


@pytest.mark.anyio
async def test_the_store_stays_away(
    make_driver: Callable[[], Driver], caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(make_driver(), RetryPolicy(attempts=2, total=0.2, initial=0.001, jitter=0))
    caplog.set_level(logging.WARNING, "aiostorage")
    async with outage.truth:
        await outage.make()
        with anyio.fail_after(20), pytest.raises(TemporaryBackendError) as raised:
            async with outage.storage.reserved_trial(outage.experiment) as trial:
                assert trial is not None
                outage.faulty.before = 1.0
                await complete(outage.storage, trial)
        assert len(raised.value.results) == 2
        assert shown(await outage.stored()) == ("reserved", [])
        assert "stays reserved until it is lost" in caplog.text


@pytest.mark.anyio
async def test_lost_before_it_is_written(make_driver: Callable[[], Driver]) -> None:
    outage = Outage(make_driver())
    async with outage.truth:
        await outage.make()
        with pytest.raises(TemporaryBackendError):
            async with outage.storage.reserved_trial(outage.experiment) as trial:
                assert trial is not None
                outage.faulty.fail_next("before", matching=completes)
                try:
                    await complete(outage.storage, trial)
                finally:
                    await outage.truth.update_trial(trial, worker="another")
        found = await outage.stored()
        assert (found.status, found.worker, found.results) == ("reserved", "another", [])


@pytest.mark.anyio
async def test_a_hand_back_whose_answer_is_lost(make_driver: Callable[[], Driver]) -> None:
    outage = Outage(make_driver(), RetryPolicy(initial=0.001, jitter=0))
    async with outage.truth:
        await outage.make()
        async with outage.storage.reserved_trial(outage.experiment) as trial:
            assert trial is not None
            outage.faulty.fail_next("after", matching=lambda o: isinstance(o[0], Update))
        assert trial.status == (await outage.stored()).status == "interrupted"


@pytest.mark.parametrize("when", ["before", "after"])
def test_in_a_thread(make_driver: Callable[[], Driver], when: When) -> None:
    driver = FaultyDriver(make_driver())
    with SyncStorage(Storage(driver, retry=ONCE)) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        with pytest.raises(TemporaryBackendError) as raised:
            with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                driver.fail_next(when, matching=completes)
                storage.complete_trial(trial, {"objective": 1.5, "epochs": 3})
        assert [result.value for result in raised.value.results] == [1.5, 3]
        assert raised.value.__notes__
        assert trial is not None
        found = storage.get_trial(trial)
        assert found is not None
        assert shown(trial) == shown(found) == ("completed", [1.5, 3])


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
time.sleep(0.1)
"""


def test_another_process_holds_the_file(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    policy = RetryPolicy(attempts=50, total=0.5, maximum=0.05)
    opened = open_storage(f"sqlite:///{file}", busy_timeout=0.05, retry=policy)
    with SyncStorage(opened) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        with ExitStack() as stack, pytest.raises(TemporaryBackendError) as raised:
            with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                command = [sys.executable, "-c", HOLD, str(file)]
                holder = stack.enter_context(
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                )
                assert holder.stdin is not None
                assert holder.stdout is not None
                holder.stdout.readline()
                try:
                    storage.complete_trial(trial, 1.5)
                finally:
                    holder.stdin.close()
        assert raised.value.__notes__
        assert storage.count_completed_trials(experiment) == 1
