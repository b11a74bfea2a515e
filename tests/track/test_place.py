"""Where a Track file may be, and what is not a Track file: it is left as it is."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from aiostorage import (
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
    TemporaryBackendError,
    open_storage,
    storage_factory,
    upgrade_storage,
)
from aiostorage.errors import AioStorageError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("may_block")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tune.json"


def project(**fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "dtype": "project",
        "uid": "p",
        "name": "p",
        "description": None,
        "metadata": {},
    }
    return {**known, "trials": [], "groups": [], **fields}


def group(uid: str) -> dict[str, Any]:
    return {"uid": uid, "metadata": {"name": "n", "version": 1}}


def section(**fields: Any) -> dict[str, Any]:
    return project(uid="aiostorage", metadata={"aiostorage": {"layout": 2, **fields}})


async def refusal(path: Path, kind: type[AioStorageError]) -> str:
    """Return the message with which a path is refused, by opening it and by a read."""
    with pytest.raises(kind) as raised:
        async with open_storage(f"track:///{path}") as storage:
            await storage.fetch_experiments({})
    assert str(path.parent) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1, column 2"),
        ('[{"dtype": "project",\n "uid": "p", ]', "line 2, column "),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "a JSON dict where a list of projects is due"),
        ("[1]", "entry 1 is none of a project, a group and a trial"),
        ('[{"name": "Ann"}]', "entry 1 is none of"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (json.dumps([project(), project()]), "there are two projects 'p'"),
        (json.dumps([project(trials={})]), "the trials of project 'p' are not a list"),
        (json.dumps([project(trials=[{"uid": "a_0"}, 3])]), "number 2 of the trials"),
        (json.dumps([project(trials=[{}])]), "a trial of project 'p' has no uid"),
        (json.dumps([project(groups=[{"uid": "a"}, {"uid": "a"}])]), "there are two of group a"),
        (
            json.dumps(
                [
                    project(
                        groups=[{"uid": u, "metadata": {"name": "n", "version": 1}} for u in "ab"]
                    )
                ]
            ),
            "is damaged",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_files_of_something_else(path: Path, text: str | bytes, message: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    assert message in await refusal(path, NotADatabaseError)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SQLite format 3\0" + bytes(range(256)), "but a SQLite database, .* sqlite:////"),
        (b"PK\x03\x04\x14\xff", "but a ZIP archive"),
        (b"name: tune\n", "but a text file, and was left as it is: line 1, column 1"),
        (b"\x80\x04\x95", "but a pickle"),
        (bytes(4096), "but a file of zero bytes"),
        (b'[{"dtype": "project"', "not a Track file, and was left as it is: line 1"),
    ],
)
async def test_files_are_named_as_what_they_are(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    assert re.search(message, await refusal(path, NotADatabaseError))
    assert path.read_bytes() == data


async def test_it_is_damaged_while_it_is_in_use(path: Path) -> None:
    async with open_storage(f"track:///{path}") as storage:
        experiment = await storage.create_experiment({"name": "e"})
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        for call in (storage.fetch_experiments({}), storage.update_experiment(experiment, a=1)):
            with pytest.raises(NotADatabaseError, match="not a Track file"):
                await call
        assert path.read_bytes() == whole[:100]
        path.write_bytes(b"")
        with pytest.raises(NotADatabaseError, match="not a Track file"):
            await storage.update_experiment(experiment, a=1)
        path.unlink()
        with pytest.raises(BackendError, match="is gone"):
            await storage.update_experiment(experiment, a=1)
        assert not path.exists()
        path.write_bytes(whole)  # it was put back
        assert await storage.update_experiment(experiment, a=1)


async def test_layouts_of_other_versions(path: Path) -> None:
    path.write_text(json.dumps([section(layout=3)]))
    assert "newer aiostorage" in await refusal(path, SchemaVersionError)
    path.write_text(json.dumps([section(layout="x")]))
    assert "newer aiostorage" in await refusal(path, SchemaVersionError)
    path.write_text(json.dumps([section(layout=1)]))
    assert f"aiostorage upgrade track:///{path}" in await refusal(path, SchemaVersionError)


async def test_an_upgrade(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        await upgrade_storage(f"track:///{path}")
    first = {"uid": "g", "metadata": {"name": "e"}}
    old = json.dumps([project(groups=[first]), section(layout=1)])
    path.write_text(old)
    report = await upgrade_storage(f"track:///{path}", dry_run=True)
    assert (report.found, report.version, report.needed) == (1, 2, True)
    assert path.read_text() == old
    report = await upgrade_storage(f"track:///{path}")
    assert report.backup is not None
    assert report.backup.read_text() == old
    assert report.notes
    async with open_storage(f"track:///{path}") as storage:
        (experiment,) = await storage.fetch_experiments({})
        assert (experiment["name"], experiment["version"]) == ("e", 1)
    assert not (await upgrade_storage(f"track:///{path}")).needed
    path.write_text(old)
    with pytest.raises(ConfigurationError, match="overwrites no file"):
        await upgrade_storage(f"track:///{path}")
    assert path.read_text() == old


async def test_places_where_no_file_can_be(path: Path, tmp_path: Path) -> None:
    assert "name a file" in await refusal(tmp_path, ConfigurationError)
    assert "does not exist" in await refusal(tmp_path / "no" / "no.json", ConfigurationError)
    assert "a ~ is not replaced" in await refusal(tmp_path / "~" / "no.json", ConfigurationError)
    os.mkfifo(path)
    assert "not a regular file" in await refusal(path, ConfigurationError)
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    assert "leads to no file" in await refusal(loop, ConfigurationError)
    file = tmp_path / "file.json"
    file.write_text("[]")
    (tmp_path / "other.json").hardlink_to(file)
    assert "2 names (hard links)" in await refusal(file, ConfigurationError)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        async with open_storage("track:////dev/null"):
            pass


async def test_links_and_modes_stay(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "data.json"
    target.parent.mkdir()
    path.symlink_to(target)  # which is not there yet
    async with open_storage(f"track:///{path}") as storage:
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        target.chmod(0o640)
        await storage.create_experiment({"name": "e"})
        if os.geteuid() == 0:
            os.chown(target, 12345, 12345)
            await storage.create_experiment({"name": "f"})
            assert (target.stat().st_uid, target.stat().st_gid) == (12345, 12345)
    assert path.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(p.name for p in target.parent.iterdir()) == ["data.json", "data.json.lock"]


async def test_an_empty_file_becomes_a_new_one(path: Path) -> None:
    path.touch(0o644)
    async with open_storage(f"track:///{path}") as storage:
        await storage.create_experiment({"name": "e"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_what_killed_writers_left_is_deleted(path: Path) -> None:
    async with open_storage(f"track:///{path}"):
        pass
    left = path.with_name(f".{path.name}.aiostorage-123.tmp")
    left.write_text("[")
    other = path.with_name(f".{path.name}.mine.tmp")
    other.write_text("[")
    async with open_storage(f"track:///{path}") as storage:
        await storage.create_experiment({"name": "e"})
    assert not left.exists()
    assert other.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_may_only_be_read(path: Path) -> None:
    async with open_storage(f"track:///{path}") as storage:
        experiment = await storage.create_experiment({"name": "e"})
    path.parent.chmod(0o500)
    try:
        async with open_storage(f"track:///{path}") as storage:
            assert len(await storage.fetch_experiments({})) == 1
            with pytest.raises(PermissionDenied):
                await storage.update_experiment(experiment, a=1)
    finally:
        path.parent.chmod(0o700)


async def test_a_full_disk_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiostorage import RetryPolicy

    async with open_storage(f"track:///{path}", retry=RetryPolicy(attempts=1)) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(TemporaryBackendError, match="No space left"):
                await storage.update_experiment(experiment, a=1)
        assert path.read_bytes() == before
        assert len(list(path.parent.iterdir())) == 2
        assert await storage.fetch_experiments({"a": 1}) == []
        assert await storage.update_experiment(experiment, a=2)


def full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "which file"),
        ({"path": "a", "uri": "file://b"}, "uri and path, which is too much"),
        ({"uri": "http://a/b"}, "names no file"),
        ({"uri": "file://"}, "names no file"),
        ({"url": "track:///"}, "names no file"),
        ({"url": "track://host/a"}, "a relative path has three slashes"),
        ({"url": "track:///a.json?speed=1"}, "unknown speed; the options are objective"),
        ({"url": "track:///a.json#b"}, "write %23"),
        ({"url": "track:///a.json?objective="}, "the name of a metric, not ''"),
        ({"url": "track:///a.json?busy_timeout=soon"}, "a number of seconds, not 'soon'"),
        ({"path": "a.json", "busy_timeout": -1}, "a number of seconds, not -1"),
        ({"path": "a.json", "colour": "red"}, "its options are"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        storage_factory.create("track", **options)


async def test_a_pickled_copy_opens_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("track:///tune.json?objective=loss")
    copy = pickle.loads(pickle.dumps(storage))
    monkeypatch.chdir("/")
    async with copy:
        await copy.create_experiment({"name": "e"})
    assert (tmp_path / "tune.json").exists()


async def test_an_unclosed_storage_is_warned_of(path: Path) -> None:
    storage = open_storage(f"track:///{path}")
    await storage.create_experiment({"name": "e"})
    with pytest.warns(ResourceWarning, match="was not closed"):
        del storage
