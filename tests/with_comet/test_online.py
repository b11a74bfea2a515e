"""Requests to Comet: which ones there are, and what becomes of those that fail."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from aiostorage._core.holders import named_holder
from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from aiostorage.trackers.comet.online import Comet
from tests.with_comet.samples import START, a_trial, an_experiment
from tests.with_comet.server import KEY, CometServer

SCRIPT = """
import comet_ml
run = comet_ml.start(experiment_config=comet_ml.ExperimentConfig(
    log_code=False, log_git_metadata=False, log_git_patch=False, log_env_details=False,
    auto_output_logging=False, parse_args=False))
for step in range(3):
    run.log_metric("loss", 1.0 / (1 + step), step=step)
run.log_metric("sys.load.avg", 4)
run.end()
"""
"""A script that knows Comet only."""


@pytest.fixture
def comet(server: CometServer) -> Iterator[Comet]:
    comet = Comet("lab", "tuning")
    comet.open()
    server.requests.clear()
    yield comet
    comet.close()


@pytest.fixture
def tracked(comet: Comet) -> TrackedTrial:
    experiment = an_experiment()
    key = comet.send_experiment(TrackedExperiment(experiment))
    done = a_trial(
        status="completed", results={"objective": 0.5}, worker="w1", end_time=START, parent="p"
    )
    return TrackedTrial(TrackedExperiment(experiment, key), done, attempt=2)


def test_the_requests(server: CometServer, comet: Comet, tracked: TrackedTrial) -> None:
    key = comet.send_trial(tracked)
    assert key is not None
    other = ["api/rest/v2/write/experiment/log-other"] * 9
    assert server.paths() == [
        "api/rest/v2/experiment/metadata",
        "clientlib/logger/add/run",
        "clientlib/batch/logger/experiment/parameter",
        "clientlib/batch/logger/experiment/metric",
        "api/rest/v2/write/experiment/tags",
        "api/rest/v2/write/experiment/set-start-end-time",
        "api/rest/v2/write/experiment/update-status",
        *other,
    ]
    [run] = server.runs.values()
    assert (run.workspace, run.project, run.tags) == ("lab", "tuning", {"tune v1", "completed"})
    assert run.others == {
        "Name": f"tune v1 {tracked.trial.id[:8]}",
        "aiostorage.status": "completed",
        "aiostorage.trial": tracked.trial.id,
        "aiostorage.worker": named_holder("w1"),
        "aiostorage.parent": "p",
        "aiostorage.attempt": "2",
        "aiostorage.experiment": "tune",
        "aiostorage.version": "1",
        "aiostorage.experiment_id": "e1",
    }
    server.requests.clear()
    assert comet.send_trial(replace(tracked, key=key)) == key
    assert server.paths() == [  # what is there is not sent again
        "api/rest/v2/experiment/metadata",
        "api/rest/v2/experiment/log-other",
        "clientlib/batch/logger/experiment/parameter",
        "api/rest/v2/experiment/metrics/summary",
    ]
    assert server.made == 1


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("reserved", (True, False)),
        ("completed", (False, False)),
        ("broken", (False, True)),
        ("interrupted", (False, True)),
        ("suspended", (False, False)),
    ],
)
def test_the_state(
    server: CometServer, comet: Comet, tracked: TrackedTrial, status: str, state: tuple[bool, bool]
) -> None:
    comet.send_trial(replace(tracked, trial=a_trial(status=status, parent="p")))
    [run] = server.runs.values()
    assert (run.running, run.crashed) == state
    assert run.tags == {"tune v1", status}
    comet.send_trial(tracked)
    assert (run.running, run.crashed, run.tags) == (False, False, {"tune v1", "completed"})


@pytest.mark.parametrize(
    "at",
    [
        "add/run",
        "experiment/parameter",
        "experiment/metric",
        "experiment/tags",
        "set-start-end-time",
        "update-status",
        "log-other",
    ],
)
def test_an_answer_that_is_lost(
    server: CometServer, comet: Comet, tracked: TrackedTrial, at: str
) -> None:
    server.plan("lost", at=at)
    with pytest.raises(TrackerUnavailable, match="cannot be reached"):
        comet.send_trial(tracked)
    comet.send_trial(replace(tracked, uncertain=True))
    assert server.made == 1
    [run] = server.runs.values()
    assert run.points == {"objective": [0.5]}
    assert run.others["aiostorage.status"] == "completed"


def test_two_deliverers_at_the_same_time(
    server: CometServer, comet: Comet, tracked: TrackedTrial
) -> None:
    other = Comet("lab", "tuning")
    other.open()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda each: each.send_trial(tracked), [comet, other])
    other.close()
    assert first == second
    assert server.made == 1


def test_a_run_that_somebody_has_deleted_at_comet(
    server: CometServer, comet: Comet, tracked: TrackedTrial
) -> None:
    key = comet.send_trial(tracked)
    server.runs.clear()
    assert comet.send_trial(replace(tracked, key=key)) == key
    assert [run.points for run in server.runs.values()] == [{"objective": [0.5]}]


def test_archived_runs(server: CometServer, comet: Comet, tracked: TrackedTrial) -> None:
    other = TrackedExperiment(an_experiment("other", "e2"))
    other = replace(other, key=comet.send_experiment(other))
    key = comet.send_trial(tracked)
    kept = comet.send_trial(replace(tracked, experiment=other))
    assert kept is not None
    comet.delete_experiment(tracked.experiment.key or "")
    assert {name for name, run in server.runs.items() if not run.archived} == {kept}
    assert comet.send_trial(tracked) == key  # there again, so it comes out of the archive
    assert not any(run.archived for run in server.runs.values())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "refused"),
        ("503", "refused"),
        ("429", "refused"),
        ("403", "refused"),
        ("401", "COMET_API_KEY"),
        ("drop", "cannot be reached"),
        ("html", "not Comet"),
        ("moved", "COMET_URL_OVERRIDE"),
    ],
)
def test_faults_that_may_pass(
    server: CometServer, comet: Comet, tracked: TrackedTrial, fault: str, said: str
) -> None:
    server.plan(fault, fault)
    with pytest.raises(TrackerUnavailable, match=said) as caught:
        comet.send_trial(tracked)
    with pytest.raises(TrackerUnavailable, match=said):
        comet.fetch_metrics("k" * 32)
    assert KEY not in str(caught.value)
    comet.send_trial(tracked)
    assert server.made == 1


def test_what_comet_refuses(server: CometServer, comet: Comet, tracked: TrackedTrial) -> None:
    server.plan("400", at="log-other")
    with pytest.raises(TrackerError, match="400") as caught:
        comet.send_trial(tracked)
    assert not isinstance(caught.value, TrackerUnavailable)
    assert KEY not in str(caught.value)


def test_a_call_ends_in_time(server: CometServer, tracked: TrackedTrial) -> None:
    comet = Comet("lab", "tuning", seconds=0.5)
    comet.open()
    server.plan("hang")
    begin = time.monotonic()
    with pytest.raises(TrackerUnavailable, match="cannot be reached"):
        comet.send_trial(tracked)
    assert time.monotonic() - begin < 0.9
    comet.close()


def test_an_account_that_does_not_work(
    server: CometServer, tracked: TrackedTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Comet("nowhere", "tuning")
    with pytest.raises(TrackerUnavailable, match="not open"):
        nowhere.send_trial(tracked)
    nowhere.open()
    with pytest.raises(TrackerUnavailable, match="no such workspace"):
        nowhere.send_trial(tracked)
    nowhere.close()
    monkeypatch.setenv("COMET_API_KEY", "W" * 25)
    with pytest.raises(TrackerUnavailable, match="does not accept the API key") as caught:
        nowhere.open()
    assert "WWW" not in str(caught.value)
    monkeypatch.delenv("COMET_API_KEY")
    with pytest.raises(TrackerUnavailable, match="comet login"):
        nowhere.open()
    server.stop()
    monkeypatch.setenv("COMET_API_KEY", KEY)
    with pytest.raises(TrackerUnavailable, match="cannot be reached"):
        nowhere.open()


def test_odd_values(
    server: CometServer, comet: Comet, tracked: TrackedTrial, caplog: pytest.LogCaptureFixture
) -> None:
    results = [
        {"name": "objective", "type": "objective", "value": math.nan},
        {"name": "up", "type": "statistic", "value": math.inf},
        {"name": "text", "type": "statistic", "value": "no number"},
        {"name": "grad", "type": "gradient", "value": [1.0, 2.0]},
        {"name": "up", "type": "statistic", "value": 7},
    ]
    params = {"a": math.nan, "list": [1, {"b": None}], "long": "y" * 20_000, "n" * 300: True}
    odd = a_trial(params=params, status="completed", results=results, end_time=START)
    with caplog.at_level(logging.WARNING, "aiostorage"):
        key = comet.send_trial(replace(tracked, trial=odd))
        comet.send_trial(replace(tracked, trial=odd))
    [run] = server.runs.values()
    assert run.points == {"objective": ["NaN"], "up": ["Infinity"]}
    metrics = comet.fetch_metrics(key or "")
    assert math.isnan(metrics["objective"])
    assert metrics["up"] == math.inf
    assert run.others["aiostorage.result.text"] == "no number"
    assert run.others["aiostorage.result.grad"] == "[1.0, 2.0]"
    assert (run.params["a"], run.params["list"]) == ("NaN", '[1, {"b": null}]')
    assert len(run.params["long"]) == 1000
    [long_name] = [name for name in run.params if name.startswith("nnn")]
    assert len(long_name) == 100
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told)) == 5  # each once


def test_a_script_that_knows_comet_only(
    server: CometServer, comet: Comet, tracked: TrackedTrial, comet_ml: Any
) -> None:
    key = comet.send_trial(replace(tracked, trial=a_trial(parent="p"))) or ""
    variables = comet.environment(tracked.experiment.key or "", key)
    assert not any(KEY in value for value in variables.values())
    subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert server.made == 1
    assert comet.fetch_metrics(key) == {"loss": pytest.approx(1 / 3)}
    comet.send_trial(tracked)
    seen = comet_ml.APIExperiment(previous_experiment=key)  # what Comet's own client says
    assert seen.get_state() == "finished"
    assert seen.get_parameters_summary("x")["valueCurrent"] == "1.5"
    assert seen.get_metrics_summary("objective")["valueCurrent"] == "0.5"
    assert seen.get_others_summary("aiostorage.status") == ["completed"]
    assert seen.get_tags() == ["completed", "tune v1"]
