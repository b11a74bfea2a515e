"""Runs that MLflow's own client has made become trials, by the command line."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from aiostorage import Trial, open_storage
from aiostorage.cli.app import cli
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.imports import ImportCounts, import_runs
from aiostorage.trackers.mlflow import source
from tests.processes.support import environment

BEGIN = 1_700_000_000_000
Make = Callable[..., str]


@pytest.fixture
def client(mlflow: ModuleType, database: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{database}")


@pytest.fixture
def make(client: Any, name: str) -> Make:
    """Give a function that makes a run, a second after the last one."""
    experiment = client.create_experiment(name)
    seconds = itertools.count()

    def make(
        params: dict[str, Any],
        metrics: dict[str, float] | None = None,
        status: str = "FINISHED",
        begin: int | None = None,
    ) -> str:
        start = BEGIN + next(seconds) * 1000 if begin is None else begin
        run = client.create_run(experiment, start_time=start)
        uid: str = run.info.run_id
        for key, value in params.items():
            client.log_param(uid, key, value)
        for key, number in (metrics or {}).items():
            client.log_metric(uid, key, number)
        if status == "RUNNING":
            return uid
        client.set_terminated(uid, status, start + 500)
        return uid

    return make


def many(database: Path, client: Any, name: str, count: int) -> None:
    """Make runs as MLflow's database has them; its client would take half a minute.

    Some of them began at the same time.
    """
    experiment = client.get_experiment_by_name(name).experiment_id
    numbers = range(count)
    keys = [f"{n * 7919 % 10_007:032x}" for n in numbers]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, "
            "lifecycle_stage, experiment_id) "
            "VALUES (?, 'run', 'ada', 'FINISHED', ?, ?, 'active', ?)",
            [(keys[n], BEGIN + n // 10, BEGIN + n, experiment) for n in numbers],
        )
        connection.executemany(
            "INSERT INTO params (run_uuid, key, value) VALUES (?, 'x', ?)",
            [(keys[n], str(n)) for n in numbers],
        )
        connection.executemany(
            "INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) "
            "VALUES (?, 'loss', ?, ?, 0, 0)",
            [(keys[n], n / 2, BEGIN) for n in numbers],
        )


@pytest.fixture
def command(database: Path, name: str, tmp_path: Path) -> list[str]:
    """Give the arguments of the command."""
    dest = f"sqlite:///{tmp_path}/tune.db"
    return ["import-tracker", f"mlflow+sqlite:///{database}", name, "--to", dest]


def run_command(arguments: list[str]) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def trials_in(tmp_path: Path, name: str) -> list[Trial]:
    async def read() -> list[Trial]:
        async with open_storage(f"sqlite:///{tmp_path}/tune.db") as storage:
            [config] = await storage.fetch_experiments({"name": name})
            return await storage.fetch_trials(uid=config["_id"]) or []

    return anyio.run(read)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def test_runs_of_every_kind(make: Make, command: list[str], tmp_path: Path, name: str) -> None:
    done = make({"lr": 1e-05, "net.width": 64, "act": "relu"}, {"loss": 0.5, "accuracy": 0.9})
    keys = [
        done,
        make({"lr": 0.1}, status="FAILED"),
        make({"lr": 0.2}, {"loss": 7.0}, status="KILLED"),
        make({"lr": 0.3}, {"loss": 7.0}, status="RUNNING"),
        make({"lr": 0.4}, {"accuracy": 0.1}),
        make({"lr": 0.1}, {"loss": 0.25}),  # the second attempt at what has failed
        make({"lr": 0.1}, {"loss": 0.75}),
    ]
    output = run_command([*command, "--objective", "loss"])
    assert "imported 5 trials" in output
    assert "left out 2 runs with params of another run" in output
    assert "1 unfinished run interrupted" in output
    assert "1 run without objective broken" in output
    trials = trials_in(tmp_path, name)
    assert {trial.id_override for trial in trials} <= set(keys)
    statuses = {trial.params["lr"]: trial.status for trial in trials}
    assert statuses == {
        1e-05: "completed",
        0.1: "completed",
        0.2: "interrupted",
        0.3: "interrupted",
        0.4: "broken",
    }
    first = next(trial for trial in trials if trial.id_override == done)
    assert first.params == {"lr": 1e-05, "net": {"width": 64}, "act": "relu"}
    assert (first.start_time, first.end_time) == (moment(BEGIN), moment(BEGIN + 500))
    assert {one.name: one.value for one in first.results} == {"loss": 0.5, "accuracy": 0.9}
    assert first.objective is not None
    assert first.objective.name == "loss"
    again = next(trial for trial in trials if trial.params["lr"] == 0.1)
    assert again.objective is not None
    assert again.objective.value == 0.25


def test_a_second_call_brings_what_has_come_since(
    make: Make, command: list[str], tmp_path: Path, name: str
) -> None:
    for x in range(3):
        make({"x": x}, {"loss": x})
    assert "imported 3 trials;" in run_command(command)
    assert "imported 0 trials more" in run_command(command)
    make({"x": 3}, {"loss": 3})
    make({"x": 4}, {"loss": 4}, begin=BEGIN + 2000)  # began with the last one
    run_command(command)
    found = {trial.params["x"] for trial in trials_in(tmp_path, name)}
    assert found >= {0, 1, 2, 3}
    assert len(trials_in(tmp_path, name)) == len(found)


def test_several_pages_with_runs_of_one_moment(
    client: Any, name: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PAGE_SIZE", 7)  # fewer than begin in one moment
    client.create_experiment(name)
    many(database, client, name, 60)
    tracker = tracker_from_url(f"mlflow+sqlite:///{database}")
    tracker.open()
    try:
        everything = [run.key for run in tracker.read_runs(name)]  # type: ignore[attr-defined]
        assert len(set(everything)) == len(everything) == 60
        for index in (0, 6, 30, 59):
            rest = [run.key for run in tracker.read_runs(name, everything[index])]  # type: ignore[attr-defined]
            assert rest == everything[index + 1 :]
        key = client.get_experiment_by_name(name).experiment_id
        assert [run.key for run in tracker.read_runs(key)] == everything  # type: ignore[attr-defined]
    finally:
        tracker.close()


def test_a_killed_command_goes_on(
    client: Any, database: Path, command: list[str], tmp_path: Path, name: str
) -> None:
    client.create_experiment(name)
    many(database, client, name, 600)
    process = subprocess.Popen(
        [sys.executable, "-m", "aiostorage", *command],
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    path = tmp_path / "tune.db-wal"
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 200_000) and time.monotonic() < end:
        time.sleep(0.001)
        if process.poll() is not None:
            break
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)
    output = run_command(command)
    assert "trials" in output
    trials = trials_in(tmp_path, name)
    assert sorted(trial.params["x"] for trial in trials) == list(range(600))
    assert len({trial.id_override for trial in trials}) == 600


def test_what_is_cut_short_between_writing_and_noting(
    client: Any, name: str, tmp_path: Path, database: Path
) -> None:
    """A batch that was written but not noted is read again, and not written again."""
    client.create_experiment(name)
    many(database, client, name, 450)
    url = f"mlflow+sqlite:///{database}"

    async def scenario() -> ImportCounts:
        tracker = tracker_from_url(url)
        async with open_storage(f"sqlite:///{tmp_path}/tune.db") as storage:
            await import_runs(tracker, name, storage)
            [config] = await storage.fetch_experiments({"name": name})
            last = None
            with_notes = {"metadata.imported.last": last}
            await storage.update_experiment(uid=config["_id"], **with_notes)
            counts = await import_runs(tracker, name, storage)
        tracker.close()
        return counts

    counts = anyio.run(scenario)
    assert (counts.read, counts.imported, counts.present) == (450, 0, 450)


def test_mistakes(make: Make, command: list[str], tmp_path: Path, name: str) -> None:
    make({"x": 1}, {"loss": 1.0, "accuracy": 0.5})
    missing = tmp_path / "missing.db"
    for arguments, words in [
        (command, "'accuracy', 'loss'"),
        ([*command[:2], "nothing", *command[3:]], f"no experiment 'nothing'; it has: '{name}'"),
        ([*command[:3], "--to", "memory://"], "memory"),
        (["import-tracker", "mlflow+file:///x", name, "--to", command[4]], "migrate-filestore"),
        (["import-tracker", "sqlite:///x.db", name, "--to", command[4]], "no tracker"),
        (["import-tracker", f"mlflow+sqlite:///{missing}", *command[2:]], "there is no file"),
    ]:
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == (1 if "nothing" in arguments else 2), done.output
        assert words in done.output
    # nothing was made by all that
    assert not missing.exists()
    assert "imported 1 trial;" in run_command([*command, "--objective", "loss"])


def test_an_experiment_that_came_from_elsewhere(
    make: Make, command: list[str], tmp_path: Path, name: str
) -> None:
    make({"x": 1}, {"loss": 1.0})

    async def create() -> None:
        async with open_storage(command[4]) as storage:
            await storage.create_experiment({"name": name})

    anyio.run(create)
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 2
    assert "choose another name" in done.output
    assert "imported 1 trial" in run_command([*command, "--name", "mine"])
    assert len(trials_in(tmp_path, "mine")) == 1


def test_what_aiostorage_has_mirrored_comes_back_whole(
    client: Any, database: Path, tmp_path: Path, name: str
) -> None:
    params = {"x": 1.5, "long": "y" * 20_000, "odd ~ name": 3, "list": [1, 2]}
    url = f"mlflow+sqlite:///{database}"

    async def mirror() -> None:
        store = f"sqlite:///{tmp_path}/first.db"
        async with open_storage(store, tracker=url) as storage:
            experiment = await storage.create_experiment({"name": name})
            await storage.register_trial(Trial(experiment=experiment.id, params=params))
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.complete_trial(trial, {"objective": 0.5, "x~y": 2})
            await storage.flush_tracker(60)

    anyio.run(mirror)
    dest = f"sqlite:///{tmp_path}/tune.db"
    run_command(["import-tracker", url, f"{name}-v1", "--to", dest, "--name", name])
    [trial] = trials_in(tmp_path, name)
    assert trial.params == params
    assert {one.name: one.value for one in trial.results} == {"objective": 0.5, "x~y": 2.0}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Have no log of MLflow's between the lines of the command."""
    import logging

    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)
