"""``aiostorage status`` and ``aiostorage tracker-sync``."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from aiostorage import Storage, SyncStorage, Trial, open_storage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.delivery.outbox import Outbox
from aiostorage.cli.app import cli
from aiostorage.trackers import factory
from tests.trackers.file_tracker import FileTracker, Seen


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("file", "tests.trackers.file_tracker:made_from_url", factory.ENTRY_POINTS)

    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints([entry]).select(**wanted)

    monkeypatch.setattr(factory, "entry_points", entry_points)
    monkeypatch.delenv("AIOSTORAGE_TRACKER", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give a store whose changes were noted and not sent."""
    url = f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"

    async def fill() -> None:
        async with Storage(NotingDriver(open_storage(url)._gateway.driver)) as storage:
            experiment = await storage.create_experiment({"name": "tune"})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(4)]
            await storage.register_trials(trials)

    anyio.run(fill)
    return url


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def sync(url: str, seen: Seen, *options: object) -> Result:
    return call("tracker-sync", url, "--tracker", f"file://{seen.directory}", *options)


def test_the_status_shows_what_is_not_sent(url: str, seen: Seen) -> None:
    shown = call("status", url)
    assert shown.exit_code == 0
    assert re.fullmatch(
        r"tracker: 5 changes not sent yet, the oldest [\d.]+ s old; no process sends them\n",
        shown.stderr,
    )
    outbox = json.loads(call("status", url, "--json").stdout)["outbox"]
    assert (outbox["length"], outbox["deliverer"]) == (5, None)
    assert 0 <= outbox["age"] < 60
    assert outbox["oldest"].startswith("20")
    assert sync(url, seen).exit_code == 0
    assert call("status", url).stderr == ""
    outbox = json.loads(call("status", url, "--json").stdout)["outbox"]
    assert outbox == {"length": 0, "oldest": None, "age": 0.0, "deliverer": None}


def test_sending_by_hand(url: str, seen: Seen) -> None:
    first = sync(url, seen)
    assert (first.exit_code, first.stderr) == (0, "")
    assert re.match(
        rf"sent 5 changes from .*store\.db to file at {seen.directory} in", first.stdout
    )
    assert len(seen.runs()) == 4
    assert sync(url, seen).stdout.startswith("sent 0 changes")
    assert len(seen.log()) == 4


def test_sending_all_anew(url: str, seen: Seen, tmp_path: Path) -> None:
    assert sync(url, seen).exit_code == 0
    assert sync(url, seen, "--all").stdout.startswith("sent 5 changes")
    assert len(seen.runs()) == 4  # found, and not made twice
    assert len(seen.log()) == 8
    assert len(seen.experiments()) == 1
    new = tmp_path / "new"
    new.mkdir()
    other = Seen(new)
    assert sync(url, other, "--all").exit_code == 0
    assert len(other.runs()) == 4


def test_what_cannot_be_sent(url: str, seen: Seen) -> None:
    seen.switch("down")
    result = sync(url, seen, "--timeout", 1)
    assert result.exit_code == 1
    assert "5 changes could not be sent: " in result.stderr
    assert "is down" in result.stderr
    seen.switch("down", None)
    seen.switch("refuse", "all")
    result = sync(url, seen)
    assert result.exit_code == 1
    assert "were refused; see above" in result.stderr
    assert not seen.runs()


def test_workers_go_on_meanwhile(url: str, seen: Seen) -> None:
    with SyncStorage(open_storage(url, tracker=FileTracker(seen.directory))) as storage:
        storage.flush_tracker(20)
        [config] = storage.fetch_experiments({})
        assert storage.reserve_trial(config)
        assert sync(url, seen, "--all").exit_code == 0
        assert sorted(run.status for run in seen.runs()) == ["new"] * 3 + ["reserved"]
        assert len(seen.senders()) == 1


def test_it_says_whom_it_waits_for(url: str, seen: Seen) -> None:
    async def hold() -> None:
        async with open_storage(url) as storage:
            assert await Outbox(storage._gateway).acquire_lease("host:1:0123456789abcdef", 30)

    anyio.run(hold)
    result = sync(url, seen, "--timeout", 2)
    assert result.exit_code == 1
    assert re.search(r"^process 1 on host \(fingerprint \w{8}\) sends already", result.stderr)
    assert "5 changes could not be sent: process 1 on host (fingerprint " in result.stderr
    assert "host:1:" not in result.stderr


def test_wrong_arguments(tmp_path: Path, url: str, seen: Seen) -> None:
    missing = sync(f"sqlite:///{tmp_path}/nothing.db", seen)
    assert (missing.exit_code, "there is no file" in missing.stderr) == (2, True)
    assert not (tmp_path / "nothing.db").exists()
    wrong = call("tracker-sync", url, "--tracker", "nosuch://me:secret@host")
    assert (wrong.exit_code, "secret" in wrong.stderr) == (2, False)
    assert "names no tracker" in wrong.stderr
    assert call("tracker-sync", url).exit_code == 2
