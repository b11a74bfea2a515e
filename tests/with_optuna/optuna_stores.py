"""Optuna's own storages with studies that have everything, and comparisons of them with ours."""

from __future__ import annotations

import logging
import math
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.pool import NullPool

__all__ = [
    "LIBRARIES",
    "ODD",
    "begun",
    "fill",
    "journal",
    "long_study",
    "opened_rdb",
    "seen",
    "trials_of",
]

LIBRARIES = (
    *("aiostorage.cli.app", "aiostorage.drivers.sqlite"),
    *("aiostorage.optuna.moves.study_exports", "aiostorage.optuna.dashboard.server"),
)
"""What processes of the tests need not import themselves."""

ODD = "tune/1.x"
"""A study with everything that a study may have."""

BEGAN = datetime(2026, 3, 29, 1, 59, 58, 123456)  # noqa: DTZ001  as Optuna has it

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "width of.it": IntDistribution(2, 10, step=2),
    "opt": CategoricalDistribution(["sgd", None, 1.5, True, 1]),
}


def opened_rdb(path: Path) -> RDBStorage:
    """Return Optuna's storage in a SQLite file, which does not wait for the disk.

    It keeps no connection open, since no test closes it.
    """
    storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})
    sqlalchemy.event.listen(
        storage.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF")
    )
    return storage


def long_study(trials: int) -> InMemoryStorage:
    """Return a storage with a study of so many trials, the same each time."""
    storage = InMemoryStorage()
    logging.getLogger("optuna").setLevel(logging.ERROR)
    study = optuna.create_study(storage=storage, study_name="long")
    study.set_user_attr("owner", "ada")
    study.add_trials([begun(n, TrialState.COMPLETE, values=[float(n)]) for n in range(trials)])
    return storage


def journal(path: Path) -> JournalStorage:
    """Return Optuna's journal in a file."""
    return JournalStorage(JournalFileBackend(str(path)))


def begun(number: int, state: TrialState, **more: Any) -> FrozenTrial:
    """Return a trial with params."""
    opt = SPACE["opt"]
    assert isinstance(opt, CategoricalDistribution)
    params = {"lr": 10.0 ** -(number % 5), "width of.it": 4, "opt": opt.choices[number % 5]}
    trial = create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=SPACE,
        user_attrs={"seen.at": [number, "é", None]},
        system_attrs={"constraints": [float(number), -1.0]},
        intermediate_values={0: math.nan, 1: 0.5 * number, 7: -math.inf},
    )
    trial.state = state
    trial.datetime_start = BEGAN + timedelta(minutes=number)
    if state.is_finished():
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=1.5)
    for name, value in more.items():
        setattr(trial, name, value)
    return trial


def fill(storage: BaseStorage) -> None:
    """Make studies in one of Optuna's storages."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage, study_name=ODD, sampler=optuna.samplers.RandomSampler(seed=1)
        )
        study.set_metric_names(["loss"])
    study.set_user_attr("owner", {"of it": [1, None]})

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("lr", 1e-5, 1, log=True) + trial.suggest_int("n", 1, 3)

    study.optimize(objective, n_trials=2)
    for trial in (
        begun(2, TrialState.COMPLETE, values=[0.1 + 0.2]),
        begun(3, TrialState.COMPLETE, values=[math.inf]),
        begun(4, TrialState.PRUNED, values=[2.5]),
        begun(5, TrialState.PRUNED),
        begun(6, TrialState.FAIL),
    ):
        study.add_trial(trial)
    study.enqueue_trial({"lr": 0.25})
    study.ask()
    study.enqueue_trial({"lr": 0.5}, user_attrs={"by": "hand"})
    both = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    multi = optuna.create_study(storage=storage, study_name="multi", directions=both)
    multi.add_trial(begun(0, TrialState.COMPLETE, values=[1.0, -1.0]))
    optuna.create_study(storage=storage, study_name="empty", direction="maximize")


def trials_of(storage: BaseStorage, name: str) -> list[FrozenTrial]:
    """Return the trials of a study without their ids, which are those of one storage."""
    trials = storage.get_all_trials(storage.get_study_id_from_name(name))
    for trial in trials:
        trial._trial_id = -1
        trial.intermediate_values = {  # a NaN is not equal to that of another object
            step: math.nan if math.isnan(value) else value
            for step, value in trial.intermediate_values.items()
        }
    return trials


def seen(storage: BaseStorage) -> dict[str, Any]:
    """Return all studies of a storage, as Optuna sees them, by name."""
    return {
        study.study_name: (
            study.directions,
            study.user_attrs,
            study.system_attrs,
            trials_of(storage, study.study_name),
        )
        for study in storage.get_all_studies()
    }
