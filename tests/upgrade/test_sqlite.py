"""The upgrade of SQLite files, among them one that aiostorage 0.1.0 has made."""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import (
    BackendError,
    ConfigurationError,
    DuplicateKeyError,
    EncodingError,
    NotADatabaseError,
    SchemaVersionError,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    open_storage,
    upgrade_storage,
)
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.schema_changes import schema_of
from aiostorage.engine import (
    Compare,
    Document,
    Find,
    Insert,
    Layout,
)
from aiostorage.factory import StorageFactory
from tests.cli.support import environment

from .layout_1.content import content_of
from .support import MORE, NEW, OLD, call, compressed, expected, step

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file that 0.1.0 has made."""
    made = tmp_path / "tune.db"
    made.write_bytes(compressed("store.db.gz"))
    made.chmod(0o640)
    return made


def rows_of(path: Path) -> Rows:
    """Read all columns of layout 1 of all tables, and the version."""
    with closing(sqlite3.connect(path)) as connection:
        found = {
            table: connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            for table, columns in COLUMNS.items()
        }
        found["version"] = connection.execute("PRAGMA user_version").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return found


COLUMNS = {
    "experiments": ("seq", "_id", "name", "version", "doc"),
    "trials": (
        *("seq", "_id", "experiment", "id", "status", "worker"),
        *("submit_time", "start_time", "end_time", "heartbeat", "doc"),
    ),
    "algo": (
        *("seq", "_id", "experiment", "locked", "owner", "since", "expires", "heartbeat"),
        *("state", "doc"),
    ),
    "benchmarks": ("seq", "_id", "name", "doc"),
    "lock_waiters": ("seq", "_id", "experiment", "since", "expires", "doc"),
    "test": ("seq", "_id", "doc"),
}


def content(path: Path) -> Any:
    async def main() -> Any:
        async with open_storage(f"sqlite:///{path}") as storage:
            return await content_of(storage)

    return anyio.run(main)


def schema(path: Path) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        found = schema_of(connection)
    return {name: sorted(columns) for name, columns in found.columns.items()}, found.others


# ------------------------------------------------------------------------------- before it


def test_before_it_the_error_names_the_command(path: Path) -> None:
    before = path.read_bytes()

    async def opened() -> None:
        async with open_storage(f"sqlite:///{path}"):
            pass

    with pytest.raises(SchemaVersionError) as raised:
        anyio.run(opened)
    command = f"aiostorage upgrade sqlite:///{path}"
    assert str(raised.value) == (
        f"{path} has layout 1, this aiostorage needs 2; end all workers that use it, and run: "
        f"{command}"
    )
    storage = SyncStorage(open_storage(f"sqlite:///{path}"))
    with pytest.raises(SchemaVersionError):
        storage.fetch_experiments({})
    storage.close()
    commands: list[tuple[str, ...]] = [("status", f"sqlite:///{path}")]
    if find_spec("orion") is not None:  # it does not run on newer Pythons
        commands.append(("export-orion", f"sqlite:///{path}", "out.pkl"))
    for arguments in commands:
        done = call(*arguments)
        assert done.exit_code == 2
        assert done.stderr.rstrip().endswith(command)
    assert path.read_bytes() == before


def test_the_command_can_be_pasted(path: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b" / "50% #1?'s.db"
    odd.parent.mkdir()
    path.rename(odd)

    async def opened() -> None:
        async with Storage(SQLiteDriver(odd)):
            pass

    with pytest.raises(SchemaVersionError) as raised:
        anyio.run(opened)
    program, *arguments = shlex.split(str(raised.value).partition("run: ")[2])
    assert program == "aiostorage"
    assert call(*arguments).exit_code == 0
    anyio.run(opened)


# ----------------------------------------------------------------------------- the upgrade


def test_everything_is_in_it_afterwards(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    assert before["version"] == [(1,)]
    done = call("upgrade", f"sqlite:///{path}")
    assert (done.exit_code, done.stderr) == (0, "")
    backup = tmp_path / "tune.db.layout-1"
    twice = next(r for r in before["experiments"] if r[2] == "twice" and r[3] is None)
    assert done.stdout.splitlines() == [
        f"the old state is in {backup}",
        "4 experiments without a version get version 1",
        (
            f"the experiment 'twice' without a version ({twice[1]}) gets version 2: "
            "another 'twice' has version 1"
        ),
        f"{path}: upgraded from layout 1 to 2",
    ]
    assert content(path) == expected("sqlite.json")
    after = rows_of(path)
    assert after["version"] == [(2,)]
    for table in ("trials", "algo", "benchmarks", "lock_waiters", "test"):
        assert after[table] == before[table]
    assert rows_of(backup) == before
    assert stat.S_IMODE(backup.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tune.db", "tune.db.layout-1"]

    again = call("upgrade", f"sqlite:///{path}")
    assert again.exit_code == 0
    assert again.stdout == f"{path} is up to date: it has layout 2\n"
    assert rows_of(path) == after


def test_it_has_the_schema_of_a_new_file(path: Path, tmp_path: Path) -> None:
    assert call("upgrade", f"sqlite:///{path}", "--no-backup").exit_code == 0
    new = tmp_path / "new.db"
    content(new)
    assert schema(path) == schema(new)


def test_work_goes_on_in_it(path: Path) -> None:
    async def main() -> None:
        await upgrade_storage(f"sqlite:///{path}")
        async with open_storage(f"sqlite:///{path}") as storage:
            [root] = await storage.fetch_experiments({"name": "tune", "version": 1})
            left = await storage.fetch_pending_trials(root)
            assert left
            for _ in left:
                trial = await storage.reserve_trial(root)
                assert trial is not None
                await storage.complete_trial(trial, 1.0)
            [old] = await storage.fetch_experiments({"name": "held long ago"})
            async with storage.acquire_algorithm_lock(old, timeout=5) as algorithm:
                assert algorithm.state == {"n": 3}
                algorithm.set_state({"n": 4})
            await storage.create_experiment({"name": "new"})

    anyio.run(main)


def test_nothing_is_changed_in_a_dry_run(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    with closing(sqlite3.connect(path)) as worker:  # it may go on
        worker.execute("SELECT count(*) FROM trials").fetchone()
        done = call("upgrade", f"sqlite:///{path}", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == f"{path}: would be upgraded from layout 1 to 2"
    assert "gets version 2" in done.stdout
    assert "the old state" not in done.stdout
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tune.db"]


def test_a_worker_that_lives_is_in_the_way(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    url = f"sqlite:///{path}?busy_timeout=0.1"
    with closing(sqlite3.connect(path)) as worker:
        worker.execute("SELECT count(*) FROM trials").fetchone()
        with pytest.raises(TemporaryBackendError, match="end all workers"):
            anyio.run(upgrade_storage, url)
        done = call("upgrade", url)
        assert done.exit_code == 3
        assert f"another process has {path} open: end all workers" in done.stderr
        worker.execute("UPDATE trials SET worker = worker")  # it is not disturbed
        worker.rollback()
    assert rows_of(path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["tune.db"]
    anyio.run(upgrade_storage, url)


def test_several_upgrades_at_the_same_time(path: Path, tmp_path: Path) -> None:
    reports = []

    async def upgrade() -> None:
        reports.append(await upgrade_storage(f"sqlite:///{path}"))

    async def several() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(upgrade)

    anyio.run(several)
    assert sum(report.needed for report in reports) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tune.db", "tune.db.layout-1"]


def test_what_is_in_the_log_comes_along(path: Path, tmp_path: Path) -> None:
    """A worker that was killed leaves a log beside the file."""
    left = tmp_path / "left"
    left.mkdir()
    with closing(sqlite3.connect(path)) as worker:
        worker.execute("UPDATE trials SET worker = 'the last write'")
        worker.commit()
        for name in ("tune.db", "tune.db-wal"):
            shutil.copy(tmp_path / name, left / name)
    assert call("upgrade", f"sqlite:///{left}/tune.db").exit_code == 0
    for name in ("tune.db", "tune.db.layout-1"):
        assert {row[5] for row in rows_of(left / name)["trials"]} == {"the last write"}


def test_a_file_without_a_log_mode(path: Path) -> None:
    before = rows_of(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    assert call("upgrade", f"sqlite:///{path}").exit_code == 0
    assert rows_of(path.with_name("tune.db.layout-1")) == before
    assert content(path) == expected("sqlite.json")


# ------------------------------------------------------------------------------- the backup


def test_the_place_of_the_backup(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    (tmp_path / "copy.db.part").write_text("of one that was killed")
    done = call("upgrade", f"sqlite:///{path}", "--backup", str(tmp_path / "copy.db"))
    assert f"the old state is in {tmp_path / 'copy.db'}" in done.stdout
    assert rows_of(tmp_path / "copy.db") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "tune.db"]


def test_no_backup(path: Path, tmp_path: Path) -> None:
    done = call("upgrade", f"sqlite:///{path}", "--no-backup")
    assert done.exit_code == 0
    assert "the old state" not in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["tune.db"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_backup_overwrites_nothing(path: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    before = rows_of(path)
    there = tmp_path / "tune.db.layout-1"
    there.write_text("precious")
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nothing")
    url = f"sqlite:///{path}"
    for options in ((), ("--backup", str(there)), ("--backup", str(dangling))):
        done = call("upgrade", url, *options, *more)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "exists already, and a backup overwrites nothing" in done.stderr
    long = call("upgrade", url, "--backup", str(tmp_path / ("a" * 253)))
    assert long.exit_code == 2
    assert "has 253 bytes" in long.stderr
    done = call("upgrade", url, "--backup", str(tmp_path / "none" / "copy.db"), *more)
    assert "does not exist; create it first" in done.stderr
    assert "exclude each other" in call("upgrade", url, "--no-backup", "--backup", "x").stderr
    assert there.read_text() == "precious"
    assert rows_of(path) == before


def test_where_there_are_no_links(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = rows_of(path)
    monkeypatch.setattr(os, "link", refused)
    anyio.run(upgrade_storage, f"sqlite:///{path}")
    assert rows_of(tmp_path / "tune.db.layout-1") == before


def test_a_backup_that_fails_leaves_the_file(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    code = (
        "import resource, signal, sys, anyio, aiostorage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"  # Python 3.11 would leave the half of a module's
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    anyio.run(aiostorage.upgrade_storage, sys.argv[1])\n"
        "except aiostorage.BackendError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{path}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == BackendError.__name__
    assert rows_of(path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["tune.db"]


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (None, ConfigurationError, "there is no file"),
        (b"", NotADatabaseError, "is not a database of aiostorage"),
        (b"this is a text file and no database" * 100, NotADatabaseError, "not a SQLite database"),
        (pickle.dumps({"experiments": []}), NotADatabaseError, "pickle"),
    ],
)
def test_other_files(
    tmp_path: Path, content: bytes | None, error: type[Exception], says: str
) -> None:
    path = tmp_path / "tune.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=says):
        anyio.run(upgrade_storage, f"sqlite:///{path}")
    done = call("upgrade", f"sqlite:///{path}")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["tune.db"] * (content is not None)
    assert content is None or path.read_bytes() == content


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(NotADatabaseError, match="something else"):
        anyio.run(upgrade_storage, f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_newer_layout(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaVersionError, match="newer aiostorage"):
        anyio.run(upgrade_storage, f"sqlite:///{path}")
    assert rows_of(path)["version"] == [(99,)]


def test_memory_has_nothing_to_upgrade() -> None:
    done = call("upgrade", "memory://")
    assert (done.exit_code, done.stdout) == (0, "memory://: nothing to upgrade\n")


def test_an_engine_without_an_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        name = "other"

    monkeypatch.setattr(StorageFactory, "driver", lambda *_: Other())
    with pytest.raises(ConfigurationError, match="the engine other has no upgrade"):
        anyio.run(upgrade_storage, "other://")


# ----------------------------------------------------------------------------------- killed


def test_it_tells_what_it_does(path: Path) -> None:
    told: list[str] = []
    anyio.run(partial(upgrade_storage, f"sqlite:///{path}", progress=told.append))
    assert "copying the file: 100 %" in told
    assert "changing the documents to layout 2" in told


def test_killed_at_any_moment(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    copies = tmp_path / "copies"
    copies.mkdir()
    worker = Path(__file__).with_name("worker_kill.py")
    subprocess.run(
        [sys.executable, "-W", "ignore", worker, "sqlite", path, copies],
        env=environment(),
        timeout=100,
        check=True,
    )
    files = {int(file.stem): file for file in copies.glob("*.db")}
    assert len(files) > 12
    versions = []
    after = rows_of(files[max(files)])
    for number in sorted(files):
        found = rows_of(files[number])
        assert found in (before, after)
        backup = files[number].with_name(f"{number}.db.layout-1")
        assert rows_of(backup) == before if backup.exists() else found == before
        versions += found["version"]
    assert versions == sorted(versions)
    assert set(versions) == {(1,), (2,)}
    killed = files[sorted(files)[versions.index((2,)) - 1]]  # the last one that was not upgraded
    killed.with_name(f"{killed.name}.layout-1").unlink(missing_ok=True)
    anyio.run(upgrade_storage, f"sqlite:///{killed}")
    assert content(killed) == expected("sqlite.json")


# ---------------------------------------------------------- what a layout may add, whatever it is


@pytest.mark.anyio
async def test_columns_tables_indexes_and_steps(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    documents: list[Document] = [
        {"_id": n, "group": f"g{n}", "at": moment, "rank": 2000 - n, "seen": moment}
        for n in range(1, 1200)
    ]
    documents[0]["rank"] = documents[0]["seen"] = None
    del documents[1]["rank"]
    path = tmp_path / "things.db"
    driver = SQLiteDriver(path)
    await driver.open(OLD)
    await driver.execute(Insert("things", tuple(dict(d) for d in documents)))
    await driver.aclose()

    def add_an_index() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE INDEX theirs ON things (at)")

    await anyio.to_thread.run_sync(add_an_index)
    report = await SQLiteDriver(path).upgrade(NEW, (step(4), step(3), step(2), step(1)))
    assert (report.found, report.version, report.notes) == (1, 3, ("step 2", "step 3"))
    assert report.backup == tmp_path / "things.db.layout-1"
    await driver.open(NEW)
    expected = [{**d, "v2": len(d), "v3": len(d) + 2, "done": 1} for d in documents]
    assert await driver.execute(Find("things")) == expected
    assert await driver.execute(Find("things", Compare("rank", "eq", 1500))) == expected[499:500]
    ordered = await driver.execute(Find("things", order=("rank",), limit=3))
    assert ordered == [*expected[:2], expected[-1]]
    assert await driver.execute(Find("things", Compare("seen", "eq", None))) == expected[:1]
    with pytest.raises(DuplicateKeyError):
        await driver.execute(Insert("things", ({"_id": 0, "group": "g7", "done": 1},)))
    await driver.aclose()
    fresh = SQLiteDriver(tmp_path / "fresh.db")
    await fresh.open(NEW)
    await fresh.aclose()

    def compare() -> None:
        columns, others = schema(path)
        assert others.pop("theirs")
        assert (columns, others) == schema(tmp_path / "fresh.db")

    await anyio.to_thread.run_sync(compare)


@pytest.mark.anyio
async def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    driver = SQLiteDriver(path)
    documents = ({"_id": 1, "group": "g", "rank": 1}, {"_id": 2, "group": "g", "rank": [2]})
    await driver.open(OLD)
    await driver.execute(Insert("things", documents))
    await driver.aclose()
    for layout, error in (
        (NEW, BackendError),  # a group is there twice
        (Layout(2, (replace(MORE, indexes=()),)), EncodingError),  # a list is no key
    ):
        with pytest.raises(error):
            await SQLiteDriver(path).upgrade(layout, (), backup=False)
        await driver.open(OLD)
        assert await driver.execute(Find("things")) == list(documents)
        await driver.aclose()
