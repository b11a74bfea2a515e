"""What OpenTelemetry is told, by a real SDK that keeps it in memory."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode

from aiostorage import FailedUpdate, LockAcquisitionTimeout, Storage, SyncStorage, Trial
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.driver_calls.retry import RetryPolicy
from aiostorage._core.observed import observe_by
from aiostorage._core.telemetry import Telemetry, store_attributes
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.track import TrackDriver
from aiostorage.protocols import Driver
from aiostorage.testing import FaultyDriver

ROOT = Path(__file__).parents[2]


class Told:
    """Both providers, and what they were told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("of the test")

    def storage(self, driver: Driver, **settings: Any) -> Storage:
        storage = Storage(driver, telemetry=False, **settings)
        observe_by(storage, Telemetry(driver, self.tracers, self.meters))
        return storage

    def spans(self) -> list[ReadableSpan]:
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def told() -> Told:
    return Told()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.anyio
async def test_spans(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    async with told.storage(SQLiteDriver(path)) as storage:
        assert isinstance(storage, Storage)
        assert type(storage).__name__ == "Storage"
        with told.tracer.start_as_current_span("outer") as outer:
            experiment = await storage.create_experiment({"name": "tune"})
            await storage.register_trials(
                trials=[Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
            )
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.complete_trial(trial, 1.0)
            with pytest.raises(KeyError):
                async with storage.acquire_algorithm_lock(experiment):
                    raise KeyError("of the body")
            assert len([found async for found in storage.iter_trials(experiment)]) == 3
            with pytest.raises(FailedUpdate):
                await storage.complete_trial(trial, 2.0)
        spans = told.spans()
    assert [span.name for span in spans] == [
        "create_experiment experiments",
        "register_trials trials",
        "reserved_trial trials",
        "complete_trial trials",
        "reserved_trial.end trials",
        "acquire_algorithm_lock algo",
        "acquire_algorithm_lock.end algo",
        "iter_trials trials",
        "complete_trial trials",
        "outer",
    ]
    ours, failed = spans[:-1], spans[-2]
    assert {span.kind for span in ours} == {SpanKind.CLIENT}
    assert {parent_of(span) for span in ours} == {outer.get_span_context().span_id}
    assert attributes_of(ours[3]) == {
        "db.system.name": "sqlite",
        "db.namespace": str(path),
        "db.operation.name": "complete_trial",
        "db.collection.name": "trials",
        "aiostorage.experiment.id": str(experiment.id),
        "aiostorage.trial.id": trial.id,
    }
    assert attributes_of(ours[2])["aiostorage.trial.id"] == trial.id
    assert {span.status.status_code for span in ours[:-1]} == {StatusCode.UNSET}
    assert failed.status.status_code is StatusCode.ERROR
    assert "nothing was written" in (failed.status.description or "")
    assert attributes_of(failed)["error.type"] == "aiostorage.errors.FailedUpdate"
    times = told.points()["db.client.operation.duration"]
    by_error = {
        (p.attributes["db.operation.name"], p.attributes.get("error.type")): p for p in times
    }
    assert by_error["complete_trial", None].count == 1
    assert by_error["complete_trial", "aiostorage.errors.FailedUpdate"].count == 1
    assert by_error["complete_trial", None].explicit_bounds[0] == 0.001
    assert not any(name.startswith("aiostorage.") for p in times for name in p.attributes)


@pytest.mark.anyio
async def test_metrics(told: Told) -> None:
    faulty = FaultyDriver(MemoryDriver())
    policy = RetryPolicy(initial=0, maximum=0, jitter=0)
    async with told.storage(NotingDriver(faulty), retry=policy) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        told.spans()
        faulty.fail_next("before", count=2)
        async with storage.reserved_trial(experiment, heartbeat=0.001):
            while "aiostorage.heartbeat.lag" not in told.points():
                await anyio.sleep(0.001)
        async with storage.acquire_algorithm_lock(experiment):
            with pytest.raises(LockAcquisitionTimeout):
                async with storage.acquire_algorithm_lock(experiment, timeout=0.01):
                    pass
    reserving = told.spans()[0]
    assert [event.name for event in reserving.events] == ["aiostorage.retry"] * 2
    points = told.points()
    [retries] = points["aiostorage.operation.retries"]
    assert retries.value == 2
    assert retries.attributes["error.type"] == "aiostorage.errors.TemporaryBackendError"
    assert sorted(
        p.attributes.get("error.type", "") for p in points["aiostorage.lock.wait_time"]
    ) == [
        "",
        "aiostorage.errors.LockAcquisitionTimeout",
    ]
    [hold] = points["aiostorage.lock.hold_time"]
    assert hold.count == 1
    assert hold.sum >= 0.01


@pytest.mark.anyio
@pytest.mark.parametrize("make", [SQLiteDriver, TrackDriver])
async def test_groups(make: Callable[[Path], Driver], told: Told, tmp_path: Path) -> None:
    async with told.storage(make(tmp_path / "tune")) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(300)]
        await asyncio.gather(*map(storage.register_trial, trials))
    [sizes], [lengths] = (
        told.points()[f"aiostorage.{name}"] for name in ("group.size", "queue.length")
    )
    assert sizes.max > 10  # those that came while the first write was under way
    assert sizes.count == lengths.count < 300
    assert sizes.sum >= 301


def test_a_facade_goes_on_with_the_span_of_its_caller(told: Told) -> None:
    with SyncStorage(told.storage(MemoryDriver())) as storage:
        with told.tracer.start_as_current_span("outer") as outer:
            experiment = storage.create_experiment({"name": "tune"})
            with storage.acquire_algorithm_lock(experiment):
                pass
            assert list(storage.iter_trials(experiment)) == []
    ours = told.spans()[:-1]
    assert len(ours) == 4
    assert {parent_of(span) for span in ours} == {outer.get_span_context().span_id}


@pytest.mark.anyio
async def test_copies(told: Told) -> None:
    storage = told.storage(MemoryDriver())
    for made in (pickle.loads(pickle.dumps(storage)), copy.copy(storage)):
        assert type(made) is Storage  # a copy finds out for itself
    assert type(storage) is not Storage
    await storage.aclose()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("memory://", {}),
        ("/data/tune.db", {"db.namespace": "/data/tune.db"}),
        (
            "mongodb://db.example:27018/tune",
            {"db.namespace": "tune", "server.address": "db.example", "server.port": 27018},
        ),
        (
            "mongodb://a:1,b:2/tune",
            {"db.namespace": "tune", "server.address": "a:1,b:2"},
        ),
        (
            "mongodb+srv://cluster.example/tune",
            {"db.namespace": "tune", "server.address": "cluster.example"},
        ),
    ],
)
def test_where_a_store_is(location: str, expected: dict[str, Any]) -> None:
    driver = MemoryDriver()
    driver.location = location
    assert store_attributes(driver) == {"db.system.name": "memory", **expected}


WHEN = """
import asyncio, os, sys
from aiostorage import ConfigurationError, Storage, open_storage

def told(**settings):
    return type(open_storage("memory://", **settings)) is not Storage

assert not told() and "opentelemetry" not in sys.modules
sys.modules["opentelemetry"] = None
try:
    told(telemetry=True)
except ConfigurationError as error:
    assert "aiostorage-orion[telemetry]" in str(error)
else:
    raise AssertionError
del sys.modules["opentelemetry"]
from opentelemetry import metrics, trace
assert not told() and told(telemetry=True)
os.environ["OTEL_PYTHON_TRACER_PROVIDER"] = "sdk_tracer_provider"
assert told()
del os.environ["OTEL_PYTHON_TRACER_PROVIDER"]
early = open_storage("memory://")
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
assert told() and not told(telemetry=False)
asyncio.run(early.open())
assert type(early) is not Storage
os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "redis, aiostorage"
assert not told(telemetry=True)
del os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]
os.environ["OTEL_SDK_DISABLED"] = "True"
assert not told()
"""


def test_when_anything_is_told() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WHEN],
        env={**kept, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
