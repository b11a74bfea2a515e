"""aiosqlite logs every call; those of our connections are left out, those of others are not."""

from __future__ import annotations

import logging
from pathlib import Path

import aiosqlite
import pytest

from aiostorage import open_storage

pytestmark = pytest.mark.anyio


async def test_an_idle_wait_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_storage(f"sqlite:///{tmp_path}/tune.db") as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        assert await storage.reserve_trial(experiment, wait=0.3) is None
    ours = [record for record in caplog.records if record.name == "aiosqlite"]
    assert len(ours) <= 2  # the opening of a connection, before it is known whose it is


async def test_others_go_on_to_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with aiosqlite.connect(tmp_path / "theirs.db") as theirs:
        await theirs.execute("CREATE TABLE t (x)")
    assert "CREATE TABLE" in caplog.text
