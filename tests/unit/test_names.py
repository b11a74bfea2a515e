"""No two modules or classes have one name, so that a name says which one is meant."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aiostorage"

ROLES = {"driver", "storage", "tracker", "command", "facade", "factory", "imports", "cancellation"}
"""Modules of one role: an engine's driver; a program's tracker; a command that has a package of its
own; what makes a thing of its URL; what brings records of another program; in `testing`, what tests
a thing has its name."""

MOVED = {"legacy", "driver_contract", "facade", "mongod", "replica_set", "stateful"}
"""Old import paths, which are there for one minor version."""


def modules() -> list[Path]:
    return [file for file in PACKAGE.rglob("*.py") if not file.name.startswith("__")]


def classes(folder: Path) -> Iterator[str]:
    """Yield the names of classes without the underscore of private ones."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield node.name.lstrip("_")


def test_modules_have_names_of_their_own() -> None:
    times = Counter(file.stem for file in modules())
    twice = {name for name, count in times.items() if count > 1}
    assert twice <= ROLES | MOVED
    assert not {name for name, count in times.items() if name in MOVED - ROLES and count > 2}


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    names = {part for file in modules() for part in file.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & sys.stdlib_module_names


def test_classes_have_names_of_their_own() -> None:
    twice = [name for name, count in Counter(classes(PACKAGE)).items() if count > 1]
    assert not twice
