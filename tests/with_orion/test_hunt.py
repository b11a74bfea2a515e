"""``orion hunt`` and the commands that look at its results."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

import orion.core.cli
from orion.client import get_experiment

from aiostorage.orion import AioStorage

Processes = Any  # that of conftest.py

Log = Callable[[], list[str]]
Command = Callable[..., str]

TRIALS = 12

CONFIGURATION = """
experiment:
  name: tune
  max_trials: {TRIALS}
  algorithm: {ALGORITHM}
storage:
  type: aiostorage
  database:
    url: {URL}
"""


@pytest.fixture
def config(tmp_path: Path, url: str) -> Callable[..., str]:
    def write(algorithm: str = "{random: {seed: 1}}") -> str:
        path = tmp_path / "orion.yaml"
        text = CONFIGURATION.replace("{ALGORITHM}", algorithm).replace("{URL}", repr(url))
        text = text.replace("{TRIALS}", str(TRIALS))
        path.write_text(text)
        return str(path)

    return write


def completed(url: str) -> list[Any]:
    storage = AioStorage({"url": url})
    (experiment,) = storage.fetch_experiments({"name": "tune"})
    trials = storage.fetch_trials(uid=experiment["_id"])
    assert {trial.status for trial in trials} == {"completed"}
    for trial in trials:
        assert trial.objective.value == pytest.approx(trial.params["/x"])
        assert trial.start_time <= trial.end_time
    info = storage.get_algorithm_lock_info(uid=experiment["_id"])
    assert info is not None
    assert not info.locked
    return list(trials)


@pytest.mark.parametrize(
    ("engine", "workers"),
    [("sqlite", 1), ("sqlite", 4), ("motor", 4), ("track", 2)],
    indirect=["engine"],
)
def test_one_hunt(  # noqa: PLR0917  fixtures
    processes: Processes, config: Any, objective: Path, run_log: Log, url: str, workers: int
) -> None:
    """All trials are completed, and none is run twice, whatever the number of workers.

    The client finds what the hunt has left. That of PyMongo hunts in `test_kill`.

    Oríon stops when so many are completed; the other workers' trials under way come on top of that,
    unless the hunt itself is told how many it may run.
    """
    many = [] if workers == 1 else ["--n-workers", str(workers), "--worker-max-trials", str(TRIALS)]
    arguments = ["hunt", "-c", config(), *many, str(objective), "-x~uniform(0,1)"]
    processes.finish(processes.orion(*arguments))
    runs = run_log()
    assert len(runs) == len(set(runs)) == TRIALS
    storage = AioStorage({"url": url})
    (experiment,) = storage.fetch_experiments({})
    found = get_experiment("tune", storage=storage)
    assert len(found.fetch_trials_by_status("completed")) == TRIALS
    assert found.metadata["user_args"][0] == str(objective)
    assert storage.count_completed_trials(found) == TRIALS
    assert storage.fetch_trials_by_status(found, "broken") == []
    assert storage.fetch_lost_trials(found) == []
    assert {trial.status for trial in storage.fetch_trials(uid=experiment["_id"])} <= {
        "completed",
        "new",
    }


@pytest.mark.parametrize("engine", ["motor"], indirect=True)
def test_several_hunts_at_once(
    processes: Processes, config: Any, objective: Path, run_log: Log, url: str
) -> None:
    """Four of them, on a grid: each point is run once, by one of them."""
    grid = config(f"{{gridsearch: {{n_values: {TRIALS}}}}}")
    arguments = ["hunt", "-c", grid, str(objective), "-x~uniform(0,1)"]
    hunts = [processes.orion(*arguments) for _ in range(4)]
    for hunt in hunts:
        processes.finish(hunt)
    runs = run_log()
    assert len(runs) == len(set(runs)) == TRIALS
    assert len(completed(url)) == TRIALS


@pytest.mark.parametrize("engine", ["motor"], indirect=True)
def test_a_hunt_that_is_interrupted(
    processes: Processes, config: Any, objective: Path, url: str
) -> None:
    """Ctrl-C gives the trial back and frees the lock at once; the next hunt goes on with it."""
    slow = objective.with_name("slow.sh")
    slow.write_text("#!/bin/sh\ntouch running\nexec sleep 3\n")  # Oríon waits for its end
    slow.chmod(0o755)
    space = "-x~uniform(0,1)"
    first = processes.orion("hunt", "-c", config(), str(slow), space)
    end = time.monotonic() + 60
    while not objective.with_name("running").exists():
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)

    storage = AioStorage({"url": url})
    (experiment,) = storage.fetch_experiments({})
    (trial,) = storage.fetch_trials(uid=experiment["_id"])
    assert trial.status == "interrupted"
    info = storage.get_algorithm_lock_info(uid=experiment["_id"])
    assert info is not None
    assert not info.locked
    more = ["--worker-max-trials", "1", str(slow), space]
    slow.write_text(objective.read_text())
    processes.finish(processes.orion("hunt", "-c", config(), *more))
    (again,) = storage.fetch_trials(uid=experiment["_id"])
    assert (again.id, again.status) == (trial.id, "completed")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_branch_of_a_hunt(
    processes: Processes, config: Any, objective: Path, configured: dict[str, Any], command: Command
) -> None:
    """With one dimension more, whose default makes the parent's trials count."""
    arguments = ["hunt", "-c", config(), "--enable-evc", "--exp-max-trials"]
    given = [str(objective), "-x~uniform(0,1)"]
    processes.finish(processes.orion(*arguments, "3", *given))
    more = "-y~+uniform(0,1,default_value=0.5)"
    processes.finish(processes.orion(*arguments, "5", *given, more))
    assert "tune-v2" in command("list", "-c", config())
    branch = get_experiment("tune", storage=configured)
    assert (branch.version, branch.node.parent.item.version) == (2, 1)
    assert len(branch.fetch_trials()) == 2
    tree = branch.fetch_trials(with_evc_tree=True)
    assert [trial.params["/y"] for trial in tree].count(0.5) == 3
    assert {trial.status for trial in tree} == {"completed"}


