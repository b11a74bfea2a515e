"""URLs of MLflow trackers; nothing of MLflow is imported for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aiostorage import ConfigurationError
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.mlflow.address import Address, address_of


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("mlflow+http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("mlflow+http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("mlflow+https://Example.org/behind/proxy/", "https://example.org/behind/proxy"),
        ("MLFLOW+HTTP://host", "http://host"),
        ("mlflow+http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_a_server(url: str, uri: str) -> None:
    assert address_of(url) == Address(uri)


def test_a_server_with_a_password() -> None:
    address = address_of("mlflow+http://ada:p%40ss@host:1")
    assert address == Address("http://host:1", "ada", "p@ss")
    assert "p@ss" not in f"{address} {address.location}"


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = Address(f"sqlite:///{tmp_path}/a b.db")
    assert address_of("mlflow+sqlite:///a b.db") == there
    assert address_of(f"mlflow+sqlite:///{tmp_path}/a b.db") == there


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mlflow:", "write mlflow"),
        ("mlflow://host", "write mlflow"),
        ("mlflow+ftp://host", "write mlflow"),
        ("mlflow+http:", "no host"),
        ("mlflow+http://", "no host"),
        ("mlflow+http:///path", "no host"),
        ("mlflow+http://ho st", "no host"),
        ("mlflow+http://host:port", "not a URL"),
        ("mlflow+http://host:99999", "not a URL"),
        ("mlflow+http://[::1", "not a URL"),
        ("mlflow+http://host?a=b", "ends with its path"),
        ("mlflow+http://token@host", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow+file:///runs", "migrate-filestore"),
        ("mlflow+databricks", "never tried"),
        ("mlflow+databricks:", "never tried"),
        ("mlflow+databricks://profile", "never tried"),
        ("mlflow+postgresql://ada:secret@host/db", "mlflow server"),
        ("mlflow+mysql+pymysql://ada:secret@host/db", "mlflow server"),
        ("mlflow+sqlite://", "no file"),
        ("mlflow+sqlite:///", "no file"),
        ("mlflow+sqlite:runs.db", "no file"),
        ("mlflow+sqlite:///runs.db?mode=ro", "ends with the file"),
        ("mlflow+http://ada:secret@", "no host"),
        ("mlflow+http://ada:secret@host:port", "not a URL"),
    ],
)
def test_what_cannot_work(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        tracker_from_url(url)
    assert "secret" not in str(caught.value)


def test_unknown_options() -> None:
    with pytest.raises(ConfigurationError, match="mlflow"):
        tracker_from_url("mlflow+http://host", colour="red")


@pytest.mark.parametrize(
    ("url", "package"),
    [("http://host", "mlflow"), ("sqlite:///runs.db", "alembic")],
)
def test_a_missing_package(url: str, package: str) -> None:
    """Where no package is installed but those that the interpreter brings."""
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from aiostorage.trackers.factory import tracker_from_url\n"
        f"tracker_from_url('mlflow+{url}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert (
        f"{package}, which is not installed: pip install 'aiostorage-orion[mlflow]'" in done.stderr
    )


def test_nothing_is_imported_before_it_is_opened() -> None:
    code = (
        "import sys\n"
        "import aiostorage.trackers.mlflow\n"
        "assert not {'mlflow', 'requests', 'sqlalchemy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
