"""A worker of a search; many processes run it on one store, which AIOSTORAGE_URL names.

``python search.py [NODE NODES]``: the store has the share of this node alone, and not all trials.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn

from objective import evaluate

from aiostorage import DuplicateKeyError, SyncStorage, Trial, setup_storage

POINTS: Final = [{"x": number / 8} for number in range(24)]
"""All trials of the search."""


def experiment_of(storage: SyncStorage, node: int, nodes: int) -> dict[str, Any]:
    """Return the experiment, with its trials; every worker tries to make it."""
    with suppress(DuplicateKeyError):
        storage.create_experiment({"name": "tune", "version": 1})
    [experiment] = storage.fetch_experiments({"name": "tune", "version": 1})
    mine = [Trial(experiment=experiment["_id"], params=point) for point in POINTS[node::nodes]]
    with suppress(DuplicateKeyError):  # all or none are registered
        storage.register_trials(mine)
    return experiment


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception: the trial becomes ``interrupted``, and the store is closed."""
    raise SystemExit(128 + signal.SIGTERM)


def main(node: int = 0, nodes: int = 1) -> None:
    """Work until no trial is left."""
    signal.signal(signal.SIGTERM, stop)
    with SyncStorage(setup_storage()) as storage:
        experiment = experiment_of(storage, node, nodes)
        while True:
            with storage.reserved_trial(experiment) as trial:
                if trial is None:
                    break
                storage.complete_trial(trial, evaluate(**trial.params))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
