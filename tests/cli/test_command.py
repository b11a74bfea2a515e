"""The command line in this process: what it accepts, what it refuses and how."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import click
import pytest
from click.testing import CliRunner, Result

import aiostorage
from aiostorage import ConfigurationError, Storage, Trial, open_storage
from aiostorage._core.holders import named_holder
from aiostorage.cli.app import cli, explained
from aiostorage.errors import IncompleteCopy

from .support import DEADLINE, command, environment

URL = "sqlite:///tune.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a directory of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIOSTORAGE_URL", raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("mine", "breaks"):
        sys.modules.pop(name, None)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="aiostorage")


async def filled(folder: Path) -> None:
    """Make a storage with two experiments."""
    async with open_storage(f"sqlite:///{folder}/tune.db") as storage:
        first = await storage.create_experiment({"name": "first"})
        await storage.create_experiment({"name": "second thing", "version": 3})
        await storage.register_trials(
            [Trial(experiment=first.id, params={"x": x}) for x in (1, 2, 3)]
        )
        for value in (2.5, float("nan")):
            async with storage.reserved_trial(first) as trial:
                assert trial is not None
                await storage.complete_trial(trial, value)


# -------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_the_commands(arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code == 0
    shown = re.findall(r"^  ([a-z][a-z-]*)  ", result.stdout, re.MULTILINE)
    assert sorted(shown) == sorted(cli.commands)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_option_is_explained(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    found = cli.commands[command]
    for option in found.params:
        if isinstance(option, click.Option):
            assert option.help
            assert option.opts[0] in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "upgrade",
        "tracker-sync",
        "doctor",
        "config",
        "bench",
        "dump",
        "load x",
        "export-orion",
    ],
)
def test_a_storage_is_named_once(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    more = ["out"] if command == "export-orion" else []
    result = call(*command.split(), URL, *more, "-s", URL)
    assert result.exit_code == 2
    assert "the storage is named twice" in result.stderr
    result = call(*command.split(), *more, "-s", "nothing://me:secret@h/x", "--debug")
    assert result.exit_code == 2
    assert "unknown storage type" in result.stderr or "which tracker" in result.stderr
    assert "secret" not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_copy_that_is_not_complete_is_no_unreachable_store() -> None:
    assert explained(IncompleteCopy(), "aiostorage copy").exit_code == 1


def test_version() -> None:
    assert call("--version").stdout == f"aiostorage {aiostorage.__version__}\n"


def test_it_is_a_module_too() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "aiostorage", "--version"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == f"aiostorage {aiostorage.__version__}\n"


def test_the_library_and_the_workers_need_neither_click_nor_rich() -> None:
    code = (
        "import sys, aiostorage, aiostorage.cli.demo.worker_process; "
        "print(sorted({'click', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == "[]\n"


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nix", "No such command 'nix'"),
        ("demo --nix", "No such option '--nix'"),
        ("demo --url nix://x", "unknown storage type 'nix'"),
        ("demo --url tune.db", "is not a storage URL; write for example sqlite:///tune.db"),
        ("status sqlite:///~/nix.db", "/~/nix.db (a ~ is not replaced by a home directory"),
        ("upgrade sqlite:///~/nix.db", "/~/nix.db (a ~ is not"),
        ("upgrade track:///~/nix.json", "/~/nix.json (a ~ is not"),
        ("status ~/nix.db", f"write for example sqlite:///{Path('~/nix.db').expanduser()}"),
        ("demo --url sqlite:///nix/x.db", "/nix does not exist"),
        ("demo --url sqlite:///text.txt", "not a SQLite database"),
        ("demo --url memory:// --processes 2", "cannot be shared by several processes"),
        ("demo --kill --processes 1", "--kill needs a process that survives"),
        ("demo --url memory:// --kill", "--kill needs a process that survives"),
        ("demo --workers 0", "'--workers'"),
        ("demo --trials -1", "'--trials'"),
        ("demo --processes x", "'--processes'"),
        ("demo --seed -1", "'--seed'"),
        ("demo --lost-after -1", "'--lost-after'"),
        ("demo --lost-after nan", "lost_after is a positive number"),
        ("demo --sample 0", "'--sample'"),
        ("demo --corpus nix", "Directory 'nix' does not exist"),
        ("demo --corpus empty", "the corpus is empty"),
        ("demo --space x=1:2", "--space goes only with --objective"),
        ("demo --objective mine:f --sample 1", "--sample does not go with --objective"),
        ("demo --objective mine:f --corpus empty", "does not go with --objective"),
        ("demo --objective mine", "not of the form module:function"),
        ("demo --objective nix:f", "cannot import 'nix'"),
        ("demo --objective breaks:f", "cannot import 'breaks': ZeroDivisionError"),
        ("demo --objective mine:nix", "module 'mine' has no attribute 'nix'"),
        ("demo --objective mine:x", "is not a function"),
        ("demo --objective mine:f --space x", "neither name=low:high nor name=a,b,c"),
        ("demo --objective mine:f --space x=2:1", "the lower bound must come first"),
        ("demo --objective mine:f --space x=a:b", "the bounds must be numbers"),
        ("demo --objective mine:f --space x=1, --trials 1", "an empty or repeated choice"),
        ("demo --objective mine:f --space x=1:2 --space x=3", "'x' more than once"),
        ("demo --objective mine:f --space x=1:3 --trials 4", "3 different points at most"),
        ("status", "(this is the default; neither AIOSTORAGE_URL nor "),
        ("status nix", "is not a storage URL"),
        ("status nix://x", "unknown storage type 'nix'"),
        ("status memory://", "nothing to read"),
        ("status sqlite:///nix.db", "nix.db"),
        ("status sqlite:///nix/x.db", "nix/x.db"),
        ("status sqlite:///empty", "is a directory"),
        ("status sqlite:///text.txt", "not a SQLite database"),
        ("status sqlite:///none.txt", "is not a database of aiostorage"),
        ("status sqlite:///other.db", "is not a database of aiostorage"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(folder: Path, arguments: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("no database")
    (folder / "none.txt").touch()
    (folder / "mine.py").write_text("def f(params): return 1\nx = 1\n")
    (folder / "breaks.py").write_text("1 / 0\n")
    with closing(sqlite3.connect(folder / "other.db")) as other:
        other.execute("PRAGMA user_version = 7")
    before = sorted(folder.iterdir())
    result = call(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("aiostorage")
    assert message in result.stderr
    left = [path for path in folder.iterdir() if path.name != "__pycache__"]
    assert sorted(left) == before


@pytest.mark.parametrize("arguments", ["--debug status sqlite:///x", "status sqlite:///x --debug"])
def test_a_traceback_is_for_those_who_ask(arguments: str) -> None:
    result = call(*arguments.split())
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("aiostorage status: there is no file ")


def test_an_error_of_ours_is_one_line_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Storage:
        raise ExceptionGroup("several", [TypeError("a\nbug")])

    monkeypatch.setattr("aiostorage.cli.status.open_named", broken)
    result = call("status", URL)
    assert result.exit_code == 70
    assert result.stderr.startswith("aiostorage status: unexpected TypeError: a bug (with --debug")


def test_of_several_errors_the_storage_s_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Storage:
        raise ExceptionGroup("several", [TypeError("a bug"), ConfigurationError("the cause")])

    monkeypatch.setattr("aiostorage.cli.status.open_named", broken)
    result = call("status", URL)
    assert (result.exit_code, result.stderr) == (2, "aiostorage status: the cause\n")


def test_ctrl_c_is_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Storage:
        raise KeyboardInterrupt

    monkeypatch.setattr("aiostorage.cli.status.open_named", interrupted)
    assert call("status", URL).exit_code == 130


def test_others_may_call_it_without_being_ended() -> None:
    with pytest.raises(click.UsageError):
        cli.main(["nix"], standalone_mode=False)


# ------------------------------------------------------------------------------------- status


def test_status_is_a_line_for_each_experiment(folder: Path) -> None:
    anyio.run(filled, folder)
    result = call("status", URL)
    assert result.exit_code == 0
    header, first, second = (line.split("\t") for line in result.stdout.splitlines())
    found = dict(zip(header, first, strict=True))
    assert (found["experiment"], found["version"]) == ("first", "1")
    assert (found["new"], found["completed"], found["total"]) == ("1", "2", "3")
    assert (found["best"], found["lock"]) == ("2.5", "free")
    assert second[:2] == ["second thing", "3"]
    assert second[header.index("best") :] == ["-", "free", "0", "0", "-"]


def test_status_of_the_url_in_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anyio.run(filled, folder)
    assert call("status").exit_code == 2
    monkeypatch.setenv("AIOSTORAGE_URL", URL)
    assert call("status").output == call("status", URL).output


def test_status_of_one_experiment_as_json(folder: Path) -> None:
    anyio.run(filled, folder)
    result = call("status", URL, "--experiment", "first", "--json")
    [found] = json.loads(result.stdout)["experiments"]
    assert found["trials"] == {"new": 1, "completed": 2}
    assert found["best"] == 2.5
    assert found["lock"]["locked"] is False


def test_status_of_a_storage_without_experiments(folder: Path) -> None:
    async def make() -> None:
        async with open_storage(f"sqlite:///{folder}/tune.db"):
            pass

    anyio.run(make)
    assert json.loads(call("status", URL, "--json").stdout)["experiments"] == []
    assert call("status", URL).stdout.count("\n") == 1
    result = call("status", URL, "--experiment", "x")
    assert result.exit_code == 1
    assert result.stderr == "aiostorage status: there is no experiment 'x'; there are none at all\n"


def test_status_tells_who_holds_a_lock(folder: Path) -> None:
    anyio.run(filled, folder)

    async def look_while_it_is_held() -> tuple[Result, Result]:
        async with open_storage(f"sqlite:///{folder}/tune.db") as storage:
            [config] = await storage.fetch_experiments({"name": "first"})
            async with storage.acquire_algorithm_lock(config) as algorithm:
                owner.append(algorithm.owner)
                plain = await anyio.to_thread.run_sync(lambda: call("status", URL))
                as_json = await anyio.to_thread.run_sync(lambda: call("status", URL, "--json"))
        return plain, as_json

    owner: list[str | None] = []
    plain, as_json = anyio.run(look_while_it_is_held)
    named = named_holder(owner[0])
    assert named.startswith(f"process {os.getpid()} on {socket.gethostname()} (fingerprint ")
    assert f"\theld by {named} since 20" in plain.stdout
    assert str(owner[0]) not in plain.stdout + as_json.stdout
    lock = json.loads(as_json.stdout)["experiments"][0]["lock"]
    assert (lock["locked"], lock["owner"]) == (True, named)


def test_status_counts_lost_trials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reserve() -> None:
        async with open_storage(f"sqlite:///{folder}/tune.db") as storage:
            experiment = await storage.create_experiment({"name": "lost"})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
            await storage.register_trials(trials)
            reserved = await storage.reserve_trials(experiment, 3)
            for trial in reserved[:2]:
                long_ago = datetime.now(UTC) - timedelta(seconds=150)
                await storage.update_trial(trial, heartbeat=long_ago)

    anyio.run(reserve)
    for _ in range(2):  # the first time changes nothing
        header, row = (line.split("\t") for line in call("status", URL).stdout.splitlines())
        found = dict(zip(header, row, strict=True))
        assert (found["reserved"], found["lost"], found["total"]) == ("3", "2", "3")
        assert header.index("lost") == header.index("reserved") + 1
    [found] = json.loads(call("status", URL, "--json").stdout)["experiments"]
    assert (found["trials"], found["lost"]) == ({"reserved": 3}, 2)
    found = json.loads(call("status", URL, "--json", "--lost-after", "300").stdout)
    assert found["experiments"][0]["lost"] == 0
    assert call("status", URL, "--lost-after", "0").exit_code == 2
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    text = re.sub(r"\x1b\[[0-9;]*m", "", call("status", URL).stdout)
    assert " 3 (lost 2) " in text


def test_on_a_terminal_status_is_a_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anyio.run(filled, folder)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    result = call("status", URL)
    assert "completed" in result.stdout
    assert "second thing v3" in result.stdout
    assert "interrupted" not in result.stdout  # no trial is
    assert "\t" not in result.stdout


# --------------------------------------------------------------------- the demo in this process


def test_a_demo_in_memory() -> None:
    result = call("demo", "--url", "memory://", "--trials", "6", "--sample", "0.02", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("done        6 trials completed in ")
    assert "nothing: the storage was in memory" in result.stdout


def test_a_corpus_of_one_s_own(folder: Path) -> None:
    corpus = folder / "corpus"
    (corpus / "deeper").mkdir(parents=True)
    (corpus / "deeper" / "text").write_bytes(b"again and " * 999)
    result = call("demo", "--url", "memory://", "--trials", "2", "--corpus", "corpus")
    assert result.exit_code == 0
    assert "from corpus: 2 trials, 4 workers in each of 1 process" in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_help_that_cannot_be_printed(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("--help"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED=""),
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "aiostorage: [Errno 28] No space left on device\n"
