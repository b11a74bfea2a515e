"""How the trials of `optimize` end, and `optimize` itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import anyio
import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from aiostorage.optuna import AsyncTrial, OptunaStorage, optimize
from aiostorage.optuna.async_objectives.study_thread import StudyThread
from tests.with_optuna.other_process import stored

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]


async def states(file: str) -> Counter[str]:
    return Counter(trial.state.name for trial in await stored(file))


# ------------------------------------------------------------------- what an objective raises


@pytest.mark.parametrize("inner", [False, True])
async def test_an_objective_that_ends_as_cancelled_though_nobody_cancelled_it(
    study: optuna.Study, file: str, *, inner: bool
) -> None:
    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 3 and inner:
            sleeping = asyncio.ensure_future(asyncio.sleep(60))
            sleeping.cancel()
            await sleeping
        if trial.number == 3:
            raise asyncio.CancelledError
        return 1.0

    with pytest.raises(RuntimeError, match="though the objective was not cancelled") as caught:
        await optimize(study, objective, n_trials=20, tasks=1)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert await states(file) == {"COMPLETE": 3, "FAIL": 1}
    await optimize(study, objective, n_trials=2, tasks=1)
    await optimize(study, objective, n_trials=2, tasks=1, catch=RuntimeError)


async def test_a_function_that_makes_a_coroutine(study: optuna.Study, file: str) -> None:
    async def objective(trial: AsyncTrial, data: int) -> float:
        return await trial.suggest_float("x", 0, data)

    with pytest.raises(TypeError, match=r"lambda.* is a plain function that has returned a corou"):
        await optimize(study, lambda trial: objective(trial, 1), n_trials=2)
    assert (await states(file))["FAIL"] >= 1


@pytest.mark.parametrize(("value", "error"), [(10**400, OverflowError), ("1.5", TypeError)])
async def test_a_value_that_optuna_cannot_take_fails_the_trial(
    study: optuna.Study, file: str, value: Any, error: type[Exception]
) -> None:
    async def objective(trial: AsyncTrial) -> Any:
        return value

    with pytest.raises(error):
        await optimize(study, objective, n_trials=1)
    assert await states(file) == {"FAIL": 1}


async def test_callbacks_are_plain_functions(study: optuna.Study, file: str) -> None:
    async def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None: ...

    with pytest.raises(TypeError, match="a callback is a plain function"):
        await optimize(study, lambda _: 1.0, n_trials=1, callbacks=[callback])
    assert not await stored(file)


# ----------------------------------------------------------------------------- plain functions


@pytest.mark.parametrize("by", ["study", "trial"])
async def test_a_plain_function_may_stop_the_study(study: optuna.Study, file: str, by: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 5:
            (study if by == "study" else trial.study).stop()
        return 1.0

    await optimize(study, objective, n_trials=1000, tasks=3)
    found = await states(file)
    assert set(found) == {"COMPLETE"}
    assert 6 <= found["COMPLETE"] < 100


async def test_a_plain_function_is_left_to_itself_when_the_call_is_cancelled(
    study: optuna.Study, file: str
) -> None:
    """Its trial waits for the next one, and it can set nothing of that any more."""
    go_on = threading.Event()
    begun = threading.Barrier(3, timeout=60)
    refused: list[BaseException] = []
    left = threading.Semaphore(0)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        begun.wait()
        go_on.wait(60)
        for late in (
            lambda: trial.suggest_float("y", 0, 1),
            lambda: trial.report(1.0, 0),
            lambda: trial.set_user_attr("late", 1),
        ):
            try:
                late()
            except UpdateFinishedTrialError as error:
                refused.append(error)
        left.release()
        return 1.0

    running = asyncio.create_task(optimize(study, objective, n_trials=20, tasks=2))
    await anyio.to_thread.run_sync(begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await states(file) == {"WAITING": 2}
    go_on.set()
    for _ in range(2):
        assert await anyio.to_thread.run_sync(lambda: left.acquire(timeout=60))
    assert len(refused) == 6
    for trial in await stored(file):
        assert (trial.state, set(trial.params), trial.user_attrs) == (
            TrialState.WAITING,
            {"x"},
            {},
        )


async def test_no_trial_begins_once_the_call_is_cancelled(study: optuna.Study, file: str) -> None:
    """A trial that has a result is told and written; the next one begins with that otherwise."""
    telling, go_on = threading.Event(), threading.Event()

    class Slow(optuna.samplers.RandomSampler):
        def after_trial(self, *args: Any) -> None:
            telling.set()
            go_on.wait(60)

    async def objective(trial: AsyncTrial) -> float:
        return 1.0

    study.sampler = Slow()
    running = asyncio.create_task(optimize(study, objective, n_trials=20, tasks=1))
    assert await anyio.to_thread.run_sync(telling.wait, 60)
    running.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await states(file) == {"COMPLETE": 1}


# --------------------------------------------------- a trial that is taken up again here


def take_away(storage: OptunaStorage, number: int = 0) -> None:
    """Let a trial wait again, as `aiostorage recover` does in another process."""
    storage._storage.update_trials(
        uid=1, where={"optuna.number": number}, status="interrupted", worker=None
    )


async def zombie(trial: AsyncTrial) -> float:
    """Set all that can be set; return another value than the one that counts."""
    await trial.suggest_float("zombie", 0, 1)
    await trial.set_user_attr("zombie", 1)
    await trial.report(1.0, 5)
    return 111.0


@pytest.mark.parametrize("first_to_end", ["zombie", "successor"])
async def test_what_was_taken_away_sets_nothing_of_the_next_evaluation(
    study: optuna.Study, file: str, other: OptunaStorage, first_to_end: str
) -> None:
    """Another call of this process has taken the trial up; its own reservation counts."""
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def objective(trial: AsyncTrial) -> float:
        begun.set()
        await go_on.wait()
        return await zombie(trial)

    async def successor(trial: AsyncTrial) -> float:
        if trial.number:
            return 0.0
        await trial.suggest_float("x", 0, 1)
        go_on.set()
        if first_to_end == "zombie":
            await done.wait()
        return 2.0

    twin = await anyio.to_thread.run_sync(
        lambda: optuna.load_study(study_name="tune", storage=study._storage)
    )

    async def run_first() -> None:
        await optimize(study, objective, n_trials=1)
        done.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run_first)
            await begun.wait()
            await anyio.to_thread.run_sync(take_away, other)
            await optimize(twin, successor, n_trials=1)
    [trial] = await stored(file)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 2.0)
    assert (set(trial.params), trial.user_attrs, trial.intermediate_values) == ({"x"}, {}, {})


async def test_a_task_that_takes_up_the_trial_of_another_one_ends_that_evaluation(
    study: optuna.Study, file: str, other: OptunaStorage
) -> None:
    ended = asyncio.Event()
    evaluations = 0

    async def objective(trial: AsyncTrial) -> float:
        nonlocal evaluations
        if trial.number:
            while "a" not in (await stored(file))[0].params:  # nothing is left to be written
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(take_away, other)
            return 0.0
        evaluations += 1
        if evaluations == 1:
            await trial.suggest_float("a", 0, 1)
            try:
                await anyio.sleep(60)
            finally:
                with pytest.raises(UpdateFinishedTrialError):
                    await zombie(trial)
                ended.set()
        await trial.suggest_float("x", 0, 1)
        assert ended.is_set()
        return 2.0

    with anyio.fail_after(60):
        await optimize(study, objective, n_trials=3, tasks=2)
    trial = (await stored(file))[0]
    assert evaluations == 2
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 2.0)
    assert (set(trial.params), trial.user_attrs) == ({"a", "x"}, {})


@pytest.mark.parametrize("plain", [False, True])
async def test_a_sampler_that_is_asked_meanwhile_sets_nothing_of_the_next_evaluation(
    study: optuna.Study, file: str, *, plain: bool
) -> None:
    sampling, go_on, late = threading.Event(), threading.Event(), threading.Event()

    class Slow(optuna.samplers.RandomSampler):
        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            if name == "slow":
                sampling.set()
                go_on.wait(60)
                late.set()
            return super().sample_independent(study, trial, name, distribution)

    async def objective(trial: AsyncTrial) -> float:
        return await trial.suggest_float("slow", 0, 1)

    def function(trial: optuna.Trial) -> float:
        return trial.suggest_float("slow", 0, 1)

    async def successor(trial: AsyncTrial) -> float:
        go_on.set()
        assert await anyio.to_thread.run_sync(late.wait, 60)
        await trial.suggest_float("x", 0, 1)
        return 7.0

    study.sampler = Slow()
    running = asyncio.create_task(optimize(study, function if plain else objective, n_trials=1))
    assert await anyio.to_thread.run_sync(sampling.wait, 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await optimize(study, successor, n_trials=1)
    [trial] = await stored(file)
    assert (trial.value, set(trial.params)) == (7.0, {"x"})


async def test_a_trial_that_is_taken_away_before_its_evaluation_begins(
    study: optuna.Study, file: str, other: OptunaStorage
) -> None:
    """An objective holds the event loop meanwhile, and another thread looks at the trials."""
    evaluated, looked = 0, False
    give_up = time.monotonic() + 60

    async def objective(trial: AsyncTrial) -> float:
        nonlocal evaluated
        evaluated += 1
        if evaluated == 1:
            while not looked:  # this holds the loop
                assert time.monotonic() < give_up
        await trial.suggest_float("x", 0, 1)
        return 1.0

    def look() -> list[TrialState]:
        nonlocal looked
        while not evaluated:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        take_away(other, 1)
        seen = [trial.state for trial in study.trials]
        looked = True
        return seen

    looking = asyncio.create_task(anyio.to_thread.run_sync(look))
    await optimize(study, objective, n_trials=4, tasks=2)
    assert (await looking)[1] == TrialState.WAITING
    # the lost evaluation counts; whether another one takes its trial up depends on when it is found
    assert await states(file) in ({"COMPLETE": 3}, {"COMPLETE": 3, "WAITING": 1})


async def test_a_loss_that_is_found_is_known(file: str, other: OptunaStorage) -> None:
    storage = OptunaStorage(file, lost_after=0.5)
    study = await anyio.to_thread.run_sync(
        lambda: optuna.create_study(storage=storage, study_name="tune")
    )

    def look() -> TrialState:
        return study.trials[0].state

    async def objective(trial: AsyncTrial) -> float:
        await trial.suggest_float("x", 0, 1)
        while (await stored(file))[0].params == {}:
            await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(take_away, other)
        assert await anyio.to_thread.run_sync(look) == TrialState.WAITING
        await trial.set_user_attr("a", 1)
        await anyio.sleep(60)
        return 1.0

    with anyio.fail_after(50):
        await optimize(study, objective, n_trials=1)
        assert await anyio.to_thread.run_sync(look) == TrialState.WAITING
        await optimize(study, lambda _: 2.0, n_trials=1)
    assert await states(file) == {"COMPLETE": 1}
    await anyio.to_thread.run_sync(storage.close)


# ---------------------------------------------------------------------------- after the end


async def test_a_trial_that_is_used_after_the_end(study: optuna.Study) -> None:
    kept: list[Any] = []

    async def objective(trial: AsyncTrial) -> float:
        kept.append(trial)
        return 1.0

    def plain(trial: optuna.Trial) -> float:
        kept.append(trial)
        return 1.0

    await optimize(study, objective, n_trials=1)
    await optimize(study, plain, n_trials=1)
    one, other = kept
    with anyio.fail_after(60):
        for late in (
            one.report(1.0, 0),
            one.suggest_float("x", 0, 1),
            one.set_user_attr("a", 1),
            one.should_prune(),
            anyio.to_thread.run_sync(other.set_user_attr, "a", 1),
            anyio.to_thread.run_sync(other.suggest_float, "x", 0, 1),
            anyio.to_thread.run_sync(other.should_prune),
        ):
            with pytest.raises(UpdateFinishedTrialError, match="does not run here any more"):
                await late


async def test_a_thread_that_was_stopped_takes_no_calls() -> None:
    from aiostorage.optuna.async_objectives.loop_turns import TaskResumer

    thread = StudyThread(TaskResumer(), lambda: None)
    assert await thread.call(int) == 0
    thread.stop()
    with pytest.raises(UpdateFinishedTrialError, match="has ended"):
        await thread.call(int)
    with pytest.raises(UpdateFinishedTrialError, match="has ended"):
        thread.call_from_thread(int)


# ---------------------------------------------------------------------------------- signals


async def ran(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, to its end."""
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    )


