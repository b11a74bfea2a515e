"""Reserved trials: given to one worker alone, and written only by the worker that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

import anyio

from aiostorage._core.cancellation import had_no_effect
from aiostorage._core.documents import both, changes_of, equal
from aiostorage._core.driver_calls.gateway import Gateway, copy_of
from aiostorage._core.holders import named_holder
from aiostorage._core.ids import experiment_uid, new_token
from aiostorage._core.kinds import COUNT, MAX_COUNT, WAIT
from aiostorage._core.layout import EXPERIMENTS, PENDING, TRIALS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.nan_policy import NanPolicy
from aiostorage._core.normalise import normalise, to_utc
from aiostorage._core.reasons import reason_of
from aiostorage._core.record_checks import stored_results
from aiostorage._core.record_reader import READING_ERRORS, TrialReader, missing_trial
from aiostorage._core.storable_results import without_largest, without_unstorable
from aiostorage._core.turn import Held, Turn
from aiostorage.errors import (
    BackendError,
    EncodingError,
    FailedUpdate,
    TemporaryBackendError,
    TrialLost,
)
from aiostorage.operations import (
    And,
    Compare,
    Comparison,
    Condition,
    Count,
    Document,
    Find,
    StoreTime,
    Take,
    Update,
)
from aiostorage.trial import Trial, validate_status
from aiostorage.values import Result, TrialStatus, as_results, has_nan, read_values

__all__ = ["RESERVED", "Reservations"]

NOW: Final = StoreTime()

EQUAL: Final[Comparison] = "eq"

STATUS_IS: Final = {status.value: Compare("status", EQUAL, status.value) for status in TrialStatus}
"""The conditions that a trial has a status."""

RESERVED: Final = TrialStatus.RESERVED.value
COMPLETED: Final = TrialStatus.COMPLETED.value
INTERRUPTED: Final = TrialStatus.INTERRUPTED.value

STARTED: Final[Mapping[str, Any]] = {"status": RESERVED, "start_time": NOW}
"""What a new reservation writes beside its token and its heartbeat."""

CLEAN: Final[Mapping[str, Any]] = {"end_time": None, "results": []}
"""What it writes over the traces of an earlier one."""

BEGUN: Final[Mapping[str, Any]] = {**STARTED, **CLEAN}

POLL_INTERVAL: Final = 0.05
"""Seconds between two attempts to reserve while waiting for a pending trial, at least."""

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks of the experiment while waiting for one of its trials."""


