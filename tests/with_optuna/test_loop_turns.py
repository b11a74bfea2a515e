"""What lets many tasks share an event loop: turns, the thread of a study, what is written when."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from optuna.trial import TrialState, create_trial

from aiostorage.optuna.async_objectives import study_thread
from aiostorage.optuna.async_objectives.deferred_storage import RunningTrial
from aiostorage.optuna.async_objectives.loop_turns import (
    MAX_RESUMED,
    TaskResumer,
    few_at_once,
    resolve,
)
from aiostorage.optuna.async_objectives.study_thread import StudyThread
from aiostorage.optuna.async_objectives.trial_batches import BegunTrial
from aiostorage.optuna.trial_document import final_update, intermediate_update
from aiostorage.optuna.unwritten_params import UNWRITTEN

pytestmark = pytest.mark.anyio

TASKS = 5 * MAX_RESUMED + 3


async def resumed_by_turn(resume: Callable[[list[asyncio.Future[int]]], Any]) -> list[int]:
    """Return how many of many tasks each turn of the event loop has resumed."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(TASKS)]
    resumed: list[int] = []
    by_turn = [0]

    async def wait(future: asyncio.Future[int]) -> None:
        resumed.append(await future)
        by_turn[-1] += 1

    async with asyncio.TaskGroup() as group:
        for future in futures:
            group.create_task(wait(future))
        await asyncio.sleep(0)
        resume(futures)
        while len(resumed) < TASKS:
            await asyncio.sleep(0)
            by_turn.append(0)
    assert resumed == list(range(TASKS))
    return by_turn


async def test_few_tasks_are_resumed_in_one_turn() -> None:
    made = TaskResumer()

    def resume(futures: list[asyncio.Future[int]]) -> None:
        calls = [partial(resolve, future, number) for number, future in enumerate(futures)]
        made.resume(calls[: TASKS // 2])
        made.resume(calls[TASKS // 2 :])  # these wait for the others

    assert max(await resumed_by_turn(resume)) == MAX_RESUMED


async def test_few_items_come_in_one_turn() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def resume_all(futures: list[asyncio.Future[int]]) -> None:
        async for number, future in few_at_once(enumerate(futures)):
            future.set_result(number)

    def resume(futures: list[asyncio.Future[int]]) -> None:
        tasks.append(asyncio.create_task(resume_all(futures)))

    assert max(await resumed_by_turn(resume)) == MAX_RESUMED


async def test_what_resolves_a_future() -> None:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()
    resolve(stopped, None, StopIteration(1))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stopped
    cancelled: asyncio.Future[int] = loop.create_future()
    cancelled.cancel()
    resolve(cancelled, 1)
    assert cancelled.cancelled()


async def test_the_thread_waits_until_its_results_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study_thread, "MAX_RESULT_DELAY", 0.0)
    monkeypatch.setattr(study_thread, "TAKE_TIMEOUT", 60.0)
    begun = threading.Event()
    ran: list[int] = []

    def run(number: int) -> None:
        begun.wait(60)  # until all of them wait in line
        ran.append(number)

    thread = StudyThread(TaskResumer(), lambda: None)
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(thread.call, run, number)
        await asyncio.sleep(0)
        begun.set()
        blocked_until = time.monotonic() + 0.3
        while time.monotonic() < blocked_until and len(ran) < 2:  # the loop takes nothing
            pass
        assert ran == [0]
    assert ran == [0, 1, 2, 3, 4]
    thread.stop()


async def test_the_thread_goes_on_though_the_loop_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study_thread, "MAX_RESULT_DELAY", 0.0)
    monkeypatch.setattr(study_thread, "TAKE_TIMEOUT", 0.001)
    ended = threading.Event()
    thread = StudyThread(TaskResumer(), lambda: None)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(thread.call, int)
            group.start_soon(thread.call, ended.set)
            await asyncio.sleep(0)
            give_up = time.monotonic() + 60
            while not ended.is_set():  # this blocks the loop
                assert time.monotonic() < give_up
    thread.stop()


async def test_the_end_of_a_trial_is_taken_for_its_own_task_alone() -> None:
    trial = create_trial(state=TrialState.RUNNING)
    running = RunningTrial(BegunTrial(0, "token", trial), 1)
    running.set(intermediate_update(0, 1.0))
    write = running.take_write(ended=False)
    assert write is not None
    assert write.changes == {UNWRITTEN: False, "optuna.intermediate.0": 1.0}
    running.set(intermediate_update(1, 2.0))
    running.end(final_update(trial, TrialState.COMPLETE, [3.0]))
    assert running.take_write(ended=False) is None
    write = running.take_write()
    assert write is not None
    assert (write.changes["status"], write.changes["optuna.intermediate.1"]) == ("completed", 2.0)
    assert running.take_write() is None
