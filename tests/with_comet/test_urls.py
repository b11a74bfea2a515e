"""URLs of mirrors in Comet, without Comet's package."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from aiostorage.errors import ConfigurationError
from aiostorage.trackers.comet import location, package
from aiostorage.trackers.factory import tracker_from_options, tracker_from_url


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "find_spec", lambda _: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("comet://lab/tuning", "comet://lab/tuning"),
        ("comet://My%20Lab/a%2Fb", "comet://My%20Lab/a%2Fb"),
        ("comet+offline:////tmp/a%20b", "/tmp/a b"),
        ("comet+offline:///runs?project=p&workspace=w", str(Path("runs").absolute())),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert tracker_from_url(url).location == shown


@pytest.mark.usefixtures("installed")
def test_options_make_the_same() -> None:
    online = tracker_from_options("comet", {"workspace": "lab", "project": "tuning"})
    assert online.location == "comet://lab/tuning"
    offline = tracker_from_options("comet", {"directory": "/tmp/runs", "project": "tuning"})
    assert offline.location == "/tmp/runs"
    assert dict(offline.environment("e", "k"))["COMET_PROJECT_NAME"] == "tuning"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("comet:", "expected comet://workspace/project"),
        ("comet://lab", "expected comet://workspace/project"),
        ("comet://lab/tuning/more", "expected comet://workspace/project"),
        ("comet://lab/tuning?x=1", "expected comet://workspace/project"),
        ("comet://secret@lab/tuning", "COMET_API_KEY"),
        ("comet://lab/tuning#2", "%23"),
        ("comet+offline://runs", "four|comet\\+offline:////directory"),
        ("comet+offline:///", "comet\\+offline:////directory"),
        ("comet+offline:///runs?color=red", "color"),
        ("comet+http://host/x", "is comet://workspace/project or"),
    ],
)
def test_urls_that_cannot_work(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        tracker_from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_options_that_there_are_not() -> None:
    with pytest.raises(ConfigurationError, match="has no option api_key"):
        tracker_from_url("comet://lab/tuning", api_key="secret")


@pytest.mark.parametrize("url", ["comet://lab/tuning", "comet+offline:///runs"])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(location, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'aiostorage-orion\[comet\]'"):
        tracker_from_url(url)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("gone", name="comet_ml"), r"pip install 'aiostorage-orion\[comet\]'"),
        (ModuleNotFoundError("no everett", name="everett"), "cannot be imported: no everett"),
        (RuntimeError("broken"), "cannot be imported: broken"),
    ],
)
def test_a_package_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigurationError, match=said):
        package.import_comet()


@pytest.mark.usefixtures("installed")
def test_nothing_of_comet_is_imported_by_a_url() -> None:
    if importlib.util.find_spec("comet_ml") is None:
        tracker_from_url("comet://lab/tuning").close()
