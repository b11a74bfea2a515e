"""The command on a Track file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiostorage.cli.app import cli
from tests.cli.support import run


def test_a_demo_and_its_status(tmp_path: Path) -> None:
    small = ("--trials", "4", "--processes", "1", "--workers", "2", "--sample", "0.05")
    outcome = run(tmp_path, "demo", "--url", "track:///demo.json", *small)
    assert (outcome.code, outcome.err) == (0, "")
    assert "aiostorage status track:///demo.json" in outcome.out
    shown = CliRunner().invoke(cli, ["status", f"track:///{tmp_path}/demo.json", "--json"])
    assert shown.exit_code == 0
    (found,) = json.loads(shown.stdout)["experiments"]
    assert found["name"] == "demo"


@pytest.mark.parametrize("command", ["status", "export-orion", "upgrade"])
def test_no_command_makes_a_file(tmp_path: Path, command: str) -> None:
    arguments = [command, f"track:///{tmp_path}/no.json"]
    if command == "export-orion":
        arguments.append(str(tmp_path / "copy.pkl"))
    outcome = CliRunner().invoke(cli, arguments)
    assert outcome.exit_code == 2, outcome.output
    assert "there is no file" in outcome.stderr
    assert list(tmp_path.iterdir()) == []
