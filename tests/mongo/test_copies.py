"""Dumps, loads and copies with MongoDB at one end or at both."""

from __future__ import annotations

import random
import signal
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import anyio.to_thread
import pytest

from aiostorage import EncodingError, Storage, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.testing import Deployment
from aiostorage.transfer import copy_storage, dump_storage, load_storage
from tests.processes.support import starter
from tests.transfer.stores import fill, fill_plainly, freed, records, sorted_texts, texts

pytestmark = pytest.mark.anyio

SERVERS = ("standalone", "replica_set")
PAIRS = [
    ("standalone", "memory"),
    ("replica_set", "sqlite"),
    ("standalone", "track"),
    ("memory", "replica_set"),
    ("sqlite", "standalone"),
    ("track", "replica_set"),
    ("standalone", "replica_set"),
    ("replica_set", "standalone"),
]
"""Each other engine at either end. What a kind of server does does not depend on the other end."""


def url_of(engine: str, request: pytest.FixtureRequest, folder: Path, name: str) -> str:
    if engine in SERVERS:
        deployment: Deployment = request.getfixturevalue(f"mongodb_{engine}")
        return deployment.url_for(str(request.getfixturevalue("mongodb_emptied_database")))
    return "memory://" if engine == "memory" else f"{engine}:///{folder}/{name}"


@pytest.fixture(params=PAIRS, ids="-".join)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Give the URLs of two empty stores."""
    source, destination = request.param
    if {source, destination} == set(SERVERS):  # one name for both
        for server in SERVERS:
            request.getfixturevalue(f"mongodb_{server}")
    one = url_of(source, request, tmp_path, "one")
    return one, url_of(destination, request, tmp_path, "two")


async def test_a_store_goes_from_any_engine_to_any_other(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:

        async def opened(url: str) -> Storage:
            return await stack.enter_async_context(open_storage(url))

        one = await opened(urls[0])
        await fill(one)
        there = await records(one)
        two = await opened(urls[1])
        report = await copy_storage(one, two)
        assert texts(await records(two)) == texts(freed(there))
        assert (report.trials, report.benchmarks, report.orphans) == (8, 2, 1)

        dump = tmp_path / "store.jsonl.gz"
        await dump_storage(two, dump)
        report = await load_storage(dump, two, resolve="overwrite")
        assert {e.outcome for e in report.experiments} == {"present"}
        access = CollectionAccess(two)
        await access.update("experiments", {"_id": 7}, {"changed": True})
        await access.update("trials", {"_id": 2**62}, {"status": "new"})
        report = await load_storage(dump, two, resolve="overwrite")
        assert [e.outcome for e in report.experiments] == ["present", "overwritten", "present"]
        assert sorted_texts(await records(two)) == sorted_texts(freed(there))


async def test_killed_anywhere_it_goes_on(
    mongodb_standalone: Deployment, mongodb_emptied_database: str, tmp_path: Path
) -> None:
    """Also where there are no transactions."""
    url = mongodb_standalone.url_for(mongodb_emptied_database)
    source = f"sqlite:///{tmp_path}/source.db"
    async with open_storage(source) as one:
        await fill_plainly(one, 700)
        expected = sorted_texts(await records(one))
    kills = 0
    for wanted in (random.Random(1).randint(5, 8), 0):

        def kill_after(wanted: int) -> int:
            with starter(tmp_path) as start:
                process = start("worker_move.py", source, url)
                for number in count(1):
                    if process.line() is None:
                        return process.wait()
                    if number == wanted:
                        process.kill()
            raise AssertionError

        kills += await anyio.to_thread.run_sync(kill_after, wanted) == -signal.SIGKILL
    assert kills == 1
    async with open_storage(url) as two:
        assert sorted_texts(await records(two)) == expected


async def test_what_is_too_large_appears_in_no_part(
    mongodb_standalone: Deployment, mongodb_emptied_database: str
) -> None:
    url = mongodb_standalone.url_for(mongodb_emptied_database)
    async with open_storage("memory://") as one, open_storage(url) as two:
        await fill_plainly(one, 3)
        await one.update_experiment(uid="tune", large="x" * (17 * 2**20))
        with pytest.raises(EncodingError, match="16,777,216 bytes that MongoDB allows"):
            await copy_storage(one, two)
        assert not await two.fetch_experiments({})
        await one.update_experiment(uid="tune", large=None)
        await copy_storage(one, two)
        assert sorted_texts(await records(two)) == sorted_texts(await records(one))
