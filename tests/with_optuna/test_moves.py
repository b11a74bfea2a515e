"""Studies that move from Optuna's own storages into ours, and back."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import optuna
import pytest
from click.testing import CliRunner, Result
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from aiostorage import open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.cli.app import cli
from aiostorage.errors import ConfigurationError, DuplicateKeyError, EncodingError
from aiostorage.optuna import OptunaStorage, export_optuna, import_optuna
from aiostorage.optuna.study_ids import study_id_of
from aiostorage.transfer import MoveReport, copy_storage
from aiostorage.transfer.move_plan import derived_id
from aiostorage.transfer.move_writer import MoveWriter
from tests.cli.support import environment
from tests.preloaded import preloaded
from tests.with_optuna.conftest import ENGINES
from tests.with_optuna.optuna_stores import (
    LIBRARIES,
    ODD,
    begun,
    fill,
    journal,
    long_study,
    opened_rdb,
    seen,
    trials_of,
)

Opener = Callable[[Path], BaseStorage]

DEADLINE = 100.0

KILLED = """
import os, signal, sys
from pathlib import Path
import anyio
from aiostorage import open_storage
from aiostorage.optuna import export_optuna, import_optuna
from tests.with_optuna.optuna_stores import long_study

def show(progress):
    if progress.stage == "writing" and progress.done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

async def move():
    async with open_storage("sqlite:///ours.db?synchronous=NORMAL") as storage:
        if sys.argv[1] == "import":
            await import_optuna(long_study(600), storage, progress=show)
        else:
            await export_optuna(storage, "target.log", progress=show)

anyio.run(move)
"""


def moved(move: Any, url: str, place: Any, **options: Any) -> MoveReport:
    """Import or export studies."""

    async def call() -> Any:
        async with open_storage(url) as storage:
            pair = (storage, place) if move is export_optuna else (place, storage)
            return await move(*pair, **options)

    report = anyio.run(call)
    assert isinstance(report, MoveReport)
    return report


def outcomes(report: MoveReport) -> dict[str, str]:
    return {one.name: one.outcome for one in report.experiments}


def in_ours(url: str) -> dict[str, Any]:
    storage = OptunaStorage(url)
    try:
        return seen(storage)
    finally:
        storage.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def kill_while_moving(folder: Path, what: str, after: int) -> None:
    """Have a process move studies, and kill itself when so many records are written."""
    process = preloaded((), *LIBRARIES).start(
        *(KILLED, what, str(after)), directory=folder, environment=environment()
    )
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.parametrize(("opener", "back"), [(opened_rdb, journal), (journal, opened_rdb)])
def test_studies_arrive_equal_trial_by_trial_and_go_back(
    tmp_path: Path, opener: Opener, back: Opener
) -> None:
    """Whatever Optuna has of them; and a second move finds everything there."""
    source = opener(tmp_path / "source")
    fill(source)
    expected = seen(source)
    states = [trial.state for trial in expected[ODD][3]]
    assert set(states) == set(TrialState)
    url = f"sqlite:///{tmp_path}/ours.db"
    place = f"{'sqlite:///' if opener is opened_rdb else ''}{tmp_path}/source"

    report = moved(import_optuna, url, place)

    assert outcomes(report) == dict.fromkeys(expected, "copied")
    assert report.trials == 10
    assert report.checksum is not None
    assert in_ours(url) == expected
    again = moved(import_optuna, url, place)
    assert outcomes(again) == dict.fromkeys(expected, "present")
    assert again.trials == 0

    target = back(tmp_path / "back")
    report = moved(export_optuna, url, target)

    assert outcomes(report) == dict.fromkeys(expected, "copied")
    assert seen(back(tmp_path / "back")) == expected
    assert outcomes(moved(export_optuna, url, target)) == dict.fromkeys(expected, "present")
    assert seen(target) == expected


@pytest.mark.parametrize("url", ENGINES[2:], indirect=True)
def test_an_import_is_equal_on_other_engines(url: str) -> None:
    """MongoDB keeps times to the millisecond, Track as seconds; Optuna's own are kept beside."""
    source = InMemoryStorage()
    fill(source)
    assert set(outcomes(moved(import_optuna, url, source)).values()) == {"copied"}
    assert in_ours(url) == seen(source)
    assert set(outcomes(moved(import_optuna, url, source)).values()) == {"present"}


