"""A copy and a load are killed anywhere, and go on: the result is the same as in one go."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from aiostorage import open_storage
from aiostorage.transfer import copy_storage, dump_storage
from tests.processes.support import Starter, integrity
from tests.transfer.stores import fill, fill_plainly, freed, records, sorted_texts

TRIALS = 700
KILLS = 1


@pytest.mark.parametrize("how", ["copy", "load"])
def test_killed_anywhere_it_goes_on(start: Starter, tmp_path: Path, how: str) -> None:
    source, target = f"sqlite:///{tmp_path}/source.db", tmp_path / "target.db"
    dump = tmp_path / "dump.jsonl.gz"

    async def prepare() -> dict[str, list[str]]:
        async with open_storage(source) as one, open_storage("memory://") as whole:
            await fill(one)
            await fill_plainly(one, TRIALS, "many")
            await copy_storage(one, whole)
            await dump_storage(one, dump)
            expected = sorted_texts(await records(whole))
            assert expected == sorted_texts(freed(await records(one)))
            return expected

    async def found() -> dict[str, list[str]]:
        async with open_storage(f"sqlite:///{target}") as two:
            return sorted_texts(await records(two))

    expected = anyio.run(prepare)
    draw = random.Random(TRIALS)
    kills = 0
    for _ in range(3 * KILLS):
        origin = source if how == "copy" else str(dump)
        worker = start("worker_move.py", origin, f"sqlite:///{target}")
        wanted = draw.randint(1, 14)  # steps of which it tells; it goes on until the signal comes
        while (line := worker.line()) is not None and (wanted := wanted - 1):
            pass
        if line is None:
            worker.succeed()
            break
        worker.kill()
        kills += 1
        if kills > KILLS:
            start("worker_move.py", origin, f"sqlite:///{target}").succeed()
            break
    assert kills
    assert integrity(target) == "ok"
    assert anyio.run(found) == expected
