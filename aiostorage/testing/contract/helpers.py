"""What the modules of the contract share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial

__all__ = [
    "Open",
    "cut",
    "document",
    "gather",
    "lose",
    "make_config",
    "make_trial",
    "registered",
    "same",
    "stored",
]

Open = Callable[..., Awaitable[AsyncStorageProtocol]]
"""Opens one more storage on the data of this test, with these settings; closed after the test."""


def make_config(name: str = "tune", **more: Any) -> dict[str, Any]:
    """Make an experiment's config."""
    return {"name": name, "version": 1, "algorithm": {"random": {"seed": 1}}, **more}


def make_trial(experiment: Experiment | str, x: Any, **more: Any) -> Trial:
    """Make a trial of which `x` is the only parameter."""
    uid = experiment if isinstance(experiment, str) else experiment.id
    return Trial(experiment=uid, params={"x": x}, **more)


async def registered(
    storage: AsyncStorageProtocol, experiment: Experiment, count: int, **more: Any
) -> list[Trial]:
    """Store so many trials, each submitted a second after the one before."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return await storage.register_trials(
        [
            make_trial(experiment, x, submit_time=start + timedelta(seconds=x), **more)
            for x in range(count)
        ]
    )


async def stored(storage: AsyncStorageProtocol, trial: Trial) -> Trial:
    """Read a trial that must be there."""
    found = await storage.get_trial(uid=trial.id, experiment_uid=trial.experiment)
    assert found is not None
    return found


async def document(storage: AsyncStorageProtocol, uid: Any) -> dict[str, Any]:
    """Read the config of an experiment that must be there."""
    (found,) = await storage.fetch_experiments({"_id": uid})
    return found


async def lose(storage: AsyncStorageProtocol, trial: Trial) -> None:
    """Let a reserved trial look as if its worker had died an hour ago."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    changed = await storage.update_trial(
        uid=trial.id, experiment_uid=trial.experiment, heartbeat=long_ago
    )
    assert changed == 1


async def gather(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all at the same time; the first error cancels the others."""

    async def await_it(call: Awaitable[Any]) -> Any:
        return await call

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(await_it(call)) for call in calls]
    return [task.result() for task in tasks]


def cut(moment: datetime, resolution: timedelta) -> datetime:
    """Cut off what is finer than an engine's datetimes."""
    step = resolution // timedelta(microseconds=1)
    return moment.replace(microsecond=moment.microsecond // step * step)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, down to their types, the sign of zero, and NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        if math.isnan(one):
            return math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)
