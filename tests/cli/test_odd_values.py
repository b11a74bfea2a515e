"""``aiostorage status`` of objectives that are not finite numbers, and of what others wrote."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from aiostorage import Storage, Trial, open_storage
from aiostorage.cli.app import cli
from aiostorage.cli.results import best_trial, objective_of


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tune.db"


def status(url: str, *arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["status", url, *arguments], prog_name="aiostorage")
    assert result.exit_code == 0, result.output
    return result


def as_json(url: str) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    document = json.loads(status(url, "--json").stdout, parse_constant=refuse)
    found: list[dict[str, Any]] = document["experiments"]
    return found


def prepare(url: str, body: Callable[[Storage], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_storage(url, nan="completed") as storage:
            await body(storage)

    anyio.run(main)


async def completed(storage: Storage, name: str, *values: float) -> None:
    experiment = await storage.create_experiment({"name": name})
    for x, value in enumerate(values):
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": x}))
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            await storage.complete_trial(trial, value)


CASES: dict[str, tuple[tuple[float, ...], Any, str]] = {
    "up": ((math.inf,), "Infinity", "inf"),
    "down": ((math.nan, 1.0, -math.inf), "-Infinity", "-inf"),
    "diverged": ((math.nan, math.nan), None, "-"),
    "first": ((math.nan, 2.0, 3.0), 2.0, "2.0"),
    "last": ((3.0, 2.0, math.nan), 2.0, "2.0"),
    "up again": ((math.inf, math.nan, 5), 5, "5"),
}
"""Objectives; and the best one in JSON and in the columns."""


def test_the_best_of_odd_objectives(url: str) -> None:
    async def body(storage: Storage) -> None:
        for name, (values, *_) in CASES.items():
            await completed(storage, name, *values)

    prepare(url, body)
    assert {one["name"]: one["best"] for one in as_json(url)} == {
        name: wanted for name, (_, wanted, _) in CASES.items()
    }
    header, *lines = (line.split("\t") for line in status(url).stdout.splitlines())
    shown = {line[0]: line[header.index("best")] for line in lines}
    assert shown == {name: text for name, (*_, text) in CASES.items()}


def test_what_others_wrote(url: str, tmp_path: Path) -> None:
    async def body(storage: Storage) -> None:
        await completed(storage, "e", 4.0, 2.0, 1.0, 3.0)
        await storage.create_experiment({"name": 3})

    prepare(url, body)
    other = sqlite3.connect(tmp_path / "tune.db", isolation_level=None)
    try:
        for change, objective in (
            ("status = 'bogus'", 4.0),
            ("doc = json_set(doc, '$.results[0].value', 'none')", 2.0),
            ("doc = '{'", 1.0),
        ):
            other.execute(
                f"UPDATE trials SET {change} WHERE json_extract(doc, '$.results[0].value') = ?",
                [objective],
            )
        other.execute("UPDATE experiments SET version = 'x' WHERE name = 3")
    finally:
        other.close()
    found, odd = as_json(url)
    assert found["best"] == 3.0
    assert found["trials"] == {"bogus": 1, "completed": 3}
    assert (odd["name"], odd["version"]) == ("3", "x")
    assert "\t3.0\t" in status(url).stdout

    async def look(storage: Storage) -> None:
        (config,) = await storage.fetch_experiments({"name": "e"})
        best = await best_trial(storage, config)
        assert best is not None
        assert (best.objective, best.params) == (3.0, {"x": 3})

    prepare(url, look)


@pytest.mark.parametrize(
    "results",
    [None, "abc", 5, {}, [], [5], [{"type": "objective"}], [{"type": "objective", "value": "x"}]],
)
def test_no_objective(results: Any) -> None:
    assert objective_of({"results": results}) is None
