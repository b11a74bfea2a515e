"""The contract of a tracker: on a server in Comet's place, and for archives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aiostorage.testing import TrackerContract
from aiostorage.testing.contract.tracker import Look
from aiostorage.trackers import Tracker, TrackerRun
from aiostorage.trackers.factory import tracker_from_url
from tests.with_comet.server import CometServer


def moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


class TestOnline(TrackerContract):
    @pytest.fixture
    def tracker(self, server: CometServer) -> Iterator[Tracker]:
        tracker = tracker_from_url("comet://lab/tuning")
        yield tracker
        tracker.close()

    @pytest.fixture
    def look(self, server: CometServer) -> Look:
        def look(experiment_key: str) -> list[TrackerRun]:
            return [
                TrackerRun(
                    key=key,
                    status=run.others["aiostorage.status"],
                    params=run.params,
                    metrics=run.metrics,
                    start_time=moment(run.start),
                    end_time=moment(run.end),
                )
                for key, run in server.runs.items()
                if key.startswith(experiment_key) and not run.archived
            ]

        return look


class TestArchives(TrackerContract):
    @pytest.fixture
    def tracker(self, comet_ml: Any, tmp_path: Path) -> Iterator[Tracker]:
        tracker = tracker_from_url(f"comet+offline:///{tmp_path / 'runs'}")
        yield tracker
        tracker.close()

    @pytest.fixture
    def look(self, tmp_path: Path) -> Look:
        def look(experiment_key: str) -> list[TrackerRun]:
            return [read(path) for path in (tmp_path / "runs").glob(f"{experiment_key}*.zip")]

        return look


def read(path: Path) -> TrackerRun:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        head = json.loads(archive.read("experiment.json"))
        lines = [json.loads(line) for line in archive.read("messages.json").splitlines()]
    assert head["offline_id"] == path.stem
    found: dict[str, dict[str, Any]] = {"parameter_msg": {}, "metric_msg": {}, "log_other": {}}
    for line in lines:
        payload = line["payload"]
        match line["type"]:
            case "parameter_msg":
                name, value = payload["param"]["paramName"], payload["param"]["paramValue"]
            case "metric_msg":
                name, value = payload["metric"]["metricName"], payload["metric"]["metricValue"]
            case _:
                name, value = payload["key"], payload["value"]
        found[line["type"]][name] = value
    return TrackerRun(
        key=head["offline_id"],
        status=found["log_other"]["aiostorage.status"],
        params=found["parameter_msg"],
        metrics=found["metric_msg"],
        start_time=moment(head["start_time"]),
        end_time=moment(head["stop_time"]),
    )
