"""A worker's turn: who is to blame for its end, and cancellations that come at the same time."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from aiostorage import (
    BackendError,
    EncodingError,
    Experiment,
    InvalidResult,
    LockLost,
    OperationTimeout,
    RetryPolicy,
    RunningLoopError,
    Storage,
    TemporaryBackendError,
    Trial,
    TrialLost,
)
from aiostorage._core.turn import lost_by, status_after
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Find, Operation, Update
from aiostorage.testing import FaultyDriver


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LookupError(), "broken"),
        (TimeoutError(), "broken"),
        (ConnectionError(), "broken"),
        (EncodingError(), "broken"),
        (InvalidResult(), "broken"),
        (RunningLoopError(), "broken"),
        (BackendError(), "interrupted"),
        (OperationTimeout(), "interrupted"),
        (LockLost(), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (asyncio.CancelledError(), "interrupted"),
        (ExceptionGroup("", [LockLost(), BackendError()]), "interrupted"),
        (BaseExceptionGroup("", [LockLost(), KeyboardInterrupt()]), "interrupted"),
        (BaseExceptionGroup("", [LookupError(), KeyboardInterrupt()]), "broken"),
        (ExceptionGroup("", [LockLost(), ExceptionGroup("", [LookupError()])]), "broken"),
    ],
    ids=repr,
)
def test_who_failed(error: BaseException, status: str) -> None:
    assert status_after(error) == status


def test_a_time_limit_for_what_was_not_written() -> None:
    assert status_after(TimeoutError(), unwritten=True) == "interrupted"
    assert status_after(LookupError(), unwritten=True) == "broken"


def test_who_lost_its_trial() -> None:
    mine, theirs = TrialLost(token="mine"), TrialLost(token="theirs")
    assert lost_by(mine, "mine") is mine
    assert lost_by(theirs, "mine") is None
    assert lost_by(TrialLost(), "mine") is lost_by(TrialLost(), None) is None
    assert lost_by(None, "mine") is lost_by(LookupError(), "mine") is None
    assert lost_by(ExceptionGroup("", [ExceptionGroup("", [mine])]), "mine") is mine
    assert lost_by(ExceptionGroup("", [mine, theirs]), "mine") is None
    assert lost_by(ExceptionGroup("", [mine, LookupError()]), "mine") is None


class Hooked(FaultyDriver):
    """Calls a function when a heartbeat has been refused, and looks for the reason."""

    hook: Callable[[], object] | None = None

    async def execute(self, operation: Operation[Any]) -> Any:
        result = await super().execute(operation)
        if isinstance(operation, Find) and self.hook is not None:
            hook, self.hook = self.hook, None
            hook()
        return result


class Lost:
    """A reservation whose next heartbeat finds that it is lost."""

    def __init__(self, driver: Hooked, storage: Storage, experiment: Experiment) -> None:
        self.driver = driver
        self.storage = storage
        self.experiment = experiment
        self.went_on = False

    async def turn(self, hook: Callable[[], object] | None = None) -> None:
        async with self.storage.reserved_trial(self.experiment, heartbeat=0.01) as trial:
            assert trial is not None
            await self.storage.update_trial(trial, worker="another")
            self.driver.hook = hook
            await anyio.sleep_forever()
        self.went_on = True


@pytest.fixture
async def lost() -> AsyncIterator[Lost]:
    driver = Hooked(MemoryDriver())
    async with Storage(driver) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        yield Lost(driver, storage, experiment)


def task() -> asyncio.Task[Any]:
    current = asyncio.current_task()
    assert current is not None
    return current


WHENS: dict[str, Callable[[Callable[[], object]], object]] = {
    "before": lambda cancel: cancel(),
    "after": lambda cancel: asyncio.get_running_loop().call_soon(cancel),
}
"""When the other cancellation comes: just before that by the heartbeat, or just after it."""

whens = pytest.mark.parametrize("when", WHENS)

pytestmark = pytest.mark.anyio


async def test_nothing_is_left_of_the_cancellation(lost: Lost) -> None:
    async with asyncio.timeout(5) as limit:
        await lost.turn()
        assert task().cancelling() == 0
        await asyncio.sleep(0)
    assert lost.went_on
    assert not limit.expired()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


async def test_lost_with_tasks_in_the_body(lost: Lost) -> None:
    async def turn(group: Any, start: str) -> None:
        await lost.storage.update_trials(lost.experiment, status="new")
        async with lost.storage.reserved_trial(lost.experiment, heartbeat=0.01) as trial:
            assert trial is not None
            await lost.storage.update_trial(trial, worker="another")
            async with group:
                for _ in range(2):
                    if start == "create_task":
                        group.create_task(anyio.sleep_forever())
                    else:
                        group.start_soon(anyio.sleep_forever)

    with anyio.fail_after(5):
        await turn(asyncio.TaskGroup(), "create_task")
        await turn(anyio.create_task_group(), "start_soon")
    assert task().cancelling() == 0


@whens
async def test_the_task_is_cancelled_at_the_same_time(lost: Lost, when: str) -> None:
    working: asyncio.Task[None]
    working = asyncio.create_task(lost.turn(lambda: WHENS[when](working.cancel)))
    await asyncio.wait([working])
    assert working.cancelled()
    assert not lost.went_on


@whens
async def test_a_time_limit_expires_at_the_same_time(lost: Lost, when: str) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5) as limit:
            await lost.turn(lambda: WHENS[when](lambda: limit.reschedule(loop.time() - 1)))
            await anyio.sleep(0.1)
    assert limit.expired()
    assert task().cancelling() == 0


@whens
async def test_a_sibling_fails_at_the_same_time(lost: Lost, when: str) -> None:
    failing = asyncio.Event()

    async def sibling() -> None:
        await failing.wait()
        raise LookupError

    async def work() -> None:
        await lost.turn(lambda: WHENS[when](failing.set))
        await anyio.sleep_forever()

    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            group.create_task(work())
    assert [type(error) for error in raised.value.exceptions] == [LookupError]


@whens
async def test_a_scope_is_cancelled_at_the_same_time(lost: Lost, when: str) -> None:
    with anyio.CancelScope() as scope:
        await lost.turn(lambda: WHENS[when](scope.cancel))
        await anyio.sleep(0)
        raise AssertionError("it was not cancelled")
    assert scope.cancelled_caught
    assert task().cancelling() == 0


async def test_a_body_that_is_not_cancelled_by_its_loss(lost: Lost) -> None:
    with pytest.raises(TrialLost):
        async with lost.storage.reserved_trial(
            lost.experiment, heartbeat=0.01, on_lost="raise"
        ) as trial:
            assert trial is not None
            await lost.storage.update_trial(trial, worker="another")
            with suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
    assert task().cancelling() == 0


# --------------------------------------------------------------- what is not to be seen outside


async def test_completing_a_trial_is_one_write(lost: Lost) -> None:
    async with lost.storage.reserved_trial(lost.experiment) as trial:
        assert trial is not None
        before = lost.driver.calls
        await lost.storage.complete_trial(trial.copy(), 1)
    assert lost.driver.calls == before + 1
    assert lost.storage._reservations._turns == {}


async def test_a_copy_of_a_storage_has_no_turn(lost: Lost) -> None:
    async with lost.storage.reserved_trial(lost.experiment):
        assert len(lost.storage._reservations._turns) == 1
        copy = pickle.loads(pickle.dumps(lost.storage))
        assert copy._reservations._turns == {}


async def test_errors_that_callers_share_carry_results_of_one() -> None:
    shared = TemporaryBackendError("down", ambiguous=True)

    class Down(FaultyDriver):
        async def execute(self, operation: Operation[Any]) -> Any:
            if isinstance(operation, Update):
                raise shared
            return await super().execute(operation)

    async with Storage(Down(MemoryDriver()), retry=RetryPolicy(attempts=1)) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(2)]
        )
        seen = []
        for number, trial in enumerate(await storage.reserve_trials(experiment, 2)):
            with pytest.raises(TemporaryBackendError, match="down") as raised:
                await storage.complete_trial(trial, number)
            seen.append(raised.value)
        assert [error.results[0].value for error in seen] == [0, 1]
        assert all(error.ambiguous and error.__cause__ is None for error in seen)
        assert shared.results == []
