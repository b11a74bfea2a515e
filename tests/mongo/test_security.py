"""Passwords, key files and certificates, with servers that insist on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner
from pymongo import MongoClient

from aiostorage import BackendError, PermissionDenied, Trial, open_storage
from aiostorage.cli.app import cli
from aiostorage.testing import Mongod, ReplicaSet, TlsFiles
from tests.mongo.conftest import UNCLOSED

LOGIN = ("jo@example", "pa/ss:wo%rd?#")
SOON = "serverSelectionTimeoutMS=500"

pytestmark = [UNCLOSED, pytest.mark.anyio]


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("login"), login=LOGIN) as server:
        yield server


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("tls"), tls=tls_files) as server:
        yield server


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("key"), size=2, login=LOGIN) as servers:
        yield servers


@pytest.fixture(scope="module")
def all_of_it(
    tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles
) -> Iterator[ReplicaSet]:
    directory = tmp_path_factory.mktemp("all")
    with ReplicaSet(directory, size=1, login=LOGIN, tls=tls_files) as servers:
        yield servers


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Mongod | ReplicaSet:
    """Give the servers of the named fixture."""
    found: Mongod | ReplicaSet = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the certificate of an authority that has nothing to do with the servers."""
    import trustme

    path = tmp_path_factory.mktemp("stranger") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


async def work(url: str, **options: Any) -> None:
    """Do a bit of everything: writes, transactions, the lock, a state that needs GridFS."""
    async with open_storage(url, **options) as storage:
        experiment = await storage.create_experiment({"name": "e"}, algo_state={"n": 0})
        trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
        assert await storage.register_trials(trials) == trials
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        await storage.complete_trial(trial, 1)
        async with storage.acquire_algorithm_lock(experiment, timeout=10) as algorithm:
            algorithm.set_state({"n": 1, "large": bytes(13 * 2**20)})
        info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state["n"] == 1
        assert await storage.count_completed_trials(experiment) == 1
        assert await storage.delete_experiment(experiment) == 1


async def no_answer(url: str, why: str, **options: Any) -> None:
    with anyio.fail_after(10), pytest.raises(BackendError, match=why) as caught:
        async with open_storage(url, **options):
            pass
    assert type(caught.value) is BackendError
    assert "check host, port, replica set name and TLS" in str(caught.value)
    assert LOGIN[1] not in str(caught.value)


@pytest.mark.parametrize(
    ("servers", "library"),
    [
        ("login", "motor"),
        ("tls", "pymongo"),
        ("key_file", "motor"),
        ("all_of_it", "motor"),
        ("all_of_it", "pymongo"),
    ],
    indirect=True,
)
async def test_who_may_gets_in(servers: Mongod | ReplicaSet, library: str) -> None:
    await work(servers.url_for(f"work_{library}"), client=library)


RIGHTS = [
    *("find", "insert", "update", "remove", "changeStream"),
    *("createCollection", "createIndex", "listCollections", "listIndexes"),
]
"""What the role of workers in docs/how-to/mongodb-in-production.md has."""


@pytest.mark.parametrize(
    ("library", "left_out"), [("motor", None), ("pymongo", "changeStream")], indirect=["library"]
)
async def test_a_role_of_as_few_rights_as_possible(
    key_file: ReplicaSet, library: str, left_out: str | None
) -> None:
    name = f"few_{library}_{left_out}"
    rights = [right for right in RIGHTS if right != left_out]

    def make() -> None:
        client: MongoClient[dict[str, Any]]
        with MongoClient(key_file.url) as client:
            everything = {"resource": {"db": name, "collection": ""}, "actions": rights}
            client[name].command("createRole", "worker", privileges=[everything], roles=[])
            client[name].command("createUser", "jo", pwd="jo", roles=["worker"])

    await anyio.to_thread.run_sync(make)
    where = ",".join(member.address for member in key_file.members)
    url = f"mongodb://jo:jo@{where}/{name}?replicaSet={key_file.name}"
    await work(url, client=library)
    async with open_storage(url, client=library) as storage:
        experiment = await storage.create_experiment({"name": "waited for"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: storage.reserve_trial(experiment, wait=10))
            await anyio.wait_all_tasks_blocked()
            await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))


def test_bench_without_the_right_to_make_a_database(key_file: ReplicaSet) -> None:
    """The measurements are made in the database itself, and their history is deleted, too."""
    with MongoClient[dict[str, Any]](key_file.url) as client:
        database = client["bench_here"]
        database.command(
            "createUser", "jo", pwd="jo", roles=[{"role": "readWrite", "db": database.name}]
        )
        where = ",".join(member.address for member in key_file.members)
        url = f"mongodb://jo:jo@{where}/{database.name}?replicaSet={key_file.name}"
        anyio.run(work, url)
        before = {name: list(client[database.name][name].find()) for name in LOGGED}
        done = CliRunner().invoke(cli, ["bench", url, "--seconds", "0.1", "--json"])
        assert done.exit_code == 0, done.stderr
        assert "an experiment of its own" in json.loads(done.stdout)["measured"]
        assert {name: list(client[database.name][name].find()) for name in LOGGED} == before


LOGGED = ("experiments", "trials", "algo", "trial_changes")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_mechanisms(login: Mongod, library: str, mechanism: str) -> None:
    url = f"{login.url_for('mechanisms')}&authMechanism={mechanism}"
    async with open_storage(url, client=library) as storage:
        assert await storage.fetch_experiments({}) == []


@pytest.mark.parametrize(
    ("servers", "library"),
    [("login", "pymongo"), ("key_file", "motor"), ("all_of_it", "pymongo")],
    indirect=True,
)
async def test_who_may_not_stays_out(servers: Mongod | ReplicaSet, library: str) -> None:
    _, _, where = servers.url_for("db").rpartition("@")
    with pytest.raises(PermissionDenied, match="wrong user name or password"):
        async with open_storage(f"mongodb://jo%40example:wrong@{where}", client=library):
            pass
    with pytest.raises(PermissionDenied, match="requires authentication"):
        async with open_storage(f"mongodb://{where}", client=library):
            pass


async def test_a_certificate_of_somebody_else(tls: Mongod, stranger: Path, library: str) -> None:
    url = f"mongodb://{tls.address}/db?tls=true&tlsCAFile={stranger}&{SOON}"
    await no_answer(url, "certificate verify failed", client=library)


async def test_a_certificate_for_another_name(
    tls: Mongod, tls_files: TlsFiles, library: str
) -> None:
    address = tls.address.replace("127.0.0.1", "localhost")
    url = f"mongodb://{address}/db?tls=true&tlsCAFile={tls_files.ca}&{SOON}"
    await no_answer(url, "Hostname mismatch", client=library)


async def test_no_tls_where_there_has_to_be(tls: Mongod, library: str) -> None:
    await no_answer(f"mongodb://{tls.address}/db?{SOON}", "closed|reset", client=library)


async def test_tls_where_there_is_none(login: Mongod, library: str) -> None:
    url = f"mongodb://jo:{'x' * 8}@{login.address}/db?tls=true&{SOON}"
    await no_answer(url, "SSL handshake failed", client=library)
