"""Each module of the package has its place among the layers, and the documentation shows them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aiostorage"

NO_PLACE = {"__main__", "_core", "_moved", "trackers"}
"""Packages whose modules have places of their own, and what warns of a name that has moved."""

LAST_OF_THE_DOMAIN = "_core.documents"
"""Above it, and beside it, modules know trials, experiments and locks."""

NO_DOMAIN = {"time_limit"}
"""Modules of which an engine may know, whatever package they are in."""


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


def test_an_engine_imports_nothing_of_the_domain() -> None:
    """The rest is in `pyproject.toml`: no engine imports a model, or another engine."""
    level = {name: number for number, line in enumerate(layers()) for name in line}
    domain = level[LAST_OF_THE_DOMAIN]
    imported = {name for path in PACKAGE.glob("drivers/**/*.py") for name in core_imports(path)}
    assert imported
    wrong = {name for name in imported if level[place_of(name, level)] <= domain}
    assert {name for name in wrong if name.rpartition(".")[2] not in NO_DOMAIN} == set()


def core_imports(path: Path) -> Iterator[str]:
    """Yield the modules of `_core` that a module imports, without the name of the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=str(module)):
                names = [module, *(f"{module}.{one.name}" for one in node.names)]
            case ast.Import(names=aliases):
                names = [one.name for one in aliases]
            case _:
                continue
        for name in names:
            parts = name.split(".")
            if parts[:2] == ["aiostorage", "_core"] and is_module(parts):
                yield ".".join(parts[1:])


def is_module(parts: list[str]) -> bool:
    path = PACKAGE.parent.joinpath(*parts)
    return len(parts) > 2 and (path.with_suffix(".py").exists() or path.is_dir())


def place_of(name: str, level: dict[str, int]) -> str:
    """Return the layer of a module: its own, or that of its package."""
    while name not in level:
        name = name.rpartition(".")[0]
    return name
