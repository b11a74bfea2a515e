"""What telemetry costs, in alternating blocks of one run.

``removed``: a storage from which the calls of telemetry were taken. Beside it the same storage as
it is without a provider (``none``), with calls of OpenTelemetry's API alone (``api``), and with an
SDK that keeps all spans and metrics in memory (``sdk``). Other work on the machine disturbs the
rates; the processor time of this process says the same more exactly.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from aiostorage import Experiment, Storage
from aiostorage._core.observed import observe_by
from aiostorage._core.telemetry import Telemetry
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.protocols import Driver
from benchmarks.workload import fill, rate

__all__ = ["KINDS", "TelemetryCost", "costs"]

KINDS = ("removed", "none", "api", "sdk")
TASKS = 64
WARM_UP_TRIALS = 50


@dataclass(frozen=True)
class TelemetryCost:
    """One line of the output.

    Attributes
    ----------
    rate
        Reservations with their completions per second without the calls, median of the blocks.
    ratios
        For each other kind, the ratio of its rate to that of the neighbouring block without the
        calls.
    processor
        The same for the processor time.
    """

    engine: str
    rate: float
    ratios: dict[str, tuple[float, ...]]
    processor: dict[str, tuple[float, ...]]


def costs(directory: Path, count: int, rounds: int) -> list[TelemetryCost]:
    """Measure on SQLite and in memory; `count` trials a block."""

    def on_sqlite() -> Driver:
        return SQLiteDriver(directory / f"{uuid4().hex}.db")

    return [
        asyncio.run(_measure(name, make, count, rounds))
        for name, make in (("sqlite", on_sqlite), ("memory", MemoryDriver))
    ]


async def _measure(
    engine: str, make: Callable[[], Driver], count: int, rounds: int
) -> TelemetryCost:
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    exporter = InMemorySpanExporter()
    async with AsyncExitStack() as stack:
        ready: dict[str, tuple[Storage, Experiment]] = {}
        for kind in KINDS:
            storage = await stack.enter_async_context(_storage(kind, make(), exporter))
            ready[kind] = (
                storage,
                await fill(storage, kind, (rounds + 1) * (count + WARM_UP_TRIALS)),
            )
        for number in range(rounds + 1):
            turn = number % len(KINDS)
            for kind in KINDS[turn:] + KINDS[:turn]:
                storage, experiment = ready[kind]
                exporter.clear()
                begin = time.process_time()
                measure = await rate(
                    lambda s=storage, e=experiment: _evaluate(s, e),  # type: ignore[misc]
                    TASKS,
                    count,
                )
                times[kind].append(time.process_time() - begin)
                rates[kind].append(measure.rate)
    return TelemetryCost(
        engine, statistics.median(rates["removed"][1:]), _ratios(rates), _ratios(times)
    )


def _ratios(found: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    """Return the ratios to the storage without the calls; the first block warms up."""
    without = found["removed"][1:]
    return {
        kind: tuple(a / b for a, b in zip(found[kind][1:], without, strict=True))
        for kind in KINDS[1:]
    }


def _storage(kind: str, driver: Driver, exporter: InMemorySpanExporter) -> Storage:
    if kind == "removed":
        module: Any = sys.modules[Storage.__module__]
        kept, module.observe = module.observe, lambda *_: None
        try:
            return Storage(driver)
        finally:
            module.observe = kept
    storage = Storage(driver)
    if kind == "api":
        observe_by(storage, Telemetry(driver, NoOpTracerProvider(), NoOpMeterProvider()))
    elif kind == "sdk":
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        meters = MeterProvider([InMemoryMetricReader()])
        observe_by(storage, Telemetry(driver, tracers, meters))
    return storage


async def _evaluate(storage: Storage, experiment: Experiment) -> None:
    """Reserve a trial and complete it."""
    trial = await storage.reserve_trial(experiment)
    if trial is None:
        raise AssertionError("the experiment ran out of trials; make more")
    await storage.complete_trial(trial, 0.5)
