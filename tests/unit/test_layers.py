"""Each module of the package has its place among the layers, and the documentation shows them."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aiostorage"

NO_PLACE = {"__main__", "_core", "_moved", "trackers"}
"""Packages whose modules have places of their own, and what warns of a name that has moved."""


def layers() -> list[list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (lines,) = (one["layers"] for one in contracts if one["name"] == "layers")
    return [
        [name.strip().removeprefix("aiostorage.") for name in line.split("|")] for line in lines
    ]


def test_each_module_has_a_place() -> None:
    found = {
        (prefix + path.stem)
        for folder, prefix in (("", ""), ("_core", "_core."), ("trackers", "trackers."))
        for path in (PACKAGE / folder).iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    }
    placed = [name for line in layers() for name in line]
    assert sorted(placed) == sorted(found - NO_PLACE)


def test_the_documentation_has_the_same_layers() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    shown = page.split("## Who may import whom")[1].split("```text\n")[1].split("\n```")[0]
    lines = [[name.strip() for name in line.split("|")] for line in shown.split("\n")]
    ours = [["drivers.*" if name == "drivers" else name for name in line] for line in layers()]
    assert lines == ours
