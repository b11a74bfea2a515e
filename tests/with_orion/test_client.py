"""Oríon's Python interface and its server."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

import falcon.testing
from orion.benchmark.assessment import AverageResult
from orion.benchmark.benchmark_client import get_or_create_benchmark
from orion.benchmark.task import RosenBrock
from orion.client import create_experiment, get_experiment
from orion.core.io.database import DuplicateKeyError
from orion.core.utils.exceptions import CompletedExperiment
from orion.serving.webapi import WebApi
from orion.storage.base import setup_storage

Processes = Any  # that of conftest.py


def objective(x: float, **_: Any) -> list[dict[str, Any]]:
    time.sleep(0.02)
    return [
        {"name": "loss", "type": "objective", "value": (x - 0.5) ** 2},
        {"name": "pid", "type": "statistic", "value": os.getpid()},
    ]


def create(storage: dict[str, Any], **settings: Any) -> Any:
    settings = {
        "space": {"x": "uniform(0, 1)"},
        "algorithm": {"random": {"seed": 1}},
        "max_trials": 12,
        **settings,
    }
    return create_experiment("tune", storage=storage, **settings)


@pytest.mark.parametrize(
    ("executor", "workers", "engine"),
    [
        ("single", 1, "sqlite"),
        ("joblib", 2, "sqlite"),
        ("joblib", 2, "pymongo"),
        ("PoolExecutor", 3, "sqlite"),
        ("PoolExecutor", 3, "motor"),
        ("PoolExecutor", 3, "pymongo"),
    ],
    indirect=["engine"],
)
def test_workon(configured: dict[str, Any], executor: str, workers: int) -> None:
    client = create(configured, max_trials=16)
    name = "singleexecutor" if executor == "single" else executor
    with client.tmp_executor(name, n_workers=workers):
        client.workon(objective, max_trials=16, max_trials_per_worker=16)
    every = client.fetch_trials()  # a pool asks for one trial more for each of its workers
    assert {trial.status for trial in every} <= {"completed", "new"}
    trials = client.fetch_trials_by_status("completed")
    assert len({trial.id for trial in trials}) == len(trials) == 16
    pids = {trial.statistics[0].value for trial in trials}
    assert (os.getpid() in pids) == (workers == 1)
    assert 1 <= len(pids) <= workers
    for trial in client.fetch_trials_by_status("completed"):
        assert trial.objective.value == pytest.approx((trial.params["x"] - 0.5) ** 2)
    client.close()


def test_suggest_and_observe(configured: dict[str, Any]) -> None:
    client = create(configured, max_trials=3)
    with client.suggest() as trial:
        client.observe(trial, 1.0)
    assert client.stats.trials_completed == 1
    assert client.stats.best_evaluation == 1.0
    inserted = client.insert({"x": 0.125}, reserve=True)
    assert inserted.status == "reserved"
    client.observe(inserted, 2.0)
    given = client.insert({"x": 0.375}, results=[{"name": "l", "type": "objective", "value": 3}])
    assert given.status == "completed"
    with pytest.raises(CompletedExperiment):
        client.suggest()
    assert client.is_done
    with pytest.raises(DuplicateKeyError, match="already"):
        client.insert({"x": 0.125})
    frame = client.to_pandas()
    assert list(frame["objective"]) == [1.0, 2.0, 3.0]
    client.close()


def test_released_and_resumed(configured: dict[str, Any]) -> None:
    client = create(configured)
    trial = client.suggest()
    client.release(trial)
    assert client.get_trial(trial).status == "interrupted"
    other = create(configured)
    again = other.suggest()
    assert again.id == trial.id
    other.release(again)
    client.close()
    other.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_asha(configured: dict[str, Any]) -> None:
    algorithm = {"asha": {"seed": 1, "num_rungs": 3, "num_brackets": 1}}
    space = {"x": "uniform(0, 1)", "epochs": "fidelity(1, 9, base=3)"}
    client = create(configured, space=space, algorithm=algorithm, max_trials=15)
    with client.tmp_executor("singleexecutor", n_workers=1):
        client.workon(objective, max_trials=15, idle_timeout=30)
    trials = client.fetch_trials_by_status("completed")
    assert len(trials) == 15
    rungs = Counter(trial.params["epochs"] for trial in trials)
    assert set(rungs) == {1, 3, 9}
    assert rungs[1] > rungs[3] >= rungs[9]
    client.close()


def test_branching(configured: dict[str, Any]) -> None:
    first = create(configured, max_trials=4)
    while not first.is_done:
        trial = first.suggest()
        first.observe(trial, trial.params["x"])
    second = create(
        configured,
        space={"x": "uniform(0, 1)", "y": "uniform(0, 1, default_value=0.5)"},
        branching={"enable": True},
        max_trials=6,
    )
    assert (second.version, second.node.parent.item.version) == (2, 1)
    assert second.fetch_trials() == []
    tree = second.fetch_trials(with_evc_tree=True)
    assert len(tree) == 4
    assert {trial.params["y"] for trial in tree} == {0.5}
    while not second.is_done:
        trial = second.suggest()
        second.observe(trial, trial.params["x"] + trial.params["y"])
    assert len(second.fetch_trials()) == 2  # four of the parent's count
    assert get_experiment("tune", storage=configured).version == 2
    assert get_experiment("tune", version=1, storage=configured).max_trials == 4
    first.close()
    second.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_benchmark(configured: dict[str, Any]) -> None:
    def made() -> Any:
        return get_or_create_benchmark(
            setup_storage(configured),
            name="bench",
            algorithms=["random", "gridsearch"],
            targets=[{"assess": [AverageResult(1)], "task": [RosenBrock(3, dim=2)]}],
        )

    benchmark = made()
    benchmark.process(n_workers=1)
    status = benchmark.status(silent=True)
    assert [study["Algorithms"] for study in status] == ["random", "gridsearch"]
    for study in status:
        assert study["Completed Experiments"] == study["Total Experiments"] == 1
        assert study["Submitted Trials"] >= 3
    assert benchmark.analysis()
    again = made()
    assert again.id == benchmark.id
    assert again.status(silent=True) == status


@pytest.fixture
def completed(configured: dict[str, Any]) -> Any:
    client = create(configured, max_trials=5)
    while not client.is_done:
        trial = client.suggest()
        client.observe(trial, trial.params["x"])
    yield client
    client.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_plots(completed: Any) -> None:
    figure = completed.plot.regret()
    assert len(figure.data[0].y) == 5
    assert completed.plot.parallel_coordinates() is not None
    assert completed.plot.partial_dependencies() is not None


def test_rest_server(completed: Any, configured: dict[str, Any]) -> None:
    web = falcon.testing.TestClient(WebApi(setup_storage(configured), {}))
    root = web.simulate_get("/").json
    assert root["server"] == "gunicorn"
    assert root["database"] == "AioStorageDB"
    assert web.simulate_get("/experiments").json == [{"name": "tune", "version": 1}]
    one = web.simulate_get("/experiments/tune").json
    assert one["trialsCompleted"] == 5
    trials = web.simulate_get("/trials/tune").json
    assert {trial["id"] for trial in trials} == {trial.id for trial in completed.fetch_trials()}
    single = web.simulate_get(f"/trials/tune/{trials[0]['id']}").json
    assert single["id"] == trials[0]["id"]
    assert len(web.simulate_get("/trials/tune?status=completed").json) == 5
    assert web.simulate_get("/plots/regret/tune").status_code == 200
    assert web.simulate_get("/benchmarks").json == []
    assert web.simulate_get("/experiments/none").status_code == 404


def test_orion_serve(completed: Any, url: str, processes: Processes, tmp_path: Path) -> None:
    """It makes its storage, and forks its workers afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = {
        "storage": {"type": "aiostorage", "database": {"url": url}},
        "gunicorn": {"bind": f"127.0.0.1:{port}", "workers": 2, "graceful_timeout": 3},
    }
    (tmp_path / "orion.yaml").write_text(json.dumps(configuration))
    server = processes.orion("serve", "-c", "orion.yaml")

    def get(path: str) -> Any:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                    return json.load(answer)
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    assert get("/")["database"] == "AioStorageDB"
    for _ in range(6):  # whichever worker it is
        assert get("/experiments") == [{"name": "tune", "version": 1}]
        assert len(get("/trials/tune")) == 5
    server.terminate()
    processes.finish(server)
