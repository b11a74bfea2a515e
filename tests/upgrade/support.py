"""What the tests of upgrades have in common."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from aiostorage.cli.app import cli

__all__ = ["LAYOUT_1", "call", "compressed", "expected", "with_versions"]

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
