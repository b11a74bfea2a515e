"""A search whose trials are shown at Comet, from the storage's side."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import Storage, Trial, open_storage
from tests.with_comet.server import KEY, CometServer
from tests.with_comet.test_contract import read
from tests.with_comet.test_online import SCRIPT

pytestmark = pytest.mark.anyio

DEADLINE = 60.0


async def work(storage: Storage, experiment: Any) -> None:
    """Evaluate trials until there are none."""
    while True:
        async with storage.reserved_trial(experiment) as trial:
            if trial is None:
                return
            if trial.params["x"] == 3:
                await storage.set_trial_status(trial, "broken")
            else:
                await storage.complete_trial(trial, {"objective": trial.params["x"] ** 2})


async def begin(storage: Storage, count: int) -> Any:
    experiment = await storage.create_experiment({"name": "tune"})
    trials = [Trial(experiment=experiment.id, params={"x": float(x)}) for x in range(count)]
    await storage.register_trials(trials)
    return experiment


async def stored(storage: Storage, experiment: Any) -> dict[str, Trial]:
    trials = await storage.fetch_trials(experiment)
    assert trials is not None
    return {trial.id: trial for trial in trials}


async def test_archives(comet_ml: Any, tmp_path: Path) -> None:
    url, runs = f"sqlite:///{tmp_path / 'tune.db'}", tmp_path / "runs"
    async with open_storage(url, tracker=f"comet+offline:///{runs}") as storage:
        experiment = await begin(storage, 100)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work, storage, experiment)
        await storage.flush_tracker(DEADLINE)
        trials = await stored(storage, experiment)
    found = await anyio.to_thread.run_sync(lambda: [read(path) for path in runs.glob("*.zip")])
    assert len(found) == len(trials) == 100
    for run in found:
        trial = trials[run.key[-32:]]
        assert run.status == trial.status
        assert run.params == trial.params
        assert run.metrics == {result.name: result.value for result in trial.results}
    assert [run.params for run in found if run.status == "broken"] == [{"x": 3.0}]


async def test_comet_is_away_in_the_middle(server: CometServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    async with open_storage(url, tracker="comet://lab/tuning") as storage:
        experiment = await begin(storage, 30)
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(work, storage, experiment)
                while len(server.runs) < 5:
                    await anyio.sleep(0.01)
                await anyio.to_thread.run_sync(server.stop)
            await anyio.sleep(0.1)
            server.plan("500", "drop", "lost", "429")
            await anyio.to_thread.run_sync(server.start)
        await storage.flush_tracker(DEADLINE)
        trials = await stored(storage, experiment)
    assert server.made == len(server.runs) == len(trials) == 30
    for key, run in server.runs.items():
        trial = trials[key[-32:]]
        assert run.others["aiostorage.status"] == trial.status
        assert run.params == trial.params
        assert run.points == {result.name: [result.value] for result in trial.results}
        assert (run.running, run.crashed) == (False, trial.status == "broken")


async def test_a_script_that_knows_comet_only(server: CometServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    async with open_storage(url, tracker="comet://lab/tuning", objective="loss") as storage:
        experiment = await begin(storage, 1)
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None
            assert os.environ["COMET_API_KEY"] == KEY
            await anyio.run_process([sys.executable, "-c", SCRIPT])
            await storage.retrieve_result(trial)
            await storage.complete_trial(trial, trial.results)
        await storage.flush_tracker(DEADLINE)
        [done] = (await stored(storage, experiment)).values()
    assert done.objective is not None
    assert done.objective.value == pytest.approx(1 / 3)
    [run] = server.runs.values()
    assert len(run.points["loss"]) == 3  # the script's own; the store adds none
    assert run.others["aiostorage.status"] == "completed"
