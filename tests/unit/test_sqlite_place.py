"""Where a SQLite store can be, and what may stand there already."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import stat
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from aiostorage import (
    ConfigurationError,
    EncodingError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
    Storage,
    upgrade_storage,
)
from aiostorage._core.file_places import NETWORK, filesystem_of
from aiostorage._core.layout import LAYOUT
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.file_checks import check_place
from aiostorage.drivers.sqlite.sqlite_errors import translated
from aiostorage.drivers.sqlite.tables import APPLICATION_ID

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
30 22 0:40 / /home rw,relatime shared:20 master:3 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/local rw - xfs /dev/sdb rw
32 22 0:41 / /with\040space rw - cifs //server/share rw
33 22 0:42 / /over rw - ext4 /dev/sdc rw
34 33 0:43 / /over rw - fuse.sshfs me@host:/ rw
damaged line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/home/me/local", "xfs"),
        ("/home/me/local/deep/er", "xfs"),
        ("/home/me/locality", "nfs4"),
        ("/homes", "ext4"),
        ("/with space/x", "cifs"),
        ("/over/x", "fuse.sshfs"),
        ("/proc/1", "proc"),
    ],
)
def test_file_system_of(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTINFO) == kind


def test_file_system_of_nowhere() -> None:
    assert filesystem_of(Path("/x"), "") is None


@pytest.mark.parametrize("kind", sorted(NETWORK))
def test_network_file_systems_are_refused(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - {kind} server:/x rw\n")
    with pytest.raises(ConfigurationError, match=kind):
        check_place(tmp_path / "store.db", mounts)
    assert not (tmp_path / "store.db").exists()


def test_local_file_systems_are_not(tmp_path: Path) -> None:
    check_place(tmp_path / "store.db")
    check_place(tmp_path / "store.db", tmp_path / "no mountinfo here")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    check_place(link / "store.db")


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        check_place(tmp_path / "no" / "store.db")
    with pytest.raises(ConfigurationError, match="a ~ is not replaced"):
        check_place(tmp_path / "~" / "store.db")


def test_missing_directory_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "no" / "store.db")
    with pytest.raises(ConfigurationError, match="no does not exist"):
        check_place(link)
    (tmp_path / "no").touch()
    with pytest.raises(ConfigurationError, match="no is not a directory"):
        check_place(link)


def test_directories(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        check_place(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="not a directory"):
        check_place(tmp_path / "file" / "store.db")


def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    path.touch(0o400)
    # root may do everything, so answer as for a user who may not
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionDenied, match=r"store\.db"):
        check_place(path)

    def denied(self: Path, **_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "resolve", denied)
    with pytest.raises(PermissionDenied, match="Permission denied"):
        check_place(path)


def use(path: Path) -> list[dict[str, Any]]:
    """Open a store, read from it, and close it."""

    async def main() -> list[dict[str, Any]]:
        storage = Storage(SQLiteDriver(path))
        try:
            return await storage.fetch_experiments({})
        finally:
            await storage.aclose()

    return asyncio.run(main())


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    modes: dict[str, int] = {}

    def look() -> None:
        modes.update({f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()})

    async def main() -> None:
        async with Storage(SQLiteDriver(path)):
            await anyio.to_thread.run_sync(look)

    asyncio.run(main())
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (LAYOUT.version,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    assert use(path) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"this is a text file and no database" * 100, "not a SQLite database"),
        (b"x", "but a text file"),  # a single byte is nothing to SQLite
        (b"\n", "but a text file"),
        (b"xx", "not a SQLite database but a text file"),
        (b"x" * 511, "not a SQLite database"),
        (b"x" * 512, "not a SQLite database"),
        (pickle.dumps({"experiments": []}), "pickle"),
        (b"SQLite format 3\0" + b"garbage" * 200, "a damaged SQLite database.* 1,416 bytes"),
        (b"SQLite format 3\0", "a damaged SQLite database"),
        (b"PK\x03\x04" + bytes(100), "but a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(100), "but a gzip file"),
        (b"\xff\xfeh\0i\0" * 99, "but UTF-16 text"),
        (bytes(5000), "but a file of zero bytes"),
        (bytes(range(256)) * 20, "but a binary file"),
        ("é".encode() * 2047 + b"x" + "é".encode() * 9, "but a text file"),  # cut in a character
        (b'[{"dtype": "project", "uid": "a"}]', "but a Track file.* open it with track:////"),
    ],
)
def test_no_database(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(NotADatabaseError, match=says):
        use(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def test_a_database_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    use(path)
    whole = path.read_bytes()
    for length in (50, 100, 4096, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(NotADatabaseError, match=f"damaged SQLite database.* {length:,} bytes"):
            use(path)
        with pytest.raises(NotADatabaseError, match="damaged SQLite database"):
            asyncio.run(upgrade_storage(f"sqlite:///{path}"))
        assert path.read_bytes() == whole[:length]


def made_by_hand(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE theirs (x)",),
        ("PRAGMA application_id = 7",),
        ("CREATE TABLE experiments (x)", "PRAGMA user_version = 1"),
    ],
)
def test_databases_of_others(tmp_path: Path, statements: tuple[str, ...]) -> None:
    path = tmp_path / "store.db"
    made_by_hand(path, *statements)
    before = path.read_bytes()
    with pytest.raises(NotADatabaseError, match="something else"):
        use(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "says"),
    [(LAYOUT.version + 1, "newer aiostorage"), (0, "aiostorage upgrade sqlite:///")],
)
def test_other_schemas(tmp_path: Path, version: int, says: str) -> None:
    path = tmp_path / "store.db"
    use(path)
    made_by_hand(path, f"PRAGMA user_version = {version}")
    with pytest.raises(SchemaVersionError, match=says):
        use(path)


def test_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    use(path)
    path.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(PermissionDenied):
        use(path)


def test_a_storage_that_could_not_be_opened_can_be_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.db"
    storage = Storage(SQLiteDriver(path))

    async def main() -> None:
        with pytest.raises(ConfigurationError):
            await storage.fetch_experiments({})
        await anyio.to_thread.run_sync(path.parent.mkdir)
        assert await storage.fetch_experiments({}) == []
        await storage.aclose()

    asyncio.run(main())


def test_a_record_that_is_too_large_for_sqlite() -> None:
    connection = sqlite3.connect(":memory:")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    with pytest.raises(sqlite3.DataError) as caught:
        connection.execute("SELECT zeroblob(2000)").fetchall()
    connection.close()
    error = translated(caught.value)
    assert isinstance(error, EncodingError)
    assert "1,000,000,000 bytes that SQLite holds" in str(error)
