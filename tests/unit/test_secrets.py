"""Passwords in URLs that are mistyped, or for something else: no error shows them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aiostorage import AioStorageError, open_storage, setup_storage, storage_factory
from aiostorage._core.driver_options import hide_credentials, hide_credentials_in
from aiostorage.cli.app import cli
from aiostorage.trackers.factory import tracker_from_url

SECRET = "S3cret"
STORAGES = [
    "mongodb:u:x/S3cret/y@h/d",
    "mongodb:u:S3cret@h/d",
    "mongodb:u:S3cret",
    "mongodb:/u:S3cret@h/d",
    "mongodb:///u:S3cret@h/d",
    "mongo db://u:S3cret@h/d",
    "u:S3cret@h/d",
    "u:S3cret@h://d",
    "u:S3cret",
    "//u:S3cret@h/d",
    "mongodb//u:S3cret",
    "mongodb://u:S3cret",
    "mongodb://u:S3cret@h:port/d",
    "mongodb://u:a/S3cret@h/d",
    "mongodb://u:S3cret@h/d?password=S3cret",
    "mongodb://h/d;password=S3cret",
    "mongodb://h/d&password=S3cret",
    "mongodb://h/d u:S3cret",
    "mongodb://[u:S3cret]/d",
    "postgres://u:x/S3cret/y@h/d",
    "sqlite:///x.db?password=S3cret",
    "sqlite:///x.db?password=a@S3cret",
    "sqlite:///x.db?S3cret",
    "sqlite:///x.db?key=a#S3cret",
    "sqlite:///x.db#S3cret",
    "sqlite://u:x/S3cret/y@h/d",
    "sqlite://u:S3cret@[h/d",
    "sqlite://u:S3cret@tu\u2100ne/d",
    "sqlite:///%ff?password=S3cret",
    "track:///x.json?password=S3cret",
    "track:///x.json?S3cret",
    "track://u:x/S3cret/y@h/d",
    "track://u:S3cret@[h/d",
    "memory://u:S3cret@h",
    "memory://?password=S3cret",
]
TRACKERS = [
    "mlflow+http://u:S3cret",
    "mlflow+http://S3cret@h",
    "mlflow+http://u:S3cret@h:port",
    "mlflow+http://u:S3cret@[h",
    "mlflow+http://u:S3cret@tu\u2100ne",
    "mlflow+http://u:x/S3cret@h",
    "mlflow+http://h?token=S3cret",
    "mlflow+http://h#S3cret",
    "mlflow+http:u:S3cret@h",
    "mlflow:u:S3cret@h",
    "mlflow+sqlite:///x.db?key=S3cret",
    "mlflow+postgresql://u:S3cret@h/d",
    "mlflow+ftp://u:S3cret@h/d",
    "comet://S3cret@workspace/project",
    "comet://workspace/project?api_key=S3cret",
    "comet://workspace/project?S3cret",
    "comet://S3cret@[h/d",
    "comet+offline:///d?api_key=S3cret",
    "comet+offline:///d?S3cret",
    "comet+offline://u:S3cret@h/d",
    "nosuch+http://u:S3cret@h",
    "u:S3cret@h",
]


def check(make: Callable[[], Any]) -> None:
    with pytest.raises(AioStorageError) as caught:
        make()
    error = caught.value
    shown = [*traceback.format_exception(error), repr(error), repr(vars(error))]
    # the lines of this file are shown without the values in them
    assert not any(SECRET in text for text in shown), str(error)


@pytest.mark.parametrize("url", STORAGES)
def test_storages(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(lambda: open_storage(url))
    check(lambda: setup_storage({"url": url}))
    check(lambda: storage_factory.create(url))
    check(lambda: storage_factory.create("legacy", database={"type": url}))
    check(lambda: storage_factory.create(url, coordinator="memory://"))
    check(lambda: storage_factory.create("comet", coordinator={"url": url}, workspace="a"))


@pytest.mark.parametrize("url", TRACKERS)
def test_trackers(url: str) -> None:
    check(lambda: tracker_from_url(url))
    check(lambda: open_storage("memory://", tracker=url))


@pytest.mark.parametrize(
    "arguments",
    [
        ("{}",),
        ("status", "{}"),
        ("status", "sqlite:///x.db", "{}"),
        ("status", "sqlite:///x.db", "--lost-after", "{}"),
        ("--debug", "status", "--lost-after={}"),
        ("import-orion", "{}", "sqlite:///x.db"),
        ("import-optuna", "{}", "--to", "sqlite:///x.db"),
        ("import-optuna", "x.log", "--to", "{}"),
        ("export-optuna", "{}", "x.log"),
        ("dashboard", "{}"),
        ("import-tracker", "{}", "name", "--to", "sqlite:///x.db"),
        ("import-tracker", "mlflow+sqlite:///x.db", "name", "--to={}"),
        ("tracker-sync", "sqlite:///x.db", "--tracker", "{}"),
        ("upgrade", "{}"),
        ("demo", "--storage", "{}"),
        ("demo", "--trials", "{}"),
    ],
)
@pytest.mark.parametrize("url", ["mongo:u:x/S3cret@h/d", "postgres://u:S3cret@h/d?key=S3cret"])
def test_commands(arguments: tuple[str, ...], url: str) -> None:
    result = CliRunner().invoke(cli, [a.format(url) for a in arguments], prog_name="aiostorage")
    assert result.exit_code in (1, 2)
    assert result.output
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://h,h2:33/d", "mongodb://h,h2:33/d"),
        ("mongodb://[::1]:27017/d?x=y", "mongodb://[::1]:27017/d?x=***"),
        ("mlflow+http://h:5000/x", "mlflow+http://h:5000/x"),
        ("mongodb://[fe80::1%eth0]/d", "mongodb://[fe80::1%eth0]/d"),
        ("mongodb://[u:S3cret]/d", "mongodb://***"),
        ("http://h/d u:S3cret?a", "http://h/***"),
        ("sqlite:////runs/at 10:00.db", "sqlite:////runs/at 10:00.db"),
        ("tune.db", "tune.db"),
        ("", ""),
        ("sqlite:///tune.db?synchronous=OFF&a", "sqlite:///tune.db?synchronous=OFF&***"),
        ("mongodb://h/d?replicaSet=rs0&key=x", "mongodb://h/d?replicaSet=rs0&key=***"),
        ("sqlite:////home/me@work/x.db", "sqlite:////***@work/x.db"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown


def test_urls_in_a_text() -> None:
    text = "no answer from http://u:S3cret@h:80/x, mail me@home"
    assert hide_credentials_in(text) == "no answer from http://***@h:80/x, mail ***@home"


def test_a_configuration_file_with_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIOSTORAGE_URL", raising=False)
    monkeypatch.setattr("platformdirs.user_config_path", lambda _: tmp_path)
    file = tmp_path / "aiostorage.toml"
    for content in (
        b'[storage]\nurl = "mongodb:u:S3cret@h/d"',
        b'[storage]\nurl = "sqlite:///x.db?password=S3cret"',
        b'[storage]\ntype = "mongodb://u:S3cret@h"',
        b'[storage]\nurl = "mongodb://u:S3cret@h\n',
        b"[storage]\nurl = mongodb://u:S3cret@h\n",
        b'[storage]\nurl = "S3cret"\nurl = "S3cret"',
        b'[storage]\nurl = "S3cret\xff"',
        b'storage = "mongodb://u:S3cret@h"',
    ):
        file.write_bytes(content)
        check(setup_storage)
