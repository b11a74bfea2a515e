"""The contract of a tracker, on a server and on a file, seen through MLflow's own client."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from aiostorage.testing import TrackerContract
from aiostorage.testing.contract.tracker import Look
from aiostorage.trackers import Tracker, TrackerRun
from aiostorage.trackers.factory import tracker_from_url
from tests.with_mlflow.conftest import Shared


def moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def runs_of(client: Any, experiment_key: str) -> list[TrackerRun]:
    return [
        TrackerRun(
            key=run.info.run_id,
            status=run.data.tags["aiostorage.status"],
            params=run.data.params,
            metrics=run.data.metrics,
            start_time=moment(run.info.start_time),
            end_time=moment(run.info.end_time),
        )
        for run in client.search_runs([experiment_key])
    ]


def forget_experiments(client: Any) -> None:
    """Give the experiments of the contract other names."""
    for experiment in client.search_experiments(view_type=3):
        if experiment.tags.get("aiostorage.experiment") in ("e1", "e2", "e3", "e4"):
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            client.rename_experiment(experiment.experiment_id, f"gone-{uuid4().hex}")
            client.set_experiment_tag(experiment.experiment_id, "aiostorage.experiment", "gone")


class TestServer(TrackerContract):
    @pytest.fixture
    def tracker(self, shared: Shared, client: Any, mlflow_url: str) -> Iterator[Tracker]:
        with shared.locked("names.lock", fcntl.LOCK_EX):  # all of these tests use the same names
            tracker = tracker_from_url(f"mlflow+{mlflow_url}")
            yield tracker
            tracker.close()
            forget_experiments(client)

    @pytest.fixture
    def look(self, client: Any) -> Look:
        return lambda key: runs_of(client, key)


class TestFile(TrackerContract):
    @pytest.fixture
    def tracker(self, database: Path) -> Iterator[Tracker]:
        tracker = tracker_from_url(f"mlflow+sqlite:///{database}")
        yield tracker
        tracker.close()

    @pytest.fixture
    def look(self, mlflow: ModuleType, database: Path) -> Look:
        client = mlflow.MlflowClient(f"sqlite:///{database}")
        return lambda key: runs_of(client, key)
