"""A tracker that is down, slow, hanging, picky or broken, and what workers notice: nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import Storage, TrackerError, TrackerTimeout, Trial
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.operations import Compare, Update
from aiostorage.protocols import Driver
from tests.trackers.conftest import QUICK, Opening
from tests.trackers.file_tracker import FileTracker, Seen
from tests.trackers.test_delivery import tuned

pytestmark = pytest.mark.anyio

LONG = replace(QUICK, call_limit=0.3)
"""Deliverers that do not wait long for an answer."""


@pytest.fixture
def make_driver(tmp_path: Path) -> Callable[[], Driver]:
    """Give one store in a file: nothing here depends on the engine."""
    return lambda: SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL")


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]


def tracker_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name == "aiostorage-tracker"}


async def done_by_now(condition: Callable[[], bool], within: float = 20) -> None:
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.01)


async def test_an_outage(storage: Storage, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiostorage")
    experiment = await tuned(storage, 3)
    await storage.flush_tracker(20)
    seen.switch("down")
    for _ in range(3):
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.complete_trial(trial, 1.0)
        with pytest.raises(TrackerTimeout, match="is down") as raised:
            await storage.flush_tracker(0.1)
    assert raised.value.left == 6
    assert str(raised.value.last_error).endswith("is down")
    assert len(said(caplog, "cannot be reached")) == 1
    sent = len(seen.log())
    seen.switch("down", None)
    await storage.flush_tracker(20)
    await done_by_now(lambda: len(said(caplog, "can be reached again")) == 1)
    assert [run.status for run in seen.runs()] == ["completed"] * 3
    assert len(seen.log()) == sent + 3  # an hour of changes is one sending
    assert len(said(caplog, "cannot be reached")) == 1


async def test_what_is_refused_waits_for_its_next_change(
    storage: Storage, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    trial = Trial(experiment=experiment.id, params={"x": 1})
    seen.switch("refuse", trial.id)
    await storage.register_trials([trial, Trial(experiment=experiment.id, params={"x": 2})])
    await storage.flush_tracker(20)
    assert [run.params["x"] for run in seen.runs()] == [2]
    assert len(said(caplog, f"refuses trial {trial.id}")) == 1
    with pytest.raises(TrackerError, match="has no run of trial"):
        await storage.tracker_environment(trial, 20)
    seen.switch("refuse", None)
    assert await storage.reserve_trials(experiment, 2)
    await storage.flush_tracker(20)
    assert sorted(run.params["x"] for run in seen.runs()) == [1, 2]


async def test_an_experiment_that_is_refused(
    storage: Storage, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    seen.switch("refuse", experiment.id)
    await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    other = await tuned(storage, 2, "other")
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 2
    assert said(caplog, "refuses experiment")
    seen.switch("refuse", None)
    await storage.update_experiment(experiment, max_trials=3)
    await storage.reserve_trial(experiment)
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 3
    assert other.id != experiment.id


async def test_a_bug_of_the_tracker(
    storage: Storage, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    await storage.flush_tracker(20)
    seen.switch("bug", "all")
    await tuned(storage, 3)
    await storage.flush_tracker(20)
    seen.switch("bug", None)
    traces = [r for r in caplog.records if r.exc_info]
    assert len(traces) == 1
    assert said(caplog, "ZeroDivisionError: a bug of the tracker")
    await tuned(storage, 3, "other")
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 3


async def test_a_call_that_hangs(opening: Opening, seen: Seen) -> None:
    storage = await opening(LONG)
    experiment = await tuned(storage, 1)
    await storage.flush_tracker(20)
    seen.switch("hang", 1.2)
    assert await storage.reserve_trial(experiment)
    with pytest.raises(TrackerTimeout, match=r"no answer within 0.3 s|not ended"):
        await storage.flush_tracker(0.8)
    seen.switch("hang", None)
    await tuned(storage, 2, "other")
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 3
    assert len(seen.log()) <= 5  # one at a time


async def test_closing_does_not_wait_for_it(
    opening: Opening, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await opening(replace(QUICK, on_close=0.3, call_limit=5.0, lease=20.0))
    await tuned(storage, 3)
    await storage.flush_tracker(20)
    seen.switch("hang", 1.5)
    await tuned(storage, 2, "other")
    start = time.monotonic()
    await storage.aclose()
    assert time.monotonic() - start < 1.2
    [words] = said(caplog, "tracker-sync")
    assert "3 changes in " in words
    assert "store.db have not been sent to the tracker file" in words
    seen.switch("hang", None)
    await done_by_now(lambda: not tracker_threads())


async def test_closing_in_an_outage_is_quick(
    opening: Opening, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    seen.switch("down")
    storage = await opening()
    await tuned(storage, 3)
    start = time.monotonic()
    await storage.aclose()
    await storage.aclose()
    assert time.monotonic() - start < 1
    assert len(said(caplog, "is down); the next storage with this tracker sends them")) == 1
    assert not tracker_threads()


async def test_closing_sends_what_is_left(opening: Opening, seen: Seen) -> None:
    seen.switch("delay", 0.02)
    storage = await opening()
    await tuned(storage, 20)
    await storage.aclose()
    assert len(seen.runs()) == 20
    await done_by_now(lambda: not tracker_threads())


async def test_a_cancelled_closing(opening: Opening, seen: Seen) -> None:
    storage = await opening()
    await tuned(storage, 1)
    await storage.flush_tracker(20)
    seen.switch("delay", 0.05)
    await tuned(storage, 50, "other")
    closing = asyncio.ensure_future(storage.aclose())
    await anyio.sleep(0.1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    seen.switch("delay", None)
    await storage.aclose()
    await done_by_now(lambda: not tracker_threads())
    again = await opening()
    await again.flush_tracker(20)
    assert len(seen.runs()) == 51


async def test_one_of_several_sends(opening: Opening, seen: Seen) -> None:
    first = await opening()
    await first.flush_tracker(20)
    second = await opening()
    await tuned(second, 3)
    await second.flush_tracker(20)
    assert second._mirror is not None
    assert first._mirror is not None
    assert second._mirror.deliverer._run is not None
    assert not second._mirror.deliverer._run.was_deliverer
    await first.aclose()
    await tuned(second, 3, "other")
    await second.flush_tracker(20)
    assert second._mirror.deliverer._run.was_deliverer
    assert len(seen.runs()) == 6


async def test_another_takes_over_from_a_dead_one(opening: Opening, seen: Seen) -> None:
    first = await opening()
    await tuned(first, 1)
    await first.flush_tracker(20)
    run: Any = first._mirror.deliverer._run  # type: ignore[union-attr]

    async def die() -> None:
        run._threads.end()

    run._clean_up = die
    run.task.cancel()
    await asyncio.wait([run.task])
    second = await opening()
    start = time.monotonic()
    await tuned(second, 3, "other")
    await second.flush_tracker(20)
    assert 0.5 < time.monotonic() - start < QUICK.lease + 2
    assert len(seen.runs()) == 4


async def test_an_unreadable_trial(
    make_driver: Callable[[], Driver],
    opening: Opening,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Storage(NotingDriver(make_driver())) as noting:  # which notes changes, sends none
        experiment = await tuned(noting, 2)
        trials = await noting.fetch_trials(experiment)
        assert trials is not None
        there = Compare("id", "eq", trials[0].id)
        await noting._gateway.driver.execute(Update("trials", there, {"params": "none"}))
    storage = await opening()
    await storage.flush_tracker(20)
    assert [run.params["x"] for run in seen.runs()] == [1.0]
    assert said(caplog, "left out: trial")


async def test_an_engine_that_fails_for_a_while(
    storage: Storage, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    await storage.flush_tracker(20)
    run: Any = storage._mirror.deliverer._run  # type: ignore[union-attr]
    rows = run._outbox.rows
    failures = []

    async def fail(*arguments: Any) -> Any:
        from aiostorage import BackendError

        failures.append(arguments)
        raise BackendError("the disk is full")

    run._outbox.rows = fail
    await tuned(storage, 2)
    await done_by_now(lambda: len(failures) > 2)
    run._outbox.rows = rows
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 2
    assert len(said(caplog, "the disk is full")) == 1


async def test_a_tracker_that_cannot_be_opened(
    opening: Opening, seen: Seen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(self: FileTracker) -> None:
        raise ModuleNotFoundError("No module named 'filetracker'")

    with monkeypatch.context() as patch:
        patch.setattr(FileTracker, "open", missing)
        storage = await opening()
        await tuned(storage, 1)
        with pytest.raises(TrackerTimeout, match="ModuleNotFoundError: No module named 'filetr"):
            await storage.flush_tracker(0.3)
        assert len(said(caplog, "cannot be reached")) == 1
    await storage.flush_tracker(20)
    assert len(seen.runs()) == 1


async def test_a_tracker_that_breaks_its_law_fails_no_worker(
    make_driver: Callable[[], Driver], seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    tracker: Any = FileTracker(seen.directory)
    tracker.max_concurrency = "many"
    async with Storage(make_driver(), tracker=tracker) as storage:
        experiment = await tuned(storage, 1)
        assert await storage.reserve_trial(experiment)
    assert said(caplog, "sending to the tracker file cannot begin")


async def test_without_a_tracker_there_is_nothing_to_wait_for() -> None:
    async with Storage(MemoryDriver()) as storage:
        experiment = await tuned(storage, 1)
        await storage.flush_tracker()
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None
            assert await storage.tracker_environment(trial) == {}
