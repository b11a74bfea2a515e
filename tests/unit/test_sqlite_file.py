"""What happens under an open SQLite storage: its file is removed, moved, replaced, emptied."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import pytest

from aiostorage import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    Trial,
    open_storage,
)
from aiostorage.drivers.sqlite.file_checks import application_id, check_log, check_place, is_sqlite
from aiostorage.drivers.sqlite.lock_holders import LOCKS, lock_holders
from aiostorage.drivers.sqlite.tables import APPLICATION_ID

pytestmark = pytest.mark.anyio

T = TypeVar("T")

TASKS = 64

needs_locks = pytest.mark.skipif(not LOCKS.exists(), reason="the kernel does not tell its locks")


async def aside(function: Callable[..., T], *arguments: Any) -> T:
    """Call what would block the event loop."""
    return await anyio.to_thread.run_sync(lambda: function(*arguments))


def storage_at(path: Path) -> Storage:
    return open_storage(f"sqlite:///{path}?synchronous=NORMAL")


def trials(experiment: Any, *numbers: int) -> list[Trial]:
    return [Trial(experiment=experiment.id, params={"x": n, "p": "z" * 300}) for n in numbers]


async def numbers_in(path: Path) -> list[Any]:
    """Return what a store has, in order; it must be sound."""

    def check() -> None:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    await aside(check)
    async with storage_at(path) as storage:
        found = await storage.fetch_experiments({})
        return sorted(t.params["x"] for t in await all_trials(storage, found[0]["_id"]))


async def all_trials(storage: Storage, uid: Any) -> list[Trial]:
    found = await storage.fetch_trials(uid=uid)
    assert found is not None
    return found


def parts(path: Path) -> list[Path]:
    """Return the file and its log."""
    return [path, Path(f"{path}-wal"), Path(f"{path}-shm")]


async def refused(storage: Storage, experiment: Any, path: Path) -> None:
    """Check that everything is refused, by an error that is not worth a second attempt."""
    calls: list[Callable[[], Any]] = [
        lambda: storage.register_trial(*trials(experiment, -1)),
        lambda: storage.register_trials(trials(experiment, -2, -3)),
        lambda: storage.reserve_trial(experiment),
        lambda: storage.update_trials(uid=experiment.id, where={}, status="new"),
        lambda: storage.fetch_trials(experiment),
        lambda: storage.fetch_experiments({}),
        lambda: storage.create_experiment({"name": "other"}),
    ]
    for call in calls:
        with pytest.raises(BackendError, match=f"{path.name} was .* while it was open") as caught:
            await call()
        assert not isinstance(caught.value, TemporaryBackendError)
    many: list[Any] = [storage.register_trial(*trials(experiment, -10 - n)) for n in range(20)]
    many += [storage.fetch_trials(experiment) for _ in range(4)]
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BackendError}


# ---------------------------------------------------------------- what can happen to a file


def remove(path: Path) -> None:
    for part in parts(path):
        part.unlink()


def remove_without_log(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(f"{path}.moved")


def move_with_log(path: Path) -> None:
    for part in parts(path):
        part.rename(part.with_name(f"moved-{part.name}"))


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace(path: Path) -> None:
    (path.parent.parent / "backup.db").rename(path)


def replace_with_log(path: Path) -> None:
    remove(path)
    (path.parent.parent / "backup.db").rename(path)


def replace_by_text(path: Path) -> None:
    draft = path.with_name("draft")
    draft.write_text("no database\n" * 1000)
    draft.rename(path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


EVENTS = [
    remove,
    remove_without_log,
    move,
    move_with_log,
    move_directory,
    replace,
    replace_with_log,
    replace_by_text,
    empty,
]


def new_place(event: Callable[[Path], None], path: Path) -> Path | None:
    """Return where an event moves the file."""
    places: dict[Callable[[Path], None], Path] = {
        move: Path(f"{path}.moved"),
        move_with_log: path.with_name(f"moved-{path.name}"),
        move_directory: path.parent.with_name("moved") / path.name,
    }
    return places.get(event)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "tune.db"


@pytest.fixture
async def experiment(path: Path) -> Any:
    """Make a store, and keep a backup of it, which has the trials 1 and 2."""
    async with storage_at(path) as storage:
        found = await storage.create_experiment({"name": "tune"})
        await storage.register_trials(trials(found, 1, 2))
    backup = path.parent.parent / "backup.db"
    await aside(lambda: backup.write_bytes(path.read_bytes()))
    return found


@pytest.mark.parametrize(
    ("event", "written"), [*((event, 390) for event in EVENTS), (remove, 0), (replace, 0)]
)
async def test_refusal(
    path: Path, experiment: Any, event: Callable[[Path], None], written: int
) -> None:
    numbers = range(10, 10 + written)  # more than the backup has, in the log only
    async with storage_at(path) as storage:
        await storage.fetch_trials(experiment)
        await storage.register_trials(trials(experiment, *numbers))
        await aside(event, path)
        there = await aside(path.exists)
        foreign = await aside(path.read_bytes) if event is not empty and there else None
        await refused(storage, experiment, path)
        assert await aside(path.exists) == there
    if event is empty:
        return
    assert await aside(path.exists) == there
    if foreign is not None:
        assert await aside(path.read_bytes) == foreign
    if event in (replace, replace_with_log):
        assert await numbers_in(path) == [1, 2]
    if event is replace_by_text:
        with pytest.raises(NotADatabaseError):
            await storage_at(path).open()
        assert await aside(path.read_bytes) == foreign
    if (moved := new_place(event, path)) is not None:
        assert await numbers_in(moved) == [1, 2, *numbers]


@pytest.mark.parametrize(
    ("event", "tasks"), [*((event, TASKS) for event in EVENTS), (move, 1), (replace, 1)]
)
async def test_while_tasks_write(
    path: Path, experiment: Any, event: Callable[[Path], None], tasks: int
) -> None:
    answered: list[int] = []
    errors: list[AioStorageError] = []

    async def write(storage: Storage, task: int) -> None:
        for number in range(1000 * task + 10, 1000 * task + 1000):
            try:
                await storage.register_trial(*trials(experiment, number))
            except AioStorageError as error:
                errors.append(error)
                return
            answered.append(number)

    async with storage_at(path) as storage:
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(write(storage, task))
            while len(answered) < 3 * tasks:
                await asyncio.sleep(0)
            await aside(event, path)
            before = len(answered)
        # the answers that were on their way when it happened
        assert len(answered) - before <= tasks
        assert [type(error) for error in errors] == [BackendError] * tasks
    if (moved := new_place(event, path)) is not None:
        assert set(answered) <= set(await numbers_in(moved))
    if event in (replace, replace_with_log):
        assert await numbers_in(path) == [1, 2]


async def test_nobody_noticed_until_it_was_closed(path: Path, experiment: Any) -> None:
    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, *range(10, 400)))
        await aside(move, path)
        await aside((path.parent.parent / "backup.db").rename, path)
    assert await numbers_in(path) == [1, 2]
    assert await numbers_in(Path(f"{path}.moved")) == [1, 2, *range(10, 400)]


async def test_overwritten_in_place(path: Path, experiment: Any) -> None:
    """The file is the same, but smaller than it ever was."""
    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, *range(10, 400)))

    def overwrite() -> None:
        with (path.parent.parent / "backup.db").open("rb") as backup:
            subprocess.run(["tee", path], stdin=backup, stdout=subprocess.DEVNULL, check=True)

    async with storage_at(path) as storage:
        await storage.fetch_trials(experiment)
        await aside(overwrite)
        with pytest.raises(BackendError, match="was emptied, cut or overwritten"):
            await storage.register_trial(*trials(experiment, 3))
        with pytest.raises(BackendError, match="was emptied, cut or overwritten"):
            await storage.fetch_trials(experiment)
    assert await numbers_in(path) == [1, 2]


async def test_a_file_that_becomes_smaller_by_itself(path: Path, experiment: Any) -> None:
    def vacuum() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            before = path.stat().st_size
            connection.execute("DELETE FROM trials WHERE seq > 100")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert path.stat().st_size < before

    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, *range(10, 800)))
        await asyncio.sleep(0.15)  # until the file is looked at closely
        await storage.fetch_trials(experiment)
        await aside(vacuum)
        await storage.register_trials(trials(experiment, *range(1000, 1200)))
        assert len(await all_trials(storage, experiment.id)) == 300


@pytest.mark.parametrize("event", [move, move_with_log, move_directory])
async def test_a_file_that_was_put_back(
    path: Path, experiment: Any, event: Callable[[Path], None]
) -> None:
    def back() -> None:
        if event is move_directory:
            path.parent.with_name("moved").rename(path.parent)
        elif event is move:
            Path(f"{path}.moved").rename(path)
        else:
            for part in parts(path):
                part.with_name(f"moved-{part.name}").rename(part)

    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, 3))
        for number in (4, 5):
            await aside(event, path)
            await refused(storage, experiment, path)
            await aside(back)
            await storage.register_trial(*trials(experiment, number))
            found = await asyncio.gather(*(all_trials(storage, experiment.id) for _ in range(4)))
            assert {len(each) for each in found} == {number}
    assert await numbers_in(path) == [1, 2, 3, 4, 5]
    assert await aside(lambda: [p.name for p in path.parent.iterdir()]) == ["tune.db"]


async def test_a_link_that_leads_elsewhere(path: Path, experiment: Any, tmp_path: Path) -> None:
    link, backup = tmp_path / "link.db", tmp_path / "backup.db"
    before = await aside(backup.read_bytes)

    def point_to(target: Path) -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    await aside(point_to, path)
    async with storage_at(link) as storage:
        await storage.register_trials(trials(experiment, 3))
        await aside(point_to, backup)
        await refused(storage, experiment, link)
        await aside(point_to, path)
        await storage.register_trial(*trials(experiment, 4))
        await aside(point_to, backup)
    assert await aside(backup.read_bytes) == before
    assert await numbers_in(path) == [1, 2, 3, 4]
    assert await numbers_in(link) == [1, 2]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_log_that_was_removed(path: Path, experiment: Any, suffix: str) -> None:
    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, 3))
        await aside(Path(f"{path}{suffix}").unlink)
        with pytest.raises(BackendError, match=f"tune.db{suffix}.* was removed or replaced"):
            for number in range(4, 1000):
                await storage.register_trial(*trials(experiment, number))
    assert {1, 2, 3} <= set(await numbers_in(path))


async def test_waiting_ends(path: Path, experiment: Any) -> None:
    async with storage_at(path) as storage:
        await storage.reserve_trials(experiment, 2)
        waiting = asyncio.ensure_future(storage.reserve_trial(experiment, wait=20))
        await asyncio.sleep(0.05)
        await aside(move, path)
        with anyio.fail_after(10), pytest.raises(BackendError, match="was removed or moved"):
            await waiting


async def test_a_pickled_copy_makes_no_new_file(path: Path, experiment: Any) -> None:
    async with storage_at(path) as storage:
        copy: Storage = pickle.loads(pickle.dumps(storage))
        await aside(move_with_log, path)
        try:
            with pytest.raises(BackendError, match="does not exist any more"):
                await copy.fetch_experiments({})
            assert not await aside(path.exists)
        finally:
            await copy.aclose()
    fresh: Storage = pickle.loads(pickle.dumps(storage_at(path)))
    async with fresh:
        assert await fresh.fetch_experiments({}) == []


def test_facade(tmp_path: Path) -> None:
    path = tmp_path / "tune.db"
    with SyncStorage(storage_at(path)) as storage:
        storage.create_experiment({"name": "tune"})
        path.rename(tmp_path / "away.db")
        with pytest.raises(BackendError, match="was removed or moved"):
            storage.create_experiment({"name": "other"})
        with pytest.raises(BackendError, match="was removed or moved"):
            storage.fetch_experiments({})
        assert not path.exists()
        (tmp_path / "away.db").rename(path)
        storage.create_experiment({"name": "other"})
        assert len(storage.fetch_experiments({})) == 2


# --------------------------------------------------------------------- what cannot be opened


async def test_hard_links(path: Path, experiment: Any) -> None:
    other = path.with_name("other.db")
    async with storage_at(path) as storage:
        await aside(other.hardlink_to, path)
        with pytest.raises(ConfigurationError, match="2 names"):
            await storage_at(other).open()
        await storage.register_trial(*trials(experiment, 3))
    with pytest.raises(ConfigurationError, match="2 names"):
        await storage_at(path).open()
    await aside(other.unlink)
    assert await numbers_in(path) == [1, 2, 3]


def test_a_file_that_is_mounted(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    path = tmp_path / "store.db"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /x rw\n23 22 8:1 / {path} rw - ext4 /x rw\n")
    with pytest.raises(ConfigurationError, match="mount the directory"):
        check_place(path, mounts)
    check_place(tmp_path / "other.db", mounts)


async def test_no_file(tmp_path: Path) -> None:
    await aside(os.mkfifo, tmp_path / "fifo")
    await aside((tmp_path / "loop").symlink_to, tmp_path / "loop")
    for path in (tmp_path / "fifo", tmp_path / "loop", tmp_path / "loop" / "x", Path("/dev/null")):
        with anyio.fail_after(10), pytest.raises(ConfigurationError):
            await storage_at(path).open()


async def test_the_log_is_no_database(path: Path, experiment: Any) -> None:
    async with storage_at(path) as storage:
        for suffix in ("-wal", "-shm"):
            with pytest.raises(ConfigurationError, match="part of another"):
                await storage_at(Path(f"{path}{suffix}")).open()
        await storage.register_trial(*trials(experiment, 3))


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
async def test_no_database_has_the_name_of_a_log(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"store.db{suffix}"
    link = tmp_path / "link.db"
    await aside(link.symlink_to, path)
    for name in (path, link):
        with pytest.raises(ConfigurationError, match="the name of a log"):
            await storage_at(name).open()
    assert not await aside(path.exists)


async def test_a_link_to_a_new_file(tmp_path: Path) -> None:
    link, file = tmp_path / "link.db", tmp_path / "file.db"
    await aside(link.symlink_to, file)
    async with storage_at(link) as storage:
        await storage.create_experiment({"name": "tune"})
        modes = await aside(lambda: {p.stat().st_mode & 0o777 for p in parts(file)})
    assert modes == {0o600}


@needs_locks
async def test_a_log_that_is_in_use_for_another_file(path: Path, experiment: Any) -> None:
    """Neither a restored backup nor a new file may be opened with it."""
    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, *range(10, 400)))
        await aside(move, path)
        with pytest.raises(BackendError, match=f"in use .* process {os.getpid()}"):
            await storage_at(path).open()
        assert not await aside(path.exists)
        await aside((path.parent.parent / "backup.db").rename, path)
        with pytest.raises(BackendError, match=f"in use .* process {os.getpid()}"):
            await storage_at(path).open()
    assert await numbers_in(path) == [1, 2]


@needs_locks
async def test_a_file_that_is_in_use_by_its_former_name(path: Path, experiment: Any) -> None:
    moved = Path(f"{path}.moved")
    async with storage_at(path) as storage:
        await storage.register_trials(trials(experiment, *range(10, 400)))
        await aside(move, path)
        with pytest.raises(BackendError, match=f"by another name: by process {os.getpid()}"):
            await storage_at(moved).open()
    assert await numbers_in(moved) == [1, 2, *range(10, 400)]


# ------------------------------------------------------------- what SQLite alone may open


def test_application_id(tmp_path: Path) -> None:
    def made(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    async def make() -> None:
        async with storage_at(tmp_path / "ours.db"):
            pass

    asyncio.run(make())
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert application_id(tmp_path / "ours.db") == APPLICATION_ID
    assert application_id(tmp_path / "theirs.db") == 0
    assert application_id(made("empty", b"")) == 0
    assert application_id(made("text", b"text" * 1000)) is None
    assert application_id(tmp_path / "missing") is None
    assert not is_sqlite(tmp_path / "text")
    assert is_sqlite(made("ours.db-shm", b"text" * 1000))
    assert not is_sqlite(made("nobody.db-shm", b"text" * 1000))


def test_lock_holders(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    locks.write_text(
        "1: POSIX  ADVISORY  READ  1234 08:01:77 1073741826 1073742335\n"
        "1: -> POSIX  ADVISORY  WRITE 99 08:01:77 1073741824 1073742335\n"
        "2: FLOCK  ADVISORY  WRITE 88 08:01:77 0 EOF\n"
        "3: OFDLCK ADVISORY  WRITE -1 08:01:77 0 EOF\n"
        "4: POSIX  ADVISORY  WRITE 1235 fd:0a:77 0 EOF\n"
        "5: POSIX  ADVISORY  READ  1236 08:01:77 128 128\n"
        "nonsense\n"
    )
    holders = lock_holders(locks)
    assert holders is not None
    first, second = (77, os.makedev(8, 1)), (77, os.makedev(0xFD, 10))
    assert holders.all == {first: {1234, 1236}, second: {1235}}
    assert holders.sharing == {first: {1234, 1236}}
    assert lock_holders(tmp_path / "missing") is None
    check_log(tmp_path / "new.db", tmp_path / "missing")
    (tmp_path / "new.db-shm").touch()
    check_log(tmp_path / "new.db", tmp_path / "missing")


async def test_a_damaged_page_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with storage_at(path) as storage:
        await storage.create_experiment({"name": "a"})
    content = await aside(path.read_bytes)
    await aside(path.write_bytes, content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(NotADatabaseError, match=re.escape(str(path))):
        async with storage_at(path) as storage:
            await storage.fetch_experiments({})