def test_a_killed_import_goes_on_and_nothing_of_it_was_seen_before(tmp_path: Path) -> None:
    """Its trials are written in parts; the study appears with the last one."""
    source = long_study(600)
    kill_while_moving(tmp_path, "import", 500)
    url = f"sqlite:///{tmp_path}/ours.db"
    with closing(sqlite3.connect(tmp_path / "ours.db")) as connection:
        left = {row[0] for row in connection.execute("select rowid from trials")}
    assert 0 < len(left) < 600
    assert in_ours(url) == {}

    assert outcomes(moved(import_optuna, url, source)) == {"long": "copied"}

    assert in_ours(url) == seen(source)
    with closing(sqlite3.connect(tmp_path / "ours.db")) as connection:
        rows = {row[0] for row in connection.execute("select rowid from trials")}
    assert len(rows) == 600
    assert left < rows  # what was there has not been written again


def test_a_killed_export_goes_on_where_the_trials_of_the_target_end(tmp_path: Path) -> None:
    source = long_study(120)
    url = f"sqlite:///{tmp_path}/ours.db"
    moved(import_optuna, url, source)
    kill_while_moving(tmp_path, "export", 50)
    target = tmp_path / "target.log"
    assert trials_of(journal(target), "long") == trials_of(source, "long")[:50]
    size = target.stat().st_size

    report = moved(export_optuna, url, str(target))

    assert (outcomes(report), report.trials) == ({"long": "copied"}, 70)
    assert seen(journal(target)) == seen(source)
    assert target.stat().st_size < 3 * size  # 120 trials, not 170


def test_a_study_of_the_same_name_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    """In both directions; and running trials may wait in the copy."""
    source = InMemoryStorage()
    study = optuna.create_study(storage=source, study_name="tune")
    study.add_trials([begun(n, TrialState.COMPLETE, values=[float(n)]) for n in range(3)])
    study.add_trial(begun(3, TrialState.RUNNING))
    url = f"sqlite:///{tmp_path}/ours.db"
    other = OptunaStorage(url)
    optuna.create_study(storage=other, study_name="tune", direction="maximize")
    before = seen(other)

    with pytest.raises(Exception, match="another one of that name") as refused:
        moved(import_optuna, url, source)
    assert "bump" not in str(refused.value)
    assert outcomes(moved(import_optuna, url, source, resolve="ignore")) == {"tune": "ignored"}
    report = moved(import_optuna, url, source, resolve="overwrite", dry_run=True)
    assert outcomes(report) == {"tune": "overwritten"}
    assert seen(other) == before
    moved(import_optuna, url, source, resolve="overwrite", interrupt_running=True)
    other.close()
    (_, _, _, trials) = in_ours(url)["tune"]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 + ["WAITING"]
    assert trials[:3] == trials_of(source, "tune")[:3]

    with pytest.raises(Exception, match="another one of that name"):
        moved(export_optuna, url, source)
    assert outcomes(moved(export_optuna, url, source, resolve="ignore")) == {"tune": "ignored"}
    moved(export_optuna, url, source, resolve="overwrite")
    assert seen(source) == in_ours(url)


