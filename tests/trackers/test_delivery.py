"""What the tracker is told of a store's changes, on every engine."""

from __future__ import annotations

from typing import Any

import pytest

from aiostorage import Storage, Trial
from tests.contract.conftest import UNCLOSED
from tests.trackers.conftest import Opening
from tests.trackers.file_tracker import Seen

pytestmark = [pytest.mark.anyio, UNCLOSED]


async def tuned(storage: Storage, count: int = 1, name: str = "tune") -> Any:
    """Return a new experiment with so many trials."""
    experiment = await storage.create_experiment({"name": name})
    trials = [Trial(experiment=experiment.id, params={"x": float(x)}) for x in range(count)]
    await storage.register_trials(trials)
    return experiment


async def test_a_life_of_trials(storage: Storage, seen: Seen) -> None:
    experiment = await tuned(storage, 4)
    await storage.flush_tracker(30)
    assert [name for _, name, _ in seen.experiments()] == ["tune v1"]
    assert [run.status for run in seen.runs()] == ["new"] * 4
    done, broken, running = await storage.reserve_trials(experiment, 3)
    await storage.complete_trial(done, {"objective": 0.5, "accuracy": 3})
    await storage.set_trial_status(broken, "broken")
    await storage.update_heartbeat(running)
    await storage.flush_tracker(30)
    runs = {run.tags["trial"]: run for run in seen.runs()}
    stored = await storage.fetch_trials(experiment)
    assert stored is not None
    assert len(runs) == len(stored) == 4
    for trial in stored:
        run = runs[trial.id]
        assert run.status == trial.status
        assert run.params == trial.params
        assert run.metrics == {result.name: result.value for result in trial.results}
        assert (run.start_time, run.end_time) == (trial.start_time, trial.end_time)
        assert run.tags["attempt"] == ("1" if trial.start_time else "0")


async def test_deletions(storage: Storage, seen: Seen) -> None:
    experiment = await tuned(storage, 3)
    other = await tuned(storage, 1, "other")
    await storage.flush_tracker(30)
    await storage.delete_trials(experiment, where={"params.value": 1.0})
    await storage.flush_tracker(30)
    assert len(seen.runs()) == 3
    await storage.delete_experiment(experiment)
    await storage.flush_tracker(30)
    gone = {name: deleted for _, name, deleted in seen.experiments()}
    assert gone == {"tune v1": True, "other v1": False}
    assert len(seen.runs()) == 1
    await storage.delete_experiment(other, cascade=False)
    await storage.flush_tracker(30)
    assert not seen.runs()


async def test_a_trial_that_is_registered_again_is_a_new_run(storage: Storage, seen: Seen) -> None:
    experiment = await tuned(storage, 1)
    assert await storage.reserve_trial(experiment)
    await storage.flush_tracker(30)
    [old] = seen.runs()
    seen.switch("down")
    await storage.delete_trials(experiment)
    await storage.register_trial(Trial(experiment=experiment.id, params={"x": 0.0}))
    seen.switch("down", None)
    await storage.flush_tracker(30)
    [new] = seen.runs()
    assert new.key != old.key
    assert (new.status, new.tags["attempt"]) == ("new", "0")


async def test_attempts_are_counted(storage: Storage, seen: Seen) -> None:
    experiment = await tuned(storage, 1)
    for attempt in (1, 2, 3):
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.set_trial_status(trial, "interrupted")
        if attempt == 2:
            await storage.flush_tracker(30)
    await storage.flush_tracker(30)
    assert [run.tags["attempt"] for run in seen.runs()] == ["3"]


async def test_what_another_storage_left(opening: Opening, seen: Seen) -> None:
    seen.switch("down")
    first = await opening()
    await tuned(first, 5)
    await first.aclose()
    assert not seen.runs()
    seen.switch("down", None)
    second = await opening()
    await second.flush_tracker(30)
    assert len(seen.runs()) == 5
