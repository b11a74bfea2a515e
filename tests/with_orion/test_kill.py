"""Workers that are killed or replaced, and those that come after them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.client import create_experiment

from aiostorage.orion import AioStorage

Processes = Any  # that of conftest.py

LEASE = 3.0

CONFIGURATION = f"""
experiment:
  name: tune
  max_trials: 6
  algorithm: {{random: {{seed: 1}}}}
storage:
  type: aiostorage
  database:
    url: {{URL}}
    lock_lease: {LEASE}
"""

HUNT = """
import sys, time
from orion.algo.random import Random
from orion.core.cli import main
from aiostorage.orion import AioStorage

suggest, acquire, calls = Random.suggest, AioStorage.acquire_algorithm_lock, []

def slow(self, num):
    calls.append(num)
    print("suggesting", time.monotonic(), flush=True)
    if len(calls) == int(sys.argv[1]):
        time.sleep(60)
    return suggest(self, num)

def told(self, *args, **kwargs):
    print("acquiring", time.monotonic(), flush=True)
    return acquire(self, *args, **kwargs)

Random.suggest, AioStorage.acquire_algorithm_lock = slow, told
main(sys.argv[2:])
"""
"""``orion hunt``, whose algorithm thinks for a minute at its n-th suggestion: it has the lock."""


def moments(said: list[str], what: str) -> list[float]:
    return [float(line.split()[1]) for line in said if line.startswith(what)]


@pytest.mark.parametrize("engine", ["sqlite", "pymongo"], indirect=True)
def test_a_hunt_killed_while_it_holds_the_lock(
    processes: Processes, objective: Path, url: str, tmp_path: Path
) -> None:
    """Another carries on by itself, within one lease."""
    (tmp_path / "orion.yaml").write_text(CONFIGURATION.replace("{URL}", repr(url)))
    arguments = ["hunt", "-c", "orion.yaml", str(objective), "-x~uniform(0,1)"]
    first = processes.start(HUNT, "3", *arguments)
    assert first.stdout is not None
    seen = 0
    while seen < 3:
        line = first.stdout.readline()
        assert line, "it ended"
        seen += line.startswith("suggesting")
    first.kill()
    killed = time.monotonic()

    storage = AioStorage({"url": url, "lock_lease": LEASE})
    (experiment,) = storage.fetch_experiments({})
    info = storage.get_algorithm_lock_info(uid=experiment["_id"])
    assert info is not None
    assert info.locked
    assert len(storage.fetch_trials(uid=experiment["_id"])) == 2

    said = processes.finish(processes.start(HUNT, "0", *arguments)).splitlines()
    asked, got = moments(said, "acquiring")[0], moments(said, "suggesting")[0]
    assert got - max(asked, killed + LEASE) < 1.5
    trials = storage.fetch_trials(uid=experiment["_id"])
    assert [trial.status for trial in trials] == ["completed"] * 6
    runs = (tmp_path / "runs.log").read_text().splitlines()
    assert len(runs) == len(set(runs)) == 6


def test_a_replaced_worker_does_not_overwrite_its_successor(configured: dict[str, Any]) -> None:
    def client() -> Any:
        return create_experiment(
            "tune",
            space={"x": "uniform(0, 1)"},
            algorithm={"random": {"seed": 1}},
            max_trials=3,
            storage=configured,
        )

    old, new = client(), client()
    theirs = old.suggest()
    storage = AioStorage(configured["database"])
    long_ago = theirs.heartbeat.replace(year=2020)
    storage.update_trial(theirs, heartbeat=long_ago)
    assert [trial.id for trial in storage.fetch_lost_trials(new._experiment)] == [theirs.id]
    new._experiment.fix_lost_trials()

    mine = new.suggest()
    assert mine.id == theirs.id
    with pytest.raises(RuntimeError, match="lost"):
        old.observe(theirs, 2.0)
    assert storage.get_trial(mine).status == "reserved"
    new.observe(mine, 1.0)
    stored = storage.get_trial(mine)
    assert (stored.status, stored.objective.value) == ("completed", 1.0)

    # nor does it give back or break what is the other's
    another = old.suggest()
    storage.update_trial(another, heartbeat=long_ago)
    new._experiment.fix_lost_trials()
    mine = new.suggest()
    assert mine.id == another.id
    with pytest.raises(RuntimeError, match="lost"):
        old.release(another, "broken")
    assert storage.get_trial(mine).status == "reserved"
    new.observe(mine, 1.0)
    old.close()
    new.close()
