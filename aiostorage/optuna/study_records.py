"""The experiments that are studies: made, found, changed and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection

from aiostorage._core.documents import document_of, equal
from aiostorage._core.layout import ALGO, EXPERIMENTS, SETTINGS, TRIALS, WAITERS
from aiostorage._core.storage import Storage
from aiostorage._core.taken_ids import id_taken_by, note_of_taken_id
from aiostorage.errors import ConfigurationError, DuplicateKeyError
from aiostorage.operations import Compare, Count, Delete, Document, Find, Insert, Update
from aiostorage.optuna.study_document import (
    FIELD,
    is_study,
    study_document,
)
from aiostorage.optuna.study_ids import MAX_STUDIES, study_id_of

__all__ = ["StudyRecords"]

_IDS: Final = {"_id": True}


class StudyRecords:
    """Studies in the store, by their experiments.

    Parameters
    ----------
    storage
        Where they are.
    """

    def __init__(self, storage: Storage) -> None:
        self._gateway = storage._gateway  # noqa: SLF001  an adapter of this package
        self._lock_records = storage._lock_records  # noqa: SLF001  as above

    async def create(self, name: str, directions: Sequence[StudyDirection]) -> int:
        """Insert a study; return its id, which no study has had before.

        The experiment, its lock record and the note that the id is taken are written together or
        not at all. So no id is left out, whoever is killed; but on a MongoDB server without
        transactions.

        Raises
        ------
        DuplicatedStudyError
            There is an experiment of this name.
        """
        uid = await self._free_id()
        while True:
            # a load that was killed has left trials of a study that it would have given this id
            while await self._gateway.execute(Count(TRIALS, equal(experiment=uid))):
                uid += 1
            config = document_of(EXPERIMENTS, study_document(uid, name, directions))
            lock = await self._lock_records.document(uid, {}, 0, None, None)
            writes = [
                Insert(EXPERIMENTS, (config,)),
                Insert(ALGO, (lock,)),
                Insert(SETTINGS, (note_of_taken_id(uid),)),
            ]
            try:
                await self._gateway.transact_once(writes)
            except DuplicateKeyError as error:
                if await self._gateway.execute(Count(EXPERIMENTS, equal(name=name, version=1))):
                    raise DuplicatedStudyError(
                        f"there is a study, or another experiment, of the name {name!r}"
                    ) from error
                uid += 1  # another process was first
            else:
                return uid

    async def _free_id(self) -> int:
        """Return an id above all that are taken."""
        experiments, notes = await self._gateway.transact(
            (Find(EXPERIMENTS, selection=_IDS), Find(SETTINGS, selection=_IDS))
        )
        taken = [0]
        taken += (row["_id"] for row in experiments if type(row["_id"]) is int)
        taken += (uid for note in notes if (uid := id_taken_by(note)) is not None)
        return 1 + max(uid for uid in taken if uid < MAX_STUDIES)

    async def delete(self, uid: Any) -> bool:
        """Delete a study with its trials; return whether there was one."""
        note = note_of_taken_id(study_id_of(uid))
        if not await self._gateway.execute(Count(SETTINGS, equal(_id=note["_id"]))):
            # an older version has copied it here without one
            with suppress(DuplicateKeyError):
                await self._gateway.execute_once(Insert(SETTINGS, (note,)))
        deletions = [Delete(EXPERIMENTS, equal(_id=uid))]
        deletions += [Delete(name, equal(experiment=uid)) for name in (TRIALS, ALGO, WAITERS)]
        return bool((await self._gateway.transact_once(deletions))[0])

    async def set_attribute(self, uid: Any, path: str, value: Any) -> bool:
        """Set an attribute of a study; return whether there is that study."""
        return bool(await self._gateway.execute(Update(EXPERIMENTS, equal(_id=uid), {path: value})))

    async def uid_of(self, study_id: int) -> Any:
        """Return the ``_id`` of the study with an id; None if there is none.

        Raises
        ------
        ConfigurationError
            There are two: their ids are made of the ``_id``, and by chance they are the same.
        """
        if 0 <= study_id < MAX_STUDIES:
            return study_id if await self.exists(study_id) else None
        studies = [c for c in await self.all() if study_id_of(c["_id"]) == study_id]
        if len(studies) > 1:
            names = " and ".join(repr(config["name"]) for config in studies)
            raise ConfigurationError(
                f"the studies {names} have the same id, by chance; move one to another store"
            )
        return studies[0]["_id"] if studies else None

    async def exists(self, uid: Any) -> bool:
        """Return whether there is an experiment."""
        return bool(await self._gateway.execute(Count(EXPERIMENTS, equal(_id=uid))))

    async def read(self, uid: Any, *fields: str) -> Document | None:
        """Return the config of a study, or some fields of it; None if there is none."""
        selection = dict.fromkeys(("_id", "name", f"{FIELD}.directions", *fields), True)
        find = Find(EXPERIMENTS, equal(_id=uid), selection, limit=1)
        found = await self._gateway.execute(find)
        return found[0] if found and is_study(found[0]) else None

    async def named(self, name: str) -> Any:
        """Return the ``_id`` of the study of a name; None if there is none."""
        find = Find(EXPERIMENTS, equal(name=name), order=("version",))
        studies = [config for config in await self._gateway.execute(find) if is_study(config)]
        return studies[0]["_id"] if studies else None

    async def all(self) -> list[Document]:
        """Return the configs of all studies, by study id."""
        find = Find(EXPERIMENTS, Compare(f"{FIELD}.directions", "exists", True))
        found = await self._gateway.execute(find)
        studies = [config for config in found if is_study(config)]
        return sorted(studies, key=lambda config: study_id_of(config["_id"]))
