"""Trackers that raise or return what they must not: no worker notices, and the others are sent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import anyio
import pytest

from aiostorage import InvalidResult, Storage, TrackerError, TrackerTimeout, Trial
from aiostorage._core.mirror import Mirror
from aiostorage._core.outbox import Outbox
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Find
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from tests.trackers.conftest import QUICK
from tests.trackers.test_delivery import tuned

pytestmark = pytest.mark.anyio


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class OddTracker:
    """A tracker that does for trials with x = 1 what it is told."""

    name = "odd"
    location = "here"
    max_concurrency = 2

    def __init__(self, odd: Callable[[], Any]) -> None:
        self.odd = odd
        self.sent: list[Any] = []
        self.deleted: list[str] = []
        self.metrics: Callable[[], Any] = dict
        self.variables: Callable[[], Any] = dict

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        return "e"

    def send_trial(self, tracked: TrackedTrial) -> Any:
        x = tracked.trial.params["x"]
        if x == 1:
            return self.odd()
        self.sent.append(x)
        return str(x)

    def delete_experiment(self, key: str) -> None:
        pass

    def delete_trial(self, key: str) -> None:
        self.deleted.append(key)

    def fetch_metrics(self, key: str) -> Any:
        return self.metrics()

    def environment(self, experiment_key: str, key: str) -> Any:
        return self.variables()


def raises(error: BaseException | type[BaseException]) -> Callable[[], Any]:
    def odd() -> Any:
        raise error

    return odd


def mirror_of(storage: Storage) -> Mirror:
    assert storage._mirror is not None
    return storage._mirror


def tracker_of(storage: Storage) -> OddTracker:
    tracker = mirror_of(storage).tracker
    assert isinstance(tracker, OddTracker)
    return tracker


async def stored(storage: Storage, experiment: Any) -> list[Trial]:
    trials = await storage.fetch_trials(experiment)
    assert trials is not None
    return trials


class Making(Protocol):
    async def __call__(self, odd: Callable[[], Any], settings: Any = QUICK) -> Storage: ...


@pytest.fixture
async def making() -> AsyncIterator[Making]:
    async with AsyncExitStack() as stack:

        async def make(odd: Callable[[], Any], settings: Any = QUICK) -> Storage:
            storage = Storage(MemoryDriver(), tracker=OddTracker(odd))
            mirror_of(storage).deliverer.settings = settings
            await storage.open()
            stack.push_async_callback(storage.aclose)
            return storage

        yield make


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(raises(SystemExit(3)), id="SystemExit"),
        pytest.param(raises(KeyboardInterrupt("k")), id="KeyboardInterrupt"),
        pytest.param(raises(GeneratorExit), id="GeneratorExit"),
        pytest.param(raises(StopIteration("x")), id="StopIteration"),
        pytest.param(raises(StopAsyncIteration("x")), id="StopAsyncIteration"),
        pytest.param(raises(asyncio.CancelledError), id="CancelledError"),
        pytest.param(raises(concurrent.futures.CancelledError), id="futures.CancelledError"),
        pytest.param(raises(TimeoutError("t")), id="TimeoutError"),
        pytest.param(raises(asyncio.InvalidStateError("t")), id="InvalidStateError"),
        pytest.param(raises(BaseExceptionGroup("g", [SystemExit(1)])), id="group"),
        pytest.param(raises(Unspeakable), id="Unspeakable"),
        pytest.param(lambda: 7, id="number"),
        pytest.param(lambda: b"x", id="bytes"),
        pytest.param(lambda: "\ud800", id="surrogate"),
        pytest.param(lambda: "a\0b", id="NUL"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: "x" * 1_000_000, id="long"),
        pytest.param(lambda: type("S", (str,), {})("sub"), id="subclass"),
    ],
)
async def test_a_trial_that_goes_wrong(odd: Callable[[], Any], making: Making) -> None:
    storage = await making(odd)
    await tuned(storage, 3)
    with anyio.fail_after(15):
        await storage.flush_tracker(5)
    assert sorted(tracker_of(storage).sent) == [0, 2]
    run = mirror_of(storage).deliverer._run
    assert run is not None
    assert not run.task.done()


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("x"), asyncio.CancelledError()])
async def test_what_a_caller_gets(error: BaseException, making: Making) -> None:
    storage = await making(lambda: "1")
    experiment = await tuned(storage, 1)
    [trial] = await stored(storage, experiment)
    await storage.flush_tracker(5)
    tracker = tracker_of(storage)
    tracker.metrics = tracker.variables = raises(error)
    with pytest.raises(TrackerError, match=type(error).__name__):
        await storage.tracker_environment(trial)
    with pytest.raises(TrackerError, match=type(error).__name__):
        await storage.retrieve_result(trial)


@pytest.mark.parametrize(
    "odd", [None, 5, {"A": None}, {1: "x"}, {"A=B": "x"}, {"A": "\0"}, {"": "x"}]
)
async def test_an_environment_that_is_none(odd: Any, making: Making) -> None:
    storage = await making(lambda: "1")
    experiment = await tuned(storage, 1)
    await storage.flush_tracker(5)
    tracker_of(storage).variables = lambda: odd
    [trial] = await stored(storage, experiment)
    with pytest.raises(TrackerError, match="not the environment"):
        await storage.tracker_environment(trial)
    with pytest.raises(TrackerError, match="not the environment"):
        async with storage.reserved_trial(experiment, export_environment=True):
            pass
    [trial] = await stored(storage, experiment)
    assert trial.status != "reserved"


@pytest.mark.parametrize("odd", [None, 5, {"a": "x"}, {"a": None}, {1: 2}, [("a", 1)]])
async def test_metrics_that_are_none(odd: Any, making: Making) -> None:
    storage = await making(lambda: "1")
    experiment = await tuned(storage, 1)
    await storage.flush_tracker(5)
    tracker_of(storage).metrics = lambda: odd
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    with pytest.raises((TrackerError, InvalidResult)):
        await storage.retrieve_result(trial)


async def test_the_timeout_holds_for_the_call_too(making: Making) -> None:
    storage = await making(lambda: "1")
    experiment = await tuned(storage, 1)
    await storage.flush_tracker(5)
    tracker_of(storage).variables = partial(time.sleep, 0.7)
    [trial] = await stored(storage, experiment)
    begin = anyio.current_time()
    with pytest.raises(TrackerTimeout):
        await storage.tracker_environment(trial, 0.1)
    assert anyio.current_time() - begin < 0.5


async def test_what_was_sent_is_settled_together(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await making(lambda: "1")
    sizes = []
    settle = Outbox.settle_together

    async def counted(outbox: Outbox, settled: Any) -> None:
        sizes.append(len(settled))
        await settle(outbox, settled)

    monkeypatch.setattr(Outbox, "settle_together", counted)
    await tuned(storage, 100)
    await storage.flush_tracker(5)
    assert sum(sizes) == 101
    assert len(sizes) < 20


async def test_a_key_does_not_wait_for_another_call(making: Making) -> None:
    goes_on = threading.Event()
    storage = await making(lambda: goes_on.wait(5) and "1", replace(QUICK, call_limit=10, lease=30))
    experiment = await tuned(storage, 3)
    try:
        [trial] = [t for t in await stored(storage, experiment) if t.params["x"] == 2]
        await storage.tracker_environment(trial, 2)
        assert not goes_on.is_set()
    finally:
        goes_on.set()


async def test_closing_settles_what_was_sent(making: Making) -> None:
    goes_on = threading.Event()
    storage = await making(lambda: goes_on.wait(5) and "1", replace(QUICK, on_close=0.0))
    await tuned(storage, 3)
    driver = mirror_of(storage)._gateway.driver
    while 2 not in tracker_of(storage).sent:
        await anyio.sleep(0.001)
    await mirror_of(storage).deliverer.aclose()
    goes_on.set()
    rows = await driver.execute(Find("outbox"))
    assert len({row["trial"] for row in rows}) == 1


@pytest.mark.parametrize("wanted", ["other", "late"])
async def test_a_run_that_is_made_after_the_lease(making: Making, wanted: str) -> None:
    goes_on, begun = threading.Event(), threading.Event()

    def late() -> str:
        begun.set()
        goes_on.wait(10)
        return "late"

    storage = await making(late, replace(QUICK, call_limit=0.8, lease=1.0))
    experiment = await tuned(storage, 2)
    outbox = Outbox(mirror_of(storage)._gateway)
    try:
        with anyio.fail_after(5):
            while not begun.is_set():
                await anyio.sleep(0.01)
        # as if this process had stood still meanwhile
        owner = mirror_of(storage).deliverer.owner
        assert owner is not None
        await outbox.release_lease(owner)
        assert await outbox.acquire_lease("another", 60)
        run = mirror_of(storage).deliverer._run
        assert run is not None
        with anyio.fail_after(5):
            while run._lease.left > 0:
                await anyio.sleep(0.01)
        [trial] = [t for t in await stored(storage, experiment) if t.params["x"] == 1]
        record = await outbox.record(experiment.id, trial.id)
        assert record.uncertain
        await outbox.settle(await outbox.rows(9), replace(record, key=wanted))
    finally:
        goes_on.set()
    deleted = tracker_of(storage).deleted
    with anyio.move_on_after(5 if wanted == "other" else 0.7):
        while not deleted:
            await anyio.sleep(0.01)
    assert deleted == (["late"] if wanted == "other" else [])
    await outbox.release_lease("another")
    await storage.flush_tracker(5)
