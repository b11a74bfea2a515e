"""Coming over from Oríon's own MongoDB storage, and MongoDB at the other end of a transfer."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from aiostorage import Storage, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.errors import DuplicateKeyError, PermissionDenied
from aiostorage.orion import Count, Counts, Progress, import_orion, importer
from aiostorage.testing import Mongod
from aiostorage.testing.mongodb.deployments import Deployment

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 ends at Python 3.11", allow_module_level=True)
if find_spec("pymongo") is None:
    pytest.skip("no client of MongoDB", allow_module_level=True)

from orion.core.io.database.pickleddb import PickledDB
from orion.storage.legacy import Legacy
from pymongo import MongoClient

from .support import (
    COLLECTIONS,
    as_copied,
    call,
    everything,
    fill,
    in_utc,
    plugged_in,
    release,
    sorted_by_id,
    stored,
    using,
    work,
)

# Oríon and what it stands on warn of much
pytestmark = pytest.mark.filterwarnings("default")

Documents = dict[str, list[dict[str, Any]]]


def plain(value: Any) -> Any:
    """Write ids as we do, and times as they are meant."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if type(value).__name__ == "ObjectId" else in_utc(value)


def dump(url: str) -> Any:
    """Return whatever there is in a database: documents, and indexes."""
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        return {
            name: (list(database[name].find()), database[name].index_information())
            for name in database.list_collection_names()
        }


def documents_in(url: str) -> Documents:
    there = dump(url)
    return {name: plain(there[name][0]) for name in COLLECTIONS}


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@pytest.fixture(scope="session")
def original(mongodb_replica_set: Deployment) -> Iterator[str]:
    """Give a database as Oríon's own storage leaves it, which the tests only read."""
    name = f"aiostorage_test_{uuid4().hex[:16]}"
    url = mongodb_replica_set.url_for(name)
    storage = Legacy(database={"type": "mongodb", "host": url})
    fill(storage)
    storage._db.close_connection()
    yield url
    with MongoClient[dict[str, Any]](url) as client:
        client.drop_database(name)


@pytest.fixture(params=["motor", "pymongo"])
def source(request: pytest.FixtureRequest, original: str) -> Iterator[str]:
    """Give its URL, for either client; nothing may have changed in it afterwards."""
    before = dump(original)
    yield with_option(original, f"client={request.param}")
    assert dump(original) == before


@pytest.fixture
def copy(original: str, mongodb_replica_set: Deployment, mongodb_database: str) -> str:
    """Give a copy of it that may be changed."""
    url = mongodb_replica_set.url_for(mongodb_database)
    with MongoClient[dict[str, Any]](url) as client:
        for name, (documents, _) in dump(original).items():
            if documents:
                client[mongodb_database][name].insert_many(documents)
    return url