def test_the_commands_and_their_exit_codes(tmp_path: Path) -> None:
    source = journal(tmp_path / "source.log")
    fill(source)
    there = str(tmp_path / "source.log")
    url = f"sqlite:///{tmp_path}/ours.db"

    missing = run("import-optuna", str(tmp_path / "none.log"), "--to", url)
    assert (missing.exit_code, "there is no " in missing.stderr) == (2, True)
    assert run("import-optuna", f"sqlite:///{tmp_path}/none.db", "--to", url).exit_code == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "source.log"]  # nothing was made
    assert run("import-optuna", there, "--to", "memory://").exit_code == 2
    assert run("import-optuna", there, "--to", url, "-e", "nothing").exit_code == 1

    secret = run("import-optuna", "postgresql://me:pass%40word@127.0.0.1:1/x", "--to", url)
    assert secret.exit_code in (2, 3)  # the second where there is a driver for it
    assert "pass" not in secret.stderr
    assert run("import-optuna", "nonsense://x", "--to", url).exit_code == 2

    done = run("import-optuna", there, "--to", url, "-e", ODD, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(one["name"], one["outcome"]) for one in report["experiments"]] == [(ODD, "copied")]
    assert run("import-optuna", url, "--to", url).exit_code == 2  # it is none of Optuna's
    study = optuna.load_study(storage=source, study_name=ODD)
    study.set_user_attr("owner", "another")
    refused = run("import-optuna", there, "--to", url)
    assert (refused.exit_code, "ignore" in refused.stderr) == (2, True)

    assert run("export-optuna", url, url).exit_code == 2
    assert run("export-optuna", url, str(tmp_path / "back.log"), "-e", "nothing").exit_code == 1
    assert not (tmp_path / "back.log").exists()
    assert run("export-optuna", f"{url}x", str(tmp_path / "back.log")).exit_code == 2
    (tmp_path / "notes.txt").write_text("hello\n")
    assert run("export-optuna", url, str(tmp_path / "notes.txt")).exit_code == 2
    done = run("export-optuna", url, str(tmp_path / "back.log"))
    assert done.exit_code == 0, done.stderr
    assert "copied: 1 experiment" in done.stdout
    with (tmp_path / "back.log").open("a") as torn:
        torn.write('{"op_code": 1')
    refused = run("export-optuna", url, str(tmp_path / "back.log"))
    assert (refused.exit_code, "ends within a line" in refused.stderr) == (2, True)


def test_a_study_that_lacks_a_trial_cannot_be_exported(tmp_path: Path) -> None:
    """Optuna's storages number trials without gaps."""
    url = f"sqlite:///{tmp_path}/ours.db"
    source = long_study(3)
    moved(import_optuna, url, source)

    async def delete() -> None:
        async with open_storage(url) as storage:
            assert await CollectionAccess(storage).delete("trials", {"optuna.number": 1}) == 1

    anyio.run(delete)
    with pytest.raises(EncodingError, match="has no trial 1 "):
        moved(export_optuna, url, InMemoryStorage())


