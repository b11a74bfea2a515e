"""The upgrade of MongoDB databases, among them one that aiostorage 0.1.0 has made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import (
    ConfigurationError,
    DuplicateKeyError,
    NotADatabaseError,
    SchemaVersionError,
    Storage,
    SyncStorage,
    open_storage,
    upgrade_storage,
)
from aiostorage.engine import Document, Find, Insert
from tests.processes.support import starter

from .layout_1.content import content_of
from .support import LAYOUT_1, NEW, OLD, call, expected, step

pytest.importorskip("pymongo")

from bson import json_util
from bson.json_util import CANONICAL_JSON_OPTIONS as CANONICAL
from pymongo import MongoClient
from pymongo.database import Database

from aiostorage.drivers.mongodb.mongodb_options import driver_from_options
from aiostorage.drivers.mongodb.settings import read_settings

from .mongodb_dump import indexes_of, restored

DUMP = LAYOUT_1 / "mongodb.json.gz"

KINDS = {"motor": "mongodb_standalone", "pymongo": "mongodb_replica_set"}

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> str:
    """Give the URL of a database: on one server by motor, on a replica set by PyMongo."""
    deployment = request.getfixturevalue(KINDS[request.param])
    made: str = deployment.url_for(request.getfixturevalue("mongodb_database"))
    return f"{made}{'&' if '?' in made else '?'}client={request.param}"


@pytest.fixture
def database(url: str) -> Iterator[Database[dict[str, Any]]]:
    """Give the database of the URL, as 0.1.0 has made it."""
    with MongoClient[dict[str, Any]](plain(url)) as client:
        found = client.get_default_database()
        restored(found, DUMP.read_bytes())
        yield found


def plain(url: str) -> str:
    """Return the URL without what only aiostorage knows."""
    return url.partition("client=")[0].rstrip("?&")


def everything(database: Database[dict[str, Any]]) -> dict[str, list[str]]:
    """Return all documents as text, in which NaN equals NaN."""
    return {
        name: [json_util.dumps(one, json_options=CANONICAL) for one in database[name].find()]
        for name in sorted(database.list_collection_names())
    }


def content(url: str) -> Any:
    async def main() -> Any:
        async with open_storage(url) as storage:
            return await content_of(storage)

    return anyio.run(main)


def test_before_it_the_error_names_the_command(url: str, database: Database[Any]) -> None:
    before = everything(database)
    settings = read_settings(plain(url), "motor", None, 1.0, {}, read_only=False)
    for read_only in (False, True):

        async def opened(read_only: bool = read_only) -> None:
            async with open_storage(url, read_only=read_only):
                pass

        with pytest.raises(SchemaVersionError) as raised:
            anyio.run(opened)
        assert f"{settings.location} has layout 1, this aiostorage needs 2" in str(raised.value)
        command = str(raised.value).partition("run: ")[2]
        assert command.startswith("aiostorage upgrade ")
    storage = SyncStorage(open_storage(url))
    with pytest.raises(SchemaVersionError):
        storage.fetch_experiments({})
    storage.close()
    assert command in call("status", url).stderr
    assert everything(database) == before
    assert call(*shlex.split(command)[1:]).exit_code == 0
    assert call("status", url).exit_code == 0


def test_everything_is_in_it_afterwards(url: str, database: Database[Any]) -> None:
    before = everything(database)
    without = {"name": "twice", "version": {"$exists": False}}
    twins = [one["_id"] for one in database["experiments"].find(without)]
    rehearsed = call("upgrade", url, "--dry-run")
    assert everything(database) == before
    done = call("upgrade", url)
    assert (done.exit_code, done.stderr) == (0, "")
    [twice] = twins
    location = plain(url).partition("?")[0]
    assert done.stdout.splitlines() == [
        "4 experiments without a version get version 1",
        (
            f"the experiment 'twice' without a version ({twice}) gets version 2: "
            "another 'twice' has version 1"
        ),
        f"{location}: upgraded from layout 1 to 2",
    ]
    assert rehearsed.stdout == done.stdout.replace(": upgraded", ": would be upgraded")
    after = everything(database)
    assert content(url) == expected("mongodb.json")
    for name in before:
        if name not in ("experiments", "aiostorage_meta"):
            assert after[name] == before[name]
    layouts = list(database["aiostorage_meta"].find({"_id": "layout"}))
    assert layouts == [{"_id": "layout", "version": 2}]
    again = call("upgrade", url)
    assert again.exit_code == 0
    assert again.stdout == f"{location} is up to date: it has layout 2\n"
    assert everything(database)["experiments"] == after["experiments"]

    async def work() -> None:
        async with open_storage(url) as storage:
            [root] = await storage.fetch_experiments({"name": "tune", "version": 1})
            trial = await storage.reserve_trial(root)
            assert trial is not None
            await storage.complete_trial(trial, 1.0)
            await storage.create_experiment({"name": "new"})

    anyio.run(work)


def test_it_has_the_indexes_of_a_new_one(url: str, database: Database[Any]) -> None:
    anyio.run(upgrade_storage, url)
    found = indexes_of(database)
    database.client.drop_database(database.name)
    content(url)
    assert found == indexes_of(database)


def test_killed_after_a_write(url: str, tmp_path: Path) -> None:
    worker = Path(__file__).with_name("worker_kill.py")
    with starter(tmp_path) as start:
        process = start(str(worker), "mongodb", url, DUMP, "1" if "motor" in url else "3")
        runs = [json.loads(line) for line in iter(process.line, None)]
        assert process.wait() == 0, process.stderr
    assert len(runs) > 3
    found = [run["found"] for run in runs]
    assert found == sorted(found)
    assert found[:2] + found[-1:] == [1, 1, 2]
    for run in runs:
        assert run["then"] == 2
        assert run["content"] == expected("mongodb.json")


def test_what_is_not_upgraded(url: str, database: Database[Any]) -> None:
    with pytest.raises(ConfigurationError, match="use mongodump"):
        anyio.run(lambda: upgrade_storage(url, backup="copy"))
    assert "use mongodump" in call("upgrade", url, "--backup", "copy").stderr
    meta = database["aiostorage_meta"]
    meta.update_one({"_id": "layout"}, {"$set": {"version": 99}})
    with pytest.raises(SchemaVersionError, match="has layout 99"):
        anyio.run(upgrade_storage, url)
    meta.update_one({"_id": "layout"}, {"$unset": {"version": 1}})
    with pytest.raises(NotADatabaseError, match="has no version"):
        anyio.run(upgrade_storage, url)
    meta.drop()  # as Oríon makes it
    before = everything(database)
    done = call("upgrade", url)
    assert (done.exit_code, done.stdout.count("nothing to upgrade")) == (0, 1)
    assert everything(database) == before
    for name in before:
        database[name].drop()
    with pytest.raises(ConfigurationError, match="there is no database"):
        anyio.run(upgrade_storage, url)
    database["posts"].insert_one({})
    with pytest.raises(NotADatabaseError, match="neither of aiostorage nor of Oríon"):
        anyio.run(upgrade_storage, url)
    assert database.list_collection_names() == ["posts"]


def test_a_database_of_orions_is_read_so(url: str, database: Database[Any]) -> None:
    """Oríon's records without a version are version 1, and stay as they are."""
    database.client.drop_database(database.name)
    database["experiments"].insert_one({"name": "old", "space": {}})

    async def read(storage: Storage) -> None:
        [found] = await storage.fetch_experiments({"name": "old", "version": 1})
        assert found["version"] == 1

    async def main() -> None:
        async with open_storage(url, read_only=True) as storage:
            await read(storage)
        async with open_storage(url) as storage:
            await read(storage)

    status = call("status", url).stdout.splitlines()[1]
    assert status.split("\t")[:2] == ["old", "1"]
    anyio.run(main)
    [stored] = database["experiments"].find()
    assert "version" not in stored


