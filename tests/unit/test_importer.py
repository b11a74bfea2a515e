"""Putting documents of another store into ours, without the Oríon that wrote them."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from aiostorage import Storage, Trial, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.cli.app import cli
from aiostorage.errors import DuplicateKeyError, EncodingError
from aiostorage.orion import importer
from aiostorage.orion.exports import _collect
from aiostorage.orion.imported_experiment import (
    BadRecords,
    imported_benchmarks,
    imported_experiments,
)
from aiostorage.orion.pickled_database import decode_state
from aiostorage.orion.progress import CollectionCounts as Count
from aiostorage.orion.progress import Progress
from aiostorage.orion.progress import TransferCounts as Counts

pytestmark = pytest.mark.anyio

NAN = float("nan")
BORN = datetime(2024, 2, 29, 12, tzinfo=UTC)


def experiment(uid: Any, name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "_id": uid,
        "name": name,
        "version": version,
        "metadata": {"user": "me", "datetime": BORN},
        "space": {"x": "uniform(0, 1)"},
        "algorithm": {"random": {"seed": 1}},
        "refers": {"parent_id": None, "root_id": uid, "adapter": []},
        **more,
    }


def trial(
    uid: Any, owner: Any, x: float, status: str = "new", value: float = 0.0
) -> dict[str, Any]:
    results = [{"name": "loss", "type": "objective", "value": value}]
    return {
        "_id": uid,
        "experiment": owner,
        "status": status,
        "params": [{"name": "x", "type": "real", "value": x}],
        "results": results if status == "completed" else [],
    }


def documents() -> dict[str, list[dict[str, Any]]]:
    """Make what another store may hold: a tree of two, the branch first, and one that is alone."""
    tree = {"parent_id": 1, "root_id": 1, "adapter": []}
    lock = {"_id": 1, "experiment": 1, "locked": 1, "state": pickle.dumps({"seen": [1]})}
    return {
        "experiments": [
            experiment(2, "tree", 2, refers=tree),
            experiment(1, "tree"),
            experiment(3, "alone"),
        ],
        "algo": [{**lock, "configuration": {"random": {"seed": 2}}, "heartbeat": BORN}],
        "benchmarks": [{"_id": 1, "name": "bench", "value": 1}],
        "trials": [
            *(trial(n, 1, n / 10, "completed", n) for n in range(1, 8)),
            trial(8, 2, 0.5, "completed", NAN),
            trial(9, 3, 0.5, "reserved"),
            trial(10, 99, 0.5),
        ],
    }


async def put(
    storage: Storage,
    given: dict[str, list[dict[str, Any]]] | None = None,
    *,
    overwrite: bool = False,
    progress: Any = None,
) -> Counts:
    given = documents() if given is None else given
    experiments, orphans = imported_experiments(given)
    work = importer.Importer(storage, "there", decode_state, overwrite=overwrite, progress=progress)
    return await work.run(experiments, imported_benchmarks(given), orphans)


async def test_it_copies_once() -> None:
    async with open_storage("memory://") as storage:
        counts = Counts(Count(3), Count(9), Count(1), Count(1), orphans=1, interrupted=1)
        assert await put(storage) == counts
        found = await storage.fetch_experiments({})
        assert [config["_id"] for config in found] == [1, 2, 3]
        info = await storage.get_algorithm_lock_info(uid=1)
        assert info is not None
        assert (info.state, info.locked, info.heartbeat) == ({"seen": [1]}, False, BORN)
        assert info.configuration == {"random": {"seed": 2}}
        there = Counts(Count(0, 3), Count(0, 9), Count(0, 1), Count(0, 1), orphans=1)
        assert await put(storage) == there
        assert await put(storage, overwrite=True) == there


async def test_a_copy_has_no_workers() -> None:
    given = documents()
    given["trials"][8] |= {"worker": "w", "heartbeat": BORN, "start_time": BORN}
    async with open_storage("memory://", lost_after=1e9) as storage:
        assert (await put(storage, given)).interrupted == 1
        [copied] = await storage.fetch_trials(uid=3) or []
        assert (copied.status, copied.worker) == ("interrupted", None)
        assert (copied.heartbeat, copied.start_time) == (BORN, BORN)
        assert (await put(storage, given)).interrupted == 0  # it is there
        again = await storage.reserve_trial({"_id": 3})
        assert again is not None
        assert again.id == copied.id
        await storage.complete_trial(again, 1)
        assert (await put(storage, given)).trials == Count(present=9)
        # the worker of the source has completed it, too
        given["trials"][8] = trial(9, 3, 0.5, "completed", 2.0)
        with pytest.raises(DuplicateKeyError, match="of other results"):
            await put(storage, given)


@pytest.mark.parametrize("after", range(8))
async def test_it_goes_on_after_an_interruption(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_SIZE", 3)
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) > after:
            raise KeyError

    async with open_storage("memory://") as storage:
        with pytest.raises(KeyError):
            await put(storage, progress=interrupt)
        # an experiment that is in the way of ids that are not there yet
        await storage.create_experiment({"name": "other", "_id": 1 if after == 0 else 50})
        there = await CollectionAccess(storage).count("trials", {})
        counts = await put(storage)
        assert (counts.trials.present, counts.trials.copied) == (there, 9 - there)
        root, branch = await storage.fetch_experiments({"name": "tree"})
        assert branch["refers"]["parent_id"] == branch["refers"]["root_id"] == root["_id"]
        assert root["refers"]["root_id"] == root["_id"]
        assert (root["_id"] == 1) == (after > 0)
        assert len(await storage.fetch_trials(root) or []) == 7


@pytest.mark.parametrize(
    ("collection", "query", "changes", "replaced"),
    [
        ("experiments", {"_id": 1}, {"space": {}}, Count(0, 2, 1)),
        ("experiments", {"_id": 2}, {"refers": {}}, Count(0, 2, 1)),
        ("experiments", {"_id": 3}, {"metadata": {}}, Count(0, 2, 1)),
        ("trials", {"_id": 1}, {"results": []}, Count(0, 2, 1)),
        ("trials", {"_id": 8}, {"status": "broken"}, Count(0, 2, 1)),
        ("benchmarks", {}, {"value": 2}, Count(0, 3, 0)),
    ],
)
async def test_it_refuses_or_replaces_what_differs(
    collection: str, query: dict[str, Any], changes: dict[str, Any], replaced: Count
) -> None:
    async with open_storage("memory://") as storage:
        await put(storage)
        await CollectionAccess(storage).update(collection, query, changes)
        await storage.delete_trials(uid=3)
        with pytest.raises(DuplicateKeyError, match="nothing was written"):
            await put(storage)
        assert not await storage.fetch_trials(uid=3)
        assert (await put(storage, overwrite=True)).experiments == replaced
        assert (await put(storage)).trials == Count(present=9)


async def test_what_may_differ_stays() -> None:
    async with open_storage("memory://") as storage:
        await put(storage)
        await storage.update_experiment(uid=3, max_trials=5, working_dir="/elsewhere")
        await storage.update_trials(uid=3, status="completed")
        point = [{"name": "x", "type": "real", "value": 0.123}]
        await storage.register_trial(Trial(experiment=3, params=point))
        given = documents()
        given["experiments"][2]["metadata"]["user_args"] = ["--new"]
        assert (await put(storage, given)).experiments == Count(present=3)
        trials = await storage.fetch_trials(uid=3)
        assert [trial.status for trial in trials or ()] == ["completed", "new"]


async def test_ids_that_are_taken_are_given_anew_everywhere() -> None:
    async with open_storage("memory://") as storage:
        for uid in (1, 3):
            await storage.create_experiment({"name": f"other{uid}", "_id": uid})
        await CollectionAccess(storage).insert("trials", [{**trial(9, 1, 0.9), "id": "f" * 32}])
        await storage.create_benchmark({"name": "other", "_id": 1})
        counts = Counts(Count(3), Count(9), Count(1), Count(1), orphans=1, interrupted=1)
        assert await put(storage) == counts
        root, branch = await storage.fetch_experiments({"name": "tree"})
        [alone] = await storage.fetch_experiments({"name": "alone"})
        assert branch["_id"] == 2
        assert branch["refers"]["parent_id"] == root["_id"] != 1
        [moved] = await storage.fetch_trials(alone) or []
        assert moved.id_override != 9
        assert (await put(storage)).trials == Count(present=9)


async def test_what_cannot_be_stored_is_named_first() -> None:
    async with open_storage("memory://") as storage:
        wrong: list[tuple[str, dict[str, Any], str]] = [
            ("experiments", experiment(4, "odd", space={1, 2}), "experiment 'odd': space: set"),
            ("trials", trial(11, 3, 0.1, "lost"), "trial 11 of experiment 'alone' v1"),
            ("trials", {**trial(11, 3, 0.1), "worker": 1j}, "trial 11 of experiment 'alone' v1"),
            (
                "trials",
                {**trial(11, 3, 0.1), "params": [{"name": None, "type": "real", "value": 1}]},
                "trial 11 of experiment 'alone' v1",
            ),
            (
                "trials",
                {
                    **trial(11, 3, 0.1),
                    "results": [{"type": "objective", "value": "1"}],
                },
                r"trial 11 of experiment 'alone' v1: results\[0\].value",
            ),
            ("experiments", experiment(4, "odd", metadata=3), "experiment 'odd': metadata"),
            ("benchmarks", {"_id": 2}, "benchmark None: .*needs 'name'"),
            ("algo", {"experiment": 3, "state": {"f": print}}, "state of experiment 'alone' v1"),
            ("algo", {"experiment": 3, "state": b"torn"}, "state of experiment 'alone' v1"),
        ]
        for collection, document, message in wrong:
            given = documents()
            given[collection].append(document)
            with pytest.raises(EncodingError, match=message):
                await put(storage, given)
        assert not await storage.fetch_experiments({})


async def test_times_that_are_text_become_times() -> None:
    """As in a database that was filled from YAML or JSON, with and without an offset."""
    given = documents()
    times = {
        "submit_time": "2024-03-01T10:20:30",
        "start_time": "2024-03-01T12:20:31+02:00",
        "end_time": "2024-03-01 10:20:32.5",
        "heartbeat": BORN,
    }
    given["trials"] = [{**trial(1, 1, 0.5, "completed"), **times}]
    async with open_storage("memory://") as storage:
        await put(storage, given)
        (found,) = await storage.fetch_trials(uid=1) or []
    moment = datetime(2024, 3, 1, 10, 20, 30, tzinfo=UTC)
    assert found.submit_time == moment
    assert found.start_time == moment + timedelta(seconds=1)
    assert found.end_time == moment + timedelta(seconds=2.5)
    assert found.heartbeat == BORN

    given["trials"][0]["end_time"] = "yesterday"
    async with open_storage("memory://") as storage:
        with pytest.raises(EncodingError, match=r"trial 1 of experiment 'tree' v1.*yesterday"):
            await put(storage, given)
        assert await storage.fetch_experiments({}) == []


async def test_an_export_numbers_what_has_no_number() -> None:
    async with open_storage("memory://") as storage:
        await put(storage)
        made = await storage.create_experiment({"name": "ours"})
        point = [{"name": "x", "type": "real", "value": 0.1}]
        await storage.register_trial(Trial(experiment=made.id, params=point))
        await storage.delete_algorithm_lock(made)
        await storage.reserve_trial(made)
        found, orphans, interrupted = await _collect(storage, lambda _: None)
        assert (orphans, interrupted) == (0, 1)
        assert "reserved" not in [t["status"] for t in found["trials"]]
        assert await storage.fetch_trials_by_status(made, "reserved")  # the storage keeps it
        assert [config["_id"] for config in found["experiments"]] == [1, 2, 3, 4]
        assert [t["_id"] for t in found["trials"]] == list(range(1, 11))
        assert [lock["experiment"] for lock in found["algo"]] == [1, 2, 3, 4]
        assert pickle.loads(found["algo"][0]["state"]) == {"seen": [1]}
        assert not {"owner", "since", "expires"} & found["algo"][0].keys()


def test_the_commands_need_orion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orion.core.io.database.pickleddb", None)
    monkeypatch.chdir(tmp_path)
    Path("orion.pkl").write_bytes(b"\x80")
    runner = CliRunner()
    for arguments in (
        ["import-orion", "orion.pkl", "sqlite:///tune.db"],
        ["export-orion", "sqlite:///some.db", "back.pkl"],
    ):
        if arguments[0] == "export-orion":
            anyio.run(_make, f"sqlite:///{tmp_path}/some.db")
        done = runner.invoke(cli, arguments, prog_name="aiostorage")
        assert done.exit_code == 2, done.output
        assert "pip install 'aiostorage-orion[orion]'" in done.stderr
        assert done.stdout == "", "it says so before it reads the storage"
    assert {path.name for path in tmp_path.iterdir()} == {"orion.pkl", "some.db"}


async def _make(url: str) -> None:
    async with open_storage(url) as storage:
        await storage.create_experiment({"name": "e"})


@pytest.mark.parametrize(
    ("collection", "field", "value", "named"),
    [
        ("algo", "configuration", {"f": len}, "configuration.f: "),
        ("algo", "heartbeat", 5, "algo.heartbeat is a datetime, not 5"),
        ("trials", "params", "x", "params: a list of dicts is needed, not 'x'"),
        ("trials", "params", [5], "params[0]: a dict of name, type and value is needed, not 5"),
        ("trials", "results", 5, "results: a list of dicts is needed, not 5"),
    ],
)
async def test_one_bad_record_is_skipped_alone(
    collection: str, field: str, value: Any, named: str
) -> None:
    source: dict[str, list[dict[str, Any]]] = {
        "experiments": [experiment(1, "a")],
        "algo": [{"experiment": 1, "state": None, "configuration": {}, "heartbeat": BORN}],
        "trials": [trial(1, 1, 0.5)],
    }
    source[collection][0][field] = value
    with pytest.raises(EncodingError) as caught:
        imported_experiments(source)
    assert named in str(caught.value)
    bad = BadRecords(skip=True)
    experiments, orphans = imported_experiments(source, bad)
    async with open_storage("memory://") as storage:
        work = importer.Importer(
            storage, "there", decode_state, overwrite=False, progress=None, bad=bad
        )
        counts = await work.run(experiments, [], orphans)
    [skipped] = counts.skipped
    assert (skipped.collection, named in skipped.reason) == (collection, True)
    assert counts.experiments == Count(copied=1)
    assert counts.trials.copied == (collection != "trials")