@pytest.fixture(params=["sqlite", "mongodb"])
def url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mongodb_standalone: Deployment,
    mongodb_database: str,
) -> str:
    """Give the URL of an empty storage, to come over to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tune.db'}"
    return mongodb_standalone.url_for(mongodb_database)


@pytest.fixture
def on_mongodb(mongodb_standalone: Deployment, mongodb_database: str) -> str:
    return mongodb_standalone.url_for(mongodb_database)


@pytest.fixture
def file(original: str, tmp_path: Path) -> Path:
    """Give a PickledDB file with the same in it."""
    path = tmp_path / "orion.pkl"
    done = call("export-orion", original, path, "--state-codec", "pickle")
    assert (done.exit_code, done.stderr) == (0, "")
    return path


def copied(source: Path | str, url: str, *, overwrite: bool = False) -> Counts:
    return using(url, lambda storage: import_orion(source, storage, overwrite=overwrite))


def check_equal(wanted: Documents, there: Documents) -> None:
    """Compare a source with a store that it alone was imported into."""
    for name in ("experiments", "benchmarks"):
        assert sorted_by_id(there[name]) == sorted_by_id(wanted[name])
    assert sorted_by_id(there["trials"]) == sorted_by_id(as_copied(wanted["trials"]))
    locks = {lock["experiment"]: lock for lock in there["algo"]}
    for lock in wanted["algo"]:
        ours = locks.pop(lock["experiment"])
        assert ours["configuration"] == lock["configuration"]
        assert ours["heartbeat"] == lock["heartbeat"]
        assert (ours["locked"], ours["owner"], ours["expires"]) == (0, None, None)
        np.testing.assert_equal(pickle.loads(ours["state"]), pickle.loads(lock["state"]))
    assert not locks


# ---------------------------------------------------------------------------------- coming over


paired = pytest.mark.parametrize(
    ("source", "url"), [("motor", "sqlite"), ("pymongo", "mongodb")], indirect=True
)


@paired
def test_everything_comes_over(source: str, original: str, url: str) -> None:
    seen: list[Progress] = []
    wanted = documents_in(original)
    trials = len(wanted["trials"])

    async def body(storage: Storage) -> Documents:
        counts = await import_orion(source, storage, progress=seen.append)
        assert counts == Counts(Count(3), Count(trials), Count(1), Count(3), interrupted=1)
        return await everything(storage)

    there = using(url, body)
    check_equal(wanted, there)
    assert {one["status"] for one in there["trials"]} == {
        *("completed", "broken", "new", "interrupted")
    }
    branch = next(config for config in there["experiments"] if config["version"] == 2)
    root = next(c for c in there["experiments"] if (c["name"], c["version"]) == ("first", 1))
    assert branch["refers"]["parent_id"] == branch["refers"]["root_id"] == root["_id"]
    done = {p.collection: p.done for p in seen if p.done == p.total}
    read = sum(map(len, wanted.values()))
    assert done == {"read": read, "experiments": 3, "benchmarks": 1, "trials": trials}

    again = Counts(Count(present=3), Count(present=trials), Count(present=1), Count(present=3))
    assert copied(source, url) == again
    assert stored(url) == there


def test_orion_carries_on_where_it_was(copy: str, on_mongodb: str) -> None:
    """It suggests what it would have suggested on its own."""
    copied(copy, on_mongodb)
    storage = Legacy(database={"type": "mongodb", "host": copy})
    release(storage)
    theirs = [trial.params for trial in work(storage, 9, version=1).fetch_trials()]
    storage._db.close_connection()
    with plugged_in(on_mongodb) as storage:
        ours = work(storage, 9, version=1)
        trials = ours.fetch_trials()
        assert sum(trial.status == "completed" for trial in trials) == 9
        assert [trial.params for trial in trials] == theirs
        branch = work(storage, 9, version=2)
        assert len(branch.fetch_trials(with_evc_tree=True)) > len(branch.fetch_trials())


def test_orions_own_storage_carries_on_where_it_was_copied_to(
    original: str, on_mongodb: str
) -> None:
    copied(original, on_mongodb)
    storage = Legacy(database={"type": "mongodb", "host": on_mongodb})
    client = work(storage, 9, version=1)
    assert sum(trial.status == "completed" for trial in client.fetch_trials()) == 9
    # the lock of the dead holder came over open
    [second] = storage.fetch_experiments({"name": "second"})
    assert not storage.get_algorithm_lock_info(uid=second["_id"]).locked
    storage._db.close_connection()


class MongoDBImportInterrupted(Exception):
    """Stands for whatever ends an import."""


@pytest.mark.parametrize("after", [4, 7, 10])
def test_an_interrupted_import_goes_on(
    original: str, on_mongodb: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_SIZE", 5)
    left = after

    def interrupt(_: Progress) -> None:
        nonlocal left
        if not left:
            raise MongoDBImportInterrupted
        left -= 1

    with pytest.raises(MongoDBImportInterrupted):
        using(on_mongodb, lambda storage: import_orion(original, storage, progress=interrupt))
    before = stored(on_mongodb)
    assert len(before["algo"]) == len(before["experiments"])
    counts = copied(original, on_mongodb)
    wanted = documents_in(original)
    for name in ("experiments", "trials", "benchmarks"):
        count = getattr(counts, name)
        assert count.present == len(before[name])
        assert count.present + count.copied == len(wanted[name])
    check_equal(wanted, stored(on_mongodb))


def test_what_differs_is_refused_or_replaced(original: str, on_mongodb: str) -> None:
    url = on_mongodb
    copied(original, url)

    async def change(storage: Storage) -> None:
        query = {"name": "first", "version": 1}
        assert await CollectionAccess(storage).update("experiments", query, {"space": {}})
        assert await CollectionAccess(storage).delete("trials", {"status": "new"})

    using(url, change)
    before = stored(url)
    with pytest.raises(DuplicateKeyError, match=r"(?s)'first' v1 of mongodb://.*another space"):
        copied(original, url)
    assert stored(url) == before
    counts = copied(original, url, overwrite=True)
    assert counts.experiments == Count(present=2, replaced=1)
    check_equal(documents_in(original), stored(url))


def test_two_databases_come_into_one_store(original: str, copy: str, on_mongodb: str) -> None:
    """Two of them have the same ids, because one was copied from the other."""
    with MongoClient[dict[str, Any]](copy) as client:
        database = client.get_default_database()
        for config in database["experiments"].find():
            name = {"$set": {"name": f"{config['name']} too"}}
            database["experiments"].update_one({"_id": config["_id"]}, name)
    copied(original, on_mongodb)
    counts = copied(copy, on_mongodb)
    assert (counts.experiments, counts.benchmarks) == (Count(3), Count(present=1))
    there = stored(on_mongodb)
    assert len({config["_id"] for config in there["experiments"]}) == 6
    for config in there["experiments"]:
        if config["version"] == 2:
            parent = config["refers"]["parent_id"]
            assert parent in {c["_id"] for c in there["experiments"] if c["name"] == config["name"]}
    assert copied(copy, on_mongodb).trials == Count(present=len(documents_in(copy)["trials"]))


def test_what_ours_has_added_to_a_database_comes_over_too(copy: str, tmp_path: Path) -> None:
    """States that are too large for a document, and those that are not pickles."""
    large = {"noise": np.random.default_rng(1).bytes(13 * 2**20)}

    async def add(storage: Storage) -> None:
        await storage.create_experiment({"name": "large"}, algo_state=large)

    using(copy, add, codec="msgpack")
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    assert copied(copy, url).algorithms == Count(4)

    async def look(storage: Storage) -> None:
        [config] = await storage.fetch_experiments({"name": "large"})
        info = await storage.get_algorithm_lock_info(config)
        assert info is not None
        assert info.state == large

    using(url, look)


def test_locks_that_are_there_twice(copy: str, tmp_path: Path) -> None:
    """``orion db upgrade`` leaves an empty one beside each; the one with a state is taken."""
    with MongoClient[dict[str, Any]](copy) as client:
        algo = client.get_default_database()["algo"]
        for lock in list(algo.find()):
            del lock["_id"]
            algo.insert_one({**lock, "state": None})
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    assert copied(copy, url).algorithms == Count(3)
    assert all(lock["state"] for lock in stored(url)["algo"])


def test_times_that_are_text(copy: str, on_mongodb: str) -> None:
    """As a script has them that fills a database from YAML or JSON."""
    url = on_mongodb
    with MongoClient[dict[str, Any]](copy) as client:
        trials = client.get_default_database()["trials"]
        before = {found["_id"]: found["submit_time"] for found in trials.find()}
        for uid, moment in before.items():
            trials.update_one({"_id": uid}, {"$set": {"submit_time": moment.isoformat()}})
    copied(copy, url)
    found = {str(trial["_id"]): trial["submit_time"] for trial in stored(url)["trials"]}
    assert found == {str(uid): in_utc(moment) for uid, moment in before.items()}


# ------------------------------------------------------------------------------ there and back


def test_a_file_comes_into_mongodb_and_goes_back(
    file: Path, original: str, on_mongodb: str, tmp_path: Path
) -> None:
    assert call("import-orion", file, on_mongodb).exit_code == 0
    back = tmp_path / "back.pkl"
    before = dump(on_mongodb)
    done = call("export-orion", on_mongodb, back, "--state-codec", "pickle")
    assert (done.exit_code, done.stderr) == (0, "")
    assert dump(on_mongodb) == before
    trials = len(documents_in(original)["trials"])
    assert f"copied 3 experiments, {trials} trials" in done.stdout.splitlines()[-1]
    one, other = PickledDB(str(file)), PickledDB(str(back))
    for name in ("experiments", "trials", "benchmarks"):
        assert other.read(name) == one.read(name)
    storage = Legacy(database={"type": "pickleddb", "host": str(back)})
    client = work(storage, 9, version=1)
    assert sum(trial.status == "completed" for trial in client.fetch_trials()) == 9


# ------------------------------------------------------------------------------ the command line


@paired
def test_the_command(source: str, original: str, url: str) -> None:
    done = call("import-orion", source, url)
    assert (done.exit_code, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    wanted = documents_in(original)
    trials, read = len(wanted["trials"]), sum(map(len, wanted.values()))
    assert lines == [
        f"read: {read} of {read}",
        "experiments: 3 of 3",
        "benchmarks: 1 of 1",
        f"trials: {trials} of {trials}",
    ]
    shown = original.partition("?")[0]
    assert summary.startswith(
        f"copied 3 experiments, {trials} trials, 1 benchmark, 3 algorithm states; "
        f"1 reserved trial interrupted; from {shown} to "
    )


def test_status_of_a_database_of_orions(source: str) -> None:
    done = call("status", source)
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *rows = done.stdout.splitlines()
    assert heading.startswith("experiment\tversion\tid\tnew")
    assert [row.split("\t")[:2] for row in rows] == [
        ["first", "1"],
        ["first", "2"],
        ["second", "1"],
    ]
    assert "\theld by an unknown owner (last heartbeat " in rows[2]
    assert rows[0].split("\t")[12] == "free"
    found = json.loads(call("status", source, "--json").stdout)["experiments"]
    assert [one["lock"]["locked"] for one in found] == [False, False, True]
    assert found[0]["trials"]["completed"] == 6


def wrong(url: str, message: str, tmp_path: Path, code: int = 2) -> None:
    """Check that each command says in one line what is wrong, and makes nothing."""
    for arguments in (
        ("import-orion", url, f"sqlite:///{tmp_path}/tune.db"),
        ("export-orion", url, tmp_path / "back.pkl"),
        ("status", url),
    ):
        done = call(*arguments)
        assert done.exit_code == code, arguments
        [line] = done.stderr.splitlines()
        assert message in line
        assert line.startswith(f"aiostorage {arguments[0]}: ")
        assert "secret" not in line
    assert not (tmp_path / "tune.db").exists()
    assert not (tmp_path / "back.pkl").exists()


def test_nobody_answers(tmp_path: Path) -> None:
    url = "mongodb://me:secret@127.0.0.1:9/orion?serverSelectionTimeoutMS=200"
    wrong(url, "no MongoDB server answers at mongodb://127.0.0.1:9/orion", tmp_path, code=3)


def test_a_database_that_is_not_there_or_not_orions(
    mongodb_standalone: Deployment, mongodb_database: str, tmp_path: Path
) -> None:
    url = mongodb_standalone.url_for(mongodb_database)
    shown = f"mongodb://127.0.0.1:{url.rpartition(':')[2]}"
    wrong(url, f"there is no database {shown}, or it is empty", tmp_path)
    with MongoClient[dict[str, Any]](url) as client:
        assert mongodb_database not in client.list_database_names()
        client[mongodb_database]["posts"].insert_one({"title": "hello"})
        wrong(url, "neither of aiostorage nor of Oríon", tmp_path)
        client[mongodb_database]["experiments"].insert_one({"title": "hello"})
    done = call("import-orion", url, f"sqlite:///{tmp_path}/tune.db")
    assert done.exit_code == 2
    assert "is not a database of Oríon: 1 of its experiments have no name" in done.stderr
    done = call("import-orion", mongodb_standalone.url, f"sqlite:///{tmp_path}/tune.db")
    assert done.exit_code == 2
    assert "which database? put its name into the URL" in done.stderr
    done = call("import-orion", "mongodb://u:secret@", f"sqlite:///{tmp_path}/tune.db")
    assert done.exit_code == 2
    assert "secret" not in done.stderr


def test_who_may_read_may_copy_from_it(tmp_path: Path) -> None:
    """Nothing is written into a source, so that needs no permission; others are kept out."""
    with Mongod(tmp_path / "mongod", login=("me", "secret")) as server:
        with server.client() as client:
            client["orion"]["experiments"].insert_one({"name": "tune", "algorithm": {}})
            client["orion"].command("createUser", "reader", pwd="secret2", roles=["read"])
        address = f"{server.address}/orion"
        for login in ("me:secretly@", "nobody:secret@"):
            wrong(f"mongodb://{login}{address}", "does not let us in", tmp_path)
        wrong(f"mongodb://{address}", "the user needs", tmp_path)
        reader = f"mongodb://reader:secret2@{address}"
        done = call("import-orion", reader, f"sqlite:///{tmp_path}/tune.db")
        assert done.exit_code == 0, done.stderr
        assert f"from mongodb://{address} to" in done.stdout
        assert "copied 1 experiment, 0 trials" in done.stdout
        assert "tune\t1\t" in call("status", reader).stdout
        assert call("export-orion", reader, tmp_path / "back.pkl").exit_code == 0
        # a destination is written to
        done = call("import-orion", tmp_path / "back.pkl", reader)
        assert done.exit_code == 2
        [line] = done.stderr.splitlines()
        assert "the user needs the role readWrite" in line


def test_a_storage_that_is_only_looked_at(source: str) -> None:
    async def body() -> None:
        async with open_storage(source, read_only=True) as storage:
            [config] = await storage.fetch_experiments({"name": "second"})
            assert len(await storage.fetch_pending_trials(config)) == 1
            for write in (
                storage.reserve_trial(config),
                storage.delete_experiment(config),
                storage.create_experiment({"name": "new"}),
            ):
                with pytest.raises(PermissionDenied, match="read_only=True"):
                    await write

    import anyio

    anyio.run(body)
