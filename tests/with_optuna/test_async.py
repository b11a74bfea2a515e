"""Objectives that are coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from aiostorage import (
    ConfigurationError,
    RetryPolicy,
    Storage,
    StorageClosedError,
    SyncStorage,
    TemporaryBackendError,
    open_storage,
)
from aiostorage._core.layout import TRIALS
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Compare, Insert, InsertNext, Take, Update
from aiostorage.optuna import (
    AsyncTrial,
    OptunaStorage,
    optimization,
    optimize,
    studies,
    study_writer,
)
from aiostorage.optuna.studies import Studies
from aiostorage.optuna.study_ids import trial_id_of, trial_uid_of
from aiostorage.optuna.trial_batches import TrialBatches
from aiostorage.optuna.unwritten_params import UNWRITTEN
from aiostorage.testing import FaultyDriver
from tests.with_optuna.other_process import stored

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]


async def square(trial: AsyncTrial) -> float:
    x = await trial.suggest_float("x", -5, 5)
    await anyio.sleep(0.01)
    return x * x


async def test_many_tasks_evaluate_at_the_same_time(study: optuna.Study, file: str) -> None:
    at_once = most = 0

    async def objective(trial: AsyncTrial) -> float:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        x = await trial.suggest_float("x", -5, 5)
        n = await trial.suggest_int("n", 1, 8, log=True)
        kind = await trial.suggest_categorical("kind", ["a", "b"])
        await trial.set_user_attr("twice", 2 * x)
        await trial.set_constraint("small", n - 4.0)
        await anyio.sleep(0.05)
        at_once -= 1
        assert trial.params == {"x": x, "n": n, "kind": kind}
        assert trial.user_attrs == {"twice": 2 * x}
        assert set(trial.distributions) == {"x", "n", "kind"}
        return x * x + n

    seen: list[int] = []
    await optimize(
        study,
        objective,
        n_trials=40,
        tasks=10,
        callbacks=[lambda _, trial: seen.append(trial.number)],
    )
    assert most == 10
    trials = await stored(file)
    assert [trial.number for trial in trials] == list(range(40)) == sorted(seen)
    for trial in trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == trial.params["x"] * trial.params["x"] + trial.params["n"]
        assert trial.user_attrs == {"twice": 2 * trial.params["x"]}
        assert trial.constraints == {"small": trial.params["n"] - 4.0}
    known = await anyio.to_thread.run_sync(lambda: study.trials)
    assert known == trials


@pytest.mark.parametrize("written", [False, True])
async def test_params_that_another_process_adds_stay(
    study: optuna.Study, file: str, *, written: bool
) -> None:
    """They are added before anything of the trial is written here, or after."""
    other = await anyio.to_thread.run_sync(OptunaStorage, file)

    async def params(trial_id: int) -> dict[str, Any]:
        trial = await anyio.to_thread.run_sync(other.get_trial, trial_id)
        return trial.params

    async def objective(trial: AsyncTrial) -> float:
        x = await trial.suggest_float("x", 0, 1)
        trial_id = trial_id_of(study._study_id, trial.number)
        with anyio.fail_after(60):
            while written and await params(trial_id) != {"x": x}:
                await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(
            other.set_trial_param, trial_id, "z", 0.25, FloatDistribution(0, 1)
        )
        y = await trial.suggest_int("y", 1, 8)
        return x + y

    try:
        await optimize(study, objective, n_trials=3, tasks=1)
    finally:
        await anyio.to_thread.run_sync(other.close)
    trials = await stored(file)
    assert [set(trial.params) for trial in trials] == [{"x", "y", "z"}] * 3
    for trial in trials:
        assert trial.params["z"] == 0.25
        assert trial.value == trial.params["x"] + trial.params["y"]
    assert await anyio.to_thread.run_sync(lambda: study.trials) == trials


async def test_the_loop_goes_on_while_a_sampler_thinks(study: optuna.Study) -> None:
    class Slow(optuna.samplers.RandomSampler):
        def sample_independent(self, *arguments: object) -> float:
            time.sleep(0.1)
            return 0.5

    study.sampler = Slow()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0.005)
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await optimize(study, square, n_trials=5, tasks=5)
        group.cancel_scope.cancel()
    assert turns > 20


async def test_pruning_failing_and_catching(study: optuna.Study, file: str) -> None:
    async def objective(trial: AsyncTrial) -> float:
        for step in range(3):
            await trial.report(trial.number, step)
            if await trial.should_prune():
                raise optuna.TrialPruned
        if trial.number == 2:
            raise ValueError("no good")
        return float("nan") if trial.number == 3 else 1.0

    study.pruner = optuna.pruners.ThresholdPruner(upper=5)
    await optimize(study, objective, n_trials=8, tasks=3, catch=ValueError)
    states = [trial.state.name for trial in await stored(file)]
    assert states == ["COMPLETE"] * 2 + ["FAIL"] * 2 + ["COMPLETE"] * 2 + ["PRUNED"] * 2


async def test_an_error_ends_all_and_hands_the_others_back(study: optuna.Study, file: str) -> None:
    async def objective(trial: AsyncTrial) -> float:
        await trial.suggest_float("x", 0, 1)
        if trial.number == 3:
            raise ZeroDivisionError
        await anyio.sleep(30)
        return 1.0

    with pytest.raises(ZeroDivisionError):
        await optimize(study, objective, n_trials=20, tasks=5)
    states = [trial.state for trial in await stored(file)]
    assert states.pop(3) == TrialState.FAIL
    assert set(states) == {TrialState.WAITING}
    before = {trial.number: trial.params for trial in await stored(file)}

    async def again(trial: AsyncTrial) -> float:
        return await trial.suggest_float("x", 0, 1)

    await optimize(study, again, n_trials=len(states), tasks=3)
    for trial in (await stored(file))[: len(before)]:
        assert trial.params == before[trial.number], "the same params were evaluated"
        assert trial.state == (TrialState.FAIL if trial.number == 3 else TrialState.COMPLETE)


async def test_a_cancelled_call_hands_its_trials_back(study: optuna.Study, file: str) -> None:
    begun = anyio.Event()

    async def objective(trial: AsyncTrial) -> float:
        await trial.suggest_float("x", 0, 1)
        if trial.number == 3:
            begun.set()
        await anyio.sleep(30)
        return 1.0

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: optimize(study, objective, tasks=4))
        await begun.wait()
        group.cancel_scope.cancel()
    trials = await stored(file)
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 4
    assert not study._thread_local.in_optimize_loop


async def test_a_call_that_is_cancelled_while_it_writes_ends(
    study: optuna.Study, file: str
) -> None:
    async def objective(trial: AsyncTrial) -> float:
        return await trial.suggest_float("x", 0, 1)

    for delay in (0.05, 0.1, 0.15):
        with anyio.move_on_after(delay):
            await optimize(study, objective, tasks=16)
    for trial in await stored(file):
        if trial.state == TrialState.COMPLETE:
            assert trial.value == trial.params["x"]
        else:
            assert trial.state == TrialState.WAITING


async def test_the_time_limit_stop_and_no_limit(study: optuna.Study) -> None:
    start = anyio.current_time()
    await optimize(study, square, timeout=0.3, tasks=2)
    assert 0.3 <= anyio.current_time() - start < 20

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        study.stop()

    await optimize(study, square, tasks=2, callbacks=[stop])
    trials = await anyio.to_thread.run_sync(lambda: study.trials)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


async def test_a_trial_that_is_taken_away_is_not_evaluated_further(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = OptunaStorage(file, lost_after=0.5)
    study = await anyio.to_thread.run_sync(
        lambda: optuna.create_study(storage=storage, study_name="tune")
    )
    evaluated: list[int] = []

    async def objective(trial: AsyncTrial) -> float:
        x = await trial.suggest_float("x", 0, 1)
        evaluated.append(trial.number)
        if len(evaluated) == 1:
            async with open_storage(file) as store:
                [config] = await store.fetch_experiments({"name": "tune"})
                await store.update_trials(config, status="interrupted", worker=None)
            await anyio.sleep(30)
        return x

    await optimize(study, objective, n_trials=3, tasks=1)
    assert evaluated == [0, 0, 1]
    assert "trial 0" in caplog.text
    states = [trial.state for trial in await stored(file)]
    assert states == [TrialState.COMPLETE] * 2
    await anyio.to_thread.run_sync(storage.close)


async def test_stale_trials_are_failed_and_ours_are_kept_alive(file: str) -> None:
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    storage = OptunaStorage(
        file, heartbeat_interval=1, grace_period=2, heartbeat_stale_trial_callback=retry
    )
    dead = OptunaStorage(file)

    def prepare() -> optuna.Study:
        study = optuna.create_study(storage=storage, study_name="tune")
        dead.record_heartbeat(dead.create_new_trial(study._study_id))
        return study

    study = await anyio.to_thread.run_sync(prepare)

    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 1:
            await anyio.sleep(4)
        return 1.0

    await optimize(study, objective, n_trials=2, tasks=1)
    trials = await stored(file)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].system_attrs["failed_trial"] == 0
    for made in (storage, dead):
        await anyio.to_thread.run_sync(made.close)


async def test_a_plain_function_runs_in_threads(study: optuna.Study, file: str) -> None:
    threads: set[int] = set()
    together = threading.Barrier(3, timeout=30)

    def objective(trial: optuna.Trial) -> float:
        threads.add(threading.get_ident())
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        trial.set_user_attr("a", 1)
        together.wait()
        if trial.should_prune() or trial.number == 1:
            raise optuna.TrialPruned
        return x

    await optimize(study, objective, n_trials=6, tasks=3)
    assert len(threads) >= 3
    trials = await stored(file)
    assert [trial.state.name for trial in trials].count("PRUNED") == 1
    assert all(trial.intermediate_values == {0: trial.params["x"]} for trial in trials)


async def test_what_cannot_be_is_said_at_once(study: optuna.Study) -> None:
    with pytest.raises(ConfigurationError, match="needs an OptunaStorage"):
        await optimize(optuna.create_study(), square)
    with pytest.raises(ValueError, match="tasks"):
        await optimize(study, square, tasks=0)

    async def nested(trial: AsyncTrial) -> float:
        await optimize(study, square)
        return 1.0

    with pytest.raises(RuntimeError, match="being optimized already"):
        await optimize(study, nested, n_trials=1)


async def test_values_that_cannot_be_stored_fail_the_trial(study: optuna.Study, file: str) -> None:
    async def objective(trial: AsyncTrial) -> float:
        await trial.set_user_attr("big", 2**70)
        return 1.0

    await optimize(study, objective, n_trials=1, catch=ValueError)
    [trial] = await stored(file)
    assert (trial.state, trial.user_attrs) == (TrialState.FAIL, {})


def sets(*paths: str) -> Callable[[Sequence[Any]], bool]:
    """Return what recognises a write that sets one of these fields."""

    def matching(operations: Sequence[Any]) -> bool:
        return any(
            isinstance(one, Update) and any(path in one.changes for path in paths)
            for one in operations
        )

    return matching


def inserts(operations: Sequence[Any]) -> bool:
    """Recognise what inserts trials."""
    return any(
        isinstance(one, Insert | InsertNext) and one.collection == TRIALS for one in operations
    )


async def failing(driver: FaultyDriver) -> optuna.Study:
    """Make a study on an engine that is not asked twice."""
    storage = OptunaStorage(Storage(driver, retry=RetryPolicy(attempts=1)))
    return await anyio.to_thread.run_sync(
        lambda: optuna.create_study(storage=storage, study_name="tune")
    )


async def states_in_the_end(study: optuna.Study) -> list[TrialState]:
    """Return the states of the trials, and close the storage."""
    trials = await anyio.to_thread.run_sync(lambda: study.trials)
    await anyio.to_thread.run_sync(study._storage.close)  # type: ignore[attr-defined]
    return [trial.state for trial in trials]


async def eventually(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(60):
        while not await anyio.to_thread.run_sync(condition):
            await anyio.sleep(0.01)


async def test_what_could_not_be_written_is_kept_and_written_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)
    storage = study._storage
    assert isinstance(storage, OptunaStorage)
    reader = OptunaStorage(storage._storage)

    def there() -> dict[str, Any]:
        return reader.get_all_trials(study._study_id)[0].user_attrs

    async def objective(trial: AsyncTrial) -> float:
        driver.fail_next("before", count=3, matching=sets("optuna.user_attrs.a"))
        await trial.set_user_attr("a", 1)
        await trial.set_user_attr("b", 1)
        await eventually(lambda: driver.faults)
        await trial.set_user_attr("a", 2)
        await eventually(lambda: there() == {"a": 2, "b": 1})
        return 1.0

    await optimize(study, objective, n_trials=1)
    assert driver.faults == 3
    assert caplog.text.count("not written yet") == 1
    [trial] = await anyio.to_thread.run_sync(lambda: study.trials)
    assert (trial.state, trial.user_attrs) == (TrialState.COMPLETE, {"a": 2, "b": 1})
    await anyio.to_thread.run_sync(storage.close)


async def test_a_trial_is_handed_back_with_what_could_not_be_written_before() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)
    driver.fail_next("before", matching=sets("params"))

    async def objective(trial: AsyncTrial) -> float:
        await trial.suggest_float("x", 0, 1)
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await optimize(study, objective, tasks=1)

        group.start_soon(run)
        await eventually(lambda: driver.faults)
        group.cancel_scope.cancel()
    [trial] = await anyio.to_thread.run_sync(lambda: study.trials)
    assert (trial.state, set(trial.params)) == (TrialState.WAITING, {"x"})
    await anyio.to_thread.run_sync(study._storage.close)  # type: ignore[attr-defined]


async def test_what_was_begun_is_handed_back_if_the_rest_cannot_be() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)
    await anyio.to_thread.run_sync(lambda: study.enqueue_trial({"x": 1}))

    driver.fail_next("before", matching=inserts)
    with pytest.raises(TemporaryBackendError):
        await optimize(study, square, n_trials=2, tasks=2)
    assert driver.faults == 1
    [trial] = await anyio.to_thread.run_sync(lambda: study.trials)
    assert trial.state == TrialState.WAITING
    await anyio.to_thread.run_sync(study._storage.close)  # type: ignore[attr-defined]


async def test_waiting_trials_that_others_take_meanwhile_are_passed_over(
    study: optuna.Study, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is begun, one is finished and one is deleted between the look at them and the claim."""
    other = OptunaStorage(file)
    sync = Studies.sync

    def prepare() -> None:
        for _ in range(4):
            study.enqueue_trial({"x": 1.0})

    def take() -> None:
        again = optuna.load_study(study_name="tune", storage=other)
        again.ask()
        again.tell(again.ask(), 1.0)
        with SyncStorage(open_storage(file)) as store:
            [config] = store.fetch_experiments({"name": "tune"})
            store.delete_trials(config, where={"optuna.number": 2})

    taken: list[bool] = []

    async def sync_and_take(self: Studies, *arguments: Any) -> None:
        await sync(self, *arguments)
        if not taken:
            taken.append(True)
            await anyio.to_thread.run_sync(take)

    await anyio.to_thread.run_sync(prepare)
    monkeypatch.setattr(Studies, "sync", sync_and_take)
    await optimize(study, square, n_trials=2, tasks=2)
    states = [(trial.number, trial.state.name) for trial in await stored(file)]
    assert states == [(0, "RUNNING"), (1, "COMPLETE"), (3, "COMPLETE"), (4, "COMPLETE")]
    await anyio.to_thread.run_sync(other.close)


