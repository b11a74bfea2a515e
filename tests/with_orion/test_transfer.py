"""Coming over from Oríon's PickledDB and going back to it, with the real Oríon at both ends."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiostorage
from aiostorage import Storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.documents import equal
from aiostorage.errors import (
    BackendError,
    ConfigurationError,
    DuplicateKeyError,
    EncodingError,
    NotADatabaseError,
)
from aiostorage.operations import Update
from aiostorage.orion import Count, Counts, Progress, export_orion, import_orion, importer

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 ends at Python 3.11", allow_module_level=True)

import orion.core.io.database.pickleddb as orion_pickleddb
from orion.client import build_experiment
from orion.core.worker.trial import Trial as OrionTrial
from orion.storage.legacy import Legacy

from .support import (
    COLLECTIONS,
    SPACE,
    TPE,
    WIDER,
    as_copied,
    call,
    everything,
    fill,
    in_utc,
    plugged_in,
    release,
    sorted_by_id,
    stored,
    using,
    work,
)

# Oríon and what it stands on warn of much
pytestmark = pytest.mark.filterwarnings("default")


def legacy(path: Path) -> Any:
    """Open a file with Oríon's own storage."""
    return Legacy(database={"type": "pickleddb", "host": str(path)})


def raw(path: Path, collection: str) -> list[dict[str, Any]]:
    """Read a file with Oríon's own database."""
    documents: list[dict[str, Any]] = orion_pickleddb.PickledDB(str(path)).read(collection)
    return documents


def state_in(storage: Any) -> Any:
    """Return the state of the first experiment's algorithm."""
    return storage.get_algorithm_lock_info(uid=1).state


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file as Oríon leaves it, trials in every status and a lock whose holder died."""
    path = tmp_path_factory.mktemp("original") / "orion.pkl"
    fill(legacy(path))
    return path


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "orion.pkl"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tune.db'}"


def copied(source: Path, url: str, *, overwrite: bool = False) -> Counts:
    return using(url, lambda storage: import_orion(source, storage, overwrite=overwrite))


def without_ids(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort trials by experiment, in which they keep their order."""
    ordered = sorted(trials, key=lambda trial: str(trial["experiment"]))
    return [{**trial, "_id": None} for trial in ordered]


def check_equal(source: Path, there: dict[str, list[dict[str, Any]]]) -> None:
    """Compare a file with a store that it alone was imported into."""
    for name in ("experiments", "benchmarks"):
        assert sorted_by_id(there[name]) == sorted_by_id(in_utc(raw(source, name)))
    trials = as_copied(in_utc(raw(source, "trials")))
    assert sorted_by_id(there["trials"]) == sorted_by_id(trials)
    locks = {lock["experiment"]: lock for lock in there["algo"]}
    for lock in raw(source, "algo"):
        ours = locks.pop(lock["experiment"])
        assert ours["configuration"] == lock["configuration"]
        assert ours["heartbeat"] == in_utc(lock["heartbeat"])
        assert (ours["locked"], ours["owner"], ours["expires"]) == (0, None, None)
        np.testing.assert_equal(pickle.loads(ours["state"]), pickle.loads(lock["state"]))
    assert not locks


# ---------------------------------------------------------------------------------- coming over


@pytest.mark.parametrize("engine", ["sqlite", "memory"])
def test_everything_comes_over(source: Path, url: str, engine: str) -> None:
    seen: list[Progress] = []
    trials = len(raw(source, "trials"))

    async def body(storage: Storage) -> dict[str, list[dict[str, Any]]]:
        counts = await import_orion(source, storage, progress=seen.append)
        assert counts == Counts(
            experiments=Count(3),
            trials=Count(trials),
            benchmarks=Count(1),
            algorithms=Count(3),
            interrupted=1,
        )
        return await everything(storage)

    there = using("memory://" if engine == "memory" else url, body)
    check_equal(source, there)
    statuses = {trial["status"] for trial in there["trials"]}
    assert statuses == {"completed", "broken", "new", "interrupted"}
    branch = next(config for config in there["experiments"] if config["version"] == 2)
    assert (branch["refers"]["parent_id"], branch["refers"]["root_id"]) == (1, 1)
    assert {p.collection: p.done for p in seen if p.done == p.total} == {
        "experiments": 3,
        "benchmarks": 1,
        "trials": len(there["trials"]),
    }


