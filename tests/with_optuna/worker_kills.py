"""A process that evaluates trials of a study until it is told to stop, or killed.

Run with the URL of a store, a log, a file whose appearance means to stop, and the seconds that an
evaluation takes.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
import warnings
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback

from aiostorage.optuna import OptunaStorage

__all__ = ["HANDED_BACK", "STUDY", "EvaluationLog", "Evaluator", "opened", "value_of"]

STUDY = "tune"

PRUNED = 9

HANDED_BACK = "handed back"
"""The attribute of a trial whose evaluation another one follows."""

AGAIN = 1.5
"""Seconds that the other one takes, so that the writes of the first one come amid."""


def value_of(who: str) -> float:
    """Return the value that an evaluation reports, which is its own."""
    return float(int(who, 16))


def opened(url: str) -> OptunaStorage:
    """Open the store as all of these processes do."""
    retry = RetryHeartbeatStaleTrialCallback()
    return OptunaStorage(
        url, heartbeat_interval=1, grace_period=2, heartbeat_stale_trial_callback=retry
    )


class EvaluationLog:
    """A file of lines, which several processes append to."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, (os.getpid(), *words))) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


class Evaluator:
    """Evaluates trials and logs what becomes of each evaluation.

    Parameters
    ----------
    log
        Gets the words ``began``, ``told`` or ``refused``, with the number of the trial and the name
        of the evaluation.
    seconds
        That an evaluation takes, about.
    """

    def __init__(self, log: EvaluationLog, seconds: float) -> None:
        self._log = log
        self._seconds = seconds
        self._now: tuple[int, str] | None = None

    def objective(self, trial: optuna.Trial) -> float:
        who = secrets.token_hex(6)
        self._now = trial.number, who
        seconds = AGAIN if HANDED_BACK in trial.user_attrs else self._seconds
        trial.set_user_attr("who", who)
        trial.suggest_float("x", -5, 5)
        y = trial.suggest_int("y", 1, PRUNED)
        self._log("began", trial.number, who)
        time.sleep(seconds * random.uniform(0.5, 1.5))
        trial.report(value_of(who), 0)
        if y == PRUNED:
            raise optuna.TrialPruned
        return value_of(who)

    def told(self, _study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Note that a trial was told; a callback."""
        assert self._now is not None
        assert self._now[0] == trial.number
        self._log("told", *self._now)
        self._now = None

    def refused(self) -> None:
        """Note that a write to the trial was refused."""
        if self._now is not None:
            self._log("refused", *self._now)
            self._now = None


def work(url: str, log: Path, end: Path, seconds: float) -> None:
    storage = opened(url)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)
    evaluator = Evaluator(EvaluationLog(log), seconds)

    def stop(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        if end.exists():
            study.stop()

    while not end.exists():
        try:
            study.optimize(evaluator.objective, callbacks=[evaluator.told, stop])
        except (UpdateFinishedTrialError, ValueError, AssertionError):
            # Optuna's loop asserts that what was declared stale elsewhere cannot have run here
            evaluator.refused()
    storage.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    random.seed()
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
