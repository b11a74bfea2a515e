"""Control characters in what a store contains: none reaches a terminal."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from rich.table import Table

from aiostorage import Storage, Trial, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.cli.app import cli
from aiostorage.cli.escapes import escape_log, printable
from aiostorage.cli.terminal import Terminal

EVIL = "a\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e\x7f\r"
FORGED = "b\nforged\t9\tid"
CONTROLS = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"} - {"\n", "\t"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tune.db"


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, prog_name="aiostorage")
    found = {c for c in result.output if c in CONTROLS}
    assert not found, (found, result.output)
    return result


def prepare(url: str) -> None:
    async def main() -> None:
        async with open_storage(url) as storage:
            for name in (EVIL, FORGED, "\u2028"):
                experiment = await storage.create_experiment({"name": name, "version": 7})
                await storage.register_trial(Trial(experiment=experiment.id, params={EVIL: 1}))
            await _hold(storage, experiment.id)

    anyio.run(main)


async def _hold(storage: Storage, experiment: Any) -> None:
    """Let the lock's holder have a name that no holder of ours has."""
    await CollectionAccess(storage).update(
        "algo", {"experiment": experiment}, {"locked": 1, "owner": EVIL}
    )


def test_printable() -> None:
    assert printable(EVIL) == r"a\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e\x7f\r"
    assert printable(FORGED) == r"b\nforged\t9\tid"
    assert printable("\ud800\U000e0041\u2028\u200b") == r"\ud800\U000e0041\u2028\u200b"
    assert printable(5) == "5"
    harmless = "Oríon 実験 \N{MAN}\u200d\N{WOMAN} \u0627\u200c\u0628 \xa0 \\x1b"
    assert printable(harmless) == harmless


def test_status(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(url)
    _, *lines = call("status", url).stdout.splitlines()
    assert [line.count("\t") for line in lines] == [lines[0].count("\t")] * 3
    assert [line.split("\t")[0] for line in lines] == [
        printable(EVIL),
        printable(FORGED),
        r"\u2028",
    ]
    assert "held by an unknown process (fingerprint" in lines[2]
    shown = json.loads(call("status", url, "--json").stdout)["experiments"]
    assert [one["name"] for one in shown] == [EVIL, FORGED, "\u2028"]

    monkeypatch.setenv("TERM", "dumb")  # without the colours of the table
    monkeypatch.setattr(Terminal, "is_terminal", True)
    table = call("status", url).stdout
    assert r"b\nforged\t9\tid" in table.replace("\n", "").replace(" ", "")
    assert not any(line.lstrip(" │").startswith("forged") for line in table.splitlines())


def test_errors(url: str, tmp_path: Path) -> None:
    prepare(url)
    unknown = call("status", url, "--experiment", "none")
    assert unknown.exit_code == 1
    for arguments in (
        ("status", f"sqlite:///{tmp_path}/{EVIL}"),
        ("status", f"sqlite:///{EVIL}/a"),
        ("status", EVIL),
        (EVIL,),
        ("status", f"--{EVIL}"),
        ("status", url, "--lost-after", EVIL),
        ("--debug", "status", f"{EVIL}://x"),
        ("upgrade", f"sqlite:///{tmp_path}/{EVIL}"),
        ("import-tracker", EVIL, "e", "--to", url),
        ("import-tracker", "mlflow+http://127.0.0.1:1", "e", "--to", EVIL),
        ("tracker-sync", url, "--tracker", EVIL),
        ("import-orion", EVIL, url),
        ("import-orion", f"{tmp_path}/tune.db", EVIL),
        ("export-orion", url, f"{tmp_path}/{EVIL}/x"),
        ("import-optuna", EVIL, "--to", url),
        ("dashboard", f"sqlite:///{tmp_path}/{EVIL}"),
        ("demo", "--storage", EVIL, "--trials", "1"),
        ("demo", "--objective", EVIL),
    ):
        assert call(*arguments).exit_code == 2, arguments


def test_what_rich_draws() -> None:
    console, out = Terminal(), io.StringIO()
    console.file = out
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL, markup=False)
    assert not CONTROLS & set(out.getvalue())
    assert "pwned" in out.getvalue()


def test_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    monkeypatch.setattr(logging, "lastResort", handler)
    escape_log()
    handler.handle(logging.makeLogRecord({"msg": "experiment %s\nlost", "args": (EVIL,)}))
    assert out.getvalue() == f"experiment {printable(EVIL)}\nlost\n"