def test_a_second_import_changes_nothing(source: Path, url: str) -> None:
    copied(source, url)
    before = stored(url)
    trials = len(before["trials"])
    again = Counts(Count(present=3), Count(present=trials), Count(present=1), Count(present=3))
    assert copied(source, url) == again
    assert copied(source, url, overwrite=True) == again  # there is nothing that differs
    assert stored(url) == before


def test_a_lock_whose_holder_died_is_free_at_once(source: Path, url: str) -> None:
    [second] = [config for config in raw(source, "experiments") if config["name"] == "second"]

    async def body(storage: Storage) -> None:
        await import_orion(source, storage)
        async with storage.acquire_algorithm_lock(second, timeout=1) as state:
            assert state.state

    using(url, body)


def test_orion_carries_on_where_it_was(source: Path, url: str) -> None:
    copied(source, url)
    state = state_in(legacy(source))
    with plugged_in(url) as storage:
        np.testing.assert_equal(state_in(storage), state)
        before = {trial.id for trial in storage.fetch_trials(uid=1)}
        client = work(storage, 9, version=1)
        trials = storage.fetch_trials(client)
        assert sum(trial.status == "completed" for trial in trials) == 9
        assert before < {trial.id for trial in trials}
        # the branch sees the trials of its parent, and adapts them
        branch = build_experiment("first", version=2, storage=storage)
        tree = branch.fetch_trials(with_evc_tree=True)
        assert len(tree) > len(branch.fetch_trials())
    counts = copied(source, url)  # what was done here since stays
    assert (counts.trials.copied, counts.trials.replaced) == (0, 0)


def test_the_algorithm_suggests_what_it_would_have_suggested(source: Path, url: str) -> None:
    copied(source, url)
    suggested = []
    with plugged_in(url) as storage:
        for there in (legacy(source), storage):
            release(there)
            client = work(there, 9, version=1)
            suggested.append([trial.params for trial in client.fetch_trials()])
    assert len(suggested[0]) > 9
    assert suggested[0] == suggested[1]


# ----------------------------------------------------------------------------------- going back


def test_orion_carries_on_with_what_went_back(source: Path, url: str, tmp_path: Path) -> None:
    copied(source, url)
    with plugged_in(url) as storage:
        work(storage, 8, version=1)
        state = state_in(storage)
    back = tmp_path / "back.pkl"
    counts = using(url, lambda storage: export_orion(storage, back))
    there = stored(url)
    trials = len(there["trials"])
    assert counts == Counts(Count(3), Count(trials), Count(1), Count(3))
    assert {path.name for path in tmp_path.iterdir() if "back" in path.name} == {"back.pkl"}

    for name in ("experiments", "benchmarks"):
        assert in_utc(raw(back, name)) == there[name]
    went = raw(back, "trials")
    numbers = [trial["_id"] for trial in went]
    assert len(set(numbers)) == trials
    assert all(isinstance(number, int) for number in numbers)
    assert without_ids(in_utc(went)) == without_ids(there["trials"])
    for lock in raw(back, "algo"):
        assert lock.keys() == raw(source, "algo")[0].keys()
        assert lock["locked"] == 0
        assert lock["heartbeat"].tzinfo is None
    ours, theirs = orion_pickleddb.PickledDB(str(back)), orion_pickleddb.PickledDB(str(source))
    for name in COLLECTIONS:
        assert ours.index_information(name) == theirs.index_information(name)

    again = legacy(back)
    np.testing.assert_equal(state_in(again), state)
    client = work(again, 10, version=1)
    assert sum(trial.status == "completed" for trial in client.fetch_trials()) == 10
    work(again, 2, name="third", space=SPACE, algorithm={"random": {"seed": 1}})
    assert [config["_id"] for config in raw(back, "experiments")] == [1, 2, 3, 4]


