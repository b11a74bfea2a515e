"""Reserved trials: given to one worker alone, and written only by the worker that holds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import anyio

from aiostorage._core.documents import changes_of, equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid, new_token
from aiostorage._core.layout import EXPERIMENTS, PENDING, TRIALS
from aiostorage._core.normalise import normalise, to_utc
from aiostorage._core.turn import Turn
from aiostorage.errors import BackendError, FailedUpdate, TemporaryBackendError, TrialLost
from aiostorage.operations import And, Compare, Condition, Count, Find, StoreTime, Take, Update
from aiostorage.trial import Trial, validate_status
from aiostorage.values import Result, TrialStatus, as_results

__all__ = ["Reservations"]

NOW: Final = StoreTime()

RESERVED: Final = TrialStatus.RESERVED.value
COMPLETED: Final = TrialStatus.COMPLETED.value
INTERRUPTED: Final = TrialStatus.INTERRUPTED.value

POLL_INTERVAL: Final = 0.05
"""Seconds between two attempts to reserve while waiting for a pending trial, at least."""


class Reservations:
    """What `Storage` does with reserved trials; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns: dict[str | None, Turn] = {}
        """The blocks of `reserved_trial` that run here, by the token of their reservation."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_turns": {}}  # no block of this process is in the copy

    # ------------------------------------------------------------------------------- reserve

    async def reserve(self, experiment: Any, count: int, wait: float = 0.0) -> list[Trial]:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        if not wait >= 0:
            raise ValueError(f"wait is a number of seconds, not {wait!r}")
        end = anyio.current_time() + wait if wait else 0.0
        version: object | None = None
        while True:
            trials = await self._reserve(experiment, count)
            left = end - anyio.current_time() if wait else 0.0
            if trials or left <= 0:
                return trials
            # not every change brings a pending trial, so a busy store must not wake us more often
            await anyio.sleep(min(POLL_INTERVAL, left))
            # the first time it returns at once: a change may have come before there was a version
            version = await self._gateway.wait_for_change(TRIALS, version, left)

    async def _reserve(self, experiment: Any, count: int) -> list[Trial]:
        uid, token = experiment_uid(experiment), new_token()
        ours = equal(experiment=uid, status=RESERVED, worker=token)
        take = Take(
            TRIALS,
            And((Compare("experiment", "eq", uid), PENDING)),
            {"status": RESERVED, "worker": token, "start_time": NOW, "heartbeat": NOW},
            order=("submit_time",),
            limit=count,
            applied=ours,
        )
        try:
            documents = await self._gateway.execute(take)
        except BaseException as error:
            await self._release(error, ours, {"status": INTERRUPTED, "worker": None})
            raise
        return Trial.build(documents)

    async def _release(
        self, error: BaseException, ours: Condition, changes: Mapping[str, Any]
    ) -> None:
        """Release a reservation that may have been made although its answer did not arrive."""
        lost_answer = isinstance(error, TemporaryBackendError) and error.ambiguous
        if lost_answer or not isinstance(error, Exception):
            release = (Update(TRIALS, ours, changes),)
            seconds = self._gateway.policy.total
            await self._gateway.compensate(release, error, seconds, "releasing a reservation")

    # --------------------------------------------------------------------------------- write

    async def beat(self, trial: Trial | Turn) -> int:
        matched = await self._gateway.execute(
            Update(TRIALS, _held(trial, RESERVED), {"heartbeat": NOW})
        )
        if not matched and trial.worker is not None:
            raise await self._refusal(trial, RESERVED)
        return matched

    async def push(self, trial: Trial) -> int:
        changes: dict[str, Any] = {
            "results": list(map(Result.to_dict, trial.results)),
            "status": trial.status,
        }
        if trial.end_time is not None:
            changes["end_time"] = trial.end_time
        await self._write(trial, RESERVED, changes_of(TRIALS, changes), trial.results)
        return 1

    async def complete(self, trial: Trial, results: Any) -> None:
        results = as_results(results)
        changes = {
            "results": normalise(list(map(Result.to_dict, results)), "results"),
            "status": COMPLETED,
            "end_time": NOW,
            "heartbeat": NOW,
        }
        await self._write(trial, RESERVED, changes, results)
        trial._complete(results, datetime.now(UTC))  # noqa: SLF001  checked already

    async def set_status(
        self, trial: Trial, status: str, heartbeat: datetime | None, was: str | None
    ) -> None:
        status = validate_status(status)
        was = validate_status(trial.status if was is None else was)
        changes: dict[str, Any] = {
            "status": status,
            "heartbeat": NOW if heartbeat is None else to_utc(heartbeat),
        }
        if status == RESERVED:
            changes["worker"] = new_token()
        try:
            await self._write(trial, was, changes)
        except BaseException as error:
            if status == RESERVED:
                ours = equal(experiment=trial.experiment, id=trial.id, worker=changes["worker"])
                await self._release(error, ours, {"status": was, "worker": trial.worker})
            raise
        trial.status = status
        trial.worker = changes.get("worker", trial.worker)

    async def _write(
        self,
        trial: Trial,
        was: str,
        changes: Mapping[str, Any],
        results: Sequence[Result] = (),
    ) -> None:
        """Change a trial that has the status `was` and, if it carries a token, that token.

        `results` are those among the changes, for the error if the engine fails.
        """
        held, applied, owner = _held(trial, was), None, changes.get("worker", trial.worker)
        if owner is not None and ("worker" in changes or changes.get("status", was) != was):
            applied = And(
                (*held.conditions[:2], *equal(status=changes["status"], worker=owner).conditions)
            )
        update, token = Update(TRIALS, held, changes, applied), trial.worker
        turn = self._turns.get(token) if token.__class__ is str else None
        if turn is not None:
            turn.writing += 1
        try:
            if not await self._gateway.execute(update):
                raise await self._refusal(trial, was)  # noqa: TRY301  the engine may fail here, too
        except Exception as error:
            if not isinstance(error, BackendError):
                raise
            _note_unwritten(turn, update, results)
            raise _with_results(error, results) from error.__cause__
        except BaseException:  # cancelled
            _note_unwritten(turn, update, results)
            raise
        finally:
            if turn is not None:
                turn.writing -= 1
        if turn is not None:
            self._confirm(turn, changes)

    async def _refusal(self, trial: Trial | Turn, was: str) -> FailedUpdate:
        """Return the error that says why a trial could not be written."""
        there = equal(experiment=trial.experiment, id=trial.id)
        selection = {"status": True, "worker": True, "heartbeat": True}
        found = await self._gateway.execute(Find(TRIALS, there, selection, limit=1))
        uid, token = trial.id, trial.worker
        if not found:
            return (FailedUpdate if token is None else TrialLost)(
                f"experiment {trial.experiment!r} has no trial {uid}; it was deleted or never "
                "registered",
                uid=uid,
                token=token,
            )
        status, holder = found[0].get("status"), found[0].get("worker")
        taken = holder != token or (was == RESERVED and status in PENDING.value)
        if token is not None and taken:
            whose = "no worker has it now"
            if holder is not None and holder != token:
                whose = f"{holder!r} has it now"
            return TrialLost(
                f"trial {uid} is no longer reserved by {token!r}: {whose} and its status "
                f"is {status!r}; nothing was written",
                uid=uid,
                status=status,
                holder=holder,
                token=token,
            )
        return FailedUpdate(
            f"trial {uid} is {status!r}, not {was!r}; nothing was written",
            uid=uid,
            status=status,
            holder=holder,
            token=token,
        )

    # ---------------------------------------------------------------- the block of a worker

    def begin_turn(self, trial: Trial) -> Turn:
        """Note, until `end_turn`, what becomes of a trial that was reserved just now."""
        turn = Turn(trial, trial.experiment, trial.id, trial.worker, anyio.current_time())
        self._turns[turn.worker] = turn
        return turn

    def end_turn(self, turn: Turn) -> None:
        self._turns.pop(turn.worker, None)

    def _confirm(self, turn: Turn, changes: Mapping[str, Any]) -> None:
        turn.ended = changes["status"] != RESERVED
        if turn.ended:
            turn.unwritten = None
        if "worker" in changes:  # it was reserved anew, under another token
            self._turns[changes["worker"]] = self._turns.pop(turn.worker, turn)
            turn.worker = changes["worker"]

    async def hand_back(self, turn: Turn, status: str) -> None:
        """Give up the reservation of a turn, if the store still has it."""
        there = equal(experiment=turn.experiment, id=turn.id)
        applied = And((*there.conditions, *equal(status=status, worker=turn.worker).conditions))
        changes = {"status": status, "heartbeat": NOW}
        if await self._gateway.execute(Update(TRIALS, _held(turn, RESERVED), changes, applied)):
            turn.trial.status = status

    async def write_again(self, turn: Turn) -> None:
        """Write what a turn could not write.

        Raises
        ------
        FailedUpdate
            The trial is not reserved any more, and what was to be written is not there.
        """
        update, results = cast("tuple[Update, list[Result]]", turn.unwritten)
        status = update.changes["status"]
        if not await self._gateway.execute(update):
            refusal = await self._refusal(turn, RESERVED)
            if (refusal.status, refusal.holder) != (status, turn.worker):  # it was not lost then
                raise refusal
        self._confirm(turn, update.changes)
        turn.trial.status = status
        if update.changes.get("end_time") == NOW:
            turn.trial._complete(results, datetime.now(UTC))  # noqa: SLF001  checked already

    async def has_experiment(self, turn: Turn) -> bool:
        there = Count(EXPERIMENTS, equal(_id=turn.experiment))
        return bool(await self._gateway.execute(there))


def _note_unwritten(turn: Turn | None, update: Update, results: Sequence[Result]) -> None:
    if turn is not None and update.changes["status"] != RESERVED:
        turn.unwritten = (update, list(results))


def _with_results(error: BackendError, results: Sequence[Result]) -> BackendError:
    """Return a copy with the results: callers whose writes shared a batch share their error."""
    copied = copy.copy(error)
    copied.results = list(results)
    return copied.with_traceback(error.__traceback__)


def _held(trial: Trial | Turn, status: str) -> And:
    """Return the condition that a trial has a status and, if it carries a token, that token."""
    token = {} if trial.worker is None else {"worker": trial.worker}
    return equal(experiment=trial.experiment, id=trial.id, status=status, **token)
