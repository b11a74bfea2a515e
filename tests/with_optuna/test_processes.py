"""Several processes on one study, some of them killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aiostorage import SyncStorage, open_storage
from aiostorage.optuna import OptunaStorage

SCRIPT = Path(__file__).with_name("worker_kills.py")
FINAL = {"completed", "broken"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_paused_workers_leave_every_trial_right(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"
    subprocess.run([sys.executable, str(SCRIPT), url, "7"], check=True, timeout=100)
    storage = OptunaStorage(url)
    study = optuna.load_study(study_name="tune", storage=storage)
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert trial.value == trial.params["x"] * trial.params["x"] + trial.params["y"]
            assert trial.intermediate_values == {0: trial.params["x"]}
        elif trial.state == TrialState.PRUNED:
            assert trial.params["y"] == 9
    finished = [trial for trial in trials if trial.state.is_finished()]
    assert len(finished) >= 150
    failed = [trial.number for trial in trials if trial.state == TrialState.FAIL]
    assert failed, "those of killed workers were declared stale"
    retried = {trial.system_attrs.get("failed_trial") for trial in trials} - {None}
    assert retried <= set(failed)
    with SyncStorage(open_storage(url)) as store:
        [config] = store.fetch_experiments({"name": "tune"})
        changes, _ = store.changes_since(config, "oldest", limit=100_000)
    ended = [change.trial for change in changes if change.after in FINAL]
    assert sorted(ended) == sorted(set(ended)), "each trial has ended once"
    assert len(ended) == len(finished)
    storage.close()
