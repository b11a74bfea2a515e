"""Optuna's own storages as sides.

A trial's way through them is measured in three ways. ``study``: a study makes a trial, suggests two
params for it at random, and gets its result, as `study.optimize` does. ``enqueued``: the storage
looks for the oldest trial of those that were enqueued before, which is what `reserve_trial` does.
``storage``: the storage alone makes a trial without params, for which nothing has to be looked for.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks.definitions import Block, Figures, Setting
from benchmarks.sides.ours import NAME
from benchmarks.workload import PARAM_COUNT, measured_calls

__all__ = ["Kind", "Way", "counts", "cycles", "fetches", "inserts"]

Kind = Literal["journal", "rdb", "memory"]
Way = Literal["study", "enqueued", "storage"]

COPY_TRIALS = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
    INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)
    SELECT trial_id + n, number + n, study_id, state, datetime_start, datetime_complete
    FROM trials, numbers
"""
COPY_PARAMS = """
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trials.trial_id, param_name, param_value, distribution_json
    FROM trial_params, trials WHERE trials.trial_id > trial_params.trial_id
"""


@contextmanager
def inserts(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Enqueue trials."""
    storage, study = _opened(setting, kind)
    template = _trial(waiting=True)
    yield lambda: measured_calls(
        lambda: storage.create_new_trial(study, template_trial=template), setting.count
    )


@contextmanager
def cycles(setting: Setting, kind: Kind, way: Way) -> Iterator[Block]:
    """Get a trial, note a heartbeat where the storage has them, complete it."""
    storage, study_id = _opened(setting, kind, waiting=way == "enqueued")
    cycle = _by_study(storage) if way == "study" else _by_storage(storage, study_id, way)
    yield lambda: _done(cycle, setting.count)


def _by_study(storage: Any) -> Callable[[], None]:
    import optuna  # noqa: PLC0415

    study = optuna.load_study(
        study_name=NAME, storage=storage, sampler=optuna.samplers.RandomSampler()
    )

    def cycle() -> None:
        trial = study.ask()
        trial.suggest_float("x", -5, 5)
        trial.suggest_float("y", -5, 5)
        study.tell(trial, 0.5)

    return cycle


def _by_storage(storage: Any, study_id: int, way: Way) -> Callable[[], None]:
    from optuna.storages._heartbeat import BaseHeartbeat  # noqa: PLC0415
    from optuna.trial import TrialState  # noqa: PLC0415

    def cycle() -> None:
        if way == "enqueued":
            trial = _popped(storage, study_id)
        else:
            trial = storage.create_new_trial(study_id)
        if isinstance(storage, BaseHeartbeat):
            storage.record_heartbeat(trial)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])

    return cycle


@contextmanager
def counts(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Count the completed trials."""
    from optuna.trial import TrialState  # noqa: PLC0415

    storage, study = _opened(setting, kind)
    yield lambda: measured_calls(
        lambda: storage.get_n_trials(study, TrialState.COMPLETE), setting.count
    )


@contextmanager
def fetches(setting: Setting, kind: Kind) -> Iterator[Block]:
    """Fetch all trials, as copies that their caller may change."""
    storage, study = _opened(setting, kind)

    def block() -> Figures:
        found: list[Any] = []
        figures = measured_calls(lambda: found.extend(storage.get_all_trials(study)), setting.count)
        return Figures(len(found), figures.seconds, figures.processor)

    yield block


def _popped(storage: Any, study: int) -> int:
    """Take an enqueued trial, as a study does."""
    from optuna.exceptions import UpdateFinishedTrialError  # noqa: PLC0415
    from optuna.trial import TrialState  # noqa: PLC0415

    waiting = storage.get_all_trials(study, deepcopy=False, states=(TrialState.WAITING,))
    for trial in waiting:
        try:
            if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):  # noqa: SLF001
                found: int = trial._trial_id  # noqa: SLF001
                return found
        except UpdateFinishedTrialError:
            continue  # another process was faster
    raise AssertionError("the study ran out of trials; make more")


def _done(action: Callable[[], object], count: int) -> Figures:
    """Do an action `count` times; those that fail are not counted.

    SQLite under Optuna may be locked for longer than it waits.
    """
    failed = 0
    begin, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever a storage raises
            failed, last = failed + 1, error
    if failed == count:
        raise last
    return Figures(count - failed, time.perf_counter() - begin, time.process_time() - used)


def _opened(setting: Setting, kind: Kind, *, waiting: bool = False) -> tuple[Any, int]:
    import optuna  # noqa: PLC0415

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = setting.directory / setting.store
    storage = _storage(kind, place)
    for study in storage.get_all_studies():
        return storage, study._study_id  # noqa: SLF001
    study_id: int = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], NAME)
    if setting.size:
        storage.create_new_trial(study_id, template_trial=_trial(waiting=waiting))
        if kind == "memory":
            for _ in range(setting.size - 1):
                storage.create_new_trial(study_id, template_trial=_trial(waiting=waiting))
        else:
            fill = _fill_rdb if kind == "rdb" else _fill_journal
            fill(place, setting.size - 1)
            return _storage(kind, place), study_id
    return storage, study_id


def _storage(kind: Kind, place: Path) -> Any:
    from optuna import storages  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    if kind == "memory":
        return storages.InMemoryStorage()
    if kind == "rdb":
        return storages.RDBStorage(f"sqlite:///{place}.rdb")
    return storages.JournalStorage(JournalFileBackend(f"{place}.log"))


def _trial(*, waiting: bool) -> Any:
    """Return a trial that waits or is complete, with the params of ours."""
    from optuna.distributions import FloatDistribution  # noqa: PLC0415
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415

    names = [f"x{number}" for number in range(PARAM_COUNT)]
    return create_trial(
        state=TrialState.WAITING if waiting else TrialState.COMPLETE,
        value=None if waiting else 0.5,
        params={name: 1.25 * number for number, name in enumerate(names)},
        distributions={name: FloatDistribution(-10, 10) for name in names},
    )


def _fill_rdb(place: Path, count: int) -> None:
    """Add copies of the one trial in a database."""
    with closing(sqlite3.connect(f"{place}.rdb")) as connection, connection:
        connection.execute(COPY_TRIALS, [count])
        connection.execute(COPY_PARAMS)


def _fill_journal(place: Path, count: int) -> None:
    """Repeat the last line of a journal, which creates a trial."""
    file = Path(f"{place}.log")
    line = file.read_bytes().splitlines(keepends=True)[-1]
    with file.open("ab") as journal:
        journal.writelines(itertools.repeat(line, count))
