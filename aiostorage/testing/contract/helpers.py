"""Helpers that the modules of the contract share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial

__all__ = [
    "Clock",
    "Open",
    "PassTime",
    "algorithm_state",
    "case",
    "cut",
    "document",
    "gather",
    "lose",
    "make_config",
    "make_trial",
    "registered",
    "reserved",
    "same",
    "show_free",
    "stored",
    "until",
    "with_state",
]

Open = Callable[..., Awaitable[AsyncStorageProtocol]]
"""Opens one more storage on the data of this test, with these settings; closed after the test."""

Clock = Callable[[], datetime]
"""Returns the time by the store's clock; where that is a server's, by the clock of this machine."""

PassTime = Callable[[float], Awaitable[None]]
"""Lets so many seconds pass on the store's clock."""

CONDITION_TIMEOUT = 20.0
"""Seconds after which a condition that does not come true is an error."""


@contextmanager
def case(name: object) -> Iterator[None]:
    """Name the case of a test over many cases, should it fail."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {name!r}")
        raise


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition is true."""
    with anyio.fail_after(CONDITION_TIMEOUT):
        while not await condition():
            await anyio.sleep(0.002)


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


async def reserved(storage: AsyncStorageProtocol, name: str = "tune") -> Trial:
    """Make an experiment with one trial, and reserve that trial."""
    experiment = await storage.create_experiment(make_config(name))
    await registered(storage, experiment, 1)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    return trial


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
    """Make a reserved trial look as if its worker had died an hour ago."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    changed = await storage.update_trial(
        uid=trial.id, experiment_uid=trial.experiment, heartbeat=long_ago
    )
    assert changed == 1


async def with_state(storage: AsyncStorageProtocol, state: Any, name: str = "tune") -> Experiment:
    """Make an experiment whose algorithm has this state."""
    return await storage.create_experiment(make_config(name), algo_state=state)


async def algorithm_state(storage: AsyncStorageProtocol, experiment: Experiment) -> Any:
    """Read the stored state of an algorithm."""
    info = await storage.get_algorithm_lock_info(experiment)
    assert info is not None
    return info.state


async def show_free(storage: AsyncStorageProtocol, experiment: Any) -> None:
    """Show that the algorithm lock can be acquired at once."""
    async with storage.acquire_algorithm_lock(experiment, timeout=0):
        pass


async def gather(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all calls at the same time; the first error cancels the others."""

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
    """Return whether two values are equal, down to their types, the sign of zero, and NaN."""
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
