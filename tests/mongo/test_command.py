"""The command ``aiostorage`` on MongoDB, but for its transfers, which need Oríon."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

import anyio
import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient

from aiostorage import Storage, open_storage, setup_storage
from aiostorage._core.named_store import named_store
from aiostorage.cli import existing
from aiostorage.cli.app import cli
from aiostorage.cli.existing import connecting
from aiostorage.testing import Deployment
from aiostorage.transfer import dump_storage
from tests.cli.support import run


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="aiostorage")


def test_demo_and_status(
    mongodb_replica_set: Deployment, mongodb_database: str, tmp_path: Path
) -> None:
    """Workers in two processes, one of which is killed; then a look at what they left."""
    url = mongodb_replica_set.url_for(mongodb_database)
    url += f"{'&' if '?' in url else '?'}client=pymongo"
    size = ("--trials", "12", "--workers", "2", "--sample", "0.02", "--kill")
    done = run(tmp_path, "demo", "--url", url, *size)
    assert (done.code, done.err) == (0, "")
    shown = url.partition("?")[0]
    assert f"on {shown} (experiment demo v1)" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["aiostorage"]  # its configuration

    plain = call("status", url)
    assert plain.exit_code == 0, plain.stderr
    heading, row = plain.stdout.splitlines()
    assert heading.split("\t")[-6:] == ["total", "best", "lock", "workers", "rate", "eta"]
    assert row.split("\t")[:2] == ["demo", "1"]
    found = json.loads(call("status", url, "--json").stdout)
    assert found["location"] == shown
    [one] = found["experiments"]
    assert one["trials"] == {"completed": 12}
    assert one["lock"]["locked"] is False


def test_status_of_a_lock_that_is_held(
    mongodb_standalone: Deployment, mongodb_database: str
) -> None:
    url = mongodb_standalone.url_for(mongodb_database)
    seen: list[str] = []

    async def hold() -> None:
        async with open_storage(url) as storage:
            experiment = await storage.create_experiment({"name": "tune", "version": 1})
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                done = await anyio.to_thread.run_sync(call, "status", url)
                seen.extend((done.stdout, str(algorithm.owner)))

    anyio.run(hold)
    said, owner = seen
    assert owner not in said
    assert f"\theld by process {os.getpid()} on " in said


def test_status_makes_nothing(mongodb_standalone: Deployment, mongodb_database: str) -> None:
    """It makes no database where there is none, and leaves that of another program as it is."""
    url = mongodb_standalone.url_for(mongodb_database)
    missing = call("status", url)
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr == (f"aiostorage status: there is no database {url}, or it is empty\n")
    with MongoClient[dict[str, Any]](url) as client:
        assert client[mongodb_database].list_collection_names() == []
        client[mongodb_database]["posts"].insert_one({})
        foreign = call("status", url)
        assert client[mongodb_database].list_collection_names() == ["posts"]
        client[mongodb_database]["aiostorage_meta"].insert_one({"_id": "layout", "version": 99})
    assert foreign.exit_code == 2
    assert "neither of aiostorage nor of Oríon" in foreign.stderr
    assert "has layout 99" in call("status", url).stderr


def test_no_command_waits_long_for_a_server(tmp_path: Path) -> None:
    """One that may work for hours does not wait so long for the first answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for url, seconds in (
            (f"mongodb://{address}/tune", {"connect_timeout": 5.0}),
            (f"mongodb://{address}/tune?connect_timeout=0.2", {}),
            ("sqlite:///tune.db", {}),
        ):
            assert connecting(named_store(url)) == seconds
        url = f"mongodb://{address}/tune?connect_timeout=0.2"
        dump = tmp_path / "tune.jsonl"
        with dump.open("wb") as stream:
            anyio.run(dumped, stream)
        for arguments in (
            *(["dump", url], ["load", str(dump), url], ["copy", url, f"sqlite:///{tmp_path}/x.db"]),
            *(["upgrade", url], ["doctor", url], ["bench", url]),
        ):
            ends_without_an_answer(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["tune.jsonl"]


def test_no_command_for_orion_waits_long_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("orion")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        url, file = f"mongodb://{address}/tune?connect_timeout=0.2", f"sqlite:///{tmp_path}/x.db"
        ends_without_an_answer("export-orion", url, str(tmp_path / "tune.pkl"))
        ends_without_an_answer("import-orion", url, file)
        monkeypatch.setattr(existing, "DEFAULT_TIMEOUT", 0.2)
        start = time.monotonic()
        ends_without_an_answer("import-orion", f"mongodb://{address}/tune", file)
        assert time.monotonic() - start < 10  # not the 15 s of `open_storage`
    assert not list(tmp_path.iterdir())


def ends_without_an_answer(*arguments: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 3, arguments
    assert "no MongoDB server answers at mongodb://127.0.0.1:" in done.stderr


async def dumped(stream: IO[bytes]) -> None:
    async with open_storage("memory://") as storage:
        await dump_storage(storage, stream)


def test_a_database_in_the_configuration_as_orion_has_it(
    mongodb_standalone: Deployment,
    mongodb_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commands add options of their own to it."""
    file = tmp_path / "aiostorage" / "aiostorage.toml"
    file.parent.mkdir()
    file.write_text(
        f'[storage.database]\ntype = "MongoDB"\nname = "{mongodb_database}"\n'
        f'host = "{mongodb_standalone.url}"\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("AIOSTORAGE_URL", raising=False)

    async def fill(storage: Storage) -> None:
        async with storage:
            await storage.create_experiment({"name": "tune"})

    anyio.run(fill, setup_storage())
    for arguments in (
        *(["set", "tune", "max_trials=3"], ["status"], ["recover"], ["dump"], ["doctor"]),
        *(["upgrade"], ["bench", "--seconds", "0.01"], ["rm", "tune", "--yes"]),
    ):
        done = call(*arguments)
        assert done.exit_code == 0, done.stderr


def test_what_is_wrong_is_one_line_without_the_password() -> None:
    url = "mongodb://me:secret@127.0.0.1:9/tune?serverSelectionTimeoutMS=200"
    for arguments in (("status", url), ("demo", "--url", url, "--trials", "1")):
        done = call(*arguments)
        assert done.exit_code == 3
        [line] = done.stderr.splitlines()
        assert "no MongoDB server answers at mongodb://127.0.0.1:9/tune" in line
        assert "secret" not in line + done.stdout
