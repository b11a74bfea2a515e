"""Oríon's own configuration file, which each of its commands reads before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.client import build_experiment

RUN = """import sys
from orion.core.cli import main

for command in sys.argv[1:]:
    assert not main(command.split())
"""

DEADLINE = 100.0
"""Seconds that a command may take."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's `orion_config.yaml`, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "orion.core"
    folder.mkdir(parents=True)
    return folder / "orion_config.yaml"


def orion(*commands: str) -> subprocess.CompletedProcess[str]:
    """Run Oríon's commands in an interpreter of their own, whose import of Oríon reads the file."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *commands],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env=dict(os.environ),
    )


def test_the_form_that_works(file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tune.db"
    configured = {"type": "aiostorage", "database": {"url": url}}
    build_experiment("tune", space={"x": "uniform(0, 1)"}, storage=configured).close()
    file.write_text(
        f"storage:\n  type: aiostorage\n  database:\n    type: aiostoragedb\n    host: {url}\n"
    )
    done = orion("list", "db test")
    assert done.returncode == 0, done.stderr
    assert "tune-v1" in done.stdout
    assert "Success" in done.stdout
    assert "Failure" not in done.stdout


def test_the_form_that_ends_every_command(file: Path, tmp_path: Path) -> None:
    """A fault of Oríon's, before it asks us: the documentation says so."""
    file.write_text(
        f"storage:\n  type: aiostorage\n  database:\n    url: sqlite:///{tmp_path}/tune.db\n"
    )
    version = orion("--version")
    assert version.returncode != 0
    assert "Configuration does not have an attribute 'url'" in version.stderr