def test_ids_that_are_no_numbers_become_numbers(url: str, tmp_path: Path) -> None:
    async def body(storage: Storage) -> None:
        root = await storage.create_experiment({"name": "root", "version": 1, "algorithm": {}})
        await storage.create_experiment(
            {"name": "leaf", "version": 1, "refers": {"parent_id": root.id, "root_id": root.id}}
        )
        await storage.create_experiment(
            {"name": "lost", "_id": 7, "refers": {"parent_id": "gone", "root_id": "gone"}}
        )
        point = [{"name": "x", "type": "real", "value": 1.0}]
        await storage.register_trial(aiostorage.Trial(experiment=root.id, params=point))
        await storage.register_trial(aiostorage.Trial(experiment="nobody's", params=point))
        await storage.delete_algorithm_lock(uid=7)
        counts = await export_orion(storage, tmp_path / "back.pkl")
        assert counts == Counts(Count(3), Count(1), orphans=1)

    using(url, body, codec="msgpack")
    root, leaf, lost = raw(tmp_path / "back.pkl", "experiments")
    assert (root["_id"], leaf["_id"], lost["_id"]) == (8, 9, 7)
    assert leaf["refers"] == {"parent_id": 8, "root_id": 8}
    assert lost["refers"] == {"parent_id": None, "root_id": 7}
    [trial] = raw(tmp_path / "back.pkl", "trials")
    assert (trial["_id"], trial["experiment"]) == (1, 8)
    assert {lock["experiment"] for lock in raw(tmp_path / "back.pkl", "algo")} == {7, 8, 9}


def test_an_export_leaves_what_is_there_alone(source: Path, url: str, tmp_path: Path) -> None:
    copied(source, url)
    before = source.read_bytes()

    def go(destination: Path, *, overwrite: bool = False) -> Counts:
        return using(url, lambda s: export_orion(s, destination, overwrite=overwrite))

    with pytest.raises(ConfigurationError, match=r"orion\.pkl exists"):
        go(source)
    assert source.read_bytes() == before
    with pytest.raises(NotADatabaseError, match=r"tune\.db is not a PickledDB"):
        go(tmp_path / "tune.db", overwrite=True)
    with pytest.raises(ConfigurationError, match="there is no directory"):
        go(tmp_path / "nowhere" / "back.pkl")
    with pytest.raises(ConfigurationError, match="is a directory"):
        go(tmp_path)
    assert go(source, overwrite=True).experiments.copied == 3
    check_equal(source, stored(url))


def test_an_export_is_for_its_owner_alone(source: Path, url: str, tmp_path: Path) -> None:
    copied(source, url)
    new, known = tmp_path / "new.pkl", tmp_path / "known.pkl"
    known.write_bytes(pickle.dumps(None))
    known.chmod(0o640)
    before = os.umask(0)
    try:
        for path in (new, known):
            using(url, partial(export_orion, destination=path, overwrite=True))
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in (new, known)] == [0o600, 0o640]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".export")]


