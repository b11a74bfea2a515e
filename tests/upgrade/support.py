"""What the tests of upgrades have in common."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from aiostorage.cli.app import cli
from aiostorage.engine import (
    Collection,
    Compare,
    Document,
    Field,
    Find,
    Index,
    Layout,
    StepPlan,
    Update,
    UpgradeStep,
)

__all__ = [
    "LAYOUT_1",
    "MORE",
    "NEW",
    "OLD",
    "call",
    "compressed",
    "expected",
    "step",
    "with_versions",
]

LAYOUT_1 = Path(__file__).parent / "layout_1"

GIVEN = {"alone": 1, "twice": 2, "gap": 1, "said so": 1, "ü\U0001f600": 1}
"""The versions that experiments without one get by the upgrade."""


def call(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments, prog_name="aiostorage")


def compressed(name: str) -> bytes:
    """Read a file of 0.1.0."""
    return gzip.decompress((LAYOUT_1 / name).read_bytes())


def expected(name: str) -> dict[str, Any]:
    """Return what a store must contain after its upgrade: what 0.1.0 read, and versions."""
    content: dict[str, Any] = json.loads((LAYOUT_1 / name).read_text(encoding="utf-8"))
    return with_versions(content)


def with_versions(content: dict[str, Any]) -> dict[str, Any]:
    """Return a content in which the experiments without a version have the one that they get."""
    pairs = dict(content["dict"])
    configs = [dict(config["dict"]) for config in pairs["experiments"]]
    given = 0
    for config in configs:
        if config.get("version") is None:
            config["version"] = GIVEN[config["name"]]
            given += 1
    assert given == len(GIVEN)
    pairs["experiments"] = [{"dict": [[k, c[k]] for k in sorted(c)]} for c in configs]
    return {"dict": [[name, pairs[name]] for name in sorted(pairs)]}


# ----------------------------------------------------- what a layout may add, whatever it is

THINGS = Collection(
    "things",
    fields=(Field("group", "key", required=True), Field("at", "time")),
    indexes=(Index(("group",)), Index(("at",))),
)
MORE = Collection(
    "things",
    fields=(
        *THINGS.fields,
        Field("rank", "key"),
        Field("seen", "time"),
        Field("done", "key", True),
    ),
    indexes=(Index(("group",), unique=True), Index(("at",)), Index(("rank",))),
)
OTHERS = Collection("others", fields=(Field("name", "key"),), indexes=(Index(("name",)),))
OLD = Layout(1, (THINGS,))
NEW = Layout(3, (MORE, OTHERS))


def step(version: int) -> UpgradeStep:
    """Make a step that notes in each thing how much it has found there."""

    def plan(things: Sequence[Document]) -> StepPlan:
        updates = [
            Update("things", Compare("_id", "eq", one["_id"]), {f"v{version}": len(one), "done": 1})
            for one in things
        ]
        return StepPlan(tuple(updates), (f"step {version}",))

    return UpgradeStep(version, Find("things"), plan)
