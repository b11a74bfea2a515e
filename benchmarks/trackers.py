"""What a tracker costs the workers: with none, and with one that is up, down or slow."""

from __future__ import annotations

import asyncio
import itertools
import logging
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiostorage import Storage, TrackerUnavailable, open_storage
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from benchmarks.workload import fill

__all__ = ["TrackerCost", "costs"]

TASKS = 8
ROUNDS = 5
OBJECTIVES = {"nothing": 0.0, "5 ms": 0.005}
DELAYS = {"up": 0.005, "down": None, "slow": 0.5}
"""The seconds that each call takes, as one to a server does; None if there is no answer."""


class BenchTracker:
    """A tracker that takes its time and keeps nothing."""

    name = "bench"
    location = "nowhere"
    max_concurrency = 4

    def __init__(self, delay: float | None) -> None:
        self.delay = delay

    def open(self) -> None:
        """Connect."""
        self._take_time()

    def close(self) -> None:
        """Disconnect."""

    def _take_time(self) -> None:
        if self.delay is None:
            raise TrackerUnavailable("it is down")
        time.sleep(self.delay)

    def send_experiment(self, tracked: TrackedExperiment) -> str:
        """Take an experiment."""
        self._take_time()
        return str(tracked.experiment.id)

    def send_trial(self, tracked: TrackedTrial) -> str:
        """Take a trial."""
        self._take_time()
        return tracked.trial.id

    def delete_experiment(self, key: str) -> None:
        """Delete nothing."""

    def delete_trial(self, key: str) -> None:
        """Delete nothing."""

    def fetch_metrics(self, key: str) -> Mapping[str, float]:
        """Return nothing."""
        return {key: 0.0}

    def environment(self, experiment_key: str, key: str) -> Mapping[str, str]:
        """Return nothing."""
        return {experiment_key: key}


@dataclass(frozen=True)
class TrackerCost:
    """Trials per second without a tracker, and the ratio to that with each kind of tracker."""

    engine: str
    objective: str
    rate: float
    ratios: Mapping[str, float]


def costs(directory: Path, count: int) -> list[TrackerCost]:
    """Measure in alternating blocks, so that what else the machine does hits all alike."""
    logging.getLogger("aiostorage").setLevel(logging.ERROR)  # what is left over is no news here
    numbers = itertools.count()
    found = []
    for engine, (name, seconds) in itertools.product(("memory", "sqlite"), OBJECTIVES.items()):
        rates: dict[str, list[float]] = {kind: [] for kind in ("none", *DELAYS)}
        for _ in range(ROUNDS):
            for kind, kept in rates.items():
                file = directory / f"tracker-{next(numbers)}.db"
                url = "memory://" if engine == "memory" else f"sqlite:///{file}"
                kept.append(asyncio.run(_rate(url, kind, seconds, count)))
        ratios = {
            kind: statistics.median(a / b for a, b in zip(rates[kind], rates["none"], strict=True))
            for kind in DELAYS
        }
        found.append(TrackerCost(engine, name, statistics.median(rates["none"]), ratios))
    return found


async def _rate(url: str, kind: str, seconds: float, count: int) -> float:
    if kind == "none":
        storage = open_storage(url)
    else:
        storage = open_storage(url, tracker=BenchTracker(DELAYS[kind]), deliver_on_close=0.0)
    async with storage:
        experiment = await fill(storage, "bench", count)
        if kind == "up":
            await storage.flush_tracker()
        begin = time.perf_counter()
        await asyncio.gather(*(_work(storage, experiment.id, seconds) for _ in range(TASKS)))
        return count / (time.perf_counter() - begin)


async def _work(storage: Storage, experiment: str | int, seconds: float) -> None:
    while (trial := await storage.reserve_trial({"_id": experiment})) is not None:
        if seconds:
            await asyncio.sleep(seconds)
        await storage.complete_trial(trial, 1.0)
