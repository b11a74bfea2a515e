"""The studies of one of Optuna's storages as records, for a move into one of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import anyio.to_thread
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models  # the only way to read trials a page at a time
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` returns; it has no public name
from optuna.trial import FrozenTrial

from aiostorage._core.documents import document_of
from aiostorage._core.layout import ALGO, EXPERIMENTS, TRIALS
from aiostorage._core.normalise import normalise
from aiostorage.errors import EncodingError, InvalidArgument
from aiostorage.operations import Document
from aiostorage.optuna.moves.optuna_places import translated
from aiostorage.optuna.study_document import study_document
from aiostorage.optuna.trial_document import trial_document
from aiostorage.transfer.move_plan import derived_id
from aiostorage.transfer.record_sources import PAGE_SIZE, Page
from aiostorage.values import TrialStatus

__all__ = ["StudySource", "chosen_studies", "trial_pages"]

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a trial was submitted of which nothing says when: before all others."""


class StudySource:
    """The records of Optuna's studies; the same each time that they are read.

    Parameters
    ----------
    storage
        Optuna's.
    location
        Where that is, for messages.
    names
        The studies that are wanted; None for all.
    """

    orphans: int = 0

    def __init__(
        self, storage: BaseStorage, location: str, names: Collection[str] | None = None
    ) -> None:
        self._storage = storage
        self.location: str = location
        self._names = names

    async def check_names(self) -> None:
        """Raise InvalidArgument if there is no study of one of the names."""
        await anyio.to_thread.run_sync(self._studies)

    async def count(self) -> int | None:
        """Return None: Optuna's storages count trials by reading them."""
        return None

    async def pages(self) -> AsyncIterator[Page]:
        """Iterate over all records.

        Raises
        ------
        EncodingError
            Something of a study cannot be stored.
        BackendError
            The storage failed.
        """
        for study in await anyio.to_thread.run_sync(self._studies):
            reading = trial_pages(self._storage, study._study_id, self.location)  # noqa: SLF001  it has no public name
            first = await anyio.to_thread.run_sync(next, reading, None)
            config = _experiment(study, first or [])
            yield EXPERIMENTS, [config]
            yield ALGO, [_lock(config["_id"])]
            page = first
            while page is not None:
                yield TRIALS, await anyio.to_thread.run_sync(_trials, config, page)
                page = await anyio.to_thread.run_sync(next, reading, None)

    def _studies(self) -> list[FrozenStudy]:
        with translated(self.location):
            return chosen_studies(self._storage.get_all_studies(), self._names, self.location)


def chosen_studies(
    studies: Collection[FrozenStudy], names: Collection[str] | None, location: str
) -> list[FrozenStudy]:
    """Return the studies of these names, or all.

    Raises
    ------
    InvalidArgument
        There is no study of a name.
    """
    if names is not None:
        there = {study.study_name for study in studies}
        if missing := [name for name in names if name not in there]:
            raise InvalidArgument(
                f"there is no study {', '.join(map(repr, missing))} in {location}",
                argument="experiments",
            )
    return [study for study in studies if names is None or study.study_name in names]


def trial_pages(storage: BaseStorage, study_id: int, location: str) -> Iterator[list[FrozenTrial]]:
    """Iterate over the trials of a study by number, some at a time. Each step blocks.

    A database is read page by page. A journal is in memory as a whole already.

    Raises
    ------
    BackendError
        The storage failed.
    """
    with translated(location):
        if isinstance(storage, RDBStorage):
            yield from _pages_of_database(storage, study_id)
            return
        trials = storage.get_all_trials(study_id, deepcopy=False)
    for start in range(0, len(trials), PAGE_SIZE):
        yield trials[start : start + PAGE_SIZE]


def _pages_of_database(storage: RDBStorage, study_id: int) -> Iterator[list[FrozenTrial]]:
    with storage.scoped_session() as session:
        query = session.query(models.TrialModel.trial_id)
        found = query.filter(models.TrialModel.study_id == study_id)
        ids = [row[0] for row in found.order_by(models.TrialModel.trial_id)]
    for start in range(0, len(ids), PAGE_SIZE):
        page = set(ids[start : start + PAGE_SIZE])
        yield storage._get_trials(study_id, None, page, ids[-1])  # noqa: SLF001  as Optuna's own cache does


def _experiment(study: FrozenStudy, trials: list[FrozenTrial]) -> Document:
    """Return the config of a study.

    Nothing in it depends on who imports it and when, so that a repetition finds it equal. Its
    ``_id`` is a text: an int could be given to another study before the import is complete.
    """
    name = study.study_name
    uid = derived_id("study of Optuna", name)
    try:
        config = study_document(uid, name, study.directions, study.user_attrs, study.system_attrs)
        begun = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
        config["metadata"] = {"datetime": min(begun).astimezone(UTC)} if begun else {}
        return document_of(EXPERIMENTS, config)
    except (TypeError, ValueError) as error:  # an EncodingError is a ValueError
        raise EncodingError(f"study {name!r} cannot be stored: {error}") from error


def _lock(uid: Any) -> Document:
    """Return the lock record of a study, which is free."""
    empty = dict.fromkeys(("state", "owner", "since", "heartbeat", "expires"))
    ids = {"_id": derived_id(ALGO, uid), "experiment": uid}
    return document_of(ALGO, {**ids, "configuration": {}, "locked": 0, **empty})


def _trials(config: Document, trials: list[FrozenTrial]) -> list[Document]:
    return [_trial(config, trial) for trial in trials]


def _trial(config: Document, trial: FrozenTrial) -> Document:
    """Return the document of a trial, the same each time."""
    uid = config["_id"]
    try:
        document = trial_document(uid, trial.number, trial)
        begun = document["start_time"] or document["end_time"]
        made = begun or config["metadata"].get("datetime", _FIRST)
        document |= {"_id": derived_id(TRIALS, uid, trial.number), "submit_time": made}
        if document["status"] == TrialStatus.RESERVED:
            document["heartbeat"] = begun  # the last sign of life that is known
        stored = normalise(document)
    except (TypeError, ValueError) as error:
        name = config["name"]
        raise EncodingError(
            f"trial {trial.number} of study {name!r} cannot be stored: {error}"
        ) from error
    assert isinstance(stored, dict)  # noqa: S101  for mypy
    return stored
