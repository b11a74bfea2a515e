"""What users get from a tracker: the environment of a run, and results that a script has logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import anyio
import pytest

from aiostorage import ConfigurationError, InvalidResult, TrackerTimeout, TrackerUnavailable
from aiostorage.operations import EVERYTHING, Delete
from aiostorage.protocols import Driver
from tests.contract.conftest import UNCLOSED
from tests.trackers.conftest import Opening
from tests.trackers.file_tracker import Seen
from tests.trackers.test_delivery import tuned

pytestmark = [pytest.mark.anyio, UNCLOSED]

SCRIPT = (
    "import json, os, sqlite3\n"
    "database = sqlite3.connect(os.environ['FILE_TRACKER'] + '/runs.db')\n"
    "run = int(os.environ['FILE_TRACKER_RUN'])\n"
    "found = database.execute('SELECT params FROM runs WHERE key = ?', [run]).fetchone()\n"
    "x = json.loads(found[0])['x']\n"
    "metrics = json.dumps({'loss': (x - 1) ** 2, 'steps': 7})\n"
    "database.execute('UPDATE runs SET metrics = ? WHERE key = ?', [metrics, run])\n"
    "database.commit()\n"
)
"""A script that knows the tracker only."""


async def test_a_script_that_knows_the_tracker_only(opening: Opening, seen: Seen) -> None:
    storage = await opening(objective="loss")
    experiment = await tuned(storage, 2)
    for _ in range(2):
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None
            await anyio.run_process([sys.executable, "-c", SCRIPT], check=True)
            await storage.retrieve_result(trial)
            await storage.complete_trial(trial, trial.results)
    stored = await storage.fetch_trials(experiment)
    assert stored is not None
    assert sorted((t.params["x"], t.objective.value) for t in stored if t.objective) == [
        (0.0, 1.0),
        (1.0, 0.0),
    ]
    assert [t.statistics[0].name for t in stored] == ["steps", "steps"]
    await storage.flush_tracker(20)
    assert [run.metrics["steps"] for run in seen.runs()] == [7, 7]


class TestOnOneEngine:
    @pytest.fixture
    def make_driver(self, make_memory: Callable[[], Driver]) -> Callable[[], Driver]:
        return make_memory

    async def test_results_that_cannot_be_told(self, opening: Opening, seen: Seen) -> None:
        storage = await opening()
        experiment = await tuned(storage)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert (await storage.retrieve_result(trial)).results == []  # not sent yet
        await storage.flush_tracker(20)
        assert (await storage.retrieve_result(trial)).results == []  # nothing logged yet
        [run] = seen.runs()
        seen.log_metric(run.key, a=1.0, b=2.0)
        with pytest.raises(InvalidResult, match="which metric is the objective"):
            await storage.retrieve_result(trial)
        seen.log_metric(run.key, only=1.0)
        assert (await storage.retrieve_result(trial)).objective
        await storage.complete_trial(trial, 3.0)
        seen.switch("down")  # what the store has is the truth, and needs no tracker
        assert [r.value for r in (await storage.retrieve_result(trial)).results] == [3.0]

    async def test_a_tracker_that_is_down(self, opening: Opening, seen: Seen) -> None:
        storage = await opening()
        experiment = await tuned(storage)
        await storage.flush_tracker(20)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        seen.switch("down")
        with pytest.raises(TrackerUnavailable, match="is down"):
            await storage.retrieve_result(trial)
        with pytest.raises(TrackerUnavailable, match="is down"):
            await storage.tracker_environment(trial)

    async def test_a_trial_without_a_run_is_interrupted(self, opening: Opening, seen: Seen) -> None:
        seen.switch("down")
        storage = await opening()
        experiment = await tuned(storage)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        with pytest.raises(TrackerTimeout, match=r"has made no run of trial .* within 0.2 s"):
            await storage.tracker_environment(trial, 0.2)
        await storage.set_trial_status(trial, "interrupted")
        environment = storage.tracker_environment
        storage.tracker_environment = lambda trial, timeout=0.2: environment(trial, timeout)  # type: ignore[method-assign]
        before = dict(os.environ)
        with pytest.raises(TrackerTimeout):
            async with storage.reserved_trial(experiment, export_environment=True):
                raise AssertionError("there is nothing to export")
        assert [t.status for t in await storage.fetch_pending_trials(experiment)] == ["interrupted"]
        assert dict(os.environ) == before
        seen.switch("down", None)
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None  # the place in the environment is free again

    async def test_one_block_at_a_time(self, opening: Opening, seen: Seen) -> None:
        storage = await opening()
        experiment = await tuned(storage, 2)
        os.environ["FILE_TRACKER"] = "mine"
        try:
            async with storage.reserved_trial(experiment, export_environment=True) as trial:
                assert trial is not None
                assert os.environ["FILE_TRACKER"] == str(seen.directory)
                variables = await storage.tracker_environment(trial)
                assert os.environ["FILE_TRACKER_RUN"] == variables["FILE_TRACKER_RUN"]
                with pytest.raises(ConfigurationError, match="one environment"):
                    async with storage.reserved_trial(experiment, export_environment=True):
                        raise AssertionError("nothing is reserved")
                assert len(await storage.fetch_pending_trials(experiment)) == 1
            assert os.environ["FILE_TRACKER"] == "mine"
            assert "FILE_TRACKER_RUN" not in os.environ
        finally:
            del os.environ["FILE_TRACKER"]
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None

    async def test_a_trial_from_before_there_was_a_tracker(
        self, opening: Opening, make_memory: Callable[[], Driver], seen: Seen
    ) -> None:
        storage = await opening()
        experiment = await tuned(storage)
        await storage.flush_tracker(20)
        [trial] = await storage.fetch_pending_trials(experiment)
        await storage._gateway.driver.execute(Delete("mirrored", EVERYTHING))
        run: object = storage._mirror.deliverer._run  # type: ignore[union-attr]
        run._sender.reset()  # type: ignore[attr-defined]
        variables = await storage.tracker_environment(trial)
        assert variables["FILE_TRACKER_RUN"] in {run.key for run in seen.runs()}
