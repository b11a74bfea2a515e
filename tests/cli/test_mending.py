"""The commands that look after a storage: ``doctor``, ``config``, ``bench`` and ``upgrade``."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from aiostorage import open_storage
from aiostorage.cli.app import cli
from tests.cli.support import CommandOutcome, eventually, interrupt, run, started
from tests.doctor.stores import fill


async def _fill(url: str) -> None:
    async with open_storage(url) as storage:
        await fill(storage)


def answer(outcome: CommandOutcome, code: int = 0) -> Any:
    """Return what a command has printed as JSON."""
    assert (outcome.code, outcome.err) == (code, "")
    return json.loads(outcome.out)


@pytest.mark.parametrize("url", ["sqlite:///tune.db", "track:///tune.json"])
def test_each_command_on_a_file(tmp_path: Path, url: str) -> None:
    engine, name = url.split(":///")
    anyio.run(_fill, f"{engine}:///{tmp_path / name}")
    before = sorted(p.name for p in tmp_path.iterdir())

    found = answer(run(tmp_path, "doctor", url, "--json"))
    assert (found["engine"], found["healthy"], found["repairs"]) == (engine, True, [])
    assert found["facts"]["trials"] == 3
    sick = answer(run(tmp_path, "doctor", url, "--json", "--lost-after", "0.001"), 1)
    [finding] = sick["findings"]
    assert finding["code"] == "lost-trial"
    assert finding["command"] == f"aiostorage recover tune@1 --storage {url}"
    well = run(tmp_path, "doctor", url, "--repair", "--lost-after", "0.001")
    assert (well.code, well.err) == (0, "")
    assert "repaired: lost-trial: tune@1: 1 trial" in well.out
    assert well.out.endswith("all is well\n")

    settings = {s["name"]: s for s in answer(run(tmp_path, "config", url, "--json"))["storage"]}
    assert settings["url"] == {"name": "url", "value": url, "origin": "argument"}
    assert settings["lost_after"] == {"name": "lost_after", "value": 120.0, "origin": "default"}

    speed = answer(run(tmp_path, "bench", url, "--json", "--seconds", "0.1"))
    assert {one["name"] for one in speed["measures"]} >= {"fsync", "reserve", "cycle, 64 tasks"}
    assert all(one["value"] > 0 for one in speed["measures"])

    report = answer(run(tmp_path, "upgrade", url, "--json", "--dry-run"))
    assert (report["needed"], report["dry_run"], report["backup"]) == (False, True, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "aiostorage"])


def test_config_says_where_each_value_comes_from(tmp_path: Path) -> None:
    """The file of `run` names a URL; the environment comes before it."""
    given = {s["name"]: s for s in answer(run(tmp_path, "config", "--json"))["storage"]}
    file = str(tmp_path / "aiostorage" / "aiostorage.toml")
    assert (given["url"]["value"], given["url"]["origin"]) == ("sqlite:///aiostorage-demo.db", file)
    url = "mongodb://me:secret@localhost/tune?timeout=3&tls=true"
    variables = {"AIOSTORAGE_URL": url, "AIOSTORAGE_TRACKER": "mlflow+http://you:secret@h:5000"}
    outcome = run(tmp_path, "config", "--json", **variables)
    given = {s["name"]: s for s in answer(outcome)["storage"]}
    assert "secret" not in outcome.out
    assert given["url"]["origin"] == "AIOSTORAGE_URL"
    assert given["tracker"]["origin"] == "AIOSTORAGE_TRACKER"
    assert (given["timeout"]["value"], given["timeout"]["origin"]) == ("3", "query of the URL")
    assert given["client"]["origin"] == "default"
    plain = run(tmp_path, "config", **variables)
    assert "storage\ttls\ttrue\tquery of the URL" in plain.out
    assert not (tmp_path / "aiostorage-demo.db").exists()


def test_what_only_reads_leaves_the_history_as_it_is(tmp_path: Path) -> None:
    """The URL says how long it is kept, which a program that writes would put into the store."""
    url = f"sqlite:///{tmp_path}/tune.db"
    anyio.run(_fill, url)

    async def limit() -> str:
        async with open_storage(url) as storage:
            assert storage._gateway.history.limit is not None
            return storage._gateway.history.limit.text

    given = {"AIOSTORAGE_URL": f"{url}?history=off"}
    for command in (
        *(["status"], ["list"], ["show", "tune"], ["dump"], ["rm", "tune", "--dry-run"]),
        *(["recover", "--dry-run"], ["doctor"], ["upgrade"], ["bench", "--seconds", "0.01"]),
    ):
        done = CliRunner().invoke(cli, command, env=given)
        assert (done.exit_code, done.exception) == (0, None), command
        assert anyio.run(limit) == "30d", command
    settings = json.loads(CliRunner().invoke(cli, ["config", "--json"], env=given).stdout)
    [one] = [one for one in settings["storage"] if one["name"] == "history"]
    assert (one["value"], one["origin"]) == ("off", "query of the URL")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_bench_leaves_nothing_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, "bench", "sqlite:///tune.db", "--seconds", "60") as process:
        eventually(lambda: any(tmp_path.glob("aiostorage-bench-*-wal")), "the new file")
        outcome = interrupt(process, number)
    assert outcome.code == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == ["aiostorage"]


def test_wrong_use_and_damage_have_codes_of_their_own(tmp_path: Path) -> None:
    for command in ("doctor", "upgrade"):
        missing = run(tmp_path, command, "sqlite:///no.db")
        assert missing.code == 2
        assert "there is no file" in missing.err
        missing = run(tmp_path, command, AIOSTORAGE_URL="sqlite:///nowhere/no.db")
        assert "/nowhere/no.db (AIOSTORAGE_URL names this storage)" in missing.err
    assert run(tmp_path, "bench", "memory://", "--seconds", "0.1").code == 0
    assert run(tmp_path, "doctor", "sqlite:///no.db", "--delete-orphans").code == 2
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    [finding] = answer(run(tmp_path, "doctor", "sqlite:///other.db", "--json"), 1)["findings"]
    assert finding["code"] == "not-a-database"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aiostorage", "other.db"]
