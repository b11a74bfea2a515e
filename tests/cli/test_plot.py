"""`aiostorage plot` on a real store: which files it writes, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from aiostorage import Trial, open_storage
from aiostorage.cli.app import cli

from .support import run

URL = "sqlite:///tune.db"

pytest.importorskip("plotly")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIOSTORAGE_URL", URL)
    anyio.run(filled)
    return tmp_path


async def filled() -> None:
    async with open_storage(URL) as storage:
        config = {"name": "tune", "space": {"lr": "loguniform(1e-5, 1)"}}
        experiment = await storage.create_experiment(config)
        for number in range(6):
            params = {"lr": 10.0**-number, "net": {"width": 2**number}}
            await storage.register_trial(Trial(experiment=experiment.id, params=params))
        for value in (3.0, float("nan"), 2.0, 5.0, 1.0):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.complete_trial(trial, {"loss": value})
        await storage.create_experiment({"name": "empty"})


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plot", *arguments], prog_name="aiostorage")


def test_a_page_has_all_plots() -> None:
    result = call("tune", "-o", "tune.html", "--label", "loss (nats)")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "tune.html\n"
    assert result.stderr == "tune v1: 4 trials plotted, 1 new left out, 1 with a NaN left out\n"
    page = Path("tune.html").read_text()
    assert re.findall(r'<section id="(\w+)"', page) == ["history", "parallel", "slice"]
    assert "loss (nats)" in page
    assert "net.width" in page
    result = call("empty", "-o", "empty.html", "--json", "--kind", "history")
    assert json.loads(result.stdout) == {"files": ["empty.html"], "trials": 0, "left_out": {}}
    assert "No completed trial" in Path("empty.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tune -o tune.gif", ".gif: the suffix must be one of .html, .png"),
        ("tune -o no/tune.html", "there is no directory no"),
        ("tune -o t.html --param x", "no completed trial has a parameter 'x'; there are: lr, net"),
        ("tune -o t.html --log lr --linear lr", "'lr' cannot have both"),
        ("tune -o t.png --size big", "'big' is not WIDTHxHEIGHT"),
        ("tuna -o t.html", "there is no experiment 'tuna'"),
        ("tune -o t.html -s sqlite:///no.db", "no.db"),
    ],
)
def test_what_it_refuses(arguments: str, message: str) -> None:
    result = call(*arguments.split())
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not list(Path().glob("t.*"))


def test_a_missing_kaleido_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido.errors", None)
    result = call("no such experiment", "-o", "t.png")
    assert result.exit_code == 2
    assert "kaleido 1 or newer, which is not installed" in result.stderr
    assert "aiostorage-orion[plot]" in result.stderr


def has_browser() -> bool:
    """Return whether kaleido can draw here; it and a browser are not installed for the tests."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return False
    return Chromium.find_browser(skip_local=True) is not None


@pytest.mark.skipif(not has_browser(), reason="pictures need kaleido and a browser")
def test_pictures(folder: Path) -> None:
    # in a process of its own, where kaleido's event loop may block
    where = ["--storage", URL, "--kind", "history"]
    result = run(folder, "plot", "tune", "-o", "t.svg", *where, "--kind", "slice")
    assert result.out == "t-history.svg\nt-slice.svg\n", result.err
    assert "best so far: 1" in Path("t-history.svg").read_text()
    assert sorted(str(file) for file in Path().glob("*t-*")) == ["t-history.svg", "t-slice.svg"]
    result = run(folder, "plot", "tune", "-o", "t.png", *where, "--size", "400x300")
    assert Path("t.png").read_bytes()[16:24] == bytes([0, 0, 3, 32, 0, 0, 2, 88])  # 800 x 600
    result = run(folder, "plot", "tune", "-o", "t.pdf", *where, PATH="/no", BROWSER_PATH="/no")
    assert result.code == 2
    assert "Chromium or Chrome" in result.err
    assert not Path("t.pdf").exists()