@pytest.mark.anyio
async def test_collections_indexes_and_steps(url: str) -> None:
    documents: list[Document] = [{"_id": n, "group": f"g{n}", "rank": 9 - n} for n in range(1, 9)]
    driver = driver_from_options(url=url)
    await driver.open(OLD)
    await driver.execute(Insert("things", tuple(dict(d) for d in documents)))
    await driver.aclose()
    with pytest.raises(SchemaVersionError):
        await driver.open(NEW)
    await driver.aclose()
    report = await driver.upgrade(NEW, (step(4), step(3), step(2), step(1)))
    assert (report.found, report.version, report.notes) == (1, 3, ("step 2", "step 3"))
    await driver.open(NEW)
    expected = [{**d, "v2": len(d), "v3": len(d) + 2, "done": 1} for d in documents]
    assert await driver.execute(Find("things")) == expected
    assert await driver.execute(Find("things", order=("rank",))) == expected[::-1]
    with pytest.raises(DuplicateKeyError):
        await driver.execute(Insert("things", ({"_id": 0, "group": "g7", "done": 1},)))
    await driver.execute(Insert("others", ({"_id": 0, "name": "a"},)))
    await driver.aclose()


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("mongodb://h:1/tune", "aiostorage upgrade mongodb://h:1/tune"),
        (
            "mongodb://a:1,b:2/tune?replicaSet=rs&tls=true&appname=x&socketTimeoutMS=1",
            "aiostorage upgrade 'mongodb://a:1,b:2/tune?replicaSet=rs&tls=true'",
        ),
        (
            "mongodb://me:secret@h/tune?authSource=admin&tlsCertificateKeyFilePassword=secret",
            (
                "aiostorage upgrade 'mongodb://h/tune?authSource=admin' "
                "(with your user and password in the URL)"
            ),
        ),
    ],
)
def test_the_command_has_no_secrets(given: str, command: str) -> None:
    made = read_settings(given, "motor", None, 1.0, {}, read_only=False)
    assert made.upgrade_command == command
    login = {"username": "me", "password": "secret"}
    made = read_settings("mongodb://h/t", "pymongo", None, 1.0, login, read_only=False)
    assert made.upgrade_command == (
        "aiostorage upgrade 'mongodb://h/t?client=pymongo' (with your user and password in the URL)"
    )
