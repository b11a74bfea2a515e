"""Short calls of a facade on SQLite, which are carried out in the thread of its event loop."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aiostorage import (
    BackendError,
    DuplicateKeyError,
    Experiment,
    RetryPolicy,
    Storage,
    SyncStorage,
    Trial,
    open_storage,
)
from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage._core.process.facade_loop import FACADE_LOOP
from aiostorage.drivers.sqlite import SQLiteDriver, connection, short_calls
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.database_file import LOG_CHECK_INTERVAL
from aiostorage.drivers.sqlite.short_calls import CROWDED_SECONDS
from aiostorage.drivers.sqlite.sql import tables_of
from aiostorage.operations import And, Compare, Condition, Or

LOOP = "aiostorage"
"""The name of the thread of a facade's loop."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "short.db"


@pytest.fixture
def facade(path: Path) -> Iterator[SyncStorage]:
    with SyncStorage(open_storage(f"sqlite:///{path}")) as storage:
        yield storage


@pytest.fixture
def experiment(facade: SyncStorage) -> Experiment:
    experiment = facade.create_experiment({"name": "short"})
    trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(100)]
    facade.register_trials(trials)
    return experiment


@pytest.fixture
def threads(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of the threads in which functions were called with a connection."""
    found: list[str] = []
    execute = Connection.execute

    def noted(self: Connection, sql: Any, parameters: Any = (), /) -> Any:
        if callable(sql):
            found.append(threading.current_thread().name)
        return execute(self, sql, parameters)

    monkeypatch.setattr(Connection, "execute", noted)
    return found


def cycle(facade: SyncStorage, experiment: Experiment) -> Trial:
    """Reserve a trial, complete it, and look at it."""
    trial = facade.reserve_trial(experiment)
    assert trial is not None
    facade.update_heartbeat(trial)
    with facade.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"n": trial.params["x"]})
    facade.complete_trial(trial, 1.0)
    return facade.get_trial(trial) or trial


def test_no_other_thread_is_woken(
    facade: SyncStorage,
    experiment: Experiment,
    threads: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # however slow the machine is
    monkeypatch.setattr(short_calls, "MAX_BLOCKING_SECONDS", math.inf)
    assert cycle(facade, experiment).status == "completed"
    assert len(threads) > 5
    assert set(threads) == {LOOP}


def test_a_search_that_may_be_long_is_left_to_a_thread(
    facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    assert len(facade.fetch_trials(experiment, params={"x": 50}) or []) == 1
    assert facade.count_completed_trials(experiment) == 0
    assert threads
    assert LOOP not in threads


@pytest.mark.anyio
async def test_the_loop_of_a_user_waits_for_no_connection(path: Path, threads: list[str]) -> None:
    async with open_storage(f"sqlite:///{path}") as storage:
        [config] = await storage.fetch_experiments({"name": "short"})
        assert await storage.reserve_trial(config) is not None
    assert threads
    assert threading.current_thread().name not in threads


def test_two_callers_do_not_wait_for_each_other(
    facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    async def both() -> bool:
        waiting = FACADE_LOOP.waiting
        assert isinstance(waiting, set)
        another = object()
        waiting.add(another)
        try:
            return bool(await facade._storage.reserve_trial(experiment))
        finally:
            waiting.discard(another)

    assert facade._portal.call(both)
    assert threads
    assert LOOP not in threads


def test_callers_who_have_met_are_expected_to_meet_again(
    facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    waiting = facade._portal._running().waiting
    waiting.crowded = time.monotonic()
    assert facade.reserve_trial(experiment)
    assert set(threads).isdisjoint({LOOP})
    waiting.crowded -= CROWDED_SECONDS
    assert facade.reserve_trial(experiment)
    assert threads[-1] == LOOP


def test_who_is_interrupted_during_the_commit_has_reserved_nothing(
    facade: SyncStorage, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = facade._portal
    call = portal.prepare(lambda: facade._storage.reserve_trial(experiment))
    syncs: list[str] = []

    def interrupted(log: int) -> None:
        syncs.append(threading.current_thread().name)
        call.cancel()
        os.fdatasync(log)

    monkeypatch.setattr(connection, "fdatasync", interrupted)
    call.wait()
    assert syncs[0] == LOOP
    assert facade.fetch_trials_by_status(experiment, "reserved") == []


def test_a_long_page_of_the_log_is_left_to_a_thread(
    facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    assert len(facade.changes_since(experiment, "oldest", limit=500).changes) == 100
    assert LOOP in threads
    threads.clear()
    assert len(facade.changes_since(experiment, "oldest", limit=501).changes) == 100
    assert LOOP not in threads


def test_each_call_fails_once_the_log_is_known_to_be_gone(
    path: Path, facade: SyncStorage, experiment: Experiment
) -> None:
    trial = facade.reserve_trial(experiment)
    assert trial is not None
    Path(f"{path}-wal").unlink()
    with pytest.raises(BackendError, match="was removed or replaced"):
        while True:
            facade.update_heartbeat(trial)
    end = time.monotonic() + 3 * LOG_CHECK_INTERVAL
    while time.monotonic() < end:
        with pytest.raises(BackendError, match="was removed or replaced"):
            facade.update_heartbeat(trial)


def test_another_process_that_writes_holds_up_no_other_caller(
    path: Path, facade: SyncStorage, experiment: Experiment
) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        with ThreadPoolExecutor(1) as pool:
            reserving = pool.submit(facade.reserve_trial, experiment)
            for _ in range(20):
                assert len(facade.fetch_trials(experiment) or []) == 100
            assert not reserving.done()
            writer.execute("COMMIT")
            assert reserving.result(timeout=30) is not None
    finally:
        writer.close()
    assert len(facade.fetch_trials_by_status(experiment, "reserved")) == 1


def test_a_call_that_waits_for_another_process_is_made_once_and_ends_in_time(
    path: Path, experiment: Experiment
) -> None:
    retry = RetryPolicy(attempts=1, attempt_timeout=0.3)
    with SyncStorage(Storage(SQLiteDriver(path), retry=retry)) as impatient:
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError):
            impatient.reserve_trial(experiment)
        writer.execute("ROLLBACK")
        writer.close()
        assert impatient.fetch_trials_by_status(experiment, "reserved") == []
        assert impatient.reserve_trial(experiment) is not None


def test_the_loop_turns_between_many_calls(
    facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    [trial, *_] = facade.fetch_trials(experiment) or []
    threads.clear()

    async def many() -> int:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(turn())
        for _ in range(300):
            assert await facade._storage.get_trial(trial) is not None
        task.cancel()
        return turns

    assert facade._portal.call(many) > 10
    assert len(threads) == 300
    assert threads.count(LOOP) > 100


def test_an_error_is_that_of_the_threads(
    path: Path, facade: SyncStorage, experiment: Experiment, threads: list[str]
) -> None:
    with pytest.raises(DuplicateKeyError):
        facade.create_experiment({"name": "short"})
    assert LOOP in threads
    path.rename(path.with_suffix(".moved"))
    with pytest.raises(BackendError, match="was removed or moved"):
        facade.reserve_trial(experiment)
    path.with_suffix(".moved").rename(path)


def test_what_is_short() -> None:
    trials = tables_of(LAYOUT)[TRIALS]
    of_one = Compare("experiment", "eq", 1)
    cases: list[tuple[Condition, float, float]] = [
        (And((of_one, Compare("id", "eq", "a"))), float("inf"), 1),
        (And((of_one, Compare("id", "in", ("a", "b", "c")))), float("inf"), 3),
        (And((of_one, Compare("id", "eq", "a"), Compare("params.x", "eq", 1))), float("inf"), 1),
        (And((of_one, Compare("status", "eq", "new"))), 2, 2),
        (And((of_one, Compare("status", "eq", "new"))), float("inf"), float("inf")),
        (And((of_one, Compare("params.x", "eq", 1))), 2, float("inf")),
        (Or((of_one, Compare("status", "eq", "new"))), 2, 2),
        (Or((of_one, Compare("params.x", "eq", 1))), 2, float("inf")),
        (Compare("_id", "eq", "a"), float("inf"), 1),
    ]
    for where, limit, most in cases:
        assert trials.most_read(where, limit) == most, where
