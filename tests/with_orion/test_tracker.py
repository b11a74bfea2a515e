"""A tracker in Oríon's configuration."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.client import build_experiment

from aiostorage.trackers import factory
from tests.trackers.file_tracker import Seen


def test_a_run_of_orion_in_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("file", "tests.trackers.file_tracker:made_from_url", factory.ENTRY_POINTS)

    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints([entry]).select(**wanted)

    monkeypatch.setattr(factory, "entry_points", entry_points)
    seen = Seen(tmp_path)
    url = f"sqlite:///{tmp_path}/tune.db?synchronous=NORMAL"
    database = {"url": url, "tracker": f"file://{tmp_path}", "objective": "loss"}
    client = build_experiment(
        "tune", space={"x": "uniform(0, 1)"}, storage={"type": "aiostorage", "database": database}
    )
    storage = client.storage
    done = client.suggest()
    client.observe(done, 0.5)
    storage._storage.flush_tracker(20)
    assert [(run.status, run.metrics) for run in seen.runs()] == [("completed", {"objective": 0.5})]
    logged = client.suggest()
    storage._storage.flush_tracker(20)
    run = seen.runs()[-1]
    seen.log_metric(run.key, loss=0.25, steps=3)
    assert storage.retrieve_result(logged) is logged
    assert (logged.objective.name, logged.objective.value) == ("loss", 0.25)
    client.release(logged)
    client.close()
    storage._storage.close()
