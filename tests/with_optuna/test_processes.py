"""Many processes on one study, some of them killed or paused, and a replica set's elections.

CI kills a few. For more of it, set AIOSTORAGE_TEST_KILLS, and AIOSTORAGE_TEST_SEED.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from aiostorage.testing import ReplicaSet
from tests.with_optuna.conftest import UNCLOSED
from tests.with_optuna.killed_studies import KilledStudy

KILLS = int(os.environ.get("AIOSTORAGE_TEST_KILLS", "0"))
SEED = int(os.environ.get("AIOSTORAGE_TEST_SEED", "0"))

TRIALS_PER_KILL = 10

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
    pytest.mark.timeout(120 + 10 * KILLS),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def test_killed_and_paused_processes_leave_every_trial_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"
    kills = KILLS or 10
    report = KilledStudy(url, tmp_path, seed=SEED).run(kills, TRIALS_PER_KILL * kills, [])
    with capsys.disabled():
        print(f"\nSQLite: {report}")


@UNCLOSED
def test_elections_while_processes_are_killed_leave_every_trial_right(
    mongodb_replica_set_3: ReplicaSet,
    mongodb_database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A primary steps down, and one is killed."""
    replica_set = mongodb_replica_set_3
    killed = []
    disturbances = (
        replica_set.step_down,
        lambda: killed.append(replica_set.kill_primary()),
        lambda: replica_set.restart(killed[-1]),
    )
    replica_set.start()
    try:
        url, kills = replica_set.url_for(mongodb_database), KILLS or 4
        study = KilledStudy(url, tmp_path, ("aiostorage.drivers.mongodb",), SEED, seconds=0.2)
        report = study.run(kills, TRIALS_PER_KILL * kills, disturbances * (1 + kills // 20))
    finally:
        replica_set.stop()
        gc.collect()
    with capsys.disabled():
        print(f"\na replica set of three: {report}")
