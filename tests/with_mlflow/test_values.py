"""What MLflow cannot hold, seen through its own client: kept elsewhere, and said."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostorage import Experiment, Trial
from aiostorage._core.holders import named_holder
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.mlflow import MlflowTracker

START = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
END = START + timedelta(seconds=5)


@pytest.fixture
def tracker(mlflow_url: str) -> Iterator[MlflowTracker]:
    tracker = tracker_from_url(f"mlflow+{mlflow_url}")
    assert isinstance(tracker, MlflowTracker)
    tracker.open()
    yield tracker
    tracker.close()


@pytest.fixture
def sent(tracker: MlflowTracker, name: str) -> TrackedExperiment:
    experiment = an_experiment(name)
    return TrackedExperiment(experiment, tracker.send_experiment(TrackedExperiment(experiment)))


def an_experiment(name: str, uid: str | None = None) -> Experiment:
    config = {"_id": uid or f"id-of-{name}", "name": name, "version": 3}
    return Experiment.from_config({**config, "metadata": {"user": "ada"}})


Send = Callable[..., Any]


@pytest.fixture
def send(tracker: MlflowTracker, sent: TrackedExperiment, client: Any) -> Send:
    """Give a function that sends a trial and returns MLflow's own view of its run."""

    def send(key: str | None = None, attempt: int = 1, **fields: Any) -> Any:
        made = {"params": {"x": 1}, "status": "completed", "start_time": START, "end_time": END}
        trial = Trial(experiment=sent.experiment.id, **{**made, **fields})
        key = tracker.send_trial(TrackedTrial(sent, trial, attempt=attempt, key=key))
        return client.get_run(key)

    return send


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [record for record in caplog.records if record.name.startswith("aiostorage")]
    assert {record.levelno for record in own} <= {logging.WARNING}
    return [record.getMessage() for record in own]


def test_everything_that_a_run_has(send: Send, sent: TrackedExperiment, client: Any) -> None:
    run = send(
        params={
            "lr": 1e-05,
            "n": 3,
            "net": {"act": "relu", "sizes": [8, 4]},
            "on": True,
            "no": None,
        },
        results=[
            {"name": "loss", "type": "objective", "value": 0.5},
            {"name": "size", "type": "constraint", "value": 3},
            {"name": "grad", "type": "gradient", "value": [0.25, -1]},
            {"name": "guess", "type": "lie", "value": 9.0},
        ],
        worker="token",
        parent="f" * 32,
        attempt=2,
    )
    assert run.data.params == {
        "lr": "1e-05",
        "n": "3",
        "net.act": "relu",
        "net.sizes": "[8, 4]",
        "on": "True",
        "no": "None",
    }
    assert run.data.metrics == {"loss": 0.5, "size": 3.0, "grad.0": 0.25, "grad.1": -1.0}
    tags = {name: text for name, text in run.data.tags.items() if name.startswith("aiostorage.")}
    trial = tags.pop("aiostorage.trial")
    assert run.info.run_name == trial[:8]
    assert tags == {
        "aiostorage.experiment": str(sent.experiment.id),
        "aiostorage.status": "completed",
        "aiostorage.attempt": "2",
        "aiostorage.worker": named_holder("token"),
        "aiostorage.parent": "f" * 32,
        "aiostorage.start_time": START.isoformat(),
    }
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1714979289123
    assert run.info.end_time == 1714979294123
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == f"{sent.experiment.name}-v3"
    assert experiment.tags["aiostorage.user"] == "ada"


def test_the_status_of_a_run_over_a_life(send: Send) -> None:
    reserved: dict[str, Any] = {"status": "reserved", "end_time": None}
    run = send(**reserved)
    key = run.info.run_id
    assert (run.info.status, run.info.end_time) == ("RUNNING", None)
    beat = {"heartbeat": END, "end_time": None}
    run = send(key, status="interrupted", **beat)
    assert (run.info.status, run.info.end_time) == ("KILLED", 1714979294123)
    run = send(key, attempt=2, **reserved)
    assert (run.info.status, run.info.end_time) == ("RUNNING", None)
    assert send(key, status="broken", **beat).info.status == "FAILED"
    assert send(key, status="suspended", **beat).info.status == "KILLED"
    run = send(key, attempt=3, results=0.5)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1714979294123)
    assert run.data.tags["aiostorage.attempt"] == "3"