def test_an_export_goes_to_no_place_that_is_no_file(url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("loop", "loop"), ("dangling", "gone"), ("linked", "tune.db")):
        (tmp_path / name).symlink_to(tmp_path / target)
    for name, message in {
        "pipe": "exists",
        "loop": "is a link",
        "dangling": "is a link",
        "linked": "is a link",
        "tune.db/x": "no directory",
        "loop/x": "cannot be written|no directory",
        "a" * 300: "has 300 bytes",
        "a\0b": "has a NUL",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            using(url, partial(export_orion, destination=tmp_path / name))
    assert not (tmp_path / "gone").exists()


def test_an_export_stops_at_a_trial_that_nobody_can_read(url: str, tmp_path: Path) -> None:
    async def body(storage: Storage) -> None:
        experiment = await storage.create_experiment({"name": "e"})
        await storage.register_trials(
            [aiostorage.Trial(experiment=experiment.id, params={"x": x}) for x in range(2)]
        )
        spoilt = Update("trials", equal(experiment=experiment.id), {"params.0.type": "bogus"})
        await storage._gateway.execute(spoilt)
        with pytest.raises(EncodingError, match="cannot be read"):
            await export_orion(storage, tmp_path / "back.pkl")

    using(url, body)
    assert not (tmp_path / "back.pkl").exists()


def test_an_export_that_fails_leaves_nothing(
    source: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(source, url)
    before = source.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(orion_pickleddb.PickledDB, "_dump_database", fail)
    names = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match="no space left"):
        using(url, lambda storage: export_orion(storage, source, overwrite=True))
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == names


# ------------------------------------------------------------------------------- interruptions


class FileImportInterrupted(Exception):
    """Stands for whatever ends an import."""


@pytest.mark.parametrize("after", range(9))
def test_an_interrupted_import_goes_on(
    source: Path, url: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_SIZE", 5)
    left = after

    def interrupt(_: Progress) -> None:
        nonlocal left
        if not left:
            raise FileImportInterrupted
        left -= 1

    with pytest.raises(FileImportInterrupted):
        using(url, lambda storage: import_orion(source, storage, progress=interrupt))
    before = stored(url)
    assert len(before["algo"]) == len(before["experiments"])
    counts = copied(source, url)
    for name in ("experiments", "trials", "benchmarks"):
        count = getattr(counts, name)
        assert count.present == len(before[name])
        assert count.present + count.copied == len(raw(source, name))
    check_equal(source, stored(url))


def many_trials(path: Path, count: int) -> None:
    """Make a file with many trials."""
    storage = legacy(path)
    storage.create_experiment(
        {"name": "large", "version": 1, "space": SPACE, "algorithm": TPE, "refers": {}}
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    trials = []
    for number in range(count):
        params = [{"name": "x", "type": "real", "value": number / count}]
        trial = OrionTrial(experiment=1, params=params, submit_time=now)
        trials.append({**trial.to_dict(), "_id": number + 1})
    storage._db.write("trials", trials)


def test_a_killed_import_goes_on(url: str, tmp_path: Path) -> None:
    source = tmp_path / "large.pkl"
    many_trials(source, 4000)
    boot = "import sys; from aiostorage.cli import main; sys.argv[0] = 'aiostorage'; main()"
    package = str(Path(aiostorage.__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", boot, "import-orion", str(source), url],
        env={**os.environ, "PYTHONPATH": package},
        stdout=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 60
        while not trials_in(tmp_path / "tune.db"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    there = trials_in(tmp_path / "tune.db")
    assert 0 < there < 4000
    assert copied(source, url).trials == Count(copied=4000 - there, present=there)
    assert trials_in(tmp_path / "tune.db") == 4000


def trials_in(path: Path) -> int:
    """Count trials without aiostorage; 0 before there is a table."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            count: int = connection.execute("SELECT count(*) FROM trials").fetchone()[0]
            return count
    except sqlite3.OperationalError:
        return 0


# ------------------------------------------------------------------------------------- refusals


def test_what_has_gone_on_is_left_alone(source: Path, url: str) -> None:
    copied(source, url)

    async def go_on(storage: Storage) -> None:
        trial = await storage.reserve_trial({"_id": 1})
        assert trial is not None
        await storage.complete_trial(trial, 0.5)
        await storage.update_experiment(uid=1, max_trials=99, working_dir="elsewhere")

    using(url, go_on)
    before = stored(url)
    counts = copied(source, url)
    assert (counts.experiments, counts.trials.present) == (Count(present=3), len(before["trials"]))
    assert stored(url) == before


CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "space": ("experiments", {"_id": 1}, {"space": {"x": "uniform(0, 2)"}}, "'first' v1.*space"),
    "algorithm": (
        "experiments",
        {"_id": 2},
        {"algorithm": {"random": {}}},
        "'first' v2.*algorithm",
    ),
    "created": (
        "experiments",
        {"_id": 3},
        {"metadata.datetime": datetime(2020, 1, 1, tzinfo=UTC)},
        "'second' v1.*time of creation",
    ),
    "parent": ("experiments", {"_id": 2}, {"refers.parent_id": 3}, "'first' v2.*parent"),
    "results": (
        "trials",
        {"experiment": 1, "status": "completed"},
        {"results": [{"name": "loss", "type": "objective", "value": -1.0}]},
        "trial [0-9a-f]{32} of experiment 'first' v1.*other results",
    ),
    "status": (
        "trials",
        {"experiment": 2, "status": "completed"},
        {"status": "new"},
        "experiment 'first' v2.*'completed', not 'new'",
    ),
    "benchmark": ("benchmarks", {"name": "bench"}, {"algorithms": []}, "benchmark 'bench'"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_is_refused_or_replaced(source: Path, url: str, what: str) -> None:
    collection, query, changes, message = CHANGES[what]
    copied(source, url)

    async def change(storage: Storage) -> None:
        assert await CollectionAccess(storage).update(collection, query, changes)
        # so that there is something to write, which must not be written
        assert await storage.delete_trials(uid=3)

    using(url, change)
    before = stored(url)
    with pytest.raises(DuplicateKeyError, match=f"(?s){message}.*nothing was written") as caught:
        copied(source, url)
    assert caught.value.collection == collection
    assert stored(url) == before

    counts = copied(source, url, overwrite=True)
    replaced = counts.benchmarks if what == "benchmark" else counts.experiments
    assert replaced.replaced == 1
    assert counts.experiments.replaced + counts.experiments.present == 3
    check_equal(source, stored(url))


def test_overwriting_leaves_nothing_of_the_old_one(source: Path, url: str) -> None:
    async def other(storage: Storage) -> None:
        experiment = await storage.create_experiment({"name": "second", "version": 1, "_id": "old"})
        point = [{"name": "q", "type": "real", "value": 1.0}]
        await storage.register_trial(aiostorage.Trial(experiment=experiment.id, params=point))

    using(url, other)
    counts = copied(source, url, overwrite=True)
    assert (counts.experiments, counts.algorithms) == (Count(2, 0, 1), Count(2, 0, 1))
    there = stored(url)
    theirs = [trial["id"] for trial in raw(source, "trials") if trial["experiment"] == 3]
    assert [t["id"] for t in there["trials"] if t["experiment"] == "old"] == theirs
    [second] = [config for config in there["experiments"] if config["_id"] == "old"]
    assert second["refers"]["root_id"] == "old"
    assert copied(source, url).experiments == Count(present=3)


def test_two_files_with_the_same_ids_come_into_one_store(
    source: Path, url: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.pkl"
    storage = legacy(other)
    work(storage, 4, name="other", space=SPACE, algorithm=TPE)
    work(storage, 2, name="other", space=WIDER, algorithm=TPE, branching={"enable": True})
    copied(source, url)
    before = stored(url)
    counts = copied(other, url)
    assert (counts.experiments, counts.benchmarks) == (Count(2), Count())
    assert copied(other, url).trials == Count(present=len(raw(other, "trials")))
    there = stored(url)
    for name in COLLECTIONS:
        assert there[name][: len(before[name])] == before[name]
    root, branch = (config for config in there["experiments"] if config["name"] == "other")
    assert root["_id"] not in (1, 2, 3)
    assert root["refers"]["root_id"] == root["_id"]
    assert (branch["refers"]["parent_id"], branch["refers"]["root_id"]) == (root["_id"],) * 2
    for config, number in ((root, 1), (branch, 2)):
        theirs = [trial["id"] for trial in raw(other, "trials") if trial["experiment"] == number]
        assert [t["id"] for t in there["trials"] if t["experiment"] == config["_id"]] == theirs
    with plugged_in(url) as ours:
        client = work(ours, 6, name="other", version=1)
        assert sum(trial.status == "completed" for trial in client.fetch_trials()) == 6


def test_an_id_that_remains_of_a_deleted_experiment_is_not_taken_over(
    source: Path, url: str
) -> None:
    async def remains(storage: Storage) -> None:
        for uid in (1, 2):
            await storage.create_experiment({"name": f"gone{uid}", "_id": uid})
        point = [{"name": "q", "type": "real", "value": 1.0}]
        await storage.register_trial(aiostorage.Trial(experiment=2, params=point))
        await storage.delete_algorithm_lock(uid=2)
        for uid in (1, 2):
            await storage.delete_experiment(uid=uid, cascade=False)

    using(url, remains)
    copied(source, url)
    ids = {config["name"]: config["_id"] for config in stored(url)["experiments"]}
    assert ids["second"] == 3
    assert ids["first"] not in (1, 2)


# ----------------------------------------------------------------------------- what files hold


def test_documents_of_older_versions_come_over(url: str, tmp_path: Path) -> None:
    source = tmp_path / "old.pkl"
    database = orion_pickleddb.PickledDB(str(source))
    created = datetime(2019, 5, 1, 12, 0, 0)  # noqa: DTZ001 -- as Oríon has it
    database.write(
        "experiments",
        {
            "name": "old",
            "metadata": {"user": "me", "datetime": created, "user_args": ("-x~uniform(0, 1)",)},
            "algorithms": {"random": {"seed": None}},
        },
    )
    trial = {
        "_id": "0123456789abcdef0123456789abcdef",
        "experiment": 1,
        "status": "completed",
        "params": ({"name": "x", "type": "categorical", "value": (1, "a")},),
        "results": [{"name": "loss", "type": "objective", "value": float("nan")}],
        "submit_time": created,
        "end_time": created + timedelta(seconds=1),
        "parents": [],
    }
    database.write("trials", [trial, {**trial, "_id": "f" * 32, "experiment": 77}])
    assert copied(source, url) == Counts(Count(1), Count(1), orphans=1)
    assert copied(source, url) == Counts(Count(present=1), Count(present=1), orphans=1)
    there = stored(url)
    [config], [ours], [lock] = there["experiments"], there["trials"], there["algo"]
    assert (config["version"], config["algorithm"]) == (1, {"random": {"seed": None}})
    assert config["metadata"]["user_args"] == ["-x~uniform(0, 1)"]
    assert "algorithms" not in config
    assert lock["configuration"] == config["algorithm"]
    assert ours["_id"] == trial["_id"]
    assert ours["params"][0]["value"] == [1, "a"]
    expected = OrionTrial(params=[{"name": "x", "type": "categorical", "value": [1, "a"]}])
    assert ours["id"] == expected.id
    assert ours["submit_time"] == created.replace(tzinfo=UTC)
    with plugged_in(url) as storage:
        [found] = storage.fetch_trials(uid=1)
        assert storage.get_trial(found).submit_time == created


def test_what_cannot_be_stored_is_named_before_anything_is_written(source: Path, url: str) -> None:
    database = orion_pickleddb.PickledDB(str(source))
    with pytest.raises(EncodingError, match=r"state of experiment 'first' v1: .*Trial cannot be"):
        using(url, lambda storage: import_orion(source, storage), codec="msgpack")
    database.write("benchmarks", {"assess": len}, {"name": "bench"})
    with pytest.raises(EncodingError, match="benchmark 'bench': assess: builtin"):
        copied(source, url)
    database.write("trials", {"status": "lost"}, {"_id": 1})
    with pytest.raises(EncodingError, match=r"trial .* of experiment 'first' v1"):
        copied(source, url)
    database.write("algo", {"state": b"no pickle"}, {"experiment": 1})
    database.remove("benchmarks", {})
    database.write("trials", {"status": "new"}, {"_id": 1})
    with pytest.raises(EncodingError, match=r"state of experiment 'first' v1: .*unpickled"):
        copied(source, url)
    assert not any(stored(url).values())


def test_a_file_that_is_no_pickleddb_is_refused(source: Path, url: str, tmp_path: Path) -> None:
    wrong = {
        "text": (b"name: tune\n", "it is not a pickle"),
        "nothing": (b"", "it is not a pickle"),
        "another pickle": (pickle.dumps({"experiments": []}), "it holds a dict"),
        "a torn one": (source.read_bytes()[:1000], "is not a PickledDB"),
        "a class that is gone": (b"\x80\x04cnowhere\nThing\n.", "is not a PickledDB"),
    }
    for name, (content, message) in wrong.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotADatabaseError, match=message):
            copied(tmp_path / name, url)
    with pytest.raises(ConfigurationError, match="there is no file"):
        copied(tmp_path / "missing", url)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(NotADatabaseError, match="it is not a pickle"):
        copied(tmp_path / "pipe", url)
    for name, message in (("loop", "leads to no file"), ("a\0b", "NUL"), ("a" * 300, "300 bytes")):
        with pytest.raises(ConfigurationError, match=message):
            copied(tmp_path / name, url)


# ------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize("engine", ["sqlite", "motor", "track"], indirect=True)
def test_the_commands_there_and_back(source: Path, engine: str, url: str, tmp_path: Path) -> None:
    trials = len(raw(source, "trials"))
    done = call("import-orion", source, url)
    assert (done.exit_code, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert lines == ["experiments: 3 of 3", "benchmarks: 1 of 1", f"trials: {trials} of {trials}"]
    assert summary.startswith(
        f"copied 3 experiments, {trials} trials, 1 benchmark, 3 algorithm states; "
        f"1 reserved trial interrupted; from {source} to "
    )
    check_equal(source, stored(url))
    again = call("import-orion", source, url)
    assert again.exit_code == 0
    assert "already there: 3 experiments" in again.stdout

    back = tmp_path / "back.pkl"
    refused = call("export-orion", url, back)
    assert refused.exit_code == 2
    assert "'first' v1: the state was written with pickle; --state-codec pickle" in refused.stderr
    assert not back.exists()
    unpickled = ("--state-codec", "pickle")
    done = call("export-orion", url, back, *unpickled)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"copied 3 experiments, {trials} trials" in done.stdout.splitlines()[-1]
    check_equal(back, stored(url))
    assert call("export-orion", url, back, *unpickled).exit_code == 2
    assert call("export-orion", url, back, *unpickled, "--overwrite").exit_code == 0


def _planted(path: str) -> None:
    Path(path).touch()


class _Planted:
    """Pickles as a call that the reader did not ask for."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _planted, (self.path,)


def test_an_export_runs_no_code_of_the_store(url: str, tmp_path: Path) -> None:
    ran, back = tmp_path / "ran", tmp_path / "back.pkl"

    async def plant(storage: Storage) -> None:
        experiment = await storage.create_experiment({"name": "x"})
        async with storage.acquire_algorithm_lock(experiment) as state:
            state.set_state({"seed": 1})
        pickled = {"state": pickle.dumps(_Planted(str(ran)))}
        await CollectionAccess(storage).update("algo", {"experiment": experiment.id}, pickled)

    using(url, plant)
    done = call("export-orion", url, back)
    assert done.exit_code == 2
    assert "do so only if you trust everybody who can write to this store" in done.stderr
    assert not ran.exists()
    call("export-orion", url, back, "--state-codec", "pickle")
    assert ran.exists()


def test_the_commands_name_what_is_wrong_in_one_line(
    source: Path, url: str, tmp_path: Path
) -> None:
    text = tmp_path / "tune.yaml"
    text.write_text("name: tune\n")
    assert call("import-orion", text, url).exit_code == 2
    assert not (tmp_path / "tune.db").exists()
    copied(source, url)
    using(url, lambda storage: storage.update_experiment(uid=1, space={}))
    for arguments, message in {
        ("import-orion", source, url): "experiment 'first' v1",
        ("import-orion", text, url): "is not a PickledDB",
        ("import-orion", tmp_path / "missing.pkl", url): "missing.pkl",
        ("import-orion", source, "tune.db"): "not a storage URL",
        ("import-orion", source, "memory://"): "in memory",
        ("import-orion", source, f"sqlite:///{text}"): "is not a SQLite database",
        ("import-orion", source, url, "--state-codec", "json"): "json",
        ("export-orion", url, source): "exists",
        ("export-orion", f"sqlite:///{tmp_path}/none.db", tmp_path / "b.pkl"): "there is no file",
    }.items():
        done = call(*arguments)
        assert done.exit_code == 2, arguments
        [line] = done.stderr.splitlines()
        assert message in line
        assert line.startswith("aiostorage")
    assert not (tmp_path / "none.db").exists()
    replaced = call("import-orion", source, url, "--overwrite")
    assert replaced.exit_code == 0
    assert "replaced 1 experiment, " in replaced.stdout
    check_equal(source, stored(url))


def test_on_a_terminal_there_are_bars(
    source: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = call("import-orion", source, url)
    assert done.exit_code == 0
    assert "━" in done.stdout
    assert "copied 3 experiments, " in done.stdout.splitlines()[-1]


def test_without_orion_the_commands_say_what_to_install(
    source: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(source, url)
    monkeypatch.setitem(sys.modules, "orion.core.io.database.pickleddb", None)
    for arguments in (
        ("import-orion", source, url),
        ("export-orion", url, tmp_path / "back.pkl", "--state-codec", "pickle"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2
        assert "pip install 'aiostorage-orion[orion]'" in done.stderr


def test_nothing_imports_orion_before_it_is_asked_for() -> None:
    code = "import sys, aiostorage.orion, aiostorage.cli.app; sys.exit('orion.core' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_was_branched_comes_after_its_parent(url: str, tmp_path: Path) -> None:
    source = tmp_path / "branches.pkl"
    parents = {1: 3, 2: 2, 3: 4, 4: None, 5: 1}  # the second is its own parent, which is nonsense
    configs = [
        {"_id": uid, "name": f"e{uid}", "version": 1, "refers": {"parent_id": parent}}
        for uid, parent in parents.items()
    ]
    orion_pickleddb.PickledDB(str(source)).write("experiments", configs)
    copied(source, url)
    assert [config["_id"] for config in stored(url)["experiments"]] == [4, 3, 1, 2, 5]


def test_two_of_one_name_in_a_file_are_refused(url: str, tmp_path: Path) -> None:
    database = orion_pickleddb.PickledDB(str(tmp_path / "twice.pkl"))
    # as Oríon allowed it to different users before it had versions
    database.write("experiments", [{"name": "e", "metadata": {"user": u}} for u in ("a", "b")])
    with pytest.raises(DuplicateKeyError, match="two of experiment 'e' v1"):
        copied(tmp_path / "twice.pkl", url)
    database.remove("experiments", {"metadata.user": "b"})
    trial = {"experiment": 1, "params": [{"name": "x", "type": "real", "value": 1.0}]}
    database.write("trials", [{**trial, "status": "new", "id": uid} for uid in ("a", "b")])
    with pytest.raises(DuplicateKeyError, match="experiment 'e' v1 has two trials"):
        copied(tmp_path / "twice.pkl", url)


def test_what_vanishes_meanwhile_is_noticed(source: Path, url: str) -> None:
    async def body(storage: Storage) -> None:
        original = CollectionAccess.insert

        async def insert(access: CollectionAccess, collection: str, documents: Any) -> int:
            await original(access, collection, documents)
            return await storage.delete_trials(uid=1)

        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(BackendError, match="experiment 'first' v1 should have"),
        ):
            patch.setattr(CollectionAccess, "insert", insert)
            await import_orion(source, storage)

    using(url, body)
