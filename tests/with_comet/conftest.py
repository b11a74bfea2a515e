"""Comet's own package, and a server in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from aiostorage.trackers.comet.package import import_comet
from tests.with_comet.server import KEY, CometServer

CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture(scope="session")
def comet_ml() -> Any:
    """Give Comet's package; in CI it must be there."""
    if find_spec("comet_ml") is None:
        text = "no comet_ml here; install the dependency group comet"
        if CI:
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return import_comet()


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what the user has of Comet out of the tests."""
    for name in [name for name in os.environ if name.startswith("COMET_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "home" / ".comet.config"))


@pytest.fixture
def server(comet_ml: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[CometServer]:
    """Give a server, with which ``comet_ml`` is configured."""
    server = CometServer()
    server.start()
    monkeypatch.setenv("COMET_URL_OVERRIDE", server.url)
    monkeypatch.setenv("COMET_API_KEY", KEY)
    yield server
    server.stop()
