"""Trials of one study begun, written and kept alive together: what many tasks ask for at a time.

One hop between two event loops and one write serve all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from aiostorage._core.ids import new_token
from aiostorage.optuna.known_study import KnownStudy
from aiostorage.optuna.stored_params import StoredParam
from aiostorage.optuna.studies import Studies
from aiostorage.optuna.study_document import FIELD
from aiostorage.optuna.study_ids import trial_id_of
from aiostorage.optuna.trial_document import (
    changed,
    frozen_trial,
    own_copy,
    trial_document,
    with_params,
)
from aiostorage.optuna.trial_records import NOW, is_held
from aiostorage.optuna.unwritten_params import UNWRITTEN_FIELD, params_changes

__all__ = ["TrialBatches", "TrialWrite"]

Reserved: TypeAlias = "tuple[int, str | None]"
"""The number of a trial, and the reservation under which it runs here; None if it does not."""


@dataclass
class TrialWrite:
    """What is to be written of a trial that runs here.

    Attributes
    ----------
    token
        The reservation under which it runs here; None if it does not any more.
    stored
        The trial as it was last known to be in the store; once this is written, as it is there.
    params
        The params to add.
    changes
        What else changes of its document.
    """

    number: int
    token: str | None
    stored: FrozenTrial
    params: Sequence[StoredParam]
    changes: Mapping[str, Any]


class TrialBatches:
    """The trials of a study, several at a time; it runs in the event loop of `studies`.

    Parameters
    ----------
    studies
        Studies and trials.
    study
        The study.
    """

    def __init__(self, studies: Studies, study: KnownStudy) -> None:
        self._studies = studies
        self._study = study

    async def carry_out(
        self, writes: Sequence[TrialWrite], count: int
    ) -> tuple[list[Any], list[int] | Exception]:
        """Change trials that run here, and begin others; an engine may do both by one commit.

        Returns
        -------
        list
            For each change, whether the trial still ran here, or the error.
        list or Exception
            The numbers of the trials that were begun, or why none was.
        """
        if not count:
            return await self.write(writes), []
        try:
            await self._studies.sync(self._study)
        except Exception as error:  # noqa: BLE001  it is returned; the changes are tried
            return await self.write(writes), error
        found: list[Any] = await asyncio.gather(
            self.write(writes), self.begin(count), return_exceptions=True
        )
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, Exception):
                raise one
        return found[0], found[1]

    async def begin(self, count: int) -> list[int]:
        """Begin trials: those that wait, and new ones for the rest; return their numbers."""
        begun: list[int] = []
        try:
            await self._begin(count, begun)
        except BaseException:
            await self.hand_back(self.reserved(begun), "cancelled")
            raise
        return begun

    async def _begin(self, count: int, begun: list[int]) -> None:
        study = self._study
        waiting = study.trials.unfinished(TrialState.WAITING)
        while waiting and len(begun) < count:
            left = count - len(begun)
            first_ones, waiting = waiting[:left], waiting[left:]
            claims = map(self._is_claimed, first_ones)
            found = await asyncio.gather(*claims, return_exceptions=True)
            begun += [number for number, one in zip(first_ones, found, strict=True) if one is True]
            if failures := [one for one in found if isinstance(one, BaseException)]:
                raise failures[0]
        if len(begun) == count:
            return
        first = study.next_number
        document = trial_document(study.uid, first, create_trial(state=TrialState.RUNNING))
        token = new_token()  # one for all, as `reserve_trials` has it
        document["worker"], document["heartbeat"] = token, NOW
        document[FIELD][UNWRITTEN_FIELD] = True
        left = count - len(begun)
        inserted = await self._studies.records.insert(study.uid, document, first, left)
        like = frozen_trial(document)
        for one in inserted:
            new: int = one[FIELD]["number"]
            trial_id = trial_id_of(study.id, new)
            study.put(own_copy(changed(like, number=new, _trial_id=trial_id)))
            study.hold(new, token)
            begun.append(new)

    async def _is_claimed(self, number: int) -> bool:
        try:
            return await self._studies.writes.claim(self._study, number, defers=True) is not None
        except (KeyError, UpdateFinishedTrialError):  # it was deleted or finished meanwhile
            return False

    async def write(self, writes: Sequence[TrialWrite]) -> list[Any]:
        """Change trials that run here; return for each whether it still did, or the error."""
        return await asyncio.gather(*map(self._write, writes), return_exceptions=True)

    async def _write(self, write: TrialWrite) -> bool:
        study, records, number = self._study, self._studies.records, write.number
        token = write.token
        while token is not None:
            more, as_known = params_changes(write.stored, write.params)
            changes = {**more, **write.changes}
            if await records.write(study.uid, number, changes, token, as_known):
                write.stored = with_params(write.stored, write.params)
                return True
            document = await records.read(study.uid, number)
            if not as_known or document is None or not is_held(document, token):
                break
            write.stored = frozen_trial(document, number)  # another has added a param meanwhile
        if token is not None:
            study.lose(number, token)
        await self._studies.trial(trial_id_of(study.id, number), reread=True)
        return False

    async def beat(self, trials: Sequence[Reserved], *, watched: bool) -> list[bool]:
        """Record that trials are alive; return for each whether it still runs here."""
        records, uid = self._studies.records, self._study.uid
        reserved = [(number, token) for number, token in trials if token is not None]
        beats = (records.beat(uid, *one, watched=watched) for one in reserved)
        alive = dict(zip(reserved, await asyncio.gather(*beats), strict=True))
        return [alive.get((number, token or ""), False) for number, token in trials]

    def reserved(self, numbers: Sequence[int]) -> list[Reserved]:
        """Return trials with the reservations under which they run here now."""
        return [(number, self._study.tokens.get(number)) for number in numbers]

    async def hand_back(self, trials: Sequence[Reserved], reason: str) -> None:
        """Let trials wait again that run here, if they still do."""
        study_id = self._study.id
        results = await asyncio.gather(
            *(
                self._studies.hand_back(trial_id_of(study_id, number), reason, token)
                for number, token in trials
                if token is not None
            ),
            return_exceptions=True,
        )
        for error in results:
            if error is not None and not isinstance(error, KeyError | UpdateFinishedTrialError):
                raise error

    async def sync(self) -> None:
        """Bring the study up to date."""
        await self._studies.sync(self._study)
