"""Files that people or other programs have edited: each is read, or refused with a clear error."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from aiostorage import (
    NotADatabaseError,
    PermissionDenied,
    RetryPolicy,
    Storage,
    TemporaryBackendError,
    Trial,
    open_storage,
)
from tests.track.test_files import edited, tree_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("may_block")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tune.json"


def opened(path: Path, **options: Any) -> Storage:
    return open_storage(f"track:///{path}", **options)


async def registered(path: Path) -> Trial:
    async with opened(path) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        trial = Trial(experiment=experiment.id, params={"x": 1})
        await storage.register_trial(trial)
        return trial


def section_of(tree: Any) -> Any:
    return tree[-1]["metadata"]["aiostorage"]


def records_of(tree: Any, **collections: Any) -> None:
    section_of(tree)["collections"].update(collections)


def trial_of(tree: Any) -> Any:
    return tree[0]["trials"][0]


# ------------------------------------------------------------------------ what stays as it is


async def test_a_collection_of_a_newer_version_stays(path: Path) -> None:
    trial = await registered(path)
    strange = {"1": {"record": {"_id": "a", "text": "ü"}}, "7": {"other": [1, {"b": None}]}}
    edited(path, lambda tree: records_of(tree, strange=strange))
    for status in ("interrupted", "reserved"):
        async with opened(path) as storage:
            await storage.set_trial_status(trial, status)
        assert section_of(tree_of(path))["collections"]["strange"] == strange


async def test_half_of_a_surrogate_pair_stays(path: Path) -> None:
    trial = await registered(path)
    edited(path, lambda tree: trial_of(tree).update(name="\ud83d", tags={"\udc00": 1}))
    async with opened(path) as storage:
        await storage.set_trial_status(trial, "broken")
    assert trial_of(tree_of(path))["name"] == "\ud83d"
    assert trial_of(tree_of(path))["tags"] == {"\udc00": 1}


async def test_what_a_project_has_beside_its_last_experiment_stays(path: Path) -> None:
    trial = await registered(path)
    edited(path, lambda tree: tree[0].update(colour="red"))
    async with opened(path) as storage:
        await storage.delete_experiment(uid=trial.experiment)
    assert tree_of(path)[0]["colour"] == "red"


async def test_a_byte_order_mark_is_no_part_of_the_text(path: Path) -> None:
    trial = await registered(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    async with opened(path) as storage:
        assert await storage.fetch_trials(uid=trial.experiment) == [trial]


# ---------------------------------------------------------------- values of an unexpected kind


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: trial_of(tree).update(group_id=["a"]),
        lambda tree: trial_of(tree).update(group_id={"a": 1}),
        lambda tree: trial_of(tree).update(metrics={"a": {"inf": 1.0}, "b": {"1e999": 1.0}}),
        lambda tree: trial_of(tree).update(metrics={"a": {"nan": 1.0}, "objective": {"nan": 2}}),
        lambda tree: trial_of(tree)["metadata"].update(submit_time=10**400),
        lambda tree: trial_of(tree)["metadata"].update(_last_change=10**400, submit_time=1e308),
        lambda tree: trial_of(tree).update(
            parameters={"x": {"y": 2}}, metadata={"params_types": {"x": "real", "x.y": "real"}}
        ),
        lambda tree: trial_of(tree).update(status={"value": [1]}),
    ],
)
async def test_the_rest_is_read_and_written(path: Path, change: Callable[[Any], None]) -> None:
    trial = await registered(path)
    edited(path, change)
    other = Trial(experiment=trial.experiment, params={"x": 2})
    async with opened(path) as storage:
        await storage.register_trial(other)
        assert await storage.get_trial(uid=other.id, experiment_uid=trial.experiment) == other
        first = await storage.fetch_trials(uid=trial.experiment)
        assert first is not None
        assert other in first
        experiment = {"_id": trial.experiment}
        await storage.fetch_trials_by_status(experiment, "new")
        assert await storage.reserve_trial(experiment)
        await storage.update_trials(uid=trial.experiment, results=[])
    tree_of(path)


async def test_the_number_of_a_status_says_it_too(path: Path) -> None:
    trial = await registered(path)
    edited(path, lambda tree: trial_of(tree).update(status={"value": 302}))
    async with opened(path) as storage:
        found = await storage.fetch_trials_by_status({"_id": trial.experiment}, "completed")
        assert len(found) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: section_of(tree).update(collections=[]), "the collections"),
        (lambda tree: records_of(tree, outbox=[]), "the collection 'outbox'"),
        (lambda tree: records_of(tree, experiments={"1": {}}), "the collection 'experiments'"),
        (lambda tree: records_of(tree, trials={}), "the collection 'trials'"),
        (lambda tree: records_of(tree, strange={"9" * 5000: {}}), "record '9999"),
        (lambda tree: records_of(tree, strange={"01": {}, "1": {}}), "record '01'"),
        (lambda tree: records_of(tree, strange={"1": 5}), "record '1'"),
        (lambda tree: tree.append({"dtype": "project", "uid": ""}), "a project without a uid"),
        (lambda tree: tree.append({"dtype": "project", "uid": [1]}), "a project without a uid"),
    ],
)
async def test_what_aiostorage_never_writes_is_refused(
    path: Path, change: Callable[[Any], None], message: str
) -> None:
    await registered(path)
    edited(path, change)
    text = path.read_bytes()
    with pytest.raises(NotADatabaseError, match=message):
        async with opened(path) as storage:
            await storage.create_experiment({"name": "f"})
    assert path.read_bytes() == text


# ------------------------------------------------------------------------- who may write, when


def write_slowly(path: Path, half: threading.Event, whole: str) -> None:
    """Write a file in place, as a script does that holds the lock."""
    with FileLock(f"{path}.lock"):
        path.write_text(whole[: len(whole) // 2])
        half.set()
        time.sleep(0.5)
        path.write_text(whole)


async def test_a_reader_waits_for_a_program_that_writes_in_place(path: Path) -> None:
    trial = await registered(path)
    half = threading.Event()
    async with opened(path) as storage:
        writer = threading.Thread(target=write_slowly, args=(path, half, path.read_text()))
        writer.start()
        half.wait()
        assert await storage.fetch_trials(uid=trial.experiment) == [trial]
        writer.join()


async def test_a_reader_does_not_wait_for_ever(path: Path) -> None:
    await registered(path)
    text = path.read_text()
    async with opened(path, busy_timeout=0.1, retry=RetryPolicy(attempts=1)) as storage:
        with FileLock(f"{path}.lock"):
            path.write_text(text[:100])
            with pytest.raises(TemporaryBackendError, match="another process holds that lock"):
                await storage.fetch_experiments({})


async def test_a_file_for_reading_only_is_not_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = await registered(path)
    path.chmod(0o444)
    text = path.read_bytes()
    if os.geteuid() == 0:  # who may write everything
        monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    async with opened(path) as storage:
        assert await storage.fetch_trials(uid=trial.experiment) == [trial]
        with pytest.raises(PermissionDenied, match="it may only be read"):
            await storage.set_trial_status(trial, "broken")
    assert path.read_bytes() == text
    assert json.loads(text)


async def test_a_program_that_writes_without_the_lock_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = await registered(path)
    flush, replacements = os.fsync, iter([True])

    def replaced_meanwhile(descriptor: int) -> None:
        if next(replacements, False):
            edited(path, lambda tree: trial_of(tree).update(tags={"by": "hand"}))
        flush(descriptor)

    async with opened(path) as storage:
        monkeypatch.setattr(os, "fsync", replaced_meanwhile)
        await storage.set_trial_status(trial, "broken")
    assert trial_of(tree_of(path))["tags"] == {"by": "hand"}
    assert trial_of(tree_of(path))["status"] == {"value": 203, "name": "Broken"}
