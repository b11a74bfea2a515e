"""Workers in this process: what they call, what becomes of trials, and when they end."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import rich.progress  # noqa: F401  importing it blocks the event loop

from aiostorage import (
    ConfigurationError,
    Experiment,
    FailedUpdate,
    InvalidArgument,
    RetryPolicy,
    RunningLoopError,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    Trial,
    TrialLost,
    Worker,
    WorkerEvent,
    open_storage,
    run_worker,
)
from aiostorage._core.limits import ONE_TOO_MANY
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.testing import FaultyDriver
from aiostorage.testing.contract.helpers import make_config, make_trial, registered, stored
from aiostorage.work import worker_tasks
from aiostorage.work.attempts import attempts_in, earlier_ends

pytestmark = pytest.mark.anyio


async def made(storage: Storage, count: int, **config: Any) -> Experiment:
    experiment = await storage.create_experiment(make_config(**config))
    await registered(storage, experiment, count)
    return experiment


def by_name(x: int) -> int:
    return x


def by_params(params: dict[str, Any]) -> int:
    return int(params["x"])


def by_trial(trial: Trial, x: int, factor: int = 1) -> int:
    return int(trial.params["x"]) * factor if trial.status == "reserved" else x


def by_all(trial: Trial, **params: int) -> int:
    return params["x"] if trial.worker else -1


async def in_the_loop(x: int) -> int:
    await anyio.sleep(0)
    return x


class Called:
    async def __call__(self, x: int) -> dict[str, float]:
        return {"objective": x, "thread": threading.get_ident()}


@pytest.mark.parametrize(
    "objective",
    [by_name, by_params, by_trial, by_all, in_the_loop, Called(), partial(by_trial, factor=1), abs],
)
async def test_how_an_objective_is_called(objective: Callable[..., Any]) -> None:
    async with open_storage("memory://") as storage:
        experiment = await made(storage, 3)
        worker = Worker(storage, experiment, objective)
        if objective is abs:  # it takes its argument by position alone
            with pytest.raises(ConfigurationError, match=r"abs\(x, /\) cannot be called"):
                await worker.run()
            trials = await storage.fetch_trials(experiment) or []
            assert [trial.status for trial in trials] == ["interrupted", "new", "new"]
            return
        report = await worker.run()
        assert (report.completed, report.ended_by) == (3, "done")
        trials = await storage.fetch_trials(experiment) or []
        assert [trial.objective_value for trial in trials] == [0, 1, 2]


async def test_what_becomes_of_trials() -> None:
    deeds: dict[int, BaseException] = {
        1: ValueError("bad loss\nat step 3"),
        3: SystemExit(4),
        4: asyncio.CancelledError(),  # its own business went wrong
        7: BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError("bad")]),
    }

    async def objective(x: int) -> float:
        if x in deeds:
            raise deeds[x]
        if x in (5, 6):
            await lose_to_another(x)
        if x == 6:
            await anyio.sleep(60)  # until a heartbeat notices
        return math.nan if x == 2 else x

    async def lose_to_another(x: int) -> None:
        [trial] = await storage.fetch_trials(experiment, params={"x": x}) or []
        await storage.update_trial(trial, heartbeat=datetime(2020, 1, 1, tzinfo=UTC))
        await storage.recover_lost_trials(experiment)
        if x == 5:
            await storage.update_trial(trial, status="suspended")

    events: list[WorkerEvent] = []
    async with open_storage("memory://", nan="broken") as storage:
        experiment = await made(storage, 8)
        seen = set[int]()

        async def once(x: int) -> float:
            if x in seen:
                return x
            seen.add(x)
            return await objective(x)

        worker = Worker(
            storage, experiment, once, heartbeat=0.02, on_event=events.append, progress=True
        )
        with anyio.fail_after(30):
            report = await worker.run()
        assert (report.completed, report.broken, report.lost) == (3, 5, 2)
        assert sorted(report.reasons.values()) == [
            "ObjectiveExit: BaseExceptionGroup: two (2 sub-exceptions)",
            "ObjectiveExit: CancelledError, though the objective was not cancelled",
            "ObjectiveExit: SystemExit: 4",
            "ValueError: bad loss",
            "the objective is NaN",
        ]
        assert await storage.count_completed_trials(experiment) == 3
    assert [e.name for e in events].count("started") == 10
    last = events[-1]
    assert last.report.completed == 3
    assert last.trial is not None
    assert pickle.loads(pickle.dumps(report)) == report
    assert hash(report)


async def test_limits_and_suggestions() -> None:
    async with open_storage("memory://") as storage:
        experiment = await storage.create_experiment(make_config(max_trials=9, max_broken=3))
        running = most = 0

        def suggest(algorithm: Any, count: int) -> list[dict[str, Any]]:
            begin = (algorithm.state or {"next": 0})["next"]
            algorithm.set_state({"next": begin + count})
            return [{"x": x} for x in range(begin, begin + count)]

        async def objective(x: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await anyio.sleep(0.005)
                if x in (2, 4):
                    raise ValueError("bad")
            finally:
                running -= 1
            return x

        def broken_listener(event: WorkerEvent) -> None:
            raise RuntimeError("a listener may fail")

        workers = [
            Worker(storage, experiment, objective, tasks=2, suggest=suggest) for _ in range(2)
        ]
        workers.append(
            Worker(storage, experiment, objective, suggest=suggest, on_event=broken_listener)
        )
        reports = []

        async def work(worker: Worker) -> None:
            reports.append(await worker.run())

        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(work, worker)
        assert sum(report.completed for report in reports) == 9
        assert sum(report.broken for report in reports) == 2
        assert {report.ended_by for report in reports} == {"max_trials"}
        assert 2 <= most <= 5
        assert sum(report.suggested for report in reports) >= 11

        [again] = [await Worker(storage, experiment, objective, max_broken=2).run()]
        assert again.ended_by == "max_trials"
        report = await Worker(storage, experiment, objective, max_trials=None, max_broken=2).run()
        assert report.ended_by == "max_broken"


@pytest.mark.parametrize("kind", ["few", "repeated", "trials", "async", "wrong", "failing"])
async def test_the_end_of_suggestions(kind: str) -> None:
    async with open_storage("memory://") as storage:
        experiment = await storage.create_experiment(make_config())

        def few(algorithm: Any) -> Any:
            known = algorithm.state or 0
            algorithm.set_state(known + 1)
            if kind == "wrong":
                return 5
            if kind == "failing":
                raise ZeroDivisionError
            if kind == "repeated":
                return {"x": min(known, 2)}
            if known == 3:
                return None
            return [Trial(experiment=experiment.id, params={"x": known})]

        async def few_async(experiment: Any, storage: Any) -> list[dict[str, Any]]:
            count = await storage.count_trials(experiment)
            return [{"x": count}] if count < 3 else []

        suggest = few_async if kind == "async" else few
        worker = Worker(storage, experiment, by_name, suggest=suggest, tasks=2)
        if kind == "wrong":
            with pytest.raises(ConfigurationError, match="a suggestion is a dict"):
                await worker.run()
        elif kind == "failing":
            with pytest.raises(ZeroDivisionError):
                await worker.run()
        else:
            report = await worker.run()
            assert (report.completed, report.suggested, report.ended_by) == (3, 3, "done")


async def test_stopping_and_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_tasks, "IDLE_CHECK_INTERVAL", 60.0)  # idle tasks are told at once
    async with open_storage("memory://") as storage:
        experiment = await made(storage, 3)
        inside, both, count = anyio.Event(), anyio.Event(), 0

        async def objective(x: int) -> int:
            nonlocal count
            count += 1
            inside.set()
            if count == 2:
                both.set()
            await anyio.sleep(60)
            return x

        async def stop(worker: Worker) -> None:
            await both.wait()
            with pytest.raises(ConfigurationError, match="running already"):
                await worker.run()
            worker.stop()

        worker = Worker(storage, experiment, objective, tasks=2)
        worker.stop()  # it does not run
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(stop, worker)
                report = await worker.run()
        assert (report.ended_by, report.signal, report.interrupted) == ("stopped", None, 2)
        assert not await storage.fetch_trials_by_status(experiment, "reserved")
        # it waits for what is reserved elsewhere, and then for new trials
        elsewhere = await storage.reserve_trial(experiment)
        assert elsewhere is not None
        waiting = Worker(storage, experiment, by_name, tasks=3, wait=math.inf)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:

                async def look() -> None:
                    while await storage.count_completed_trials(experiment) < 2:
                        await anyio.sleep(0.01)
                    await storage.set_trial_status(elsewhere, "interrupted")
                    await storage.register_trial(make_trial(experiment, 9))
                    while await storage.count_completed_trials(experiment) < 4:
                        await anyio.sleep(0.01)
                    waiting.stop()

                group.start_soon(look)
                report = await waiting.run()
        assert (report.completed, report.ended_by) == (4, "stopped")
        # a cancelled run hands back, too
        await storage.register_trial(make_trial(experiment, 10))
        inside = anyio.Event()
        with anyio.move_on_after(20) as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await inside.wait()
                    scope.cancel()

                group.start_soon(cancel)
                await worker.run()
        assert [t.params["x"] for t in await storage.fetch_pending_trials(experiment)] == [10]


async def test_what_ends_a_worker_with_an_error() -> None:
    class Failing(Storage):
        async def complete_trial(self, trial: Trial, results: Any) -> None:
            raise TemporaryBackendError("the server is away")

    async with Failing(MemoryDriver()) as storage:
        experiment = await made(storage, 3)
        with pytest.raises(TemporaryBackendError, match="is away"):
            await Worker(storage, experiment, in_the_loop, tasks=2).run()
        assert await storage.count_broken_trials(experiment) == 0
        assert not await storage.fetch_trials_by_status(experiment, "reserved")
        with pytest.raises(FailedUpdate, match="no experiment 'nobody' to work on"):
            await Worker(storage, {"_id": "nobody"}, by_name).run()

        async def deleting(x: int) -> int:
            await storage.delete_experiment(experiment)
            return x

        with pytest.raises((TrialLost, TemporaryBackendError)):
            await Worker(storage, experiment, deleting, heartbeat=0.02).run()


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_a_trial_is_given_up_after_its_attempts(engine: str, tmp_path: Path) -> None:
    url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path / 'work.db'}"
    inside = anyio.Event()

    async def objective(x: int) -> int:
        inside.set()
        if x == 0:
            await anyio.sleep(60)
        return x

    async with open_storage(url) as storage:
        experiment = await made(storage, 1)
        worker = Worker(storage, experiment, objective, max_attempts=2)

        async def stop() -> None:
            await inside.wait()
            worker.stop()

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            assert (await worker.run()).interrupted == 1
        lost = await storage.reserve_trial(experiment)
        assert lost is not None
        await storage.update_trial(lost, heartbeat=datetime(2020, 1, 1, tzinfo=UTC))
        await storage.register_trial(make_trial(experiment, 1))
        report = await worker.run()
        assert (report.completed, report.broken, report.ended_by) == (1, 1, "done")
        reason = "given up after 2 attempts: cancelled; lost"
        assert report.reasons == {lost.id: reason}
        trial = await stored(storage, lost)
        assert trial.status == "broken"
        assert trial.end_time is not None
        assert (await storage.trial_history(trial))[-1].reason == reason


async def test_a_trial_that_was_handed_back_at_once_was_not_tried() -> None:
    """It was reserved although the experiment had enough, and released for that."""
    async with open_storage("memory://") as storage:
        experiment = await made(storage, 1)
        [trial] = await storage.fetch_trials(experiment) or []
        for reason in (ONE_TOO_MANY, "cancelled", ONE_TOO_MANY):
            reserved = await storage.reserve_trial(experiment)
            assert reserved is not None
            await storage.set_trial_status(reserved, "interrupted", reason=reason)
        history = await storage.trial_history(trial)
        assert attempts_in(history) == 1
        assert earlier_ends(history) == ["cancelled"]


async def test_attempts_need_a_history() -> None:
    async with open_storage("memory://", history="off") as storage:
        experiment = await made(storage, 1)
        with pytest.raises(ConfigurationError, match="max_attempts counts attempts"):
            await Worker(storage, experiment, by_name, max_attempts=2).run()
        assert len(await storage.fetch_pending_trials(experiment)) == 1


async def test_engines_that_fail_now_and_then() -> None:
    driver = FaultyDriver(MemoryDriver(), before=0.1, lost=0.1, after=0.2, seed=3)
    policy = RetryPolicy(attempts=60, initial=0.0005, maximum=0.002, jitter=0.0005)
    async with Storage(driver, retry=policy) as storage:
        experiment = await storage.create_experiment(make_config(max_trials=12))

        def suggest(algorithm: Any, count: int) -> list[dict[str, int]]:
            begin = algorithm.state or 0
            algorithm.set_state(begin + count)
            return [{"x": x} for x in range(begin, begin + count)]

        report = await Worker(storage, experiment, in_the_loop, tasks=3, suggest=suggest).run()
        assert (report.completed, report.broken, report.ended_by) == (12, 0, "max_trials")
        assert await storage.count_completed_trials(experiment) == 12
        assert not await storage.fetch_trials_by_status(experiment, "reserved")
    assert driver.faults > 10


async def test_wrong_arguments() -> None:
    async with open_storage("memory://") as storage:
        experiment = await made(storage, 1)
        wrong: dict[str, tuple[Any, ...]] = {
            "tasks": (0, True, 1.5, None),
            "executor": ("threads", None, []),
            "suggest": (5, "x"),
            "max_trials": (False, -1, 1.5, "2"),
            "max_attempts": (0, True, "2"),
            "wait": (-1, "1", None),
            "grace": (-1, math.inf, None),
            "heartbeat": (0, "1"),
            "signals": (None, "no"),
            "on_event": (5,),
            "progress": (None, 2),
        }
        for name, values in wrong.items():
            for value in values:
                with pytest.raises(InvalidArgument, match=f"Worker: {name} is"):
                    Worker(storage, experiment, by_name, **{name: value})
        url: Any = "memory://"
        with pytest.raises(InvalidArgument, match="there is run_worker"):
            Worker(url, experiment, by_name)
        title: Any = "tune"
        with pytest.raises(InvalidArgument, match="there is run_worker"):
            Worker(storage, title, by_name)
        not_callable: Any = 5
        with pytest.raises(InvalidArgument, match="objective is a function"):
            Worker(storage, experiment, not_callable)
        with pytest.raises(ConfigurationError, match="may have the arguments"):
            Worker(storage, experiment, by_name, suggest=lambda space: space)
        with pytest.raises(ConfigurationError, match="another process can import"):
            Worker(storage, experiment, lambda x: x, executor="process")
        with pytest.raises(RunningLoopError, match="await Worker"):
            run_worker("memory://", {"name": "tune"}, by_name)


def test_one_call(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'work.db'}"
    with pytest.raises(ConfigurationError, match="there is no experiment 'tune' at"):
        run_worker(url, "tune", by_name)
    config = {"name": "tune", "max_trials": 4}
    remaining = list(range(6))

    def suggest(count: int) -> list[dict[str, Any]]:
        return [{"x": remaining.pop()} for _ in range(count)]

    report = run_worker(url, config, by_name, tasks=2, suggest=suggest)
    assert (report.completed, report.ended_by) == (4, "max_trials")
    assert "_id" not in config
    assert run_worker(url, config, by_name).ended_by == "max_trials"
    assert run_worker(open_storage(url), "tune", by_name, max_trials=2).completed == 0
    with SyncStorage(open_storage(url)) as storage:
        [experiment] = storage.fetch_experiments({})
        assert storage.count_completed_trials(experiment) == 4
        assert storage.limit_reached(experiment) == "max_trials"
        storage.update_experiment(experiment, max_trials=5)
    report = run_worker({"url": url}, experiment, by_name, suggest=suggest)
    assert report.completed == 1
    wrong: Any = 5
    with pytest.raises(InvalidArgument, match="run_worker: storage is"):
        run_worker(wrong, "tune", by_name)