def test_long_values(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    texts = {"short": "s" * 6000, "long": "ü" * 6001, "longer": "abc" * 7000, "huge": "h" * 300_000}
    run = send(params=texts)
    params, tags = run.data.params, run.data.tags
    assert params["short"] == texts["short"]
    assert {name: len(params[name]) for name in texts} == dict.fromkeys(texts, 6000)
    for name in ("long", "longer"):
        pieces = [
            tags[f"aiostorage.param.{name}.{n}"]
            for n in range(1, 6)
            if f"aiostorage.param.{name}.{n}" in tags
        ]
        assert "".join(pieces) == texts[name]
    messages = warnings_in(caplog)
    assert len(messages) == 3
    assert any("'huge'" in text and "last 100,000 characters" in text for text in messages)
    send(run.info.run_id, params=texts)  # is the same, and is said once
    assert len(warnings_in(caplog)) == 3


ODD_NAMES = [
    "a%b",
    "a#b",
    "",
    ".",
    "..",
    "/root",
    "a//b",
    "a/../b",
    "tab\tend\n",
    "x" * 251,
    "ü~",
    "日本",
]


def test_odd_names(send: Send, tracker: MlflowTracker, caplog: pytest.LogCaptureFixture) -> None:
    params = [{"name": name, "type": "real", "value": float(n)} for n, name in enumerate(ODD_NAMES)]
    results = [{"name": "good", "type": "objective", "value": 0.5}]
    results += [
        {"name": f"m{name}", "type": "statistic", "value": n} for n, name in enumerate(ODD_NAMES)
    ]
    run = send(params=params, results=results)
    assert run.data.metrics["good"] == 0.5
    tags = run.data.tags
    for n, name in enumerate(ODD_NAMES):
        [key] = [key for key, text in run.data.params.items() if text == str(float(n))]
        whole = tags.get(f"aiostorage.name.{key}", key)
        assert whole == name
    assert "日本" in run.data.params
    metrics = tracker.fetch_metrics(run.info.run_id)
    assert metrics == {"good": 0.5, **{f"m{name}": float(n) for n, name in enumerate(ODD_NAMES)}}
    messages = warnings_in(caplog)
    assert len(messages) == len(set(messages)) > 10
    [found] = list(tracker.read_runs(run.info.experiment_id))
    assert set(found.params) == set(ODD_NAMES)


def test_names_of_orion(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    params = [{"name": n, "type": "integer", "value": v} for n, v in {"/x": 1, "/y": 2}.items()]
    run = send(params=params)
    assert run.data.params == {"x": "1", "y": "2"}
    assert run.data.tags["aiostorage.name.x"] == "/x"
    assert not caplog.records
    both = [*params, {"name": "y", "type": "integer", "value": 3}]
    assert set(send(params=both).data.params.values()) == {"1", "2", "3"}


def test_numbers_that_are_no_numbers(
    send: Send, tracker: MlflowTracker, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"loss": math.nan, "up": math.inf, "down": -math.inf, "yes": True, "large": 2**70}
    run = send(results=values)
    metrics = dict(run.data.metrics)
    assert math.isnan(metrics["loss"])
    assert (metrics["up"], metrics["down"]) == (1.7976931348623157e308, -1.7976931348623157e308)
    assert metrics["yes"] == 1.0
    found = tracker.fetch_metrics(run.info.run_id)
    assert (found["up"], found["down"]) == (math.inf, -math.inf)
    before = client_history(run)
    assert client_history(send(run.info.run_id, results=values)) == before
    assert warnings_in(caplog) == []


def client_history(run: Any) -> Any:
    return sorted((m.key, repr(m.value), m.step, m.timestamp) for m in run.data._metric_objs)


def test_results_that_are_no_numbers(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    values = {"loss": 0.5, "text": "good", "none": None, "map": {"a": [1]}, "huge": 10**400}
    run = send(results={**values, "mixed": [1, "a"], "many": list(range(101)), "empty": []})
    assert run.data.metrics == {"loss": 0.5}
    tags = run.data.tags
    assert json.loads(tags["aiostorage.result.text"]) == "good"
    assert json.loads(tags["aiostorage.result.none"]) is None
    assert json.loads(tags["aiostorage.result.map"]) == {"a": [1]}
    assert json.loads(tags["aiostorage.result.huge"]) == 10**400
    assert json.loads(tags["aiostorage.result.many"]) == list(range(101))
    assert len(warnings_in(caplog)) == 7


def test_many_params_and_metrics(send: Send) -> None:
    params = {f"p{n:03}": n for n in range(250)}
    results = {"loss": 0.5, **{f"m{n:03}": n for n in range(150)}}
    run = send(params=params, results=results)
    assert run.data.params == {name: str(n) for name, n in params.items()}
    assert run.data.metrics == {name: float(n) for name, n in results.items()}


def test_a_param_that_someone_else_has_logged(
    send: Send, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = send(status="reserved", end_time=None, params={"x": 1})
    client.log_param(run.info.run_id, "y", "theirs")
    run = send(run.info.run_id, params={"x": 1, "y": "ours", "z": 2}, results=0.5)
    assert run.data.params == {"x": "1", "y": "theirs", "z": "2"}
    assert run.data.metrics == {"objective": 0.5}
    assert run.info.status == "FINISHED"
    [message] = warnings_in(caplog)
    assert "'y'" in message


def test_the_last_value_is_ours_whatever_a_script_has_logged(
    send: Send, tracker: MlflowTracker, client: Any
) -> None:
    key = send(status="reserved", end_time=None).info.run_id
    for step, value in enumerate([3.0, 2.0]):
        client.log_metric(key, "loss", value, step=step)
    assert tracker.fetch_metrics(key) == {"loss": 2.0}
    run = send(key, results={"loss": 2.0})
    assert len(client.get_metric_history(key, "loss")) == 2  # it was there already
    for value in (2.5, 1.5, 2.5):
        run = send(key, results={"loss": value})
        assert run.data.metrics == {"loss": value}


def test_metrics_of_an_earlier_attempt_do_not_count(
    send: Send, tracker: MlflowTracker, client: Any
) -> None:
    key = send(status="reserved", end_time=None).info.run_id
    client.log_metric(key, "loss", 3.0, timestamp=1714979290000)
    again = datetime.now(UTC)
    send(key, status="reserved", start_time=again, end_time=None, attempt=2)
    assert tracker.fetch_metrics(key) == {}
    client.log_metric(key, "loss", 2.0)
    assert tracker.fetch_metrics(key) == {"loss": 2.0}


def test_what_was_deleted_in_mlflow_comes_back(
    send: Send, sent: TrackedExperiment, client: Any
) -> None:
    run = send()
    client.delete_run(run.info.run_id)
    assert send(run.info.run_id).info.lifecycle_stage == "active"
    client.delete_experiment(sent.key)
    assert send(None, params={"x": 2}).info.lifecycle_stage == "active"
    assert client.get_experiment(sent.key).lifecycle_stage == "active"


def test_two_runs_of_one_trial(
    send: Send, tracker: MlflowTracker, sent: TrackedExperiment, client: Any
) -> None:
    first, second = send(), send()
    assert first.info.run_id != second.info.run_id
    trial = Trial(experiment=sent.experiment.id, params={"x": 1}, status="reserved")
    key = tracker.send_trial(TrackedTrial(sent, trial, uncertain=True))
    assert [run.info.run_id for run in client.search_runs([sent.key])] == [key]


def test_names_of_experiments_that_are_taken(
    tracker: MlflowTracker, client: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = client.create_experiment(f"{name}-v3")
    first, second = an_experiment(name, "first"), an_experiment(name, "second")
    one = tracker.send_experiment(TrackedExperiment(first))
    client.delete_experiment(theirs)
    two = tracker.send_experiment(TrackedExperiment(second))
    assert len({theirs, one, two}) == 3
    assert client.get_experiment(one).name == f"{name}-v3-first"
    assert client.get_experiment(two).name == f"{name}-v3-second"
    assert len(warnings_in(caplog)) == 2
    # one of ours that was deleted comes back under its name, also if its key is lost
    tracker.delete_experiment(one)
    assert tracker.send_experiment(TrackedExperiment(first)) == one
    assert client.get_experiment(one).lifecycle_stage == "active"


def test_an_experiment_is_updated(
    tracker: MlflowTracker, sent: TrackedExperiment, client: Any
) -> None:
    config = {**sent.experiment.config, "metadata": {"user": "grace"}, "refers": {"parent_id": 7}}
    tracker.send_experiment(replace(sent, experiment=Experiment.from_config(config)))
    tags = client.get_experiment(sent.key).tags
    assert (tags["aiostorage.user"], tags["aiostorage.parent"]) == ("grace", "7")


def test_the_environment(mlflow_url: str, tracker: MlflowTracker) -> None:
    plain = {"MLFLOW_EXPERIMENT_ID": "1", "MLFLOW_RUN_ID": "r"}
    assert tracker.environment("1", "r") == {**plain, "MLFLOW_TRACKING_URI": mlflow_url}
    host = mlflow_url.removeprefix("http://")
    secret = tracker_from_url(f"mlflow+http://ada:pass%2Fword@{host}")
    assert secret.environment("1", "r") == {
        **plain,
        "MLFLOW_TRACKING_URI": mlflow_url,
        "MLFLOW_TRACKING_USERNAME": "ada",
        "MLFLOW_TRACKING_PASSWORD": "pass/word",
    }
    assert "pass" not in f"{secret!r} {secret.location}"