class Reservations:
    """What `Storage` does with reserved trials; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway, lost: LostTrials, nan: NanPolicy) -> None:
        self._gateway = gateway
        self._lost = lost
        self._nan = nan
        self._reader = TrialReader(gateway)
        self._turns: dict[str | None, Turn] = {}
        """The blocks of `reserved_trial` that run here, by the token of their reservation."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_turns": {}}  # no block of this process is in the copy

    # ------------------------------------------------------------------------------- reserve

    async def reserve(
        self, experiment: Any, count: int, wait: float = 0.0, recover: bool = True
    ) -> list[Trial]:
        if not (0 < count <= MAX_COUNT and wait >= 0):
            COUNT.check("reserve_trials", "count", count)
            WAIT.check("reserve_trial", "wait", wait)
        trials = await self._reserve(experiment, count, recover)
        if trials or not wait:
            return trials
        now = anyio.current_time()
        end = now + wait
        # a trial becomes lost by time alone, which no engine reports as a change
        next_look = now + self._lost.look_interval if recover else math.inf
        next_check = now
        version: object | None = None
        while (left := end - now) > 0:
            # not every change brings a pending trial, so a busy store must not wake us more often
            await anyio.sleep(min(POLL_INTERVAL, left))
            if now >= next_check:
                await self.check_experiment(experiment)
                next_check = now + CHECK_INTERVAL
            left = min(end, next_look, next_check) - anyio.current_time()
            # the first time it returns at once: a change may have come before there was a version
            version = await self._gateway.wait_for_change(TRIALS, version, max(left, 0.0))
            now = anyio.current_time()
            look = recover and now >= min(end, next_look)
            # nothing woke us: a write that finds nothing would keep other writers waiting
            if next_check <= now < end and not look and not await self._is_any_pending(experiment):
                continue
            if trials := await self._reserve(experiment, count, look):
                return trials
            if look:
                next_look = now + self._lost.look_interval
        return []

    async def reserve_as_registered(self, experiment: Any) -> Trial | None:
        """Reserve a pending trial, with the results that it may have been registered with.

        Oríon's own storage keeps them. Those of an earlier evaluation are deleted here, too.
        """
        trials = await self._reserve(experiment, 1, recover=False, clean=False)
        if not trials:
            return None
        [trial] = trials
        if trial.end_time is not None:
            held = _held(trial, RESERVED)
            try:
                await self._gateway.execute(Update(TRIALS, held, CLEAN))
            except BaseException as error:
                release = {"status": INTERRUPTED, "worker": None}
                await self._release(error, held, release, certain=True)
                raise
            trial._clear()  # noqa: SLF001  as the store has it now
        return trial

    async def _reserve(
        self, experiment: Any, count: int, recover: bool, clean: bool = True
    ) -> list[Trial]:
        uid, token = experiment_uid(experiment), new_token()
        one = Compare("experiment", "eq", uid)
        ours = And((one, STATUS_IS[RESERVED], Compare("worker", EQUAL, token)))
        take = Take(
            TRIALS,
            And((one, PENDING)),
            {**(BEGUN if clean else STARTED), "worker": token, "heartbeat": NOW},
            order=("submit_time",),
            limit=count,
            applied=ours,
        )
        documents: list[Document] = []
        try:
            documents = await self._gateway.execute(take)
            if recover and len(documents) < count:
                documents = [*documents, *await self._take_lost(take, documents)]
            try:
                return Trial.build(documents)
            except READING_ERRORS:
                look_for_lost = self._take_lost if recover else None
                return await self._reader.reserved(take, documents, look_for_lost)
        except BaseException as error:
            release = {"status": INTERRUPTED, "worker": None}
            await self._release(error, ours, release, certain=bool(documents))
            raise

    async def _take_lost(self, take: Take, taken: Sequence[Document]) -> list[Document]:
        """Take lost trials under the same token, so that there are as many in all as it wants."""
        pending, ours = cast(And, take.where), cast(And, take.applied)
        # what this call took before may be lost already, if the store was slow
        others = Compare("worker", "ne", take.changes["worker"])
        lost = And((pending.conditions[0], *self._lost.conditions, others))
        # to look is cheap; a write that finds nothing would keep other writers waiting
        if not await self._gateway.execute(Count(TRIALS, lost)):
            return []
        if taken:  # they are ours, but not what this take took
            ids = tuple(document["_id"] for document in taken)
            ours = both(ours, Compare("_id", "nin", ids))
        left = cast(int, take.limit) - len(taken)
        return await self._gateway.execute(
            replace(take, where=lost, limit=left, applied=ours, reason="lost")
        )

    async def _release(
        self,
        error: BaseException,
        ours: Condition,
        changes: Mapping[str, Any],
        *,
        certain: bool = False,
    ) -> None:
        """Release a reservation that was made, or may have been although no answer arrived."""
        lost_answer = isinstance(error, TemporaryBackendError) and error.ambiguous
        cancelled = not isinstance(error, Exception) and not had_no_effect(error)
        if certain or lost_answer or cancelled:
            release = (Update(TRIALS, ours, changes, reason=reason_of(error)),)
            seconds = self._gateway.policy.total
            await self._gateway.compensate(release, error, seconds, "releasing a reservation")

    # --------------------------------------------------------------------------------- write

    async def beat(self, trial: Held) -> int:
        matched = await self._gateway.execute(
            Update(TRIALS, _held(trial, RESERVED), {"heartbeat": NOW})
        )
        if not matched and trial.worker is not None:
            raise await self._refusal(trial, RESERVED)
        return matched

    async def push(self, trial: Trial) -> int:
        results, stored = trial.results, stored_results(trial)
        try:
            stored = normalise(stored, "results")
        except EncodingError:
            results, stored = without_unstorable(trial.id, results)
        changes: dict[str, Any] = {"results": stored, "status": trial.status}
        if trial.end_time is not None:
            changes["end_time"] = trial.end_time
        changes = changes_of(TRIALS, changes)
        if trial.status == COMPLETED and has_nan(read_values(Result, changes["results"])):
            changes["status"] = self._nan.status_of(trial)
        try:
            await self._write(trial, RESERVED, changes, results)
        except EncodingError as error:
            await self._write_fewer(trial, changes, results, error)
        trial.status = changes["status"]
        return 1

    async def complete(self, trial: Trial, results: Any) -> None:
        results = as_results(results)
        status = self._nan.status_of(trial) if has_nan(results) else COMPLETED
        try:
            stored = normalise(list(map(Result.to_dict, results)), "results")
        except EncodingError:
            results, stored = without_unstorable(trial.id, results)
        changes = {"results": stored, "status": status, "end_time": NOW, "heartbeat": NOW}
        reason = None if status == COMPLETED else "the objective is NaN"
        try:
            await self._write(trial, RESERVED, changes, results, reason)
        except EncodingError as error:
            results = await self._write_fewer(trial, changes, results, error)
        trial._complete(results, datetime.now(UTC), status)  # noqa: SLF001  checked already

    async def _write_fewer(
        self,
        trial: Trial,
        changes: Mapping[str, Any],
        results: list[Result],
        error: EncodingError,
    ) -> list[Result]:
        """Write what the engine refused without the largest statistics; return what is written."""
        stored = changes["results"]
        while True:
            results, stored = without_largest(trial.id, results, stored, error)
            try:
                await self._write(trial, RESERVED, {**changes, "results": stored}, results)
            except EncodingError as again:
                error = again
            else:
                return results

    async def set_status(
        self,
        trial: Trial,
        status: str,
        heartbeat: datetime | None,
        was: str | None,
        reason: str | None = None,
    ) -> None:
        status = validate_status(status)
        was = validate_status(trial.status if was is None else was)
        changes: dict[str, Any] = {
            "status": status,
            "heartbeat": NOW if heartbeat is None else to_utc(heartbeat),
        }
        if status != RESERVED:
            await self._write(trial, was, changes, reason=reason)
            trial.status = status
            return
        changes = {**BEGUN, **changes}
        changes["worker"] = new_token()
        before = changes_of(TRIALS, {**_traces(trial), "status": was, "worker": trial.worker})
        try:
            await self._write(trial, was, changes, reason=reason)
        except BaseException as error:
            ours = equal(experiment=trial.experiment, id=trial.id, worker=changes["worker"])
            await self._release(error, ours, before)
            raise
        now = datetime.now(UTC)
        beat = now if heartbeat is None else changes["heartbeat"]
        trial._begin(changes["worker"], now, beat)  # noqa: SLF001  as the store has it now

    async def _write(
        self,
        trial: Trial,
        was: str,
        changes: Mapping[str, Any],
        results: Sequence[Result] = (),
        reason: str | None = None,
    ) -> None:
        """Change a trial that has the status `was` and, if it carries a token, that token.

        `results` are those among the changes, for the error if the engine fails.
        """
        # all that is written, since an earlier call may have written the same status
        new = {k: v for k, v in changes.items() if v.__class__ is not StoreTime}
        held, applied, owner = _held(trial, was), None, changes.get("worker", trial.worker)
        status = changes.get("status", was)
        if owner is not None and ("worker" in changes or status != was):
            new = {"worker": owner, **new}
            equalities = [Compare(name, EQUAL, value) for name, value in new.items()]
            applied = And((*held.conditions[:2], *equalities))
        # without a token nothing tells who wrote it, and a pending trial may be taken at once
        once = owner is None or (status != was and status in PENDING.value)
        execute = self._gateway.execute_once if once else self._gateway.execute
        update, token = Update(TRIALS, held, changes, applied, reason), trial.worker
        turn = self._turns.get(token) if token.__class__ is str else None
        if turn is not None:
            turn.writing += 1
        try:
            if not await execute(update):
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

    async def _refusal(self, trial: Held, was: str) -> FailedUpdate:
        """Return the error that says why a trial could not be written."""
        there = equal(experiment=trial.experiment, id=trial.id)
        selection = {"status": True, "worker": True}
        found = await self._gateway.execute(Find(TRIALS, there, selection, limit=1))
        uid, token = trial.id, trial.worker
        if not found:
            return missing_trial(trial.experiment, uid, token)
        status, holder = found[0].get("status"), found[0].get("worker")
        taken = holder != token or (was == RESERVED and status in PENDING.value)
        if token is not None and taken:
            whose = "no worker has it now"
            if holder is not None and holder != token:
                whose = f"{named_holder(holder)} has it now"
            return TrialLost(
                f"trial {uid} is no longer reserved by {named_holder(token)}: {whose} and its "
                f"status is {status!r}; nothing was written",
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

    async def hand_back(self, turn: Turn, status: str, reason: str | None = None) -> None:
        """Give up the reservation of a turn, if the store still has it."""
        there = equal(experiment=turn.experiment, id=turn.id)
        applied = And((*there.conditions, *equal(status=status, worker=turn.worker).conditions))
        changes = {"status": status, "heartbeat": NOW}
        update = Update(TRIALS, _held(turn, RESERVED), changes, applied, reason)
        if await self._gateway.execute(update):
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
            turn.trial._complete(results, datetime.now(UTC), status)  # noqa: SLF001  checked already

    async def has_experiment(self, uid: Any) -> bool:
        return bool(await self._gateway.execute(Count(EXPERIMENTS, equal(_id=uid))))

    async def _is_any_pending(self, experiment: Any) -> bool:
        ours = Compare("experiment", "eq", experiment_uid(experiment))
        return bool(await self._gateway.execute(Count(TRIALS, And((ours, PENDING)))))

    async def check_experiment(self, experiment: Any) -> None:
        uid = experiment_uid(experiment)
        if not await self.has_experiment(uid):
            raise FailedUpdate(
                f"there is no experiment {uid!r} to wait for trials of: it was deleted, or never "
                "created"
            )


def _note_unwritten(turn: Turn | None, update: Update, results: Sequence[Result]) -> None:
    if turn is not None and update.changes["status"] != RESERVED:
        turn.unwritten = (update, list(results))


def _with_results(error: BackendError, results: Sequence[Result]) -> BackendError:
    """Return a copy with the results: callers whose writes shared a batch share their error."""
    copied = copy_of(error)
    copied.results = list(results)
    return copied.with_traceback(error.__traceback__)


def _held(trial: Held, status: str) -> And:
    """Return the condition that a trial has a status and, if it carries a token, that token."""
    held = (
        Compare("experiment", EQUAL, trial.experiment),
        Compare("id", EQUAL, trial.id),
        STATUS_IS[status],
    )
    token = trial.worker
    return And(held if token is None else (*held, Compare("worker", EQUAL, token)))


def _traces(trial: Trial) -> dict[str, Any]:
    """Return the fields that a new reservation of the trial overwrites."""
    return {
        "start_time": trial.start_time,
        "end_time": trial.end_time,
        "results": stored_results(trial),
    }
