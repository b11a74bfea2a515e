"""Files that are damaged on purpose: what is found, what is repaired, and what stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from aiostorage import Experiment, Storage, open_storage
from aiostorage._core.files import places
from aiostorage.doctor import examination, examine, repair
from aiostorage.testing.contract.change_feed_laws import check_chains
from tests.doctor.stores import codes_of, documents_in, fill, trial

OLD = "2020-01-01T00:00:00.000000Z"
"""A time long ago, as a column has it."""


@dataclass(frozen=True)
class Damage:
    """Something that can be wrong with a file.

    Attributes
    ----------
    code
        What is to be found, and nothing else that is wrong.
    inflict
        SQL, or a function of the path.
    repairable
        Whether a repair puts it right.
    changed
        The collections in which the repair changes documents; all others are as before the damage.
    """

    code: str
    inflict: str | Callable[[Path], None]
    repairable: bool = True
    changed: frozenset[str] = frozenset()


def _flip(path: Path) -> None:
    """Overwrite a page in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 9 * 4096] = os.urandom(4096)
    path.write_bytes(data)


def _unfinished(path: Path) -> None:
    part = path.with_name(f"{path.name}.layout-1.part")
    part.write_bytes(b"half")
    os.utime(part, (0, 0))


def _second_name(path: Path) -> None:
    os.link(path, path.with_name("twin.db"))


