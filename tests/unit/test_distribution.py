"""What pip is told: the name of the distribution and its extras, in the metadata and in texts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "aiostorage").rglob("*.py"),
]
EXCEPTION = ROOT / "docs" / "decisions" / "name-of-the-distribution.md"


def test_the_name_is_not_that_of_the_other_package() -> None:
    assert PROJECT["name"] == "aiostorage-orion"


def test_no_text_installs_the_other_package() -> None:
    installs = re.compile(r"pip install[^\n]*[ \"']aiostorage(?![\w-])|aiostorage\[[a-z]+[],]")
    assert installs.search("pip install -U 'aiostorage>=0.1'")
    assert installs.search('"aiostorage[mongodb,orion]"')
    found = [path for path in TEXTS if installs.search(path.read_text(encoding="utf-8"))]
    assert found == [EXCEPTION]  # which says what would happen


def test_orion_is_asked_for_only_where_it_runs() -> None:
    extras = PROJECT["optional-dependencies"]
    assert sorted(extras) == [
        *("all", "arrow", "comet", "dashboard", "mlflow", "mongodb", "optuna", "orion"),
        *("pandas", "plot", "telemetry", "watch", "zstd"),
    ]
    assert all(one.endswith("; python_version < '3.12'") for one in extras["orion"])
    every = ",".join(sorted(extras.keys() - {"all"}))
    assert extras["all"] == [f"aiostorage-orion[{every}]"]
