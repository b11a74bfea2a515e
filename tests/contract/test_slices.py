"""Many trials are read in turns: between two of them, other tasks get the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from aiostorage import Experiment, Storage, Trial
from aiostorage._core.slices import SLICE_SIZE
from aiostorage.protocols import Driver
from aiostorage.testing.contract.helpers import make_config, make_trial
from tests.contract.conftest import UNCLOSED

pytestmark = [UNCLOSED, pytest.mark.anyio]

COUNT = 5 * SLICE_SIZE + 7

MakeDriver = Callable[[], Driver]


@asynccontextmanager
async def filled(driver: Driver) -> AsyncIterator[tuple[Storage, Experiment]]:
    async with Storage(driver) as storage:
        experiment = await storage.create_experiment(make_config())
        await storage.register_trials([make_trial(experiment, n) for n in range(COUNT)])
        yield storage, experiment


class Turns:
    """Counts, in each turn of the event loop, how many trials are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = [0]
        self.objects = 0
        self._ended = False
        real = Trial.from_dict.__func__  # type: ignore[attr-defined]

        def from_dict(cls: type[Trial], document: Any) -> Trial:
            self.made[-1] += 1
            trial: Trial = real(cls, document)
            return trial

        monkeypatch.setattr(Trial, "from_dict", classmethod(from_dict))

    async def during(self, call: Awaitable[Any]) -> Any:
        """Await a call; note what each turn makes meanwhile, and how many objects there are."""
        loop = asyncio.get_running_loop()
        gc.collect()
        before = len(gc.get_objects())

        def turn() -> None:
            if self.made[-1]:
                self.made.append(0)
                gc.collect()  # it passes by what it has seen once, if that refers to nothing
                self.objects = max(self.objects, len(gc.get_objects()) - before)
            if not self._ended:
                loop.call_soon(turn)

        turn()
        try:
            return await call
        finally:
            self._ended = True


async def _iterated(storage: Storage, experiment: Experiment) -> list[Trial]:
    return [trial async for trial in storage.iter_trials(experiment)]


CALLS: dict[str, Callable[[Storage, Experiment], Awaitable[Any]]] = {
    "fetch_trials": lambda storage, experiment: storage.fetch_trials(experiment),
    "fetch_trials_by_status": lambda s, experiment: s.fetch_trials_by_status(experiment, "new"),
    "fetch_noncompleted_trials": lambda s, experiment: s.fetch_noncompleted_trials(experiment),
    "iter_trials": _iterated,
    "to_dataframe": lambda storage, experiment: storage.to_dataframe(experiment),
}


@pytest.mark.parametrize("name", CALLS)
async def test_no_turn_makes_more_than_a_slice(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "to_dataframe" and find_spec("pandas") is None:
        pytest.skip("pandas is not installed")
    async with filled(make_driver()) as (storage, experiment):
        turns = Turns(monkeypatch)
        assert len(await turns.during(CALLS[name](storage, experiment))) == COUNT
        assert sum(turns.made) == COUNT
        assert max(turns.made) <= SLICE_SIZE


@pytest.mark.parametrize("make_driver", ["memory", "sqlite"], indirect=True)
async def test_the_collector_has_one_object_a_trial_to_look_through(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops the event loop for as long as it takes, which is the longer the more there are."""
    async with filled(make_driver()) as (storage, experiment):
        turns = Turns(monkeypatch)
        trials = await turns.during(storage.fetch_trials(experiment))
        assert len(trials) == COUNT
        # the slice under way has documents beside its trials
        assert turns.objects < COUNT + 5 * SLICE_SIZE


@pytest.mark.parametrize("make_driver", ["memory", "sqlite"], indirect=True)
async def test_trials_are_of_one_state_of_the_store(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver()
    async with filled(driver) as (storage, experiment):
        turns = Turns(monkeypatch)
        fetched = asyncio.create_task(storage.fetch_trials(experiment))
        while not sum(turns.made):
            await asyncio.sleep(0)
        assert sum(turns.made) < COUNT
        await storage.update_trials(experiment, status="broken")
        await storage.delete_trials(experiment, where={"status": "broken"})
        trials = await fetched
        assert trials is not None
        assert [trial.status for trial in trials] == ["new"] * COUNT
