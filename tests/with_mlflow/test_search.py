"""A search with a mirror on a real server, compared through MLflow's own client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread
import pytest

from aiostorage import Trial, TrialStatus, open_storage
from aiostorage._core.holders import named_holder
from tests.processes.support import environment
from tests.with_mlflow.server import MlflowServer

pytestmark = pytest.mark.anyio

in_thread = anyio.to_thread.run_sync

TRIALS = 100
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RUN_STATUS = {"completed": "FINISHED", "broken": "FAILED", "interrupted": "KILLED"}


class Process:
    """A process of workers, and the trials that it has completed."""

    def __init__(self, *arguments: str) -> None:
        script = Path(__file__).with_name("worker_search.py")
        self.done: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.done.extend(line.strip() for line in iter(self.process.stdout.readline, ""))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.end()


def runs_of(client: Any, experiment: str) -> list[Any]:
    """Return all runs of an experiment, deleted ones, too."""
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], run_view_type=3, max_results=1000))


def milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // timedelta(milliseconds=1)


def compare(run: Any, trial: Trial) -> None:
    """Compare a run as MLflow has it with the trial in the store."""
    assert run.data.params == {param.name: str(param.value) for param in trial.param_list}
    assert run.data.metrics == {result.name: result.value for result in trial.results}
    assert run.data.tags["aiostorage.status"] == trial.status
    assert run.data.tags["aiostorage.worker"] == named_holder(trial.worker)
    assert run.info.status == RUN_STATUS[trial.status]
    assert run.info.end_time == milliseconds(trial.end_time)
    if run.data.tags["aiostorage.attempt"] == "1":
        assert run.info.start_time == milliseconds(trial.start_time)


async def test_a_hundred_trials(
    mlflow: ModuleType,
    mortal_server: MlflowServer,
    name: str,
    tmp_path: Path,
    processes: list[Process],
) -> None:
    """8 workers in 2 processes; the server and one of the processes are killed in the middle."""
    url, tracker = f"sqlite:///{tmp_path}/tune.db", f"mlflow+{mortal_server.url}"
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": name})
        params = [{"x": float(x), "net": {"width": 2**x % 97}} for x in range(TRIALS)]
        await storage.register_trials([Trial(experiment=experiment.id, params=p) for p in params])
        for _ in range(2):
            made = await in_thread(Process, url, tracker, str(experiment.id))
            processes.append(made)

        def done() -> int:
            assert all(p.process.poll() in (None, 0, -signal.SIGKILL) for p in processes)
            return sum(len(process.done) for process in processes)

        async def until(count: int) -> None:
            with anyio.fail_after(60):
                while done() < count:
                    await anyio.sleep(0.01)

        await until(20)
        await in_thread(mortal_server.kill)
        await until(40)
        processes[0].process.kill()
        await in_thread(mortal_server.start)
        with anyio.fail_after(90):
            while processes[1].process.poll() is None:
                await anyio.sleep(0.05)
        assert processes[1].process.returncode == 0
        stored = await storage.fetch_trials(experiment)
    assert stored is not None
    assert [trial.status for trial in stored] == ["completed"] * TRIALS
    client = mlflow.MlflowClient(mortal_server.url)
    runs = await in_thread(runs_of, client, f"{name}-v1")
    by_trial = {run.data.tags["aiostorage.trial"]: run for run in runs}
    assert len(runs) == len(by_trial) == TRIALS
    for trial in stored:
        compare(by_trial[trial.id], trial)
    attempts = {run.data.tags["aiostorage.attempt"] for run in runs}
    assert attempts <= {"1", "2"}


SCRIPT = """
import sys, mlflow
with mlflow.start_run():
    for step in range(3):
        mlflow.log_metric("loss", float(sys.argv[1]) / (step + 1), step=step)
    mlflow.log_metric("accuracy", 0.75)
"""


async def test_a_script_that_knows_only_mlflow(
    client: Any, mlflow_url: str, name: str, tmp_path: Path
) -> None:
    url, tracker = f"sqlite:///{tmp_path}/tune.db", f"mlflow+{mlflow_url}"
    async with open_storage(url, tracker=tracker, objective="loss") as storage:
        experiment = await storage.create_experiment({"name": name})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 6.0}))
        async with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None
            assert {"MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"} <= set(os.environ)
            command = [sys.executable, "-c", SCRIPT, "6"]
            await anyio.run_process(command, env=environment())
            await storage.retrieve_result(trial)
            await storage.complete_trial(trial, trial.results)
        assert "MLFLOW_RUN_ID" not in os.environ
        await storage.flush_tracker(60)
        stored = await storage.get_trial(trial)
    assert stored is not None
    assert stored.status == TrialStatus.COMPLETED
    assert stored.objective is not None
    assert (stored.objective.name, stored.objective.value) == ("loss", 2.0)
    assert {one.name: one.value for one in stored.statistics} == {"accuracy": 0.75}
    [run] = await in_thread(runs_of, client, f"{name}-v1")
    assert run.data.metrics == {"loss": 2.0, "accuracy": 0.75}
    assert run.info.status == "FINISHED"
    assert run.info.end_time == milliseconds(stored.end_time)
    history = await in_thread(client.get_metric_history, run.info.run_id, "loss")
    assert len(history) == 3


async def test_without_a_server_the_work_goes_on(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tune.db"
    tracker = "mlflow+http://127.0.0.1:9"
    started = time.monotonic()
    async with open_storage(url, tracker=tracker, deliver_on_close=0.1) as storage:
        experiment = await storage.create_experiment({"name": name})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 6.0}))
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            await storage.complete_trial(trial, 36.0)
        assert await storage.count_completed_trials(experiment) == 1
    assert time.monotonic() - started < 10
