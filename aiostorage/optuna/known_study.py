"""What a process knows of the studies in a store, and how that is brought up to date.

What is finished is final, so a finished trial is read once. Which trials were added, claimed or
finished meanwhile, the history of the store says; without a history, new trials are found by
their numbers, and those that were not finished are read again. The trials that run elsewhere are
read again in any case: their params and attributes are not in the history.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.layout import PENDING
from aiostorage._core.storage import Storage
from aiostorage.errors import ConfigurationError, CursorExpired
from aiostorage.operations import Document
from aiostorage.optuna.study_ids import trial_id_of, trial_uid_of
from aiostorage.optuna.study_records import StudyRecords
from aiostorage.optuna.study_trials import StudyTrials
from aiostorage.optuna.trial_document import frozen_trial, number_of
from aiostorage.optuna.trial_records import RESERVED, TrialRecords
from aiostorage.optuna.unread_trials import UnreadTrials
from aiostorage.optuna.unwritten_params import UnwrittenParam, UnwrittenParams
from aiostorage.trial_change import TrialChange
from aiostorage.values import TrialStatus

__all__ = ["KnownStudy", "StudyReader", "no_study", "no_trial"]

CHANGES: Final = 500
"""Changes that are asked for at a time."""

_STATUSES: Final = {
    TrialState.WAITING: PENDING.value,
    TrialState.RUNNING: (TrialStatus.RESERVED,),
    TrialState.COMPLETE: (TrialStatus.COMPLETED,),
    TrialState.PRUNED: (TrialStatus.COMPLETED,),
    TrialState.FAIL: (TrialStatus.BROKEN, TrialStatus.COMPLETED),
}
"""The statuses that a trial of each state may have; a completed one may have no objective."""

PROBED: Final = 16
"""Numbers of new trials that are asked for at a time, where there is no history."""


@dataclass
class KnownStudy:
    """What a process knows of a study.

    Attributes
    ----------
    uid
        The ``_id`` of its experiment.
    cursor
        The place in the history up to which `trials` is known; None without a history.
    loaded
        Whether all trials have been read once.
    tokens
        Of the trials that this process runs, or has run: their reservations by number.
    by_uid
        The numbers of the known trials by their ids in the store.
    unread
        The trials that have changed and were not read since. A trial is read when its state is
        asked for.
    free
        A number above all trials that are in `trials` or `unread`.
    lost
        The numbers of trials that ran here and were taken away: no more is written to them.
    silent
        The reservations of the trials that were found stale here, by number: who fails such a trial
        fails no later reservation of it.
    seen
        When it was last known to be there.
    fresh
        When each trial was last read together with a write here, and neither asked for nor written
        to since.
    unwritten
        The params that wait to be written, by the numbers of their trials, which run here.
    inherited
        The same of trials that were not read yet, in a copy of a process that has set them.
    """

    id: int
    uid: Any
    name: str
    directions: list[StudyDirection]
    trials: StudyTrials
    cursor: str | None = None
    loaded: bool = False
    tokens: dict[int, str] = field(default_factory=dict)
    by_uid: dict[str, int] = field(default_factory=dict)
    unread: UnreadTrials = field(default_factory=UnreadTrials)
    free: int = 0
    lost: set[int] = field(default_factory=set)
    silent: dict[int, str] = field(default_factory=dict)
    seen: float = -math.inf
    fresh: dict[int, float] = field(default_factory=dict)
    unwritten: dict[int, UnwrittenParams] = field(default_factory=dict)
    inherited: dict[int, list[UnwrittenParam]] = field(default_factory=dict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def next_number(self) -> int:
        """A number that no trial has that is known to exist, and of which all lower are taken."""
        return max(self.free, self.trials.next_number)

    def hold(self, number: int, token: str) -> None:
        """Note that a trial runs here from now on."""
        self.drop_params(number)
        self.tokens[number] = token
        self.lost.discard(number)

    def lose(self, number: int, token: str | None = None) -> None:
        """Note that a trial does not run here any more, although its objective may.

        With a token, only if it does not run here again under another one.
        """
        if token is not None and self.tokens.get(number) != token:
            return
        if self.tokens.pop(number, None) is not None:
            self.lost.add(number)
        self.drop_params(number)

    def put(self, frozen: FrozenTrial) -> FrozenTrial:
        """Take a trial as it is now."""
        self.trials.put(frozen)
        self.by_uid[trial_uid_of(frozen.number)] = frozen.number
        return frozen

    def take(
        self,
        document: Document,
        number: int | None = None,
        written: Sequence[UnwrittenParam] = (),
    ) -> FrozenTrial:
        """Take a trial as the store has it, with the params that are not there yet.

        What was read may be older than what was written here meanwhile. So params wait on, for a
        write to be refused, if the trial seems to be another worker's.

        Parameters
        ----------
        written
            The params that have just been written with it.
        """
        stored = frozen_trial(document, number)
        number = stored.number
        token = self.tokens.get(number)
        is_held = document.get("worker") == token and stored.state is TrialState.RUNNING
        inherited = self.inherited.pop(number, None)
        if token is not None and is_held and inherited is not None:
            self.unwritten[number] = UnwrittenParams(token, stored, inherited)
        unwritten = self.unwritten.get(number)
        if unwritten is None:
            return self.put(stored)
        if not is_held:
            unwritten.close()
            return self.put(stored)
        with unwritten.lock:
            unwritten.rebase(stored, written)
            return self.put(unwritten.trial)

    def defer_params(self, number: int, token: str, stored: FrozenTrial) -> None:
        """Let the params of a trial wait that are set from now on."""
        self.unwritten.setdefault(number, UnwrittenParams(token, stored))

    def set_param(self, number: int, param: UnwrittenParam) -> bool:
        """Set a param of a trial, from any thread; return False if it has to be written at once."""
        unwritten = self.unwritten.get(number)
        if unwritten is None:
            return False
        with unwritten.lock:
            if not unwritten.add(param):
                return False
            self.trials.put(unwritten.trial)
        self.fresh.setdefault(number, unwritten.since)
        return True

    def drop_params(self, number: int) -> None:
        """Let no param of a trial wait any more: all are written, or it does not run here."""
        unwritten = self.unwritten.pop(number, None)
        if unwritten is not None:
            unwritten.clear()

    def params_written(self, number: int, unwritten: UnwrittenParams) -> None:
        """Note that all params of a trial are in the store."""
        if self.unwritten.get(number) is unwritten:
            self.put(unwritten.trial)
            del self.unwritten[number]


class StudyReader:
    """Reads studies and trials into what is known of them.

    Parameters
    ----------
    storage
        Where they are.
    """

    def __init__(self, storage: Storage, records: StudyRecords, trials: TrialRecords) -> None:
        self._storage = storage
        self._records = records
        self._trials = trials

    async def read(self, study: KnownStudy, number: int) -> FrozenTrial:
        """Read a trial from the store."""
        document = await self._trials.read(study.uid, number)
        if document is None:
            study.trials.remove(number)
            raise no_trial(trial_id_of(study.id, number))
        return study.take(document, number)

    async def _look_for(self, study: KnownStudy) -> None:
        """Raise KeyError if a study was deleted."""
        if not await self._records.exists(study.uid):
            raise no_study(study.id)
        study.seen = time.monotonic()

    async def sync(self, study: KnownStudy, states: Container[TrialState] | None = None) -> None:
        """Bring the trials of a study up to date.

        Parameters
        ----------
        states
            Which trials are needed: those that are in one of these states. None: all.
        """
        async with study.reading:
            if not study.loaded:
                await self._load(study)
                return
            if study.cursor is None:
                await self._probe(study)
                return
            try:
                await self._follow(study)
            except CursorExpired:
                await self._load(study)
                return
            except ConfigurationError:  # the history was turned off
                study.cursor = None
                await self._probe(study)
                return
            if needed := _needed(study, states):
                await self._refresh(study, needed)

    async def _load(self, study: KnownStudy) -> None:
        """Read all trials of a study; what changes meanwhile is in the history behind `cursor`."""
        try:
            study.cursor = (await self._storage.changes_since({"_id": study.uid})).cursor
        except ConfigurationError:  # there is no history
            study.cursor = None
        await self._look_for(study)
        study.trials = StudyTrials(study.directions)
        study.unread.clear()
        async for page in self._trials.pages(study.uid):
            _take(study, page)
        study.loaded = True

    async def _follow(self, study: KnownStudy) -> None:
        """Note the trials that have changed and are not known as they are now."""
        last: dict[str, TrialChange] = {}
        while True:
            assert study.cursor is not None  # noqa: S101  for mypy: `sync` has checked it
            changes, study.cursor = await self._storage.changes_since(
                {"_id": study.uid}, study.cursor, limit=CHANGES
            )
            last |= {change.trial: change for change in changes}
            if len(changes) < CHANGES:
                break
        deleted = False
        for uid, change in last.items():
            number = study.by_uid.get(uid)
            if change.kind == "deleted":
                deleted = True
                study.unread.discard(uid)
                if number is not None:
                    study.trials.remove(number)
            elif number is None or not _is_own(study, number, change):
                study.unread.add(uid, change.after, known=number is not None)
            elif change.after != RESERVED:
                study.tokens.pop(number)  # it has ended: nothing more is written to it
        study.free = study.next_number
        while trial_uid_of(study.free) in study.unread:
            study.free += 1
        if deleted or not study.free:  # a study is deleted with its trials
            await self._look_for(study)
        study.seen = time.monotonic()

    async def _refresh(self, study: KnownStudy, ids: set[str]) -> None:
        exists, found = await self._trials.read_by_uid(study.uid, ids)
        if not exists:
            raise no_study(study.id)
        study.seen = time.monotonic()
        for uid in ids:
            study.unread.discard(uid)
        _take(study, found)

    async def _probe(self, study: KnownStudy) -> None:
        """Read what is not finished, and trials with higher numbers than those known."""
        unfinished = [
            number
            for state in (TrialState.WAITING, TrialState.RUNNING)
            for number in study.trials.unfinished(state)
        ]
        ids = {trial_uid_of(number) for number in (*unfinished, *study.trials.skipped)}
        while True:
            first = study.trials.next_number
            ids |= {trial_uid_of(number) for number in range(first, first + PROBED)}
            await self._refresh(study, ids)
            if study.trials.next_number < first + PROBED:
                return
            ids = set()


def _needed(study: KnownStudy, states: Container[TrialState] | None) -> set[str]:
    """Return the ids of the trials that have to be read to know those in some states."""
    if states is None:
        return study.unread.all() | _running_elsewhere(study)
    statuses = {status for state, own in _STATUSES.items() if state in states for status in own}
    needed = study.unread.in_statuses(statuses)
    for uid in study.unread.known:
        known = study.trials.get(study.by_uid[uid])
        if known is not None and known.state in states:
            needed.add(uid)
    return needed | _running_elsewhere(study) if TrialState.RUNNING in states else needed


def _running_elsewhere(study: KnownStudy) -> set[str]:
    numbers = study.trials.unfinished(TrialState.RUNNING)
    return {trial_uid_of(number) for number in numbers if number not in study.tokens}


def _is_own(study: KnownStudy, number: int, change: TrialChange) -> bool:
    """Return whether this process has made a change, so that it knows the trial as it is."""
    token, known = study.tokens.get(number), study.trials.get(number)
    if token is None or known is None or change.worker != token:
        return False
    return known.state.is_finished() == (change.after != RESERVED)


def _take(study: KnownStudy, documents: Sequence[Document]) -> None:
    for document in documents:
        number = number_of(document)
        if number is not None:
            study.take(document, number)


def no_study(study_id: int) -> KeyError:
    """Return the error that says that there is no such study."""
    return KeyError(f"there is no study with the id {study_id}")


def no_trial(trial_id: int) -> KeyError:
    """Return the error that says that there is no such trial."""
    return KeyError(f"there is no trial with the id {trial_id}")