def _detached_index(path: Path) -> None:
    """Insert a row that an index does not get."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA writable_schema = ON")
        where = "name = 'trials_experiment_status'"
        [row] = db.execute(f"SELECT * FROM sqlite_master WHERE {where}").fetchall()
        db.execute(f"DELETE FROM sqlite_master WHERE {where}")
        db.commit()
        db.execute("PRAGMA schema_version = 1000")
    db.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE trials SET status = 'suspended' WHERE status = 'new'")
        db.commit()
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)
        db.commit()
        db.execute("PRAGMA schema_version = 1001")
    db.close()


def _rows(count: int) -> str:
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
        f"INSERT INTO receipts (_id, expires, doc) SELECT 'r' || i, '{OLD}', '{{}}' FROM n"
    )


LOST = f"UPDATE trials SET heartbeat = '{OLD}', heartbeat_ticks = 1 WHERE status = 'reserved'"
HELD = (
    f"UPDATE algo SET locked = 1, owner = 'host:12:0123456789abcdef', since = '{OLD}', "
    f"heartbeat = '{OLD}', expires = '2020-01-01T00:01:00.000000Z', expires_ticks = 1"
)

DAMAGES = [
    Damage("damaged-file", _flip, repairable=False),
    Damage("not-a-database", lambda path: os.truncate(path, 5000), repairable=False),
    Damage("damaged-index", _detached_index, changed=frozenset({"trials"})),
    Damage("missing-index", "DROP INDEX trials_experiment_status"),
    Damage("changed-index", "DROP INDEX lock_waiters_experiment_since; "
           "CREATE INDEX lock_waiters_experiment_since ON lock_waiters (experiment)"),
    Damage("foreign-index", "CREATE UNIQUE INDEX mine ON trials (status)", repairable=False),
    Damage("foreign-trigger", "CREATE TRIGGER mine AFTER DELETE ON trials BEGIN SELECT 1; END",
           repairable=False),
    Damage("duplicate-records",
           "DROP INDEX benchmarks_name; INSERT INTO benchmarks (_id, name, doc) VALUES "
           "('a', 'twice', '{}'), ('b', 'twice', '{}')", repairable=False,
           changed=frozenset({"benchmarks"})),
    Damage("missing-table", "DROP TABLE lock_waiters"),
    Damage("missing-column", "ALTER TABLE deliverers DROP COLUMN expires_ticks"),
    Damage("boot-number", "DELETE FROM aiostorage_boot", changed=frozenset({"trials"})),
    Damage("missing-ticks", "UPDATE trials SET heartbeat_ticks = NULL WHERE status = 'reserved'"),
    Damage("no-write-ahead-log", "PRAGMA journal_mode = DELETE"),
    Damage("old-layout", "PRAGMA user_version = 1", repairable=False),
    Damage("newer-layout", "PRAGMA user_version = 99", repairable=False),
    Damage("unfinished-backup", _unfinished),
    Damage("unfit-place", _second_name, repairable=False),
    Damage("lost-trial", LOST, changed=frozenset({"trials"})),
    Damage(
        "reserved-without-heartbeat",
        f"UPDATE trials SET heartbeat = NULL, heartbeat_ticks = NULL, start_time = '{OLD}' "
        "WHERE status = 'reserved'",
        changed=frozenset({"trials"}),
    ),
    Damage("heartbeat-in-future", "UPDATE trials SET heartbeat_ticks = heartbeat_ticks + 4000000 "
           "WHERE status = 'reserved'", repairable=False),
    Damage("orphan-trial", "INSERT INTO trials (_id, experiment, id, status, doc) SELECT 'o', "
           "'gone', id, 'new', doc FROM trials WHERE status = 'new'", repairable=False,
           changed=frozenset({"trials"})),
    Damage("unreadable-trial", "UPDATE trials SET doc = '{' WHERE status = 'new'",
           repairable=False, changed=frozenset({"trials"})),
    Damage("unreadable-trial", "UPDATE trials SET status = 'done' WHERE status = 'new'",
           repairable=False, changed=frozenset({"trials"})),
    Damage("unreadable-experiment", "UPDATE experiments SET doc = '{'", repairable=False,
           changed=frozenset({"experiments"})),
    Damage("orphan-lock", "INSERT INTO algo (_id, experiment, locked, doc) VALUES "
           "('o', 'gone', 0, '{}')"),
    Damage("experiment-without-lock", "DELETE FROM algo", changed=frozenset({"algo"})),
    Damage("expired-lease", HELD, changed=frozenset({"algo"})),
    Damage("lock-without-lease", f"UPDATE algo SET locked = 1, heartbeat = '{OLD}'",
           repairable=False, changed=frozenset({"algo"})),
    Damage("unreadable-state", "UPDATE algo SET state = x'01c1'", repairable=False,
           changed=frozenset({"algo"})),
    Damage("stale-waiter", "INSERT INTO lock_waiters (_id, experiment, since, since_ticks, "
           f"expires, expires_ticks, doc) VALUES ('t', 'e', '{OLD}', 1, '{OLD}', 2, '{{}}')"),
    Damage("expired-receipts", _rows(1001)),
    Damage("unreadable-change", "UPDATE trial_changes SET kind = CAST(x'ff41' AS TEXT) "
           "WHERE seq = 2", repairable=False, changed=frozenset({"trial_changes"})),
    Damage("unreadable-change", "UPDATE trial_changes SET _id = x'ff', time = 'yesterday' "
           "WHERE seq = 2", repairable=False, changed=frozenset({"trial_changes"})),
    Damage("unreadable-setting", "INSERT INTO settings (_id, doc) VALUES "
           "('history', '{\"limit\": \"soon\"}')", repairable=False,
           changed=frozenset({"settings"})),
    Damage("outbox-not-sent", "INSERT INTO outbox (_id, experiment, time, doc) VALUES "
           f"('o', 'e', '{OLD}', '{{\"change\": \"changed\", \"worker\": null}}')",
           repairable=False, changed=frozenset({"outbox"})),
]  # fmt: skip


@dataclass(frozen=True)
class Sound:
    """A file in which nothing is wrong, and the documents in it."""

    path: Path
    documents: dict[str, list[str]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("sound") / "tune.db"
    url = f"sqlite:///{path}"
    anyio.run(_fill, url)
    assert anyio.run(examine, url).findings == ()
    return Sound(path, anyio.run(documents_in, url))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.code)
def test_what_is_damaged_is_found_and_repaired(
    sound: Sound, tmp_path: Path, damage: Damage
) -> None:
    path = tmp_path / "tune.db"
    url = f"sqlite:///{path}"
    shutil.copy(sound.path, path)
    before = sound.documents
    inflict(path, damage)

    seen = state_of(tmp_path)
    found = anyio.run(examine, url)
    assert state_of(tmp_path) == seen, "it changes nothing"
    assert codes_of(found) == {damage.code}
    assert all(finding.command for finding in found.findings)
    assert any(one.repairable for one in found.findings) == damage.repairable

    repaired = anyio.run(repair, url)
    if damage.repairable:
        assert codes_of(repaired) == set()
        assert {one.code for one in repaired.repairs} <= {damage.code, "lost-trial"}
        assert repaired.repairs
        assert all(one.done for one in repaired.repairs)
        assert anyio.run(repair, url).repairs == ()
        anyio.run(_use, url)
    else:
        assert codes_of(repaired) == {damage.code}
        assert repaired.repairs == ()
        assert state_of(tmp_path) == seen
    if damage.code in ("damaged-file", "not-a-database", "old-layout", "newer-layout"):
        return
    after = anyio.run(documents_in, url)
    for name in before.keys() - damage.changed:
        assert after[name] == before[name], name
    if damage.repairable and "trials" in damage.changed and damage.code != "damaged-index":
        [trial] = set(after["trials"]) - set(before["trials"])
        assert "'status': 'interrupted'" in trial


async def _fill(url: str) -> None:
    async with open_storage(url) as storage:
        await fill(storage)


def test_a_repair_beside_workers(tmp_path: Path) -> None:
    """Nothing that they hold is taken from them, and nothing is done twice."""
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    completed: list[str] = []

    async def work(storage: Storage, experiment: Experiment) -> None:
        while True:
            async with storage.reserved_trial(experiment, heartbeat=0.1) as reserved:
                if reserved is None:
                    return
                await anyio.sleep(0.01)
                await storage.complete_trial(reserved, 1.0)
                completed.append(reserved.id)

    async def damage_and_repair() -> None:
        for _ in range(3):
            await anyio.to_thread.run_sync(inflict, tmp_path / "tune.db", missing_index)
            assert {one.code for one in (await repair(url)).repairs} == {"missing-index"}
            assert (await repair(url)).repairs == ()

    async def main() -> None:
        async with open_storage(url) as storage:
            experiment = await storage.create_experiment({"name": "tune"})
            await storage.register_trials([trial(experiment.id, float(x)) for x in range(60)])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(damage_and_repair)
                for _ in range(3):
                    tasks.start_soon(work, storage, experiment)
            changes = (await storage.changes_since(experiment, "oldest")).changes
            assert all(len(chain) == 3 for chain in check_chains(changes).values())

    missing_index = next(one for one in DAMAGES if one.code == "missing-index")
    anyio.run(main)
    assert len(completed) == len(set(completed)) == 60


async def _use(url: str) -> None:
    async with open_storage(url) as storage:
        assert await storage.fetch_experiments({"name": "tune"})


def inflict(path: Path, damage: Damage) -> None:
    if isinstance(damage.inflict, str):
        db = sqlite3.connect(path)
        db.executescript(damage.inflict)
        db.close()
    else:
        damage.inflict(path)


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files in a folder, with their contents and times."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_a_place_that_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tune.db"
    url = f"sqlite:///{path}"
    anyio.run(_fill, url)
    mounts = tmp_path / "mountinfo"
    mounts.write_text("30 1 0:50 / / rw,relatime - nfs4 server:/home rw\n")
    monkeypatch.setattr(places, "MOUNTS", mounts)
    monkeypatch.setattr(places, "MIN_FREE_BYTES", 2**60)
    found = anyio.run(examine, url)
    assert codes_of(found) == {"network-file-system", "low-space"}
    copying = found.findings[0].command
    assert copying == f"aiostorage copy {url} DESTINATION"


def test_a_log_is_read_although_its_process_was_killed(tmp_path: Path) -> None:
    """With its index or without: nothing is written to it, and nothing is missing."""
    path = tmp_path / "tune.db"
    url = f"sqlite:///{path}"
    anyio.run(_fill, url)
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("UPDATE trials SET status = 'new' WHERE status = 'reserved'")
    db.commit()
    for number, suffixes in enumerate((("", "-wal"), ("", "-wal", "-shm"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        for suffix in suffixes:
            shutil.copy(f"{path}{suffix}", folder / f"tune.db{suffix}")
        seen = state_of(folder)
        trials = anyio.run(documents_in, f"sqlite:///{folder}/tune.db")["trials"]
        assert sum("'status': 'new'" in trial for trial in trials) == 2
        assert codes_of(anyio.run(examine, f"sqlite:///{folder}/tune.db")) == set()
        assert {**state_of(folder), "tune.db-shm": None} == {**seen, "tune.db-shm": None}
        assert state_of(folder).keys() == seen.keys()
    db.close()


def test_every_finding_is_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text()
    source = Path(examination.__file__).parents[1]
    files = [
        *source.glob("doctor/*.py"),
        *source.glob("drivers/*/*.py"),
        source / "_core/files/places.py",
    ]
    pattern = re.compile(
        r"Finding\(\s*\"([a-z-]+)\"|: Final = \"([a-z]+-[a-z-]+)\"|code = \"([a-z]+-[a-z-]+)\""
        r"|else \"([a-z]+-[a-z-]+)\""
    )
    texts = [file.read_text() for file in files if "Finding" in file.read_text()]
    codes = {code for one in texts for found in pattern.findall(one) for code in found if code}
    assert len(codes) > 40
    assert {code for code in codes if f"`{code}`" not in text} == set()
