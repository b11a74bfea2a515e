"""Oríon's own configuration file, which each of its commands reads before it does anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.client import build_experiment

Processes = Any  # that of conftest.py

RUN = """import sys

for name in [name for name in sys.modules if name.split(".")[0] in ("orion", "aiostorage")]:
    del sys.modules[name]

from orion.core.cli import main

for command in sys.argv[1:]:
    assert not main(command.split())
"""
"""Run commands of an Oríon that is imported anew, and reads the file meanwhile."""

DEADLINE = 100.0
"""Seconds that a command may take."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's `orion_config.yaml`, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "orion.core"
    folder.mkdir(parents=True)
    return folder / "orion_config.yaml"


def test_the_form_that_works(file: Path, tmp_path: Path, processes: Processes) -> None:
    url = f"sqlite:///{tmp_path}/tune.db"
    configured = {"type": "aiostorage", "database": {"url": url}}
    build_experiment("tune", space={"x": "uniform(0, 1)"}, storage=configured).close()
    file.write_text(
        f"storage:\n  type: aiostorage\n  database:\n    type: aiostoragedb\n    host: {url}\n"
    )
    said = processes.finish(processes.start(RUN, "list", "db test"))
    assert "tune-v1" in said
    assert "Success" in said
    assert "Failure" not in said


def test_the_form_that_ends_every_command(file: Path, tmp_path: Path, processes: Processes) -> None:
    """A fault of Oríon's, before it asks us: the documentation says so."""
    file.write_text(
        f"storage:\n  type: aiostorage\n  database:\n    url: sqlite:///{tmp_path}/tune.db\n"
    )
    version = processes.start(RUN, "--version")
    said, _ = version.communicate(timeout=DEADLINE)
    assert version.returncode != 0
    assert "Configuration does not have an attribute 'url'" in said
