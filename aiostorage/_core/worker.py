"""A worker's turn with one trial: reserved, kept alive, and handed back whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage._core.event_log import EventLog
from aiostorage._core.heartbeat import repeating
from aiostorage._core.reasons import reason_of
from aiostorage._core.reservations import Reservations
from aiostorage._core.telemetry import Telemetry
from aiostorage._core.turn import Turn, lost_by, status_after
from aiostorage.errors import AioStorageError, FailedUpdate, TemporaryBackendError, TrialLost
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["ReservedTrial"]

events: Final = EventLog("worker")

LAST_ATTEMPT_TIMEOUT: Final = 1.0
"""Seconds for one last attempt, when the engine has not answered for long."""

RETRY_DELAY: Final = 0.2
"""Seconds between one vain attempt to write again and the next."""


class ReservedTrial(AbstractAsyncContextManager["Trial | None"]):
    """A trial that is reserved for the body; the contract is `AsyncStorageProtocol.reserved_trial`.

    Parameters
    ----------
    heartbeat
        Seconds between two heartbeats.
    lost_after
        Seconds without a heartbeat after which the trial counts as lost.
    end_timeout
        Seconds that each step at the end may take: writing again, and handing the trial back.
    wait
        Seconds to wait for a pending trial.
    recover
        Whether a lost trial will do where none is pending.
    on_lost
        Whether a lost reservation is an error of the body.
    telemetry
        Who is told how late heartbeats are, if anyone.
    limited
        Reserves the trial instead, within the limits of the experiment.
    """

    def __init__(
        self,
        reservations: Reservations,
        experiment: Any,
        *,
        heartbeat: float,
        lost_after: float,
        end_timeout: float,
        wait: float,
        recover: bool,
        on_lost: Literal["skip", "raise"],
        telemetry: Telemetry | None = None,
        limited: Callable[[float, bool], Awaitable[list[Trial]]] | None = None,
    ) -> None:
        self._reservations = reservations
        self._experiment = experiment
        self._heartbeat = heartbeat
        self._lost_after = lost_after
        self._end_timeout = end_timeout
        self._wait = wait
        self._recover = recover
        self._on_lost = on_lost
        self._telemetry = telemetry
        self._limited = limited
        self._turn: Turn | None = None
        self._heart: AbstractAsyncContextManager[None]

    async def __aenter__(self) -> Trial | None:
        if self._limited is not None:
            reserved = await self._limited(self._wait, self._recover)
        else:
            reserved = await self._reservations.reserve(
                self._experiment, 1, self._wait, self._recover
            )
        if not reserved:
            return None
        turn = self._turn = self._reservations.begin_turn(reserved[0])
        beat = partial(self._beat, turn)
        self._heart = repeating(beat, self._heartbeat, self._telemetry)
        await self._heart.__aenter__()
        return turn.trial

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        turn = self._turn
        if turn is None:
            return False
        error = exc
        try:
            try:
                await self._heart.__aexit__(exc_type, exc, traceback)
            except BaseException as other:  # noqa: BLE001  a loss, or a cancellation in between
                error = other
            error = await self._end(turn, error)
        finally:
            self._reservations.end_turn(turn)
        if error is exc:
            return False
        if error is not None:
            raise error
        return True

    def suppresses(self, error: BaseException) -> bool:
        """Return whether this, which was left before its body ended, suppresses the body's error.

        That is so in a thread, which goes on when a heartbeat finds that the reservation is gone.
        """
        turn = self._turn
        return (
            turn is not None
            and not turn.ended
            and self._on_lost == "skip"
            and lost_by(error, turn.worker) is not None
        )

    # ----------------------------------------------------------------------------- heartbeat

    async def _beat(self, turn: Turn) -> None:
        """Renew the reservation; raise `TrialLost` if it is gone and the body did not end it."""
        start = anyio.current_time()
        try:
            await self._reservations.beat(turn)
        except TrialLost as error:
            # the body may be about to end it; if it does not, the next heartbeat finds that out
            if not (turn.ended or turn.writing):
                turn.lost = error
                raise
        except FailedUpdate:  # the body may end it through another copy, or another storage
            pass
        else:
            turn.beaten = start

    # ------------------------------------------------------------------------------- the end

    async def _end(self, turn: Turn, error: BaseException | None) -> BaseException | None:
        """Write what becomes of the trial; return what has to be raised, if anything."""
        if turn.ended:
            return error
        lost = turn.lost if error is None else lost_by(error, turn.worker)
        if lost is None and turn.lost is None:
            lost = await self._write_or_hand_back(turn, error)
        if lost is None:
            return error
        turn.trial.status = TrialStatus.INTERRUPTED
        if self._on_lost == "raise" or await self._is_without_experiment(turn, lost):
            return lost if error is None else error
        events.warning(
            "trial_lost",
            "going on without a trial that was lost: %(error)s",
            trial=turn.id,
            experiment=turn.experiment,
            error=lost,
        )
        return None

    async def _write_or_hand_back(
        self, turn: Turn, error: BaseException | None
    ) -> TrialLost | None:
        """Write what the body could not write, else hand the trial back.

        Returns the loss of the trial if that shows only here and the body ended without an error.
        """
        status, seconds = TrialStatus.INTERRUPTED, self._end_timeout
        if error is not None:
            status = status_after(error, unwritten=turn.unwritten is not None)
        if turn.unwritten is not None and status is TrialStatus.INTERRUPTED:
            try:
                await self._write_again(turn, error)
            except FailedUpdate as refusal:
                if error is None and isinstance(refusal, TrialLost):
                    return refusal
                events.warning(
                    "trial_not_written",
                    "what trial %(trial)s has become was not written: %(error)s",
                    trial=turn.id,
                    experiment=turn.experiment,
                    error=refusal,
                )
                return None
            except (AioStorageError, TimeoutError) as failure:
                why = str(failure) or "there was no time left"
                events.warning(
                    "trial_not_written",
                    "what trial %(trial)s has become could not be written: %(reason)s",
                    trial=turn.id,
                    experiment=turn.experiment,
                    reason=why,
                )
                seconds = min(seconds, LAST_ATTEMPT_TIMEOUT)
            except BaseException:  # cancelled meanwhile
                if not turn.ended:
                    await self._hand_back(turn, status, min(seconds, LAST_ATTEMPT_TIMEOUT), error)
                raise
            else:
                return None
        await self._hand_back(turn, status, seconds, error)
        return None

    async def _hand_back(
        self, turn: Turn, status: TrialStatus, seconds: float, error: BaseException | None
    ) -> None:
        reason = "it was not completed" if error is None else reason_of(error)
        try:
            await shielded(
                seconds, lambda: self._reservations.hand_back(turn, status.value, reason)
            )
        except (AioStorageError, TimeoutError) as failure:
            events.warning(
                "trial_not_handed_back",
                "trial %(trial)s could not be handed back as %(status)s, and stays reserved until "
                "it is lost: %(reason)s",
                trial=turn.id,
                experiment=turn.experiment,
                status=status,
                reason=str(failure) or f"no answer within {seconds:.3g} s",
            )

    async def _write_again(self, turn: Turn, error: BaseException | None) -> None:
        """Write what the body could not write, before the trial may count as lost.

        A body that was cancelled has to end soon, so there is one attempt for it.
        """
        persists = error is None or isinstance(error, Exception)

        async def write() -> None:
            while True:
                try:
                    return await self._reservations.write_again(turn)
                except TemporaryBackendError:
                    if not persists:
                        raise
                await anyio.sleep(RETRY_DELAY)

        left = turn.beaten + self._lost_after - anyio.current_time()
        await shielded(min(self._end_timeout, max(left, LAST_ATTEMPT_TIMEOUT)), write)
        news = f"trial {turn.id} is {turn.trial.status} after all: the store has it now"
        events.info(
            "trial_written_late",
            "trial %(trial)s is %(status)s after all: the store has it now",
            trial=turn.id,
            experiment=turn.experiment,
            status=turn.trial.status,
        )
        if error is not None:
            error.add_note(news)

    async def _is_without_experiment(self, turn: Turn, lost: TrialLost) -> bool:
        """Return whether the experiment was deleted, so that there is nothing to go on with."""
        if lost.status is not None:
            return False
        try:
            return not await self._reservations.has_experiment(turn.experiment)
        except AioStorageError:
            return False