# ----------------------------------------------------------------------------------- commands


@pytest.fixture
def hunted(configured: dict[str, Any], environment: None) -> Iterator[Any]:
    """Give an experiment with five completed trials, and Oríon its store."""
    client = orion.client.create_experiment(
        "tune",
        space={"x": "uniform(0, 1)"},
        algorithm={"random": {"seed": 1}},
        max_trials=5,
        storage=configured,
    )
    while not client.is_done:
        trial = client.suggest()
        client.observe(trial, trial.params["x"])
    yield client
    client.close()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what Oríon's command says, which must not fail."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert not orion.core.cli.main(list(arguments))
        return capsys.readouterr().out

    return run


def test_status_info_and_list(hunted: Any, command: Command, processes: Processes) -> None:
    assert "completed           5" in processes.finish(processes.orion("status"))
    status = command("status")
    assert "tune-v1" in status
    assert "completed           5" in status
    trials = hunted.fetch_trials()
    every = command("status", "--all")
    assert all(trial.id in every for trial in trials)
    info = command("info", "-n", "tune")
    best = min(trials, key=lambda trial: trial.objective.value)
    assert "trials completed: 5" in info
    assert best.id in info
    assert "tune-v1" in command("list")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_plot(hunted: Any, command: Command, tmp_path: Path) -> None:
    for kind in ("regret", "parallel_coordinates", "lpi"):
        command("plot", kind, "-n", "tune", "-t", "html", "-o", str(tmp_path / f"{kind}.json"))
        assert json.loads((tmp_path / f"{kind}.json").read_text())["data"]


def test_db_set(hunted: Any, command: Command) -> None:
    assert "5 trials modified" in command(
        "db", "set", "-f", "tune", "status=completed", "status=interrupted"
    )
    one = hunted.fetch_trials()[2]
    assert "1 trials modified" in command(
        "db", "set", "-f", "tune", f"id={one.id}", "status=broken"
    )
    assert "4 trials modified" in command(
        "db", "set", "-f", "tune", "status=interrupted", "status=new"
    )
    assert "5 trials modified" in command("db", "set", "-f", "tune", "*", "status=suspended")
    assert Counter(trial.status for trial in hunted.fetch_trials()) == {"suspended": 5}


def test_db_rm(hunted: Any, command: Command, url: str) -> None:
    storage = AioStorage({"url": url})
    assert "0 trials deleted" in command("db", "rm", "-f", "tune", "--status", "broken")
    said = command("db", "rm", "-f", "tune", "--status", "completed")
    assert "5 trials deleted" in said
    assert storage.fetch_trials(uid=hunted.id) == []
    assert "1 experiments deleted" in command("db", "rm", "-f", "tune")
    assert storage.fetch_experiments({}) == []
    assert storage.get_algorithm_lock_info(uid=hunted.id) is None
    assert "No experiment found" in command("list")


def test_db_release(hunted: Any, command: Command, url: str) -> None:
    """It says that it worked when it did; Oríon's own storage says that it failed."""
    storage = AioStorage({"url": url})
    storage._db.write("algo", {"locked": 1, "owner": "dead"}, {"experiment": hunted.id})
    assert "successfully released" in command("db", "release", "-f", "tune")
    info = storage.get_algorithm_lock_info(uid=hunted.id)
    assert info is not None
    assert not info.locked
    assert "failed" in command("db", "release", "-f", "tune")  # there was nothing to release


def test_db_upgrade(hunted: Any, command: Command, config: Any) -> None:
    before = [trial.to_dict() for trial in hunted.fetch_trials()]
    assert "completed successfully" in command("db", "upgrade", "-f", "-c", config())
    assert [trial.to_dict() for trial in hunted.fetch_trials()] == before
    state = hunted._experiment._storage.get_algorithm_lock_info(uid=hunted.id).state
    assert state


@pytest.mark.parametrize("by", ["environment", "file"])
def test_db_test(
    command: Command, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """It looks at database types, of which ours is one too."""
    arguments = []
    if by == "environment":
        monkeypatch.setenv("ORION_STORAGE_TYPE", "aiostorage")
        monkeypatch.setenv("ORION_DB_TYPE", "aiostoragedb")
        monkeypatch.setenv("ORION_DB_ADDRESS", url)
    else:
        path = tmp_path / "orion.yaml"
        path.write_text(
            f"storage: {{type: aiostorage, database: {{type: aiostoragedb, url: {url!r}}}}}"
        )
        arguments = ["-c", str(path)]
    said = command("db", "test", *arguments)
    assert said.count("Success") >= 6
    assert "Failure" not in said
    assert "AioStorageDB" in said
    assert AioStorage({"url": url})._db.count("test") == 0
