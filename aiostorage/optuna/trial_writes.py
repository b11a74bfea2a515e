"""Writes to the trials of a known study: with the params that wait, under our own reservations."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import anyio
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from aiostorage._core.ids import new_token
from aiostorage.operations import Compare, Or, StoreTime
from aiostorage.optuna.known_study import KnownStudy, StudyReader
from aiostorage.optuna.param_writer import ParamWriter
from aiostorage.optuna.stored_params import StoredParam
from aiostorage.optuna.study_document import FIELD
from aiostorage.optuna.trial_document import TrialUpdate, changed, final_update
from aiostorage.optuna.trial_records import INTERRUPTED, RESERVED, TrialRecords, is_held
from aiostorage.optuna.unwritten_params import (
    UNWRITTEN,
    UnwrittenParam,
    params_changes,
    params_conditions,
)

__all__ = ["TrialWrites"]

PARAMS_TIMEOUT: Final = 5.0
"""Seconds for which the end of a trial waits for params that another process is about to write."""

PARAMS_POLL_INTERVAL: Final = 0.02
"""Seconds between two checks whether it has written them."""

_ALL_WRITTEN: Final = Or(
    (
        Compare(UNWRITTEN, "ne", True),
        Compare("status", "ne", RESERVED),
        Compare("heartbeat", "lt", StoreTime(-PARAMS_TIMEOUT)),
    )
)
"""The condition that the worker of a trial is not about to write params, as far as anyone knows."""


class TrialWrites:
    """Writes to trials, and what a process knows of them afterwards.

    Parameters
    ----------
    records
        The trials in the store.
    reader
        Reads a trial when a write has found it changed.
    hold
        As for `Studies`.
    """

    def __init__(
        self,
        records: TrialRecords,
        reader: StudyReader,
        hold: Callable[[Callable[[], Coroutine[Any, Any, None]]], object] | None,
    ) -> None:
        self._records = records
        self._reader = reader
        self._params = None if hold is None else ParamWriter(hold)

    @property
    def defers(self) -> bool:
        """Whether params may be written a little later than they are set."""
        return self._params is not None

    async def unfinished(self, study: KnownStudy, number: int) -> FrozenTrial:
        """Return a trial that may be written to, as this process knows it."""
        study.fresh.pop(number, None)
        known = study.trials.get(number)
        if known is None or (not known.state.is_finished() and number not in study.tokens):
            known = await self._reader.read(study, number)
        if known.state.is_finished():
            raise _finished(number)
        return known

    # ------------------------------------------------------------------------ begin and end

    async def begin(self, study: KnownStudy, number: int) -> bool:
        """Begin a trial that waits; return whether it did."""
        token = new_token()
        begun = await self.claim(study, number, token, defers=self.defers)
        if begun is not None:
            self.defer(study, begun, token)
        return begun is not None

    async def claim(
        self, study: KnownStudy, number: int, token: str, *, defers: bool
    ) -> FrozenTrial | None:
        """Begin a trial that waits, for this process alone; return None if it did not wait.

        Parameters
        ----------
        token
            The reservation under which it runs then, a new one.
        defers
            Whether its params may be written a little later than they are set.
        """
        document = await self._records.claim(study.uid, number, token, {UNWRITTEN: defers})
        if document is None:
            await self._read_unfinished(study, number)
            return None
        study.hold(number, token)
        study.fresh[number] = time.monotonic()
        return study.take(document, number)

    async def finish(
        self,
        study: KnownStudy,
        number: int,
        known: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End a trial, wherever it runs."""
        silent = study.silent.pop(number, None)
        if silent is not None and state is TrialState.FAIL:
            await self._fail(study, number, silent)
            return
        if silent is not None:
            known = await self._read_unfinished(study, number)  # it may have been set elsewhere
        token = self._token(study, number)
        if token is None:
            await self._finish_elsewhere(study, number, state, values)
        else:
            await self._finish(study, number, final_update(known, state, values), token)

    async def _finish(
        self, study: KnownStudy, number: int, update: TrialUpdate, token: str
    ) -> None:
        if not await self._write(study, number, update.changes, token):
            await self._check_held(study, number, token)
            await self._read_unfinished(study, number)
            raise _lost(number)
        known = study.trials.get(number) or await self._reader.read(study, number)
        study.put(changed(known, **update.fields))

    async def _finish_elsewhere(
        self,
        study: KnownStudy,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End a trial that does not run here, with all the params that its worker has set.

        The worker may be dead: then this does not wait for ever.
        """
        end = time.monotonic() + PARAMS_TIMEOUT
        while True:
            known = await self._read_unfinished(study, number)
            update = final_update(known, state, values)
            where = params_conditions(known)
            if time.monotonic() < end:
                where = (*where, _ALL_WRITTEN)
            if await self._records.write(study.uid, number, update.changes, None, where):
                study.put(changed(known, **update.fields))
                return
            await anyio.sleep(PARAMS_POLL_INTERVAL)

    async def _fail(self, study: KnownStudy, number: int, worker: str) -> None:
        """Fail a trial that was found stale, if it has the same worker still."""
        known = await self._read_unfinished(study, number)  # it may have been set elsewhere
        update = final_update(known, TrialState.FAIL, None)
        if not await self._write(study, number, update.changes, worker):
            await self._read_unfinished(study, number)
            raise UpdateFinishedTrialError(f"Trial#{number} has another worker by now.")
        study.lose(number, worker)
        study.put(changed(known, **update.fields))

    async def hand_back(
        self, study: KnownStudy, number: int, reason: str | None, token: str | None = None
    ) -> None:
        """Let a trial wait again, with its params, if this process runs it, or an unknown one."""
        changes: dict[str, Any] = {
            "status": INTERRUPTED,
            "worker": None,
            "results": [],
            f"{FIELD}.intermediate": {},
        }
        if token is None:
            token = self._token(study, number)
        if not await self._write(study, number, changes, token, reason=reason):
            await self._read_unfinished(study, number)
            raise _lost(number)
        if token is not None:
            study.lose(number, token)
        await self._reader.read(study, number)

    # -------------------------------------------------------------------- params that wait

    async def add_param(
        self, study: KnownStudy, number: int, known: FrozenTrial, param: StoredParam
    ) -> None:
        """Write a param; those that follow may wait."""
        token = study.tokens.get(number)
        if token is None or self._params is None or number in study.unwritten:
            await self.change(study, number, known, {}, param)
            return
        frozen = await self.change(study, number, known, {UNWRITTEN: True}, param)
        self.defer(study, frozen, token)

    def defer(self, study: KnownStudy, frozen: FrozenTrial, token: str) -> None:
        """Let params of a trial wait, whose document says that they may."""
        if self._params is not None:
            study.defer_params(frozen.number, token, frozen)
            self._params.add(study, frozen.number, self._write_params)

    async def _write_params(self, study: KnownStudy, number: int) -> None:
        """Write the params of a trial that wait, and let no more of them wait."""
        unwritten = study.unwritten.get(number)
        if unwritten is None:
            return
        try:
            if await self._write(study, number, {}, unwritten.token):
                return
            await self._check_held(study, number, unwritten.token)
        except (KeyError, UpdateFinishedTrialError):
            pass  # the worker is told so when it writes to the trial
        if study.unwritten.get(number) is unwritten:
            study.drop_params(number)

    # ------------------------------------------------------------------------ single writes

    async def change(
        self,
        study: KnownStudy,
        number: int,
        known: FrozenTrial,
        changes: Mapping[str, Any],
        param: UnwrittenParam | None = None,
    ) -> FrozenTrial:
        """Change a trial, with its params that wait and with one more, and read it.

        Parameters
        ----------
        known
            The trial as it was last read; where params wait, that is not asked for.

        Raises
        ------
        UpdateFinishedTrialError
            It is finished, or runs elsewhere, under another reservation than this process has had.
        """
        token = self._token(study, number)
        while True:
            unwritten = study.unwritten.get(number)
            params = [] if unwritten is None else unwritten.params
            added = params if param is None else [*params, param]
            more, as_known = params_changes(known if unwritten is None else unwritten.stored, added)
            document = await self._records.change(
                study.uid, number, {**more, **changes}, token, as_known
            )
            if document is not None:
                break
            await self._check_held(study, number, token)
            known = await self._read_unfinished(study, number)
            if not added:
                raise _lost(number)
        frozen = study.take(document, number, params)
        if token is not None:
            study.fresh[number] = time.monotonic()
        return frozen

    async def _write(
        self,
        study: KnownStudy,
        number: int,
        changes: Mapping[str, Any],
        token: str | None,
        *,
        reason: str | None = None,
    ) -> bool:
        """Change a trial with all its params that wait; then none does any more.

        Return whether it is unfinished and, with a token, runs under that reservation.
        """
        while True:
            unwritten = study.unwritten.get(number)
            if unwritten is None or unwritten.token != token:
                return await self._records.write(study.uid, number, changes, token, reason=reason)
            unwritten.close()
            params = unwritten.params
            more, as_known = params_changes(unwritten.stored, params)
            all_changes = {**more, **changes, UNWRITTEN: False}
            if await self._records.write(
                study.uid, number, all_changes, token, as_known, reason=reason
            ):
                study.params_written(number, unwritten)
                return True
            if not params:
                return False
            await self._check_held(study, number, token)
            await self._read_unfinished(study, number)  # another has added a param meanwhile

    def _token(self, study: KnownStudy, number: int) -> str | None:
        """Return the reservation of a trial, if this process has it.

        Raises
        ------
        UpdateFinishedTrialError
            It is known to run elsewhere.
        """
        if number in study.lost:
            raise _lost(number)
        return study.tokens.get(number)

    async def _check_held(self, study: KnownStudy, number: int, token: str | None) -> None:
        """Look why a trial could not be written to.

        Raises
        ------
        UpdateFinishedTrialError
            It runs elsewhere, under another reservation than this process has had.
        """
        if token is None:
            return
        document = await self._records.read(study.uid, number)
        if document is None:
            return
        if not is_held(document, token):
            study.take(document, number)
            study.lose(number, token)
            raise _lost(number)

    async def _read_unfinished(self, study: KnownStudy, number: int) -> FrozenTrial:
        known = await self._reader.read(study, number)
        if known.state.is_finished():
            raise _finished(number)
        return known


def _finished(number: int) -> UpdateFinishedTrialError:
    return UpdateFinishedTrialError(f"Trial#{number} has already finished and can not be updated.")


def _lost(number: int) -> UpdateFinishedTrialError:
    return UpdateFinishedTrialError(
        f"Trial#{number} is no longer this worker's: it was handed back or declared stale, and "
        "nothing was written."
    )
