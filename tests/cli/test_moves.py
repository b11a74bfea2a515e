"""The commands dump, load and copy."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import anyio
import click
import pytest
from click.testing import CliRunner, Result

from aiostorage import open_storage
from aiostorage.cli.app import cli
from tests.cli.support import DEADLINE, command, environment, run
from tests.transfer.stores import fill, fill_plainly


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="aiostorage")


def made(url: str, *, plainly: bool = False) -> str:
    async def make() -> None:
        async with open_storage(url) as storage:
            await (fill_plainly(storage, 3) if plainly else fill(storage))

    anyio.run(make)
    return url


def test_a_store_goes_through_a_file_and_into_another_engine(tmp_path: Path) -> None:
    source, dump = made(f"sqlite:///{tmp_path}/a.db"), tmp_path / "a.jsonl.gz"
    done = call("dump", source, "-o", dump)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "dumped 3 experiments, 8 trials, 2 algorithm locks, 2 benchmarks" in done.stdout
    assert "left out 1 trial of no experiment" in done.stdout
    assert call("dump", source, "-o", dump).exit_code == 2
    report = json.loads(call("dump", source, "-o", dump, "--overwrite", "--json").stdout)
    assert (report["trials"], report["destination"]) == (8, str(dump))
    with gzip.open(dump, "rt", encoding="utf-8") as lines:
        header = json.loads(next(lines))
    assert header["format"] == "aiostorage dump"

    target = f"track:///{tmp_path}/b.json"
    done = call("load", dump, target, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "dry run, nothing was written: copied: 3 experiments" in done.stdout
    assert not (tmp_path / "b.json").exists()
    done = call("load", dump, target)
    assert done.exit_code == 0, done.output
    assert "1 reserved trial interrupted; 1 lock freed; counts and hashes agree" in done.stdout
    done = call("copy", target, f"sqlite:///{tmp_path}/c.db", "--json")
    report = json.loads(done.stdout)
    assert [one["outcome"] for one in report["experiments"]] == ["copied"] * 3
    assert len(report["checksum"]) == 64
    again = call("copy", target, f"sqlite:///{tmp_path}/c.db")
    assert "already there: 3 experiments; written: 0 trials" in again.stdout


@pytest.mark.parametrize("compressed", [False, True])
def test_a_dump_comes_from_standard_input(tmp_path: Path, compressed: bool) -> None:
    dump = call("dump", made(f"sqlite:///{tmp_path}/a.db")).stdout.encode()
    given = gzip.compress(dump) if compressed else dump
    target = f"sqlite:///{tmp_path}/b.db"
    done = CliRunner().invoke(cli, ["load", "-", target, "--json"], input=given)
    report = json.loads(done.stdout)
    assert (done.exit_code, report["source"], report["trials"]) == (0, "standard input", 8)
    cut = CliRunner().invoke(cli, ["load", "-", target], input=given[:-40])
    assert cut.exit_code == 2
    assert "standard-input is damaged" in cut.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.db", "b.db"}


def test_there_is_no_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for closed in (None, io.StringIO()):
        if closed is not None:
            closed.close()
        monkeypatch.setattr(sys, "stdin", closed)
        with pytest.raises(click.UsageError, match="closed or a terminal"):
            cli.main(["load", "-", f"sqlite:///{tmp_path}/b.db"], standalone_mode=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [
        ("<&- >&- 2>&-", ("dump", "sqlite:///a.db")),
        ("<&- 2>&-", ("rm", "tune", "-s", "sqlite:///a.db")),
    ],
)
def test_closed_streams(tmp_path: Path, closed: str, arguments: tuple[str, ...]) -> None:
    made(f"sqlite:///{tmp_path}/a.db", plainly=True)
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(*arguments)]
    done = subprocess.run(shell, cwd=tmp_path, env=environment(), timeout=DEADLINE, check=False)
    assert done.returncode == 2


def test_standard_output_has_the_dump_alone(tmp_path: Path) -> None:
    made(f"sqlite:///{tmp_path}/a.db", plainly=True)
    outcome = run(tmp_path, "dump", "sqlite:///a.db")
    assert outcome.code == 0
    assert outcome.err.startswith("dumped 1 experiment, 3 trials")
    first, *_, last = outcome.out.splitlines()
    assert json.loads(first)["location"].endswith("a.db")
    assert json.loads(last)["end"]["trials"] == 3
    table = call("dump", f"sqlite:///{tmp_path}/a.db", "--format", "csv", "-e", "tune@1")
    assert table.stdout.splitlines()[0].startswith("experiment,version,id,status,")
    assert len(table.stdout.splitlines()) == 4
    assert "wrote 3 trials in 10 columns" in table.stderr


def test_conflicts_and_their_resolution(tmp_path: Path) -> None:
    source, target = made(f"sqlite:///{tmp_path}/a.db"), f"sqlite:///{tmp_path}/b.db"
    made(target, plainly=True)
    refused = call("copy", source, target)
    assert refused.exit_code == 2
    assert "has another one of that name and version; nothing was written" in refused.stderr
    bumped = call("copy", source, target, "--resolve", "bump", "-e", "tune@1")
    assert bumped.exit_code == 0, bumped.output
    assert "experiment tune v1: bumped to v2" in bumped.stdout
    kept = call("copy", source, target, "--resolve", "ignore", "--dry-run", "--json")
    assert json.loads(kept.stdout)["experiments"][0]["outcome"] == "ignored"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("dump", "{a}", "-e", "no"), 1, "there is no experiment 'no'"),
        (("copy", "{a}", "memory://", "-e", "no"), 2, "nothing would be left"),
        (("copy", "{a}", "{b}", "-e", "no"), 1, "there is no experiment 'no'"),
        (("copy", "{a}", "{a}"), 2, "one and the same store"),
        (("copy", "{b}", "{a}"), 2, "there is no file"),
        (("load", "a.db", "{b}"), 2, "is a SQLite database, not a dump"),
        (("load", "no", "{b}"), 2, "does not exist"),
        (("load", "text", "{b}"), 2, "is not a dump of aiostorage"),
        (("dump", "{a}", "-o", "x", "--format", "xml"), 2, "'xml' is not one of"),
    ],
)
def test_errors_are_one_line_with_a_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"a": made(f"sqlite:///{tmp_path}/a.db", plainly=True), "b": "sqlite:///b.db"}
    (tmp_path / "text").write_text("Dear all,\n")
    outcome = call(*(argument.format(**names) for argument in arguments))
    assert outcome.exit_code == code, outcome.output
    assert message in outcome.output
    assert outcome.stdout == ""
    assert not (tmp_path / "x").exists()
    if arguments[0] == "load":
        assert not (tmp_path / "b.db").exists()
