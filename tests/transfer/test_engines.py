"""Dumps, loads and copies between engines: equal stores, by all documents."""

from __future__ import annotations

import io
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path

import pytest

from aiostorage import Storage, open_storage
from aiostorage.transfer import copy_storage, dump_storage, load_storage
from tests.transfer.stores import fill, freed, records, texts

pytestmark = pytest.mark.anyio

ENGINES = ("memory", "sqlite", "track")


def url_of(engine: str, folder: Path, name: str) -> str:
    return "memory://" if engine == "memory" else f"{engine}:///{folder}/{name}.{engine}"


@pytest.mark.parametrize(("source", "destination"), [*product(ENGINES, ENGINES)])
async def test_a_store_goes_from_any_engine_to_any_other(
    tmp_path: Path, source: str, destination: str
) -> None:
    async with AsyncExitStack() as stack:

        async def opened(engine: str, name: str) -> Storage:
            return await stack.enter_async_context(open_storage(url_of(engine, tmp_path, name)))

        one = await opened(source, "one")
        await fill(one)
        there = await records(one)
        copy = await opened(destination, "copy")
        report = await copy_storage(one, copy)
        assert texts(await records(copy)) == texts(freed(there))
        assert [e.outcome for e in report.experiments] == ["copied"] * 3
        assert (report.trials, report.benchmarks, report.orphans) == (8, 2, 1)
        assert (report.interrupted, report.unlocked) == (1, 1)
        assert report.checksum

        dump = tmp_path / "store.jsonl.zst"
        dumped = await dump_storage(one, dump)
        assert (dumped.experiments, dumped.trials, dumped.locks) == (3, 8, 2)
        loaded = await opened(destination, "loaded")
        report = await load_storage(dump, loaded, keep_reservations=True)
        assert report.checksum
        whole = {**there, "trials": there["trials"][:-1]}  # but for the orphan
        assert texts(await records(loaded)) == texts(whole)

        again = await load_storage(dump, loaded, keep_reservations=True)
        assert {e.outcome for e in again.experiments} == {"present"}
        assert (again.trials, again.present_benchmarks, again.checksum) == (0, 2, None)
        assert texts(await records(loaded)) == texts(whole)
        assert texts(await records(one)) == texts(there)


async def test_a_dump_of_a_dump_is_the_same_but_for_its_first_line(tmp_path: Path) -> None:
    async with open_storage("memory://") as one, open_storage("memory://") as two:
        await fill(one)
        file = tmp_path / "one.jsonl"
        await dump_storage(one, file)
        await load_storage(file, two, keep_reservations=True)
        lines = []
        for storage in (one, two):
            stream = io.BytesIO()
            await dump_storage(storage, stream)
            lines.append(stream.getvalue().splitlines()[1:-1])
    assert lines[0] == lines[1]
