"""Where trackers come from: every way to ask for one, and every way to ask wrongly."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from aiostorage import ConfigurationError, Storage, open_storage, setup_storage, storage_factory
from aiostorage.trackers import Tracker, factory
from tests.trackers.file_tracker import FileTracker, made_from_url

STORE = "memory://"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have our tracker installed, as the package of a third party would be."""
    group = factory.ENTRY_POINTS
    entry = EntryPoint("file", "tests.trackers.file_tracker:made_from_url", group)

    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints([entry]).select(**wanted)

    monkeypatch.setattr(factory, "entry_points", entry_points)
    for name in ("AIOSTORAGE_URL", "AIOSTORAGE_TRACKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}"


def tracker_of(storage: Storage) -> Any:
    return storage._mirror.tracker if storage._mirror is not None else None


def test_a_storage_has_none_by_default() -> None:
    assert tracker_of(open_storage(STORE)) is None
    assert tracker_of(open_storage(STORE, tracker=None, objective="loss")) is None


def test_a_url_a_mapping_or_an_object(url: str, tmp_path: Path) -> None:
    assert tracker_of(open_storage(STORE, tracker=url)).location == str(tmp_path)
    many = open_storage(STORE, tracker={"url": url, "max_concurrency": 2})
    assert tracker_of(many).max_concurrency == 2
    own = FileTracker(tmp_path)
    assert isinstance(own, Tracker)
    assert tracker_of(open_storage(STORE, tracker=own)) is own


def test_every_way_to_configure_a_storage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = {"type": "memory", "lost_after": 7}
    for storage in (
        setup_storage({"url": STORE, "tracker": url, "objective": "loss"}),
        storage_factory.create("memory", tracker=url, objective="loss"),
        storage_factory.create("File", url=url, coordinator=STORE, objective="loss"),
        storage_factory.create("file", url=url, coordinator=coordinator, objective="loss"),
        setup_storage({"type": "file", "url": url, "coordinator": STORE, "objective": "loss"}),
    ):
        assert tracker_of(storage).location == str(tmp_path)
        assert storage._mirror is not None
        assert storage._mirror._objective == "loss"
        assert repr(storage) == f"<Storage memory at 'memory://', shown in file at '{tmp_path}'>"
    monkeypatch.setenv("AIOSTORAGE_URL", STORE)
    monkeypatch.setenv("AIOSTORAGE_TRACKER", url)
    assert tracker_of(setup_storage()).location == str(tmp_path)
    monkeypatch.delenv("AIOSTORAGE_URL")
    file = tmp_path / "config" / "aiostorage" / "aiostorage.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[storage]\nurl = "{STORE}"\ntracker = "file:///nowhere"\n')
    assert tracker_of(setup_storage()).location == str(tmp_path)
    monkeypatch.delenv("AIOSTORAGE_TRACKER")
    assert tracker_of(setup_storage()).location == "/nowhere"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tracker": "nosuch://x"}, "names no tracker; known are: comet, file, mlflow"),
        ({"tracker": "http://me:secret@host"}, r"'http://\*\*\*@host' names no tracker"),
        ({"tracker": "mlflow"}, "names no tracker"),
        ({"tracker": ""}, "names no tracker"),
        ({"tracker": 3}, "a tracker is its URL, .* not a int"),
        ({"tracker": {"uri": "file:///x"}}, "a tracker is its URL, a mapping with its `url`"),
        ({"tracker": "file:///x", "objective": 3}, "objective is the name of a metric"),
        ({"objective": 3}, "objective is the name of a metric"),
        ({"tracker": "file:///x", "deliver_on_close": -1}, "deliver_on_close is a number"),
    ],
)
def test_wrong_trackers(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        open_storage(STORE, **options)


def test_a_tracker_in_place_of_a_storage() -> None:
    with pytest.raises(ConfigurationError, match=r"option of a storage: .*tracker="):
        open_storage("mlflow+http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mlflow", {"tracking_uri": "http://x"}, "mlflow is a tracker, .* name that with `coordi"),
        ("sqlite", {"coordinator": STORE}, "only a tracker has a coordinator"),
        ("file", {"url": "file:///x", "coordinator": 3}, "is the URL of a storage, or a mapping"),
        (
            "file",
            {"url": "file:///x", "coordinator": {"url": STORE, "tracker": "file:///y"}},
            "a mapping without `tracker`",
        ),
        ("file", {"coordinator": STORE, "colour": 1}, r"file needs its `url`; it has \['colour'\]"),
        ("mlflow", {"coordinator": STORE, "uri": "http://x"}, "its options are tracking_uri"),
    ],
)
def test_wrong_coordinators(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        storage_factory.create(name, **options)


def test_a_pickled_storage_keeps_its_tracker(tmp_path: Path, url: str) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/tune.db", tracker=url, objective="loss")
    copy = pickle.loads(pickle.dumps(storage))
    assert tracker_of(copy).location == str(tmp_path)
    assert copy._mirror._objective == "loss"
    assert copy._mirror.deliverer.gateway is copy._gateway
    assert copy._gateway.driver.changed is not storage._gateway.driver.changed  # type: ignore[attr-defined]


def test_without_a_tracker_nothing_of_it_is_imported() -> None:
    code = (
        "import asyncio, sys, threading\n"
        "from aiostorage import Trial, open_storage\n"
        "async def main():\n"
        "    async with open_storage('memory://') as storage:\n"
        "        experiment = await storage.create_experiment({'name': 'tune'})\n"
        "        await storage.register_trial(Trial(experiment=experiment.id, params={'x': 1}))\n"
        "        await storage.complete_trial(await storage.reserve_trial(experiment), 1.0)\n"
        "        assert not await storage.fetch_experiments({'name': 'other'})\n"
        "        print(len(asyncio.all_tasks()), threading.active_count())\n"
        "asyncio.run(main())\n"
        "ours = ('trackers', '_core.delivery', '_core.mirror', '_core.noting', '_core.outbox')\n"
        "print([name for name in ours if 'aiostorage.' + name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 1\n[]\n", "")


def test_our_tracker_is_made_of_a_url(tmp_path: Path) -> None:
    assert made_from_url(f"file://{tmp_path}").location == str(tmp_path)