async def test_what_was_claimed_is_handed_back_if_another_claim_fails() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)

    def enqueue() -> None:
        for _ in range(3):
            study.enqueue_trial({"x": 1})

    def claims_the_second(operations: Sequence[Any]) -> bool:
        return any(
            isinstance(one, Take) and trial_uid_of(1) in str(one.where) for one in operations
        )

    await anyio.to_thread.run_sync(enqueue)
    driver.fail_next("before", matching=claims_the_second)
    with pytest.raises(TemporaryBackendError):
        await optimize(study, square, n_trials=3, tasks=3)
    assert driver.faults == 1
    trials = await anyio.to_thread.run_sync(lambda: study.trials)
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 3
    await optimize(study, square, n_trials=3, tasks=2)
    assert await states_in_the_end(study) == [TrialState.COMPLETE] * 3


async def test_a_result_that_cannot_be_written_ends_the_call() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)

    async def objective(trial: AsyncTrial) -> float:
        await trial.set_user_attr("a", 1)
        driver.fail_next("before", matching=sets("status"))
        return 1.0

    with pytest.raises(TemporaryBackendError):
        await optimize(study, objective, n_trials=1)
    assert driver.faults == 1
    [trial] = await anyio.to_thread.run_sync(lambda: study.trials)
    assert trial.state == TrialState.RUNNING
    await anyio.to_thread.run_sync(study._storage.close)  # type: ignore[attr-defined]


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Give the list of what went to the store together: trials written, and begun."""
    found: list[tuple[int, int]] = []
    carry_out = TrialBatches.carry_out

    async def noted(self: TrialBatches, writes: Any, count: int) -> Any:
        found.append((len(writes), count))
        return await carry_out(self, writes, count)

    monkeypatch.setattr(TrialBatches, "carry_out", noted)
    return found


async def test_the_next_trial_begins_with_the_end_of_the_last_one(
    study: optuna.Study, carried_out: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_writer, "PATIENCE", 60.0)
    await optimize(study, square, n_trials=4, tasks=1)
    assert carried_out == [(0, 1), (1, 1), (1, 1), (1, 1), (1, 0)]


async def test_no_trial_begins_before_the_callbacks(
    study: optuna.Study, file: str, carried_out: list[tuple[int, int]]
) -> None:
    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.number == 1:
            study.stop()

    await optimize(study, square, tasks=1, callbacks=[stop])
    assert not any(written and begun for written, begun in carried_out)
    assert [trial.state for trial in await stored(file)] == [TrialState.COMPLETE] * 2


async def test_a_trial_that_cannot_begin_with_the_end_of_the_last_one_begins_alone() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)

    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 0:
            driver.fail_next("before", matching=inserts)
        return 1.0

    await optimize(study, objective, n_trials=3, tasks=1)
    assert driver.faults == 1
    assert await states_in_the_end(study) == [TrialState.COMPLETE] * 3


async def test_no_trial_is_left_out_when_several_cannot_begin() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)
    all_there = anyio.Event()

    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 3:
            driver.fail_next("before", matching=inserts)
            all_there.set()
        await all_there.wait()  # two of the four begin another trial, or would
        return 1.0

    await optimize(study, objective, n_trials=6, tasks=4)
    assert driver.faults == 1
    assert await states_in_the_end(study) == [TrialState.COMPLETE] * 6


async def test_a_trial_that_began_with_what_could_not_be_written_is_handed_back() -> None:
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)

    async def objective(trial: AsyncTrial) -> float:
        driver.fail_next("before", matching=sets("status"))
        return 1.0

    with pytest.raises(TemporaryBackendError):
        await optimize(study, objective, n_trials=2, tasks=1)
    assert await states_in_the_end(study) == [TrialState.RUNNING, TrialState.WAITING]


async def test_a_trial_is_handed_back_if_nobody_can_be_told_of_the_last_one(
    study: optuna.Study, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("there is no terminal")

    optuna.logging.set_verbosity(optuna.logging.INFO)
    monkeypatch.setattr(optimization._Optimization, "_show", fail)
    with pytest.raises(OSError, match="terminal"):
        await optimize(study, square, n_trials=2, tasks=1)
    states = [trial.state for trial in await stored(file)]
    assert states == [TrialState.COMPLETE, TrialState.WAITING]


async def test_a_sampler_that_fails_at_the_beginning_ends_all(
    study: optuna.Study, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def nothing(trial: AsyncTrial) -> float:
        return 1.0

    async def bold(trial: AsyncTrial) -> float:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await trial.suggest_float("x", 0, 1)
        return 1.0

    monkeypatch.setattr(study.sampler, "before_trial", fail)
    for objective in (square, nothing, bold):
        with pytest.raises(ZeroDivisionError):
            await optimize(study, objective, tasks=2)
        assert {trial.state for trial in await stored(file)} == {TrialState.WAITING}


async def test_what_was_set_is_written_when_it_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial sets that ends soon goes to the store with its end, and by no other write."""
    driver = FaultyDriver(MemoryDriver())
    study = await failing(driver)
    writes: list[set[str]] = []

    def noted(operations: Sequence[Any]) -> bool:
        writes.extend(
            {path for path in one.changes if path in ("params", "status")}
            for one in operations
            if isinstance(one, Update) and one.collection == TRIALS
        )
        return False

    driver.fail_next("before", matching=noted)
    monkeypatch.setattr(study_writer, "PATIENCE", 1.0)

    async def objective(trial: AsyncTrial) -> float:
        x = await trial.suggest_float("x", 0, 1)
        if trial.number == 0:  # beside many that end at once
            await eventually(lambda: {"params"} in writes)
        return x

    await optimize(study, objective, n_trials=40, tasks=2)
    assert writes.count({"params"}) == 1
    assert sum("status" in one for one in writes) == 40
    await anyio.to_thread.run_sync(study._storage.close)  # type: ignore[attr-defined]


