"""Files and machines that make it hard: stopped processes, shortages, numbers, depths, repeats."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiostorage import (
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    RetryPolicy,
    SchemaVersionError,
    TemporaryBackendError,
    Trial,
    upgrade_storage,
)
from aiostorage.drivers.track.turns import Turns
from tests.track.test_edited_files import (
    opened,
    registered,
    section_of,
    trial_of,
)
from tests.track.test_files import edited, tree_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("may_block")]

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tune.json"


async def use(path: Path, trial: Trial) -> None:
    async with opened(path, retry=ONCE) as storage:
        await storage.register_trial(Trial(experiment=trial.experiment, params={"x": 2}))
        while reserved := await storage.reserve_trial({"_id": trial.experiment}):
            await storage.complete_trial(reserved, {"loss": 1.0})


# ------------------------------------------------------------------------------- processes


async def test_a_stopped_process_that_has_the_lock(path: Path) -> None:
    trial = await registered(path)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        turns = Turns(path)
        turns.take(5, 0o600)
        os.write(told, b"x")
        time.sleep(0.1)
        turns.end()
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGSTOP)
    async with opened(path, busy_timeout=0.2, retry=ONCE) as storage:
        begin = time.monotonic()
        with pytest.raises(TemporaryBackendError, match="another process holds that lock"):
            await storage.set_trial_status(trial, "interrupted")
        assert time.monotonic() - begin < 5
        assert await storage.fetch_trials(uid=trial.experiment) == [trial]
    os.kill(child, signal.SIGCONT)
    async with opened(path) as storage:
        await storage.set_trial_status(trial, "interrupted")
    os.waitpid(child, 0)
    os.close(ready)
    os.close(told)


# ------------------------------------------------------------------- depth, numbers, repeats


def nested(depth: int) -> Any:
    tree: Any = 1
    for _ in range(depth):
        tree = [tree]
    return tree


@pytest.mark.parametrize("depth", [300, 600, 5000])
@pytest.mark.parametrize("place", ["tags", "parameters", "metadata"])
async def test_deep_values_are_read_or_refused(path: Path, depth: int, place: str) -> None:
    trial = await registered(path)
    text = path.read_text("utf-8")
    trial_of(tree := json.loads(text))[place]["x"] = "here"
    deep = "[" * depth + "]" * depth
    path.write_text(json.dumps(tree).replace('"here"', deep))
    try:
        await use(path, trial)
    except BackendError as error:
        # how deep is too deep goes by the stack of the caller; a call before may have been fine
        assert "nested too deeply" in str(error)  # noqa: PT017  either is right
    assert deep in path.read_text("utf-8").translate({32: None, 10: None})
    path.write_text(text)
    await use(path, trial)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: trial_of(tree)["metadata"]["aiostorage"].update(order=int("9" * 4300)),
        lambda tree: trial_of(tree)["metadata"].update(_update_count=int("9" * 4300)),
        lambda tree: trial_of(tree).update(revision=int("9" * 4300)),
        lambda tree: trial_of(tree).update(revision=True),
        lambda tree: trial_of(tree).update(metrics={"a": {"9" * 4300: 1, "1e308": 2}}),
    ],
)
async def test_huge_numbers_do_not_stop_the_work(path: Path, change: Callable[[Any], None]) -> None:
    trial = await registered(path)
    edited(path, change)
    await use(path, trial)
    assert {entry["status"]["value"] for entry in tree_of(path)[0]["trials"]} == {302}


@pytest.mark.parametrize("number", [-1, 10**18, int("9" * 4300)])
async def test_a_boot_that_there_never_was(path: Path, number: int) -> None:
    await registered(path)
    edited(path, lambda tree: section_of(tree)["boot"].update(number=number))
    with pytest.raises(NotADatabaseError, match="number of the boot"):
        await opened(path).__aenter__()


async def test_a_long_layout_is_shown_in_part(path: Path) -> None:
    await registered(path)
    edited(path, lambda tree: section_of(tree).update(layout=10**4000))
    with pytest.raises(SchemaVersionError) as caught:
        await opened(path).__aenter__()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"tags": {}', '"tags": {}, "tags": {"a": 1}'),
        ('"groups": [', '"trials": [], "groups": ['),
        ('"collections":', '"collections": {}, "collections":'),
    ],
)
async def test_a_key_that_stands_twice(path: Path, old: str, new: str) -> None:
    """JSON takes the second value, and the first would be lost with the next write."""
    trial = await registered(path)
    text = path.read_text("utf-8")
    path.write_text(text.replace(old, new))
    with pytest.raises(NotADatabaseError, match="twice"):
        await use(path, trial)
    assert path.read_text("utf-8") == text.replace(old, new)


async def test_a_uid_that_another_program_has_taken(path: Path) -> None:
    """A new trial gets another one; with two of them the file could not be read again."""
    trial = await registered(path)
    new = Trial(experiment=trial.experiment, params={"x": 2})

    def take(tree: Any) -> None:
        tree[0]["trials"].append({**trial_of(tree), "uid": f"{new.id}_0", "hash": "a"})
        tree[0]["trials"][1].update(metadata={}, parameters={"x": 7})

    edited(path, take)
    async with opened(path) as storage:
        await storage.register_trial(new)
    async with opened(path) as storage:
        assert len(await storage.fetch_trials(uid=trial.experiment) or ()) == 3
    uids = [entry["uid"] for entry in tree_of(path)[0]["trials"]]
    assert uids[1:] == [f"{new.id}_0", f"{new.id}_1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(hash="a"),
        lambda entry: entry.update(hash=["a"], revision=3),
        lambda entry: entry.pop("hash"),
        lambda entry: entry.update(uid="x_1", revision=1, metadata={}),
        lambda entry: entry.update(parameters={}, metadata={}),
    ],
)
async def test_a_trial_with_an_id_of_another_kind_can_be_completed(
    path: Path, change: Callable[[Any], None]
) -> None:
    trial = await registered(path)
    edited(path, lambda tree: change(trial_of(tree)))
    await use(path, trial)
    assert {entry["status"]["value"] for entry in tree_of(path)[0]["trials"]} == {302}


async def test_a_trial_of_track_with_params_that_are_there_already(path: Path) -> None:
    trial = await registered(path)

    def add(tree: Any) -> None:
        for uid in ("t_0", "u_0"):
            new = {
                "uid": uid,
                "hash": uid[0],
                "metadata": {},
                "status": {"value": 0, "name": "new"},
            }
            tree[0]["trials"].append({**trial_of(tree), **new})

    async with opened(path) as storage:
        edited(path, add)
        assert len(await storage.fetch_trials(uid=trial.experiment) or ()) == 3
        await storage.set_trial_status(trial, "interrupted")
        assert len({t.id for t in await storage.fetch_trials(uid=trial.experiment) or ()}) == 3
    await use(path, trial)
    assert {entry["status"]["value"] for entry in tree_of(path)[0]["trials"]} == {302}
    async with opened(path) as storage:
        assert (
            len({t.id for t in await storage.fetch_trials(uid=trial.experiment) or ()}) == 4
        )  # and a new one


# --------------------------------------------------------------------------- what is lacking


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EDQUOT])
async def test_no_room_for_the_file_of_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trial = await registered(path)
    really = os.open

    def lacking(name: Any, *args: Any, **options: Any) -> int:
        if str(name).endswith(".lock"):
            raise OSError(number, os.strerror(number))
        return really(name, *args, **options)

    async with opened(path, retry=ONCE) as storage:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", lacking)
            with pytest.raises(TemporaryBackendError, match="cannot lock"):
                await storage.set_trial_status(trial, "broken")
            assert await storage.fetch_trials(uid=trial.experiment) == [trial]
        await storage.set_trial_status(trial, "broken")


async def test_a_directory_takes_its_place(path: Path) -> None:
    trial = await registered(path)
    text = path.read_bytes()
    async with opened(path, retry=ONCE) as storage:
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigurationError, match="not a regular file"):
            await storage.fetch_experiments({})
        with pytest.raises(ConfigurationError, match="not a regular file"):
            await storage.set_trial_status(trial, "broken")
        path.rmdir()
        path.write_bytes(text)
        await storage.set_trial_status(trial, "broken")


async def test_who_may_use_the_file_may_lock_it(path: Path) -> None:
    before = os.umask(0o077)
    try:
        trial = await registered(path)
        path.chmod(0o664)
        async with opened(path) as storage:
            await storage.set_trial_status(trial, "broken")
    finally:
        os.umask(before)
    for name in (path, path.with_name("tune.json.lock")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o664


async def test_a_backup_has_its_name_when_it_is_complete(path: Path) -> None:
    """So that one that a kill has cut is not taken for it, and does not stop the next attempt."""
    await registered(path)
    edited(path, lambda tree: section_of(tree).update(layout=1))
    old = path.read_bytes()
    path.with_name("tune.json.layout-1.part").write_text("[")
    report = await upgrade_storage(f"track:///{path}")
    assert report.backup is not None
    assert report.backup.read_bytes() == old
    assert {p.name for p in path.parent.iterdir()} == {
        "tune.json",
        "tune.json.lock",
        "tune.json.layout-1",
    }
