"""Track files that are damaged on purpose: what is found, what is repaired, and what stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import open_storage
from aiostorage.doctor import examine, repair
from tests.doctor.stores import codes_of, documents_in, fill

Tree = list[dict[str, Any]]


@dataclass(frozen=True)
class Damage:
    """Something that can be wrong; see `tests.doctor.test_sqlite_damage.Damage`."""

    code: str
    inflict: Callable[[Path, Tree], object]
    repairable: bool = True
    changed: frozenset[str] = frozenset()


def _cut(path: Path, _: Tree) -> None:
    os.truncate(path, 700)


def _left(path: Path, _: Tree) -> None:
    left = path.with_name(f".{path.name}.aiostorage-0123456789ab.tmp")
    left.write_text("[")
    os.utime(left, (0, 0))


def _ours(tree: Tree) -> dict[str, Any]:
    found: dict[str, Any] = tree[-1]["metadata"]["aiostorage"]
    return found


def _reserved(tree: Tree) -> dict[str, Any]:
    return next(one for one in tree[0]["trials"] if one["status"]["name"] == "reserved")


def _move(raw: dict[str, Any]) -> None:
    raw["group_id"] = raw["metadata"]["experiment"] = "gone"


DAMAGES = [
    Damage("not-a-database", _cut, repairable=False),
    Damage("leftover-files", _left),
    Damage("old-layout", lambda _, tree: _ours(tree).update(layout=1), repairable=False),
    Damage("newer-layout", lambda _, tree: _ours(tree).update(layout=99), repairable=False),
    Damage("missing-trials", lambda _, tree: tree[0]["groups"][0]["trials"].append("gone"),
           repairable=False),
    Damage("orphan-trial", lambda _, tree: _move(tree[0]["trials"][2]),
           repairable=False, changed=frozenset({"trials"})),
    Damage("experiment-without-lock", lambda _, tree: _ours(tree)["collections"].pop("algo"),
           changed=frozenset({"algo"})),
    Damage("lost-trial", lambda _, tree: _reserved(tree)["metadata"].update(heartbeat=5.0),
           changed=frozenset({"trials"})),
    Damage("empty-project", lambda _, tree: tree.insert(0, {"dtype": "project", "uid": "empty"}),
           repairable=False),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.code)
def test_what_is_damaged_is_found_and_repaired(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "tune.json"
    url = f"track:///{path}"
    anyio.run(_fill, url)
    assert codes_of(anyio.run(examine, url)) == set()
    before = anyio.run(documents_in, url)
    tree = json.loads(path.read_text())
    damage.inflict(path, tree)
    if damage.code not in ("not-a-database", "leftover-files"):
        path.write_text(json.dumps(tree))

    seen = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    found = anyio.run(examine, url)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == seen, "it changes nothing"
    assert damage.code in {one.code for one in found.findings}
    assert any(one.repairable for one in found.findings) == damage.repairable

    repaired = anyio.run(repair, url)
    assert bool(repaired.repairs) == damage.repairable
    if not damage.repairable:
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == seen
        return
    assert codes_of(repaired) == set()
    after = anyio.run(documents_in, url)
    for name in before.keys() - damage.changed:
        assert after[name] == before[name], name


async def _fill(url: str) -> None:
    async with open_storage(url) as storage:
        await fill(storage)