def test_a_new_study_does_not_get_the_trials_that_a_killed_load_has_left(tmp_path: Path) -> None:
    """They belong to the study id that the loaded study has when it is complete."""
    url = f"sqlite:///{tmp_path}/ours.db"
    storage = OptunaStorage(url)
    study = optuna.create_study(storage=storage, study_name="loaded")
    study.add_trial(begun(0, TrialState.COMPLETE, values=[1.0]))

    async def delete() -> None:
        async with open_storage(url) as opened:
            for collection in ("experiments", "algo", "settings"):
                await CollectionAccess(opened).delete(collection, {})

    anyio.run(delete)  # what is left is what a load has written before its last transaction
    other = OptunaStorage(url)
    assert optuna.create_study(storage=other, study_name="new").trials == []
    other.close()
    storage.close()


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("import-optuna", "none.log"), "optuna.storages", "optuna"),
        (("export-optuna", "sqlite:///none.db", "none.log"), "optuna.storages", "optuna"),
        (("dashboard", "sqlite:///none.db"), "optuna_dashboard", "dashboard"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    arguments: tuple[str, ...], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("moves.study_imports", "moves.study_exports", "dashboard.server"):
        monkeypatch.delitem(sys.modules, f"aiostorage.optuna.{name}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert f"this needs {module.partition('.')[0]}, which is not installed" in refused.stderr
    assert f"pip install 'aiostorage-orion[{extra}]'" in refused.stderr


@pytest.fixture
def two_stores(tmp_path: Path) -> Iterator[tuple[OptunaStorage, OptunaStorage]]:
    """Give a store with a study, and an empty one."""
    source, target = (
        OptunaStorage(f"sqlite:///{tmp_path}/{name}.db?synchronous=NORMAL")
        for name in ("source", "target")
    )
    study = optuna.create_study(storage=source, study_name="moved")
    study.add_trials([begun(n, TrialState.COMPLETE, values=[float(n)]) for n in range(3)])
    yield source, target
    for storage in (source, target):
        storage.close()


def copy(source: OptunaStorage, target: OptunaStorage) -> None:
    async def move() -> None:
        urls = (f"sqlite:///{storage.location}" for storage in (source, target))
        one, other = map(open_storage, urls)
        async with one, other:
            await copy_storage(one, other)

    anyio.run(move)


@pytest.mark.parametrize("when", ["write", "_begin"])
def test_a_study_that_is_created_during_a_copy_keeps_its_trials(
    two_stores: tuple[OptunaStorage, OptunaStorage], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the id that the copy was to get: the copy says so, and another one succeeds."""
    source, target = two_stores

    def create() -> None:
        study = optuna.create_study(storage=target, study_name="new")
        study.optimize(lambda trial: trial.suggest_float("y", 5, 6), n_trials=3)

    do = getattr(MoveWriter, when)

    async def after_it(self: MoveWriter, *arguments: Any) -> Any:
        await anyio.to_thread.run_sync(create)
        return await do(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MoveWriter, when, after_it)
        with pytest.raises(DuplicateKeyError, match="Load again"):
            copy(source, target)
    new = trials_of(target, "new")
    assert [trial.number for trial in new] == [0, 1, 2]
    copy(source, target)
    assert trials_of(target, "new") == new
    assert trials_of(target, "moved") == trials_of(source, "moved")


def test_a_study_that_is_created_during_a_copy_gets_another_id(
    two_stores: tuple[OptunaStorage, OptunaStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two_stores
    begin = MoveWriter._begin
    new: list[int] = []

    async def and_create(self: MoveWriter, *arguments: Any) -> Any:
        begun = await begin(self, *arguments)
        new.append(
            await anyio.to_thread.run_sync(
                target.create_new_study, [StudyDirection.MINIMIZE], "new"
            )
        )
        return begun

    monkeypatch.setattr(MoveWriter, "_begin", and_create)
    copy(source, target)
    assert (target.get_study_id_from_name("moved"), new) == (1, [2])
    assert trials_of(target, "moved") == trials_of(source, "moved")
    assert target.get_all_trials(2) == []


def test_two_studies_that_have_the_same_id_by_chance_are_not_taken_for_each_other(
    tmp_path: Path,
) -> None:
    names: dict[int, str] = {}
    for number in range(100_000):  # ids have 24 bits
        name = f"study {number}"
        other = names.setdefault(study_id_of(derived_id("study of Optuna", name)), name)
        if other != name:
            break
    source = InMemoryStorage()
    for one in (name, other, "third"):
        optuna.create_study(storage=source, study_name=one)
    url = f"sqlite:///{tmp_path}/ours.db"
    moved(import_optuna, url, source, studies=[other, "third"])
    storage = OptunaStorage(url)
    study = optuna.load_study(study_name=other, storage=storage)
    moved(import_optuna, url, source, studies=[name])
    with pytest.raises(ConfigurationError, match=f"'{name}'.*same id"):
        optuna.load_study(study_name=name, storage=storage)
    assert optuna.load_study(study_name="third", storage=storage).trials == []
    assert study.study_name == other
    storage.close()