async def test_who_ends_a_trial_of_another_process_waits_for_what_it_has_set(
    study: optuna.Study, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "AWAITED", 3600.0)
    monkeypatch.setattr(studies, "_ALL_WRITTEN", Compare(UNWRITTEN, "ne", True))

    def tell(trial_id: int) -> None:
        other = OptunaStorage(file)
        other.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
        other.close()

    async def objective(trial: AsyncTrial) -> float:
        if trial.number:  # the first one has no params
            await trial.suggest_float("x", 0, 1)
        await anyio.to_thread.run_sync(tell, trial._running.trial_id)
        return 2.0

    for params in ({}, {"x": 0.5}):  # the third trial does not wait before it begins
        await anyio.to_thread.run_sync(study.enqueue_trial, params)
    await optimize(study, objective, n_trials=3, tasks=1)
    trials = await stored(file)
    assert [trial.value for trial in trials] == [1.0] * 3
    assert [[*trial.params] for trial in trials] == [[], ["x"], ["x"]]


async def test_a_storage_that_is_closed_meanwhile_ends_the_call(study: optuna.Study) -> None:
    async def objective(trial: AsyncTrial) -> float:
        if trial.number == 20:
            storage = study._storage
            assert isinstance(storage, OptunaStorage)
            await anyio.to_thread.run_sync(storage.close)
        return await trial.suggest_float("x", 0, 1)

    with anyio.fail_after(60), pytest.raises(StorageClosedError):
        await optimize(study, objective, tasks=8)


async def test_the_progress_bar(study: optuna.Study, capsys: pytest.CaptureFixture[str]) -> None:
    await optimize(study, square, n_trials=3, tasks=3, show_progress_bar=True)
    assert "3/3" in capsys.readouterr().err


async def test_it_ends_in_the_loop_that_it_began_in(study: optuna.Study) -> None:
    before = asyncio.all_tasks()
    await optimize(study, square, n_trials=2)
    assert asyncio.all_tasks() == before
