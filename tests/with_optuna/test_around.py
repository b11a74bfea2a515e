"""What is around a store works on studies: commands, dumps, copies, plots and trackers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from aiostorage import SyncStorage, open_storage
from aiostorage.cli.app import cli
from aiostorage.optuna import OptunaStorage
from tests.trackers.conftest import QUICK
from tests.trackers.file_tracker import FileTracker, Seen


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make a study that maximizes and one with two objectives."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path_factory.mktemp('around')}/store.db"
    storage = OptunaStorage(url)
    study = optuna.create_study(storage=storage, study_name="up", direction="maximize")
    study.set_user_attr("team", "blue")
    for x in (1, 3, 2):
        study.enqueue_trial({"x": x})

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_int("x", 0, 9)
        trial.suggest_categorical("kind", ["a", None, True])
        trial.set_user_attr("twice", [2 * x])
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 4:
            raise ValueError
        return x

    study.optimize(objective, n_trials=5, catch=ValueError)
    study.enqueue_trial({"x": 7})
    both = optuna.create_study(
        storage=storage, study_name="both", directions=["minimize", "maximize"]
    )
    both.optimize(lambda trial: (trial.suggest_float("y", 0, 1), 2), n_trials=2)
    storage.close()
    yield url
    optuna.logging.set_verbosity(optuna.logging.INFO)


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), prog_name="aiostorage")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_status_knows_the_direction_of_a_study(url: str) -> None:
    up, both = json.loads(printed("status", "-s", url, "--json"))["experiments"]
    assert (up["direction"], up["best"]) == ("maximize", 3)
    assert up["trials"] == {"completed": 4, "broken": 1, "new": 1}
    assert (both["direction"], both["trials"]) == ("minimize", {"completed": 2})
    [down, _] = json.loads(printed("status", "-s", url, "--json", "--direction", "minimize"))[
        "experiments"
    ]
    assert down["best"] == 1


def test_show_and_list(url: str) -> None:
    shown = json.loads(printed("show", "up", "-s", url, "--json"))
    assert shown["experiment"]["optuna"]["user_attrs"] == {"team": "blue"}
    assert shown["summary"]["best"] == 3
    assert "both@1" in printed("list", "-s", url)
    with SyncStorage(open_storage(url)) as store:
        [config] = store.fetch_experiments({"name": "up"})
        best = store.best_trial(config, "maximize")
        assert best is not None
        frame = store.to_dataframe(config)
    text = printed("show", f"up:{best.id}", "-s", url)
    assert "reserved" in text, "its history"
    assert list(frame["params.x"][:3]) == [1, 3, 2]


def test_a_dump_and_a_load_keep_everything(url: str, tmp_path: Path) -> None:
    dump, copy = str(tmp_path / "all.jsonl"), f"track:///{tmp_path}/copy.json"
    printed("dump", "-s", url, "-o", dump)
    printed("load", dump, "-s", copy)
    storages = OptunaStorage(url), OptunaStorage(copy)
    ours, theirs = (storage.get_all_studies() for storage in storages)
    assert ours == theirs
    for study in ours:
        first, second = (storage.get_all_trials(study._study_id) for storage in storages)
        assert first == second
    for storage in storages:
        storage.close()


def test_a_plot(url: str, tmp_path: Path) -> None:
    page = tmp_path / "up.html"
    said = json.loads(printed("plot", "up", "-o", str(page), "-s", url, "--json"))
    assert (said["trials"], page.exists()) == (3, True)


def test_a_tracker_is_told_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "tracker").mkdir()
    tracker = FileTracker(tmp_path / "tracker")
    inner = open_storage(f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL", tracker=tracker)
    assert inner._mirror is not None
    inner._mirror.deliverer.settings = QUICK
    with SyncStorage(inner, in_running_loop=True) as facade:
        study = optuna.create_study(storage=OptunaStorage(facade), study_name="tune")

        def objective(trial: optuna.Trial) -> float:
            x = trial.suggest_float("x", 0, 1)
            if trial.number == 2:
                raise optuna.TrialPruned
            return x

        study.optimize(objective, n_trials=3)
        facade.flush_tracker(timeout=30)
        runs = {run.params["x"]: run for run in Seen(tmp_path / "tracker").runs()}
        assert len(runs) == 3
        for trial in study.trials:
            run = runs[trial.params["x"]]
            metrics = {} if trial.value is None else {"objective": trial.value}
            assert (run.status, run.metrics) == ("completed", metrics)
