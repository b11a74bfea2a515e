"""The calls whose costs the tests here count, each on an experiment of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiostorage import Experiment, Storage, Trial
from aiostorage.testing.contract.helpers import gather, make_config, make_trial, registered

__all__ = ["CALLS", "GROUP", "GROUPS", "Call", "Case", "prepared", "warmed_up"]

GROUP: Final = 64
"""Tasks that make the same call at the same time."""


@dataclass(frozen=True)
class Case:
    """An experiment with `GROUP` pending trials, as many that are reserved, and one completed."""

    storage: Storage
    experiment: Experiment
    held: list[Trial]
    completed: Trial


Call = Callable[[Case], Awaitable[Any]]


async def warmed_up(storage: Storage) -> None:
    """Open a storage, and have it do at once what it does from time to time."""
    await storage.create_experiment(make_config("the first"))
    gateway = storage._gateway
    gateway._sweep_at = gateway._trim_at = float("inf")


async def prepared(storage: Storage, name: str, **config: Any) -> Case:
    """Make the experiment of a call."""
    experiment = await storage.create_experiment({**make_config(name), **config})
    await registered(storage, experiment, 2 * GROUP + 1)
    held = await storage.reserve_trials(experiment, GROUP + 1)
    await storage.complete_trial(held[-1], 0.5)
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"seed": 1})
    return Case(storage, experiment, held[:-1], held[-1])


async def _reserve_without_pending(case: Case) -> None:
    assert await case.storage.reserve_trial({"_id": "has no trials"}) is None


async def _push(case: Case) -> None:
    trial = case.held[0]
    trial.results = 0.5  # type: ignore[assignment]
    assert await case.storage.push_trial_results(trial)


async def _lock(case: Case) -> None:
    async with case.storage.acquire_algorithm_lock(case.experiment):
        pass


async def _lock_with_state(case: Case) -> None:
    async with case.storage.acquire_algorithm_lock(case.experiment) as algorithm:
        algorithm.set_state({"seed": 2})


async def _iterate(case: Case) -> None:
    assert len([trial async for trial in case.storage.iter_trials(case.experiment)]) == 129


async def _changes(case: Case) -> None:
    assert (await case.storage.changes_since(case.experiment, "oldest")).changes


async def _block(case: Case) -> None:
    async with case.storage.reserved_trial(case.experiment) as trial:
        assert trial is not None
        trial.results = 0.5  # type: ignore[assignment]


CALLS: Final[dict[str, Call]] = {
    "create_experiment": lambda c: c.storage.create_experiment(make_config("another")),
    "update_experiment": lambda c: c.storage.update_experiment(c.experiment, metadata={"a": 1}),
    "fetch_experiments": lambda c: c.storage.fetch_experiments({"name": c.experiment.name}),
    "summary": lambda c: c.storage.summary(c.experiment),
    "register_trial": lambda c: c.storage.register_trial(make_trial(c.experiment, -1)),
    "register_trials of 64": lambda c: c.storage.register_trials(
        [make_trial(c.experiment, -1 - n) for n in range(GROUP)]
    ),
    "reserve_trial": lambda c: c.storage.reserve_trial(c.experiment),
    "reserve_trial, none pending": _reserve_without_pending,
    "reserve_trials of 64": lambda c: c.storage.reserve_trials(c.experiment, GROUP),
    "update_heartbeat": lambda c: c.storage.update_heartbeat(c.held[0]),
    "push_trial_results": _push,
    "complete_trial": lambda c: c.storage.complete_trial(c.held[0], 0.5),
    "set_trial_status": lambda c: c.storage.set_trial_status(c.held[0], "interrupted"),
    "get_trial": lambda c: c.storage.get_trial(c.held[0]),
    "fetch_trials": lambda c: c.storage.fetch_trials(c.experiment),
    "fetch_trials, no such experiment": lambda c: c.storage.fetch_trials({"_id": "no such"}),
    "fetch_trials_by_status": lambda c: c.storage.fetch_trials_by_status(c.experiment, "new"),
    "fetch_lost_trials": lambda c: c.storage.fetch_lost_trials(c.experiment),
    "iter_trials": _iterate,
    "count_trials": lambda c: c.storage.count_trials(c.experiment),
    "count_completed_trials": lambda c: c.storage.count_completed_trials(c.experiment),
    "trial_history": lambda c: c.storage.trial_history(c.completed),
    "changes_since": _changes,
    "the algorithm lock": _lock,
    "the algorithm lock, a new state": _lock_with_state,
    "get_algorithm_lock_info": lambda c: c.storage.get_algorithm_lock_info(c.experiment),
}
"""One call each, by the name in the tables of the engines."""


def _each(call: Callable[[Storage, Trial], Awaitable[Any]]) -> Call:
    return lambda case: gather(call(case.storage, trial) for trial in case.held)


GROUPS: Final[dict[str, Call]] = {
    "register_trial": lambda c: gather(
        c.storage.register_trial(make_trial(c.experiment, -1 - n)) for n in range(GROUP)
    ),
    "reserve_trial": lambda c: gather(c.storage.reserve_trial(c.experiment) for _ in range(GROUP)),
    "update_heartbeat": _each(lambda storage, trial: storage.update_heartbeat(trial)),
    "complete_trial": _each(lambda storage, trial: storage.complete_trial(trial, 0.5)),
    "set_trial_status": _each(lambda storage, trial: storage.set_trial_status(trial, "broken")),
}
"""The same call by `GROUP` tasks at the same time."""
