"""The time limit of calls: who is cancelled, by whom, and with how many timers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from aiostorage import RetryPolicy, Storage
from aiostorage._core.driver_calls.time_limit import (
    PRESENT_CALL,
    TimedCall,
    TimeLimit,
    deadline_of_call,
)
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Operation

pytestmark = pytest.mark.anyio

SHORT = 0.02
LONG = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def end(limit: TimeLimit, call: TimedCall) -> None:
    limit.calls.pop(call, None)
    PRESENT_CALL.set(call.outer)
    call.take_back()


async def within(limit: TimeLimit, action: Callable[[], Awaitable[object]]) -> str:
    """Await an action under a limit, and return how it ended."""
    call = limit.begin()
    try:
        await action()
    except asyncio.CancelledError:
        if call.has_expired():
            return "expired"
        raise
    finally:
        end(limit, call)
    return "answered"


class AskingDriver(MemoryDriver):
    """Notes how many seconds a call has left, and a task that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[tuple[float, float]] = []

    async def execute(self, operation: Operation[Any]) -> Any:
        async def seconds() -> float:
            return deadline_of_call() - asyncio.get_running_loop().time()

        self.left.append((await seconds(), await asyncio.create_task(seconds())))
        return await super().execute(operation)


async def test_an_engine_knows_how_long_a_call_may_take() -> None:
    driver = AskingDriver()
    retry = RetryPolicy(attempt_timeout=LONG / 2, total=LONG)
    async with Storage(driver, retry=retry) as storage:
        with anyio.fail_after(LONG):
            assert await storage.fetch_experiments({}) == []
        with anyio.fail_after(LONG / 4):
            assert await storage.fetch_experiments({}) == []
        assert deadline_of_call() == math.inf
    (limited, of_task), (scoped, _) = driver.left[-2:]
    assert LONG / 4 < limited <= LONG / 2
    assert of_task == math.inf
    assert 0 < scoped <= LONG / 4


async def test_a_call_that_takes_too_long_is_cancelled_and_its_task_goes_on() -> None:
    limit = TimeLimit(SHORT)
    assert await within(limit, lambda: asyncio.sleep(LONG)) == "expired"
    assert current().cancelling() == 0
    assert await within(limit, lambda: asyncio.sleep(0)) == "answered"


async def test_each_call_has_the_whole_limit() -> None:
    limit, answers = TimeLimit(0.2), list[str]()

    async def late() -> None:
        await asyncio.sleep(0.12)
        answers.append(await within(limit, lambda: asyncio.sleep(0.12)))

    async with asyncio.TaskGroup() as group:
        group.create_task(late())
        expired = await within(limit, lambda: asyncio.sleep(LONG))
    assert (expired, answers) == ("expired", ["answered"])


async def test_calls_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, limit, timers = asyncio.get_running_loop(), TimeLimit(LONG), list[float]()
    call_at = loop.call_at

    def counted(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counted)
    calls = [within(limit, lambda: asyncio.sleep(0)) for _ in range(20)]
    assert await asyncio.gather(*calls) == ["answered"] * 20
    assert await within(limit, lambda: asyncio.sleep(0)) == "answered"
    assert len(timers) == 1


async def test_all_overdue_calls_are_cancelled() -> None:
    limit = TimeLimit(SHORT)
    calls = [within(limit, lambda: asyncio.sleep(LONG)) for _ in range(5)]
    assert await asyncio.gather(*calls) == ["expired"] * 5


async def test_a_call_that_swallows_its_cancellation_is_cancelled_again() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(LONG)

    assert await within(TimeLimit(SHORT), stubborn) == "expired"
    assert current().cancelling() == 0


async def test_an_answer_in_spite_of_the_limit_is_an_answer() -> None:
    async def answers() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return

    assert await within(TimeLimit(SHORT), answers) == "answered"
    assert current().cancelling() == 0


async def test_who_cancels_the_task_as_well_is_heard() -> None:
    limit, task = TimeLimit(SHORT), current()

    async def both() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await within(limit, both)
    assert task.uncancel() == 0


async def test_a_cancellation_before_the_call_does_not_count() -> None:
    task = current()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert await within(TimeLimit(SHORT), lambda: asyncio.sleep(LONG)) == "expired"
    assert task.uncancel() == 0


async def test_scopes_of_anyio_and_timeouts_of_asyncio_around_a_call_end_it() -> None:
    limit = TimeLimit(LONG)
    with anyio.move_on_after(SHORT) as scope:
        await within(limit, lambda: asyncio.sleep(LONG))
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await within(limit, lambda: asyncio.sleep(LONG))
    assert current().cancelling() == 0


async def test_a_scope_that_expires_at_the_same_time_as_the_call_is_caught() -> None:
    for first, second in ((SHORT, SHORT), (SHORT, SHORT + 0.001), (SHORT + 0.001, SHORT)):
        with anyio.move_on_after(first) as scope:
            await within(TimeLimit(second), lambda: asyncio.sleep(LONG))
            await asyncio.sleep(LONG)
        assert scope.cancelled_caught
        assert current().cancelling() == 0


def test_another_loop_begins_anew() -> None:
    limit = TimeLimit(SHORT)

    async def unfinished() -> None:
        call = limit.begin()
        try:
            await asyncio.sleep(LONG)
        finally:
            end(limit, call)

    loop = asyncio.new_event_loop()
    task = loop.create_task(unfinished())
    loop.run_until_complete(asyncio.sleep(0))
    assert asyncio.run(within(limit, lambda: asyncio.sleep(LONG))) == "expired"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
