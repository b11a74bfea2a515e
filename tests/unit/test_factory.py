"""Where storages come from: every way to ask for one, and every way to ask wrongly."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aiostorage import (
    ConfigurationError,
    RetryPolicy,
    Storage,
    StorageFactory,
    UnknownStorageType,
    open_storage,
    setup_storage,
    storage_factory,
)
from aiostorage._core.history_limit import HistoryLimit
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("AIOSTORAGE_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = tmp_path / "config" / "aiostorage"
    folder.mkdir(parents=True)
    return folder / "aiostorage.toml"


def place(storage: Storage) -> str:
    """Return the path, relative to where we are if it is below."""
    path = Path(storage.location)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def driver_of(storage: Storage) -> Any:
    return storage._gateway.driver


# ------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tune.db", "tune.db"),
        ("sqlite:///sub/tune.db", "sub/tune.db"),
        ("sqlite:////var/lib/tune.db", "/var/lib/tune.db"),
        ("sqlite:///with%20space%3F.db", "with space?.db"),
        ("SQLite:///tune.db", "tune.db"),
        ("sqlite:///tune.db?synchronous=normal&busy_timeout=2.5", "tune.db"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    storage = open_storage(url)
    assert isinstance(driver_of(storage), SQLiteDriver)
    assert place(storage) == path
    if "?s" in url:
        assert driver_of(storage)._synchronous == "NORMAL"
        assert driver_of(storage)._busy_timeout == 2.5


@pytest.mark.parametrize(
    ("url", "limit"),
    [
        ("sqlite:///tune.db?history=off", "off"),
        ("sqlite:///tune.db?history=30d&synchronous=NORMAL", "30d"),
        ("track:///tune.json?history=%3100", "100"),
        ("memory://?history=7d", "7d"),
        ("mongodb://127.0.0.1/tune?w=1&history=2w", "2w"),
        ("sqlite:///tune.db", None),
    ],
)
def test_the_history_may_stand_in_the_url(url: str, limit: str | None) -> None:
    """It is a setting of the store; an argument beside the URL comes first."""
    for storage in (open_storage(url), setup_storage(url)):
        wanted = storage._gateway.history.wanted
        assert (wanted and wanted.text) == limit
        assert "history" not in storage.location
    assert open_storage(url, history=5)._gateway.history.wanted == HistoryLimit("5", rows=5)


def test_memory_urls() -> None:
    for url in ("memory://", "memory:///"):
        assert isinstance(driver_of(open_storage(url)), MemoryDriver)


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path}/tune.db")
    assert not (tmp_path / "tune.db").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tune.db", "sqlite:///tune.db"),
        ("", "sqlite:///tune.db"),
        (" ", "sqlite:///tune.db"),
        ("sqlite:/tune.db", "for example sqlite:///tune.db"),
        ("sqlite:///C:\\data\\tune.db", "is a path of Windows"),
        ("track:///C:\\data\\tune.json", "is a path of Windows"),
        ("sqlite:///tune.db?lost_after=9", "lost_after: pass it as a keyword"),
        ("sqlite:///tune.db?history=x", "history is a time such as .* not 'x'"),
        ("memory://?history=", "history is a time such as .* not ''"),
        ("comet://workspace/project", "is a tracker, .* tracker=…"),
        ("sqlite://tune.db", "three slashes"),
        ("sqlite://", "which file"),
        ("sqlite:///", "which file"),
        ("sqlite:///tune.db#x", "%23"),
        ("sqlite:///tune.db?cache=shared", "unknown cache"),
        ("sqlite:///tune.db?synchronous=OFF", "synchronous"),
        ("sqlite:///tune.db?busy_timeout=soon", "busy_timeout"),
        ("sqlite:///tune.db?busy_timeout=-1", "busy_timeout"),
        ("sqlite:///tune.db?busy_timeout=nan", "busy_timeout"),
        ("memory://name", "memory"),
        ("legacy://x", "legacy"),
    ],
)
def test_wrong_urls(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_storage(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://me:secret@host/tune.db",
        "memory://me:secret@host/x",
        "mongodb:/me:secret@host/x",
        "nosuch://me:secret@host/x",
    ],
)
def test_no_secret_in_an_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_storage(url)
    assert "secret" not in str(raised.value)


def test_unknown_scheme() -> None:
    with pytest.raises(UnknownStorageType) as raised:
        open_storage("redis://host")
    assert raised.value.requested == "redis"
    assert {"memory", "sqlite", "legacy"} <= set(raised.value.known)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost_after": 0},
        {"lost_after": float("inf")},
        {"lock_lease": -1},
        {"lock_lease": "60"},
        {"state_codec": "json"},
        {"nan": "worst"},
        {"nan": ["raise"]},
        {"colour": "red"},
    ],
    ids=repr,
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong)).split("_")[0]):
        open_storage("memory://", **wrong)


def test_a_mistyped_setting_lists_the_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"'lostafter'; its options are .*lost_after"):
        open_storage("memory://", lostafter=3)


def test_settings() -> None:
    policy = RetryPolicy(attempts=2)
    storage = open_storage(
        "memory://", retry=policy, lost_after=5, lock_lease=7, state_codec="pickle"
    )
    assert storage._gateway.policy is policy
    assert storage._lost_after == 5
    assert storage._lock_records._lease == 7
    assert storage._lock_records._codec.name == "pickle"
    for made in (
        open_storage("memory://", nan="broken"),
        setup_storage({"url": "memory://", "nan": "broken"}),
        storage_factory.create("memory", nan="broken"),
    ):
        assert made._reservations._nan._choice == "broken"


# -------------------------------------------------------------------------------- by type


def test_create() -> None:
    assert isinstance(driver_of(StorageFactory().create("Memory")), MemoryDriver)
    storage = storage_factory.create("sqlite", path="x.db", retry={"attempts": 3}, lost_after=9)
    assert place(storage) == "x.db"
    assert storage._gateway.policy == RetryPolicy(attempts=3)
    with pytest.raises(ConfigurationError, match="path"):
        storage_factory.create("sqlite")
    with pytest.raises(ConfigurationError, match="options are"):
        storage_factory.create("sqlite", file="x.db")
    with pytest.raises(ConfigurationError, match="not both"):
        storage_factory.create("sqlite", path="x.db", url="sqlite:///x.db")
    with pytest.raises(ConfigurationError, match="retry"):
        storage_factory.create("memory", retry={"tries": 3})
    with pytest.raises(UnknownStorageType):
        storage_factory.create("nothing")


@pytest.mark.parametrize(
    ("database", "kind"),
    [
        ({"type": "EphemeralDB"}, MemoryDriver),
        ({"type": "PickledDB", "host": "x.db"}, SQLiteDriver),
        ({"type": "pickleddb", "name": "orion", "host": ""}, SQLiteDriver),
        ({}, SQLiteDriver),
        (None, SQLiteDriver),
    ],
)
def test_legacy(database: dict[str, Any] | None, kind: type) -> None:
    options = {} if database is None else {"database": database}
    assert isinstance(driver_of(storage_factory.create("legacy", **options)), kind)


def test_legacy_of_an_unknown_database() -> None:
    with pytest.raises(UnknownStorageType) as raised:
        storage_factory.create("legacy", database={"type": "couchdb"})
    assert raised.value.known == ("ephemeraldb", "mongodb", "pickleddb")


# ------------------------------------------------------------------------- configuration


def test_setup_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOSTORAGE_URL", "sqlite:///x.db")
    assert isinstance(driver_of(setup_storage(debug=True)), MemoryDriver)
    assert isinstance(driver_of(setup_storage("sqlite:///y.db", debug=True)), MemoryDriver)


@pytest.mark.parametrize(
    "configured",
    [
        "sqlite:///x.db",
        {"url": "sqlite:///x.db"},
        {"type": "sqlite", "path": "x.db"},
        {"type": "sqlite", "url": "sqlite:///x.db"},
        {"database": {"type": "pickleddb", "host": "x.db"}},
        {"type": "legacy", "database": {"type": "pickleddb", "host": "x.db"}, "lost_after": 3},
    ],
    ids=repr,
)
def test_setup(configured: Any) -> None:
    assert place(setup_storage(configured)) == "x.db"


@pytest.mark.parametrize("configured", [{}, {"path": "x.db"}], ids=repr)
def test_setup_of_nothing_known(configured: Any) -> None:
    with pytest.raises(ConfigurationError, match="`url` or a `type`"):
        setup_storage(configured)


def test_setup_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, no_configuration: Path
) -> None:
    no_configuration.write_text('[storage]\nurl = "memory://"\n')
    monkeypatch.setenv("AIOSTORAGE_URL", "sqlite:///x.db")
    assert place(setup_storage()) == "x.db"
    monkeypatch.setenv("AIOSTORAGE_URL", "")
    assert isinstance(driver_of(setup_storage()), MemoryDriver)


def test_setup_from_the_file(no_configuration: Path) -> None:
    no_configuration.write_text('[storage]\ntype = "sqlite"\npath = "x.db"\nlost_after = 9\n')
    storage = setup_storage()
    assert (place(storage), storage._lost_after) == ("x.db", 9)


@pytest.mark.parametrize(
    "content", [b"[storage", b"\xff\xfe", b"x = 1\n", b"storage = 3\n", b"[storage]\n"]
)
def test_setup_from_a_damaged_file(no_configuration: Path, content: bytes) -> None:
    no_configuration.write_bytes(content)
    with pytest.raises(ConfigurationError):
        setup_storage()


def test_setup_from_a_file_that_is_a_directory(no_configuration: Path) -> None:
    no_configuration.mkdir()
    with pytest.raises(ConfigurationError, match="cannot read"):
        setup_storage()


def test_setup_from_a_file_that_is_a_pipe(no_configuration: Path) -> None:
    os.mkfifo(no_configuration)
    with pytest.raises(ConfigurationError, match="it is not a file"):
        setup_storage()


def test_setup_without_configuration(tmp_path: Path) -> None:
    storage = setup_storage()
    assert storage.location == str(tmp_path / "data" / "aiostorage" / "aiostorage.db")
    assert (tmp_path / "data" / "aiostorage").is_dir()


# -------------------------------------------------------------------- other people's engines

THIRD_PARTY = """
from aiostorage.drivers.memory import MemoryDriver

class ThirdPartyDriver(MemoryDriver):
    def __init__(self, *, url=None, colour="red"):
        super().__init__()
        self.url, self.colour = url, colour
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    info = folder / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "their_engine.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[aiostorage.drivers]\ntheirs = their_engine:ThirdPartyDriver\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "their_engine", raising=False)


@pytest.mark.usefixtures("installed")
def test_an_installed_engine() -> None:
    assert "theirs" in storage_factory.known()
    driver = driver_of(open_storage("theirs://host/x?y=1", colour="blue"))
    assert type(driver).__module__ == "their_engine"
    assert (driver.url, driver.colour) == ("theirs://host/x?y=1", "blue")
    assert driver_of(storage_factory.create("Theirs")).colour == "red"
    with pytest.raises(ConfigurationError, match="colour"):
        storage_factory.create("theirs", taste="sour")
