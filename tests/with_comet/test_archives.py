"""Archives for ``comet upload``, and those that scripts leave."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from aiostorage.trackers.comet.offline import CometArchives
from tests.with_comet.samples import START, a_trial, an_experiment
from tests.with_comet.server import KEY, CometServer
from tests.with_comet.test_online import SCRIPT

ROOT = Path(__file__).parents[2]

QUIET = """
import sys
events = []
names = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen")
sys.addaudithook(lambda name, args: events.append((name, args)) if name in names else None)
from tests.with_comet.samples import a_trial, an_experiment
from aiostorage.trackers import TrackedExperiment, TrackedTrial
from aiostorage.trackers.factory import tracker_from_url
tracker = tracker_from_url("comet+offline:///" + sys.argv[1])
assert "comet_ml" not in sys.modules
tracker.open()
experiment = an_experiment()
key = tracker.send_experiment(TrackedExperiment(experiment))
experiment = TrackedExperiment(experiment, key)
tracker.send_trial(TrackedTrial(experiment, a_trial()))
# Trio, which comet_ml imports where it is installed, looks for the thread library in this way
assert all(args[0] == "/sbin/ldconfig" for _, args in events), events
while len(sys.argv) > 2:
    for _ in range(50):
        tracker.send_trial(TrackedTrial(experiment, a_trial()))
    print(flush=True)
"""


@pytest.fixture
def archives(comet_ml: Any, tmp_path: Path) -> Iterator[CometArchives]:
    archives = CometArchives(tmp_path / "runs", "lab", None)
    archives.open()
    yield archives
    archives.close()


@pytest.fixture
def tracked(archives: CometArchives) -> TrackedTrial:
    experiment = an_experiment()
    key = archives.send_experiment(TrackedExperiment(experiment))
    end = START + timedelta(seconds=90)
    done = a_trial(status="completed", results={"objective": 0.5}, worker="w1", end_time=end)
    return TrackedTrial(TrackedExperiment(experiment, key), done, attempt=2)


class Told(logging.Handler):
    """Collects the messages of ``comet_ml``, which passes them to no other handler."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


def upload(*archives: Path) -> None:
    """Do what ``comet upload`` does."""
    from comet_ml.offline import main_upload

    told = Told()
    logger = logging.getLogger("comet_ml")
    logger.addHandler(told)
    try:
        main_upload([*map(str, archives)], force_upload=False)
    finally:
        logger.removeHandler(told)
    assert told.records == []


def test_comet_uploads_them(
    server: CometServer, archives: CometArchives, tracked: TrackedTrial, tmp_path: Path
) -> None:
    keys = [
        archives.send_trial(tracked),
        archives.send_trial(replace(tracked, trial=a_trial(2.5, status="broken"))),
        archives.send_trial(replace(tracked, trial=a_trial(3.5))),
    ]
    paths = [tmp_path / "runs" / f"{key}.zip" for key in keys]
    assert sorted((tmp_path / "runs").glob("*")) == sorted([*paths, tmp_path / "runs" / "scripts"])
    upload(*paths)
    runs = [server.runs[key or ""] for key in keys]
    assert len(server.runs) == 3
    done = runs[0]
    assert (done.workspace, done.project, done.tags) == ("lab", "tune", {"tune v1", "completed"})
    assert done.params == {"x": 1.5, "layers.width": 64}
    assert done.points == {"objective": [0.5]}
    assert (done.start, done.end) == (START.timestamp() * 1000, START.timestamp() * 1000 + 90_000)
    assert (done.running, done.others["aiostorage.attempt"]) == (False, "2")
    assert [run.others["aiostorage.status"] for run in runs] == ["completed", "broken", "reserved"]
    assert [run.running for run in runs] == [False] * 3  # an archive has ended, for Comet
    assert "api/rest/v2/write/experiment/update-status" in server.paths()  # the broken one
    later = a_trial(3.5, status="completed", results=1.0, end_time=START)
    archives.send_trial(replace(tracked, trial=later, key=keys[2]))
    upload(paths[2])
    assert (server.made, runs[2].points) == (3, {"objective": [1.0]})
    assert runs[2].others["aiostorage.status"] == "completed"


def test_the_same_trial_makes_the_same_file(
    archives: CometArchives, tracked: TrackedTrial, tmp_path: Path
) -> None:
    path = tmp_path / "runs" / f"{archives.send_trial(tracked)}.zip"
    before = path.read_bytes()
    archives.send_trial(tracked)
    assert path.read_bytes() == before


def test_a_script_that_knows_comet_only(archives: CometArchives, tracked: TrackedTrial) -> None:
    key = archives.send_trial(replace(tracked, trial=a_trial())) or ""
    variables = archives.environment(tracked.experiment.key or "", key)
    assert variables["COMET_PROJECT_NAME"] == "tune"
    subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert archives.fetch_metrics(key) == {"loss": pytest.approx(1 / 3)}
    archives.delete_trial(key)
    assert archives.fetch_metrics(key)  # what the script has left stays


def test_keys_of_another_tracker(
    archives: CometArchives, tracked: TrackedTrial, tmp_path: Path
) -> None:
    ours = archives.send_trial(tracked)
    foreign = replace(tracked.experiment, key="0")
    theirs = archives.send_trial(replace(tracked, experiment=foreign))
    for key in ("", "0", *"123456789abcdef"):
        archives.delete_experiment(key)
    assert theirs != ours
    assert [path.stem for path in (tmp_path / "runs").glob("*.zip")] == [ours]


def test_metrics_that_cannot_be_read(archives: CometArchives, tmp_path: Path) -> None:
    with pytest.raises(TrackerError, match="has no archive"):
        archives.fetch_metrics("k" * 32)
    path = tmp_path / "runs" / "scripts" / f"{'k' * 32}-abc.zip"
    with zipfile.ZipFile(path, "w"):
        pass
    assert archives.fetch_metrics("k" * 32) == {}  # its script has only begun
    path.write_bytes(b"no archive")
    with pytest.raises(TrackerError, match="is not an archive of Comet"):
        archives.fetch_metrics("k" * 32)


def test_a_directory_that_cannot_be_written(
    archives: CometArchives, tracked: TrackedTrial, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = CometArchives(tmp_path / "file", None, None)
    with pytest.raises(TrackerUnavailable, match="cannot write"):
        blocked.open()
    with pytest.raises(TrackerUnavailable, match="cannot write"):
        blocked.send_trial(tracked)


def test_it_is_quiet_and_asks_no_network(comet_ml: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path / "runs")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_kill_leaves_no_half_archive(comet_ml: Any, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", QUIET, str(tmp_path / "runs"), "for ever"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    [path] = (tmp_path / "runs").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["experiment.json", "messages.json"]
    old = tmp_path / "runs" / ".old.partial"
    old.touch()
    os.utime(old, (0, 0))
    CometArchives(tmp_path / "runs", None, None).open()
    assert not old.exists()


def test_the_key_of_comet_is_not_written(
    archives: CometArchives, tracked: TrackedTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_API_KEY", KEY)
    path = tmp_path / "runs" / f"{archives.send_trial(tracked)}.zip"
    with zipfile.ZipFile(path) as archive:
        assert not any(KEY.encode() in archive.read(name) for name in archive.namelist())