OBJECTIVES = """
import asyncio, sys, time, optuna
from aiostorage.optuna import OptunaStorage, optimize
optuna.logging.set_verbosity(optuna.logging.WARNING)

async def coroutine(trial):
    await trial.suggest_float("x", 0, 1)
    if trial.number == 3:
        print("begun", flush=True)
    await asyncio.sleep(60)
    return 1.0

def plain(trial):
    trial.suggest_float("x", 0, 1)
    if trial.number == 3:
        print("begun", flush=True)
    time.sleep(60)
    return 1.0
"""

STOPPED = f"""
{OBJECTIVES}
storage = OptunaStorage(sys.argv[1])
study = optuna.create_study(storage=storage, study_name="tune")
asyncio.run(optimize(study, globals()[sys.argv[2]], tasks=4))
"""


@pytest.mark.parametrize("objective", ["coroutine", "plain"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
async def test_a_signal_hands_trials_back(
    file: str, number: signal.Signals, code: int, objective: str
) -> None:
    def run() -> int:
        with subprocess.Popen(
            [sys.executable, "-c", STOPPED, file, objective],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                os.kill(process.pid, number)
                return process.wait(timeout=40)  # not the 60 s of the objective
            finally:
                process.kill()

    assert await anyio.to_thread.run_sync(run) == code
    assert await states(file) == {"WAITING": 4}


LEFT = f"""
{OBJECTIVES}
async def main():
    optimizing = asyncio.create_task(optimize(study, globals()[sys.argv[2]], tasks=4))
    while len([t for t in study.get_trials(deepcopy=False) if t.params]) < 4:
        await asyncio.sleep(0.05)
    del optimizing  # `asyncio.run` cancels it, and every other task

storage = OptunaStorage(sys.argv[1])
study = optuna.create_study(storage=storage, study_name="tune")
asyncio.run(main())
"""


FAILED = """
import asyncio, sys, optuna
from aiostorage.optuna import OptunaStorage, optimize
optuna.logging.set_verbosity(optuna.logging.WARNING)

async def quick(trial):
    return await trial.suggest_float("x", 0, 1)

async def fail():
    await asyncio.sleep(0.3)
    raise ValueError("of the other one")

async def main():
    await asyncio.gather(optimize(study, quick, tasks=8), fail())

storage = OptunaStorage(sys.argv[1])
study = optuna.create_study(storage=storage, study_name="tune")
asyncio.run(main())
"""


async def test_a_loop_that_ends_leaves_no_trial_that_begins_or_ends(file: str) -> None:
    done = await ran(FAILED, file)
    assert "ValueError: of the other one" in done.stderr
    found = await states(file)
    assert found["COMPLETE"]
    assert not found["RUNNING"]


@pytest.mark.parametrize("objective", ["coroutine", "plain"])
async def test_a_loop_that_ends_hands_trials_back(file: str, objective: str) -> None:
    done = await ran(LEFT, file, objective)
    assert done.returncode == 0, done.stderr
    assert await states(file) == {"WAITING": 4}


async def test_an_objective_that_cancels_its_own_task(study: optuna.Study, file: str) -> None:
    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep(60)
        return 1.0

    with pytest.raises(RuntimeError, match="though the objective was not cancelled"):
        await optimize(study, objective, n_trials=4, tasks=2)
    found = await states(file)
    assert found["WAITING"] >= 1  # and what the other task was evaluating
    assert not found["RUNNING"]


# ----------------------------------------------------------------------------------- names


def test_names_that_are_no_text(storage: OptunaStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    for refused in (
        lambda: trial.set_user_attr("a\ud83d", 1),
        lambda: study.set_user_attr("a\ud83d", 1),
        lambda: trial.suggest_float("a\ud83d", 0, 1),
    ):
        with pytest.raises(ValueError, match="has to be Unicode text"):
            refused()
    study.tell(trial, 1.0)
    assert (study.trials[0].params, study.user_attrs) == ({}, {})
