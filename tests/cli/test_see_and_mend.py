"""What a person does to see what happens in a storage, and to mend it, on each engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner, Result

from aiostorage import Experiment, Storage, Trial, open_storage
from aiostorage.cli.app import cli
from aiostorage.cli.existing import open_named
from aiostorage.cli.set_fields import _set_trial
from tests.cli.support import environment

Call = Callable[..., Any]


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments, prog_name="aiostorage")
    assert result.exit_code == code, (arguments, result.output)
    if code:
        assert result.stderr.startswith("aiostorage")
        assert result.stderr.count("\n") == 1
    return result


def read(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json").stdout)


@pytest.fixture(params=["sqlite", "track", "mongodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of an empty storage, which is that of the environment, too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "mongodb":
            server = request.getfixturevalue("mongodb_replica_set")
            found = server.url_for(request.getfixturevalue("mongodb_database"))
        else:
            found = f"{request.param}:///{tmp_path}/tune"
        patch.setenv("AIOSTORAGE_URL", found)
        yield found


async def filled(storage: Storage) -> tuple[Experiment, list[Trial]]:
    """Make an experiment with trials of all kinds, one of them lost; and others beside it."""
    config = {
        "name": "tune",
        "max_trials": 9,
        "space": {"lr": "loguniform(1e-5, 1)"},
        "algorithm": {"tpe": {"seed": 1}},
        "metadata": {"user": "me", "datetime": datetime(2026, 1, 1, tzinfo=UTC), "w": [1.5]},
    }
    experiment = await storage.get_or_create_experiment(config)
    await storage.create_experiment({"name": "tune", "version": 2})
    await storage.create_experiment({"name": "odd: a@1\x1b[2J"})
    made = [Trial(experiment=experiment.id, params={"x": n}) for n in range(8)]
    await storage.register_trials(made)
    trials = await storage.reserve_trials(experiment, 6)
    for trial, value in zip(trials[:3], (2.0, -1.0, 0.5), strict=True):
        await storage.complete_trial(trial, {"loss": value, "accuracy": 0.5})
    await storage.set_trial_status(trials[3], "broken")
    await storage.update_trial(trials[4], heartbeat=datetime.now(UTC) - timedelta(hours=1))
    return experiment, trials


def run(url: str, body: Callable[[Storage], Any]) -> Any:
    async def main() -> Any:
        async with open_storage(url) as storage:
            return await body(storage)

    return anyio.run(main)


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed script in a process of its own."""
    command = Path(sys.executable).with_name("aiostorage")
    return subprocess.run(
        [command, *arguments],
        env=environment(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )


def test_see_and_mend(url: str) -> None:
    experiment, trials = run(url, filled)
    _counts(url)
    _shown(url, experiment, trials)
    _mended(url, experiment, trials)
    _removed(trials)


def _counts(url: str) -> None:
    (found, second, _) = json.loads(script("status", "--json").stdout)["experiments"]
    assert found["trials"] == {"new": 2, "reserved": 2, "completed": 3, "broken": 1}
    assert (found["lost"], found["total"], found["best"]) == (1, 8, -1.0)
    assert (found["workers"], found["max_trials"], second["total"]) == (1, 9, 0)
    assert found["rate"] > 0
    assert found["eta"] > 0
    assert read("status", "-s", url, "--direction", "maximize")["experiments"][0]["best"] == 2.0

    listed = read("list")["experiments"]
    assert [one["experiment"] for one in listed[:2]] == ["tune@1", "tune@2"]
    assert (listed[0]["completed"], listed[0]["algorithm"], listed[0]["user"]) == (3, "tpe", "me")
    lines = call("list").stdout.splitlines()
    uid = listed[0]["id"]
    assert lines[1].startswith(f"tune@1\t{uid}\t8\t3\t9\ttpe\tme\t2026-01-01T00:00")
    assert lines[3].startswith("odd: a@1\\x1b[2J@1\t")


def _shown(url: str, experiment: Experiment, trials: list[Trial]) -> None:
    shown = read("show", "tune@1")
    assert shown["experiment"]["metadata"]["datetime"] == "2026-01-01T00:00:00+00:00"
    assert shown["summary"]["best_trial"] == trials[1].id
    held = {one["id"]: one["lost"] for one in shown["reserved"]}
    assert held == {trials[4].id: True, trials[5].id: False}
    assert shown["reserved"][0]["holder"].startswith(f"process {os.getpid()} on ")
    text = call("show", str(experiment.id)[:12] if "tune" in url else str(experiment.id)).stdout
    for part in ("metadata.w          [1.5]", "algorithm.tpe.seed", "LOST, was held by process "):
        assert part in text
    one = read("show", f"tune@1:{trials[0].id[:8]}")
    assert one["trial"]["params"] == [{"name": "x", "type": "integer", "value": 0}]
    assert one["trial"]["results"][0]["value"] == 2.0
    if not url.startswith("mongodb"):  # it keeps no history
        assert [entry["after"] for entry in one["history"]] == ["new", "reserved", "completed"]
    text = call("show", f"tune@1:{trials[5].id}").stdout
    assert "held by " in text
    tokens = {str(trial.worker) for trial in trials}
    shown_texts = text + json.dumps([shown, one])
    assert not any(token in shown_texts for token in tokens)


def _mended(url: str, experiment: Experiment, trials: list[Trial]) -> None:
    lost = read("recover", "--dry-run")
    assert [one["id"] for one in lost["trials"]] == [trials[4].id]
    recovered = call("recover", "tune@1")
    assert recovered.stdout.startswith(f"recovered: tune@1:{trials[4].id}, held by process ")
    assert read("recover")["trials"] == []

    name = f"tune@1:{trials[5].id}"
    assert "say --yes" in call("set", name, "status=interrupted", code=2).stderr
    asked = call("set", name, "status=completed", "objective=-4.5", "--yes")
    assert asked.stdout == "status: reserved -> completed\nobjective: - -> -4.5\n"
    call("set", "tune@1", "max_trials=20", "metadata.note=second run", "space={}")

    async def look(storage: Storage) -> None:
        ended = await storage.get_trial(uid=trials[5].id, experiment_uid=experiment.id)
        assert ended is not None
        assert (ended.status, ended.objective_value, ended.worker) == ("completed", -4.5, None)
        assert ended.end_time is not None
        (config,) = await storage.fetch_experiments({"_id": experiment.id})
        assert (config["max_trials"], config["space"]) == (20, {})
        assert config["metadata"]["note"] == "second run"
        async with storage.acquire_algorithm_lock(experiment):
            refused = await anyio.to_thread.run_sync(lambda: call("release", "tune@1", code=2))
            assert "say --yes" in refused.stderr
            done = await anyio.to_thread.run_sync(lambda: call("release", "tune@1", "--yes"))
            assert done.stdout == "the lock of tune@1 was released\n"

    with pytest.raises(Exception, match="lock"):  # the holder has lost it
        run(url, look)
    assert "was free already" in call("release", "tune@1").stdout


def _removed(trials: list[Trial]) -> None:
    would = call("rm", f"tune@1:{trials[0].id[:8]}", "--dry-run").stdout
    assert would == f"would delete the completed trial {trials[0].id} of tune@1\n"
    call("rm", f"tune@1:{trials[0].id}", "--yes")
    call("show", f"tune@1:{trials[0].id}", code=1)
    removed = call("rm", "tune@1", "--yes").stdout
    assert removed == "deleted tune@1 with 7 trials (2 new, 3 completed, 1 interrupted, 1 broken)\n"
    assert read("list")["experiments"][0]["experiment"] == "tune@2"


def test_names_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/tune.db"
    monkeypatch.setenv("AIOSTORAGE_URL", url)
    experiment, trials = run(url, filled)
    new = next(t for t in run(url, lambda s: s.fetch_trials(experiment)) if t.status == "new")
    odd = "odd: a@1\x1b[2J"
    assert read("show", "tune")["experiment"]["version"] == 2
    assert read("show", odd)["experiment"]["name"] == odd
    assert read("show", f"{odd}@1")["experiment"]["name"] == odd
    trial = f"tune@1:{new.id}"
    for code, message, *arguments in (
        (1, "there is no experiment 'tunes'; there is 'tune'", "show", "tunes"),
        (1, "tune@1 has no trial 'ffffffff'", "show", "tune@1:ffffffff"),
        (1, "give at least 4 characters of its id", "show", "tune@1:f"),
        (1, "there is no experiment 'nix'", "recover", "nix"),
        (1, "there is no experiment 'nix'", "status", "--experiment", "nix"),
        (2, "experiments have an id that begins with", "show", str(experiment.id)[:4]),
        (2, "2 versions; say which one: tune@1, tune@2", "rm", "tune", "--yes"),
        (2, "2 versions; say which one: tune@1, tune@2", "set", "tune", "max_trials=1"),
        (2, "standard input is not a terminal", "rm", "tune@1"),
        (2, "named twice", "status", url, "-s", url),
        (2, "not of the form FIELD=VALUE", "set", trial, "status"),
        (2, "set twice", "set", trial, "status=new", "status=broken"),
        (2, "is not JSON", "set", "tune@1", "space={x"),
        (2, "there is no status 'done'", "set", trial, "status=done"),
        (2, "no person can reserve a trial", "set", trial, "status=reserved"),
        (2, "a completed trial has an objective", "set", trial, "status=completed"),
        (2, "objective is a number", "set", trial, "objective=good"),
        (2, "its params make its id", "set", trial, "params.x=1"),
        (2, "is a time such as", "set", trial, "end_time=now"),
        (2, "max_trials is a whole number", "set", "tune@1", "max_trials=-1"),
        (2, "_id cannot be changed", "set", "tune@1", "_id=1"),
        (2, "experiments already has a record", "set", "tune@1", "version=2"),
    ):
        assert message in call(*arguments, code=code).stderr, arguments
    assert run(url, lambda s: s.count_trials(experiment)) == len(trials) + 2

    opened = open_named(url, writing=True)

    async def changed_meanwhile() -> None:
        async with open_storage(url) as storage:
            await storage.set_trial_status(new, "suspended")
        new.status = "new"  # as it was shown
        await _set_trial(opened, new, {"status": "broken"}, datetime.now(UTC))

    with pytest.raises(Exception, match="has another status or another holder by now"):
        anyio.run(changed_meanwhile)


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOSTORAGE_URL", "mongodb://me:secret@127.0.0.1:1/tune")
    started = time.monotonic()
    result = call("list", "--timeout", "0.2", code=3)
    assert time.monotonic() - started < 10  # the client library waits 15 seconds by itself
    assert "no MongoDB server answers at mongodb://127.0.0.1:1/tune" in result.stderr
    assert "secret" not in result.stderr


def test_a_shell_completes_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOSTORAGE_URL", f"sqlite:///{tmp_path}/tune.db")
    command = next(p for p in cli.commands["show"].params if p.name == "named")

    def complete(text: str) -> list[str]:
        import click

        context = click.Context(cli.commands["show"])
        return [item.value for item in command.shell_complete(context, text)]

    assert complete("") == []  # there is no such file, and none is made
    assert list(tmp_path.iterdir()) == []
    run(f"sqlite:///{tmp_path}/tune.db", filled)
    assert complete("tu") == ["tune@1", "tune@2"]
