"""Which storage is meant where none is named: one rule for every command and call."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from aiostorage import (
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    Storage,
    Trial,
    open_storage,
    setup_storage,
    upgrade_storage,
)
from aiostorage.cli.app import cli

from .support import run

SAY_WHO = {
    "argument": "",
    "environment": "(AIOSTORAGE_URL names this storage",
    "file": "aiostorage.toml names this storage",
    "default": "(this is the default; neither AIOSTORAGE_URL nor ",
}
"""What an error says of where the storage comes from."""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("AIOSTORAGE_URL", "AIOSTORAGE_TRACKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="aiostorage")


def configure(folder: Path, text: str) -> None:
    (folder / "config" / "aiostorage").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "aiostorage" / "aiostorage.toml").write_text(f"[storage]\n{text}\n")


def name_it(monkeypatch: pytest.MonkeyPatch, folder: Path, how: str, url: str) -> list[str]:
    """Name a storage; everything that comes later in the rule names another one."""
    wrong = f"sqlite:///{folder}/wrong/wrong.db"
    if how == "argument":
        monkeypatch.setenv("AIOSTORAGE_URL", wrong)
        return [url]
    if how == "environment":
        monkeypatch.setenv("AIOSTORAGE_URL", url)
        configure(folder, f'url = "{wrong}"')
    elif how == "file":
        configure(folder, f'url = "{url}"\nlost_after = 9')
    return []


def place(folder: Path, how: str) -> Path:
    if how == "default":
        return folder / "data" / "aiostorage" / "aiostorage.db"
    return folder / f"{how}.db"


async def filled(url: str) -> None:
    async with open_storage(url) as storage:
        experiment = await storage.create_experiment({"name": "found"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))


@pytest.mark.parametrize("how", SAY_WHO)
def test_every_command_goes_by_the_rule(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place(folder, how)
    arguments = name_it(monkeypatch, folder, how, f"sqlite:///{file}")
    nothing = {
        "status": call("status", *arguments),
        "upgrade": call("upgrade", *arguments),
        "tracker-sync": call("tracker-sync", *arguments, "--tracker", "mlflow+http://localhost:1"),
        "export-orion": call("export-orion", *arguments, "copy.pkl"),
    }
    for name, result in nothing.items():
        assert result.exit_code == 2, name
        assert str(file if name != "upgrade" else file.parent) in result.stderr, name
        assert SAY_WHO[how] in result.stderr, name
        assert (" names " in result.stderr) is (how != "argument"), name
    assert not (folder / "data").exists()  # nothing was made
    file.parent.mkdir(parents=True, exist_ok=True)
    anyio.run(filled, f"sqlite:///{file}")
    assert "\nfound\t1\t" in call("status", *arguments).stdout
    assert f"{file} is up to date" in call("upgrade", *arguments).stdout
    if find_spec("orion") is None:  # it does not run on newer Pythons
        return
    exported = call("export-orion", *arguments, "copy.pkl")
    assert exported.exit_code == 0, exported.stderr
    assert f"from {file} to copy.pkl" in exported.stdout
    imported = call("import-orion", "copy.pkl", *arguments)
    assert imported.exit_code == 0, imported.stderr
    assert f"from copy.pkl to {file}" in imported.stdout
    url = arguments[0] if arguments else None
    assert setup_storage(url).location == str(file)
    assert anyio.run(partial(upgrade_storage, url)).location == str(file)


def test_the_demo_goes_by_the_rule(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "demo_of_the_rule.py").write_text("def loss(params):\n    return params['x']\n")
    small = ("demo", "--objective", "demo_of_the_rule:loss", "--trials", "2", "--quiet")
    (folder / "data").write_text("no directory")
    assert SAY_WHO["default"] in call(*small).stderr
    configure(folder, 'type = "memory"')
    assert "2 trials completed" in call(*small).stdout
    assert "2 trials completed" in call(*small, "--url", "memory://").stdout
    monkeypatch.setenv("AIOSTORAGE_URL", "sqlite:///nowhere/x.db")
    assert SAY_WHO["environment"] in call(*small).stderr


@pytest.mark.parametrize(
    ("how", "value"),
    [
        ("environment", "tune.db"),
        ("environment", " "),
        ("environment", "odd://x"),
        ("environment", "sqlite:///x.db?nix=1"),
        ("file", 'type = "odd"'),
        ("file", 'path = "x.db"'),
        ("file", 'type = "sqlite"\npath = "x.db"\nnix = 1'),
        ("file", 'url = "memory://"\ntracker = "odd+x"'),
    ],
)
def test_what_cannot_work_says_who_named_it(
    how: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "environment":
        monkeypatch.setenv("AIOSTORAGE_URL", value)
    else:
        configure(folder, value)
    with pytest.raises(ConfigurationError) as raised:
        setup_storage()
    assert SAY_WHO[how] in str(raised.value)
    if "tracker" not in value:  # `status` reads without one
        assert SAY_WHO[how] in call("status").stderr


def test_what_does_not_open_says_who_named_it(folder: Path) -> None:
    (folder / "text.db").write_text("no database at all, but a text that is long enough")
    configure(folder, 'url = "sqlite:///text.db"')

    async def use(storage: Storage) -> None:
        async with storage:
            raise AssertionError("it was opened")

    with pytest.raises(NotADatabaseError, match=r"text.db.* \(.*toml names this storage\)"):
        anyio.run(use, setup_storage())


def test_a_storage_in_memory_is_named_too(folder: Path) -> None:
    configure(folder, 'database = { type = "EphemeralDB" }')
    for arguments in (("status",), ("export-orion", "x.pkl"), ("import-orion", __file__)):
        result = call(*arguments)
        assert "in memory" in result.stderr
        assert SAY_WHO["file"] in result.stderr


def test_the_tracker_of_the_configuration_is_synchronised(folder: Path) -> None:
    assert "which tracker?" in call("tracker-sync").stderr
    configure(folder, 'url = "sqlite:///tune.db"\ntracker = "odd://nowhere"')
    anyio.run(filled, "sqlite:///tune.db")
    assert "'odd://nowhere' names no tracker" in call("tracker-sync").stderr
    assert call("status").exit_code == 0


# ----------------------------------------------------------------------- what takes long


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the URL of a server that accepts connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"mongodb://127.0.0.1:{server.getsockname()[1]}/tune"


def test_a_slow_connection_says_what_it_waits_for(
    silent: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configure(folder, f'url = "{silent}"\nretry = {{ attempts = 1, total = 1.2 }}')

    async def use(storage: Storage) -> None:
        with pytest.raises(BackendError, match="toml names this storage"):
            await storage.open()
        await storage.aclose()

    with caplog.at_level(logging.WARNING, "aiostorage"):
        anyio.run(use, setup_storage())
    [line] = [
        record.getMessage() for record in caplog.records if record.name == "aiostorage.connection"
    ]
    assert line.startswith(f"still waiting for mongodb at {silent} after 1 s (")
    assert line.endswith("aiostorage.toml names this storage)")


def test_a_command_says_so_on_stderr(silent: str, folder: Path) -> None:
    configure(folder, f'url = "{silent}"\nretry = {{ attempts = 1, total = 1.2 }}')
    outcome = run(folder, "status", XDG_CONFIG_HOME=str(folder / "config"))
    assert outcome.code == 3
    waiting, failed = outcome.err.splitlines()
    assert waiting.startswith(f"still waiting for mongodb at {silent} after 1 s")
    assert failed.startswith("aiostorage status: ")
    assert outcome.out == ""
