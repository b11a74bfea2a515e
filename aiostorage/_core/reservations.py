"""Reserved trials: given to one worker alone, and written only by the worker that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from aiostorage._core.documents import changes_of, equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid, new_token
from aiostorage._core.layout import PENDING, TRIALS
from aiostorage._core.normalise import normalise, to_utc
from aiostorage.errors import FailedUpdate, TemporaryBackendError, TrialLost
from aiostorage.operations import And, Compare, Condition, Find, StoreTime, Take, Update
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

    async def beat(self, trial: Trial) -> int:
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
        await self._write(trial, RESERVED, changes_of(TRIALS, changes))
        return 1

    async def complete(self, trial: Trial, results: Any) -> None:
        results = as_results(results)
        changes = {
            "results": normalise(list(map(Result.to_dict, results)), "results"),
            "status": COMPLETED,
            "end_time": NOW,
            "heartbeat": NOW,
        }
        await self._write(trial, RESERVED, changes)
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

    async def hand_back(self, trial: Trial, status: str) -> None:
        """Give up a reservation, unless another worker has taken it over."""
        there = equal(experiment=trial.experiment, id=trial.id)
        applied = And((*there.conditions, *equal(status=status, worker=trial.worker).conditions))
        changes = {"status": status, "heartbeat": NOW}
        if await self._gateway.execute(Update(TRIALS, _held(trial, RESERVED), changes, applied)):
            trial.status = status

    async def _write(self, trial: Trial, was: str, changes: Mapping[str, Any]) -> None:
        """Change a trial that has the status `was` and, if it carries a token, that token."""
        # all that is written, since an earlier call may have written the same status
        new = {k: v for k, v in changes.items() if v.__class__ is not StoreTime}
        held, applied, owner = _held(trial, was), None, changes.get("worker", trial.worker)
        status = changes.get("status", was)
        if owner is not None and ("worker" in changes or status != was):
            applied = And((*held.conditions[:2], *equal(**{"worker": owner, **new}).conditions))
        # without a token nothing tells who wrote it, and a pending trial may be taken at once
        once = owner is None or (status != was and status in PENDING.value)
        execute = self._gateway.execute_once if once else self._gateway.execute
        if not await execute(Update(TRIALS, held, changes, applied)):
            raise await self._refusal(trial, was)

    async def _refusal(self, trial: Trial, was: str) -> FailedUpdate:
        """Return the error that says why a trial could not be written."""
        there = equal(experiment=trial.experiment, id=trial.id)
        selection = {"status": True, "worker": True, "heartbeat": True}
        found = await self._gateway.execute(Find(TRIALS, there, selection, limit=1))
        uid = trial.id
        if not found:
            return FailedUpdate(
                f"experiment {trial.experiment!r} has no trial {uid}; it was deleted or never "
                "registered",
                uid=uid,
            )
        status, holder = found[0].get("status"), found[0].get("worker")
        taken = holder != trial.worker or (was == RESERVED and status in PENDING.value)
        if trial.worker is not None and taken:
            whose = "no worker has it now"
            if holder is not None and holder != trial.worker:
                whose = f"{holder!r} has it now"
            return TrialLost(
                f"trial {uid} is no longer reserved by {trial.worker!r}: {whose} and its status "
                f"is {status!r}; nothing was written",
                uid=uid,
                status=status,
                holder=holder,
            )
        return FailedUpdate(
            f"trial {uid} is {status!r}, not {was!r}; nothing was written",
            uid=uid,
            status=status,
            holder=holder,
        )


def _held(trial: Trial, status: str) -> And:
    """Return the condition that a trial has a status and, if it carries a token, that token."""
    token = {} if trial.worker is None else {"worker": trial.worker}
    return equal(experiment=trial.experiment, id=trial.id, status=status, **token)
