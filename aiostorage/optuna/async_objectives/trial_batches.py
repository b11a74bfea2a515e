"""Trials of one study begun, written and kept alive together: what many tasks ask for at a time.

One hop between two event loops and one write serve all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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

__all__ = ["BegunTrial", "Reserved", "TrialBatches", "TrialWrite"]


class Reserved(Protocol):
    """A trial under one of its reservations."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    @property
    def token(self) -> str:
        """The reservation."""
        ...


class BegunTrial(NamedTuple):
    """A trial that was begun here: the reservation of that moment, and the trial as it was then."""

    number: int
    token: str
    trial: FrozenTrial


@dataclass
class TrialWrite:
    """What is to be written of a trial that runs here.

    Attributes
    ----------
    token
        The reservation under which it runs here.
    stored
        The trial as it was last known to be in the store; once this is written, as it is there.
    params
        The params to add.
    changes
        What else changes of its document.
    """

    number: int
    token: str
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
    ) -> tuple[list[Any], list[BegunTrial] | Exception]:
        """Change trials that run here, and begin others; an engine may do both by one commit.

        Returns
        -------
        list
            For each change, whether the trial still ran here, or the error.
        list or Exception
            The trials that were begun, or why none was.
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

    async def begin(self, count: int) -> list[BegunTrial]:
        """Begin trials: those that wait, and new ones for the rest."""
        begun: list[BegunTrial] = []
        try:
            await self._begin(count, begun)
        except BaseException:
            await self.hand_back(begun, "cancelled")
            raise
        return begun

    async def _begin(self, count: int, begun: list[BegunTrial]) -> None:
        study = self._study
        waiting = study.trials.unfinished(TrialState.WAITING)
        while waiting and len(begun) < count:
            left = count - len(begun)
            first_ones, waiting = waiting[:left], waiting[left:]
            claims = map(self._claimed, first_ones)
            found = await asyncio.gather(*claims, return_exceptions=True)
            begun += [one for one in found if isinstance(one, BegunTrial)]
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
            trial = study.put(own_copy(changed(like, number=new, _trial_id=trial_id)))
            study.hold(new, token)
            begun.append(BegunTrial(new, token, trial))

    async def _claimed(self, number: int) -> BegunTrial | None:
        token = new_token()
        try:
            trial = await self._studies.writes.claim(self._study, number, token, defers=True)
        except (KeyError, UpdateFinishedTrialError):  # it was deleted or finished meanwhile
            return None
        return None if trial is None else BegunTrial(number, token, trial)

    async def write(self, writes: Sequence[TrialWrite]) -> list[Any]:
        """Change trials that run here; return for each whether it still did, or the error."""
        return await asyncio.gather(*map(self._write, writes), return_exceptions=True)

    async def _write(self, write: TrialWrite) -> bool:
        study, records, number = self._study, self._studies.records, write.number
        token = write.token
        while True:
            more, as_known = params_changes(write.stored, write.params)
            changes = {**more, **write.changes}
            if await records.write(study.uid, number, changes, token, as_known):
                write.stored = with_params(write.stored, write.params)
                return True
            document = await records.read(study.uid, number)
            if not as_known or document is None or not is_held(document, token):
                break
            write.stored = frozen_trial(document, number)  # another has added a param meanwhile
        await self.lose(number, token)
        return False

    async def lose(self, number: int, token: str) -> None:
        """Note that a trial does not run here any more under a reservation, and read it."""
        self._study.lose(number, token)
        await self._studies.trial(trial_id_of(self._study.id, number), reread=True)

    async def beat(self, trials: Sequence[Reserved], *, watched: bool) -> list[bool]:
        """Record that trials are alive; return for each whether it still runs here."""
        records, uid = self._studies.records, self._study.uid
        beats = (records.beat(uid, one.number, one.token, watched=watched) for one in trials)
        alive = await asyncio.gather(*beats)
        for one, is_alive in zip(trials, alive, strict=True):
            if not is_alive:
                with suppress(KeyError):  # it was deleted
                    await self.lose(one.number, one.token)
        return alive

    async def hand_back(self, trials: Sequence[Reserved], reason: str) -> None:
        """Let trials wait again that run here, if they still do."""
        study_id = self._study.id
        results = await asyncio.gather(
            *(
                self._studies.hand_back(trial_id_of(study_id, one.number), reason, one.token)
                for one in trials
            ),
            return_exceptions=True,
        )
        for error in results:
            if error is not None and not isinstance(error, KeyError | UpdateFinishedTrialError):
                raise error

    async def sync(self) -> None:
        """Bring the study up to date."""
        await self._studies.sync(self._study)
