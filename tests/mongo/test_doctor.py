"""Databases that are damaged on purpose: what is found, what is repaired, and what stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from bson import ObjectId
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.database import Database

from aiostorage import open_storage
from aiostorage.cli.app import cli
from aiostorage.doctor import examine, repair
from aiostorage.testing import Deployment
from tests.doctor.stores import BOOKKEEPING, codes_of, documents_in, fill
from tests.stepped import step

OLD = datetime(2020, 1, 1, tzinfo=UTC)

Raw = Database[dict[str, Any]]


@dataclass(frozen=True)
class Damage:
    """Something that can be wrong; see `tests.doctor.test_sqlite_damage.Damage`."""

    code: str
    inflict: Callable[[Raw], object]
    repairable: bool = True
    changed: frozenset[str] = frozenset()


def _blobs(db: Raw) -> None:
    """Leave a blob that nothing refers to, an upload that was cut short, and one under way."""
    blob, cut, begun = ObjectId(), ObjectId.from_datetime(OLD), ObjectId()
    place = {"collection": "algo", "field": "state", "at": OLD}
    db["aiostorage_blobs.files"].insert_one(
        {"_id": blob, "length": 3, "chunkSize": 1024, "uploadDate": OLD, "metadata": place}
    )
    db["aiostorage_blobs.chunks"].insert_many(
        [{"files_id": one, "n": 0, "data": b"abc"} for one in (blob, cut, begun)]
    )


def _another_index(db: Raw) -> None:
    db["lock_waiters"].drop_index("experiment_1_since_1")
    db["lock_waiters"].create_index("since", name="experiment_1_since_1")


def _duplicates(db: Raw) -> None:
    db["benchmarks"].drop_indexes()
    db["benchmarks"].insert_many([{"name": "twice"}, {"name": "twice"}])


def _set(collection: str, where: dict[str, Any], **values: Any) -> Callable[[Raw], object]:
    return lambda db: db[collection].update_one(where, {"$set": values})


RESERVED = {"status": "reserved"}
TRIALS = frozenset({"trials"})

DAMAGES = [
    Damage("missing-index", lambda db: db["trials"].drop_index("experiment_1_status_1")),
    Damage("changed-index", _another_index),
    Damage("foreign-index", lambda db: db["trials"].create_index("worker", unique=True,
           partialFilterExpression={"worker": "x"}), repairable=False),
    Damage("leftover-blobs", _blobs),
    Damage("old-layout", _set("aiostorage_meta", {"_id": "layout"}, version=1), repairable=False),
    Damage("newer-layout", _set("aiostorage_meta", {"_id": "layout"}, version=99),
           repairable=False),
    Damage("lost-trial", _set("trials", RESERVED, heartbeat=OLD), changed=TRIALS),
    Damage("heartbeat-in-future", _set("trials", RESERVED,
           heartbeat=datetime.now(UTC) + timedelta(days=1)), repairable=False, changed=TRIALS),
    Damage("unreadable-trial", _set("trials", {"status": "new"}, params=7), repairable=False,
           changed=TRIALS),
    Damage("orphan-trial", _set("trials", {"status": "new"}, experiment="gone"), repairable=False,
           changed=TRIALS),
    Damage("orphan-lock", lambda db: db["algo"].insert_one(
           {"experiment": "gone", "locked": 0, "heartbeat": OLD})),
    Damage("experiment-without-lock", lambda db: db["algo"].delete_many({}),
           changed=frozenset({"algo"})),
    Damage("unreadable-state", _set("algo", {}, state={"gridfs": ObjectId(), "length": 3}),
           repairable=False, changed=frozenset({"algo"})),
    Damage("expired-lease", _set("algo", {}, locked=1, owner="o", heartbeat=OLD,
           expires=OLD + timedelta(minutes=1)), changed=frozenset({"algo"})),
    Damage("stale-waiter", lambda db: db["lock_waiters"].insert_one(
           {"_id": "t", "experiment": "e", "since": OLD, "expires": OLD})),
    # the last one: the index that is missing then does not come back
    Damage("duplicate-records", _duplicates, repairable=False, changed=frozenset({"benchmarks"})),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["mongodb_standalone", "mongodb_replica_set"])
def test_what_is_damaged_is_found_and_repaired(
    request: pytest.FixtureRequest, mongodb_database: str, kind: str
) -> None:
    """One database, which is as it was before each damage; fewer of them on a replica set."""
    server: Deployment = request.getfixturevalue(kind)
    url = server.url_for(mongodb_database)
    anyio.run(_fill, url)
    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        db = client[mongodb_database]
        sound = {name: list(db[name].find()) for name in db.list_collection_names()}
        indexes = {name: set(db[name].index_information()) for name in sound}
        for damage in DAMAGES if kind == "mongodb_standalone" else DAMAGES[::8]:
            for name in db.list_collection_names():
                db[name].delete_many({})
                if sound.get(name):
                    db[name].insert_many(sound[name])
                for index in db[name].index_information().keys() - indexes.get(name, {"_id_"}):
                    db[name].drop_index(index)
            anyio.run(_check, url, db, damage)


def test_each_command_on_a_server(
    mongodb_replica_set: Deployment,
    mongodb_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = mongodb_replica_set.url_for(mongodb_database)
    anyio.run(_fill, url)

    def answer(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli, (*arguments, "--json"), prog_name="aiostorage")
        assert (done.exit_code, done.stderr) == (code, "")
        return json.loads(done.stdout)

    with MongoClient[dict[str, Any]](url) as client:
        seen = _state_of(client[mongodb_database])
        found = answer("doctor", url)
        assert (found["healthy"], found["facts"]["trials"]) == (True, 3)
        assert "server" in found["facts"]
        settings = {s["name"]: s for s in answer("config", url)["storage"]}
        assert settings["engine"]["value"] == "mongodb"
        databases = {"name": {"$regex": "^aiostorage_bench_"}}  # other tests make theirs meanwhile
        log = client[mongodb_database]["trial_changes"]
        changes = list(log.find())
        speed = answer("bench", url, "--seconds", "0.1")
        assert {one["name"] for one in speed["measures"]} >= {"read", "reserve", "lock hand-over"}
        assert not answer("upgrade", url, "--dry-run")["needed"]
        assert _state_of(client[mongodb_database]) == seen, "the experiment of bench is gone"
        assert list(log.find()) == changes
        assert list(client.list_databases(filter=databases)) == []
        client[mongodb_database]["trials"].update_one(RESERVED, {"$set": {"heartbeat": OLD}})
        [finding] = answer("doctor", url, code=1)["findings"]
    assert finding["command"].startswith("aiostorage recover tune@1 --storage ")
    [done] = answer("doctor", url, "--repair")["repairs"]
    assert (done["code"], done["done"]) == ("lost-trial", True)
    step(lambda: timedelta(minutes=1), monkeypatch.setattr)
    [finding] = anyio.run(examine, url).findings
    assert finding.code == "clock-skew"
    assert re.search(r"the store is (59|60)\.\d s behind that of this machine", finding.what)


async def _fill(url: str) -> None:
    async with open_storage(url) as storage:
        await fill(storage)


async def _check(url: str, db: Raw, damage: Damage) -> None:
    before = await documents_in(url)
    await anyio.to_thread.run_sync(damage.inflict, db)

    seen = await anyio.to_thread.run_sync(_state_of, db)
    found = await examine(url)
    assert await anyio.to_thread.run_sync(_state_of, db) == seen, "it changes nothing"
    assert codes_of(found) == {damage.code}
    assert any(one.repairable for one in found.findings) == damage.repairable, damage

    repaired = await repair(url)
    assert codes_of(repaired) == (set() if damage.repairable else {damage.code})
    assert bool(repaired.repairs) == damage.repairable
    if not damage.repairable:
        assert await anyio.to_thread.run_sync(_state_of, db) == seen
        return
    after = await documents_in(url)
    for name in before.keys() - damage.changed:
        assert after[name] == before[name], (damage, name)
    if damage.code == "leftover-blobs":  # the upload that may be under way stays
        assert (
            await anyio.to_thread.run_sync(db["aiostorage_blobs.chunks"].count_documents, {}) == 1
        )


def _state_of(db: Raw) -> dict[str, Any]:
    """Return all documents and indexes of a database."""
    names = sorted(set(db.list_collection_names()) - BOOKKEEPING)
    return {
        name: (sorted(map(repr, db[name].find())), repr(sorted(db[name].index_information())))
        for name in names
    }
