"""Trials in the store: registered, reserved, fenced, completed, lost and found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel

from aiostorage._core.documents import both, changes_of, document_of, equal, query_of, update_of
from aiostorage._core.experiments import Experiments
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid, get_trial_uid_and_exp, get_uid, new_token
from aiostorage._core.layout import PENDING, TRIALS
from aiostorage._core.normalise import normalise, to_utc
from aiostorage.errors import FailedUpdate, TemporaryBackendError, TrialLost
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    StoreTime,
    Take,
    Update,
)
from aiostorage.trial import Trial, as_results, validate_status

__all__ = ["Trials"]

NOW = StoreTime()

AT_ONCE = 200
"""Documents that become trials between two turns of the event loop."""


LOOK = 0.05
"""Seconds between two looks for a pending trial, at least."""


class Trials:
    """What `Storage` does with trials; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway, experiments: Experiments, lost_after: float) -> None:
        self._gateway = gateway
        self._experiments = experiments
        self._lost_after = lost_after

    # ------------------------------------------------------------------------------ writing

    async def register(self, trials: Sequence[Trial]) -> list[Trial]:
        if not trials:
            return []
        documents = []
        for trial in trials:
            document = document_of(TRIALS, trial.to_dict())
            if document["submit_time"] is None:
                document["submit_time"] = datetime.now(UTC)
            documents.append(self._gateway.as_kept(document))
        stored = [Trial.from_dict(document) for document in documents]
        await self._gateway.execute(Insert(TRIALS, tuple(documents)))
        return stored

    async def update(
        self,
        trial: Trial | None,
        uid: str | None,
        experiment: Any,
        where: Mapping[str, Any] | None,
        changes: Mapping[str, Any],
    ) -> int:
        uid, experiment = get_trial_uid_and_exp(trial, uid, experiment)
        condition = both(equal(experiment=experiment, id=uid), query_of(where)[0])
        return await self._gateway.execute(update_of(TRIALS, condition, changes))

    async def update_all(
        self, experiment: Any, uid: Any, where: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> int:
        condition = both(equal(experiment=get_uid(experiment, uid)), query_of(where)[0])
        return await self._gateway.execute(update_of(TRIALS, condition, changes))

    async def delete(self, experiment: Any, uid: Any, where: Mapping[str, Any] | None) -> int:
        condition = both(equal(experiment=get_uid(experiment, uid)), query_of(where)[0])
        return await self._gateway.execute(Delete(TRIALS, condition))

    # ------------------------------------------------------------------------- reservations

    async def reserve(self, experiment: Any, count: int, wait: float = 0.0) -> list[Trial]:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        if not wait >= 0:
            raise ValueError(f"wait is a number of seconds, not {wait!r}")
        end = anyio.current_time() + wait if wait else 0.0
        mark: object | None = None
        while True:
            trials = await self._reserve(experiment, count)
            left = end - anyio.current_time() if wait else 0.0
            if trials or left <= 0:
                return trials
            # not every change brings a pending trial: when there are many, this is often enough
            await anyio.sleep(min(LOOK, left))
            # without a mark this answers at once: what came before it is looked at once more
            mark = await self._gateway.wait_for_change(TRIALS, mark, left)

    async def _reserve(self, experiment: Any, count: int) -> list[Trial]:
        uid, token = experiment_uid(experiment), new_token()
        ours = equal(experiment=uid, status="reserved", worker=token)
        take = Take(
            TRIALS,
            And((Compare("experiment", "eq", uid), PENDING)),
            {"status": "reserved", "worker": token, "start_time": NOW, "heartbeat": NOW},
            order=("submit_time",),
            limit=count,
            applied=ours,
        )
        try:
            documents = await self._gateway.execute(take)
        except BaseException as error:
            await self._give_back(error, ours, {"status": "interrupted", "worker": None})
            raise
        return [Trial.from_dict(document) for document in documents]

    async def beat(self, trial: Trial) -> int:
        matched = await self._gateway.execute(
            Update(TRIALS, _held(trial, "reserved"), {"heartbeat": NOW})
        )
        if not matched and trial.worker is not None:
            raise await self._refusal(trial, "reserved")
        return matched

    async def push(self, trial: Trial) -> int:
        changes: dict[str, Any] = {
            "results": [result.to_dict() for result in trial.results],
            "status": trial.status,
        }
        if trial.end_time is not None:
            changes["end_time"] = trial.end_time
        await self._write(trial, "reserved", changes_of(TRIALS, changes))
        return 1

    async def complete(self, trial: Trial, results: Any) -> None:
        results = as_results(results)
        changes = {
            "results": normalise([result.to_dict() for result in results], "results"),
            "status": "completed",
            "end_time": NOW,
            "heartbeat": NOW,
        }
        await self._write(trial, "reserved", changes)
        trial.results = results
        trial.status = "completed"
        trial.end_time = datetime.now(UTC)

    async def set_status(
        self, trial: Trial, status: str, heartbeat: datetime | None, was: str | None
    ) -> None:
        status = validate_status(status)
        was = validate_status(trial.status if was is None else was)
        changes: dict[str, Any] = {
            "status": status,
            "heartbeat": NOW if heartbeat is None else to_utc(heartbeat),
        }
        if status == "reserved":
            changes["worker"] = new_token()
        try:
            await self._write(trial, was, changes)
        except BaseException as error:
            if status == "reserved":
                ours = equal(experiment=trial.experiment, id=trial.id, worker=changes["worker"])
                await self._give_back(error, ours, {"status": was, "worker": trial.worker})
            raise
        trial.status = status
        trial.worker = changes.get("worker", trial.worker)

    async def hand_back(self, trial: Trial, status: str) -> None:
        """Give up a reservation, if it is still ours."""
        changes = {"status": status, "heartbeat": NOW}
        if await self._gateway.execute(Update(TRIALS, _held(trial, "reserved"), changes)):
            trial.status = status

    async def _give_back(
        self, error: BaseException, ours: Condition, changes: Mapping[str, Any]
    ) -> None:
        """Undo what may have been reserved for nobody, as the answer did not get through."""
        if not isinstance(error, Exception) or _uncertain(error):
            back = (Update(TRIALS, ours, changes),)
            seconds = self._gateway.policy.total
            await self._gateway.undo(back, error, seconds, "giving a reservation back")

    async def _write(self, trial: Trial, was: str, changes: Mapping[str, Any]) -> None:
        """Change a trial that is ours and has the status `was`."""
        held, applied, owner = _held(trial, was), None, changes.get("worker", trial.worker)
        if owner is not None and ("worker" in changes or changes.get("status", was) != was):
            applied = And(
                (*held.conditions[:2], *equal(status=changes["status"], worker=owner).conditions)
            )
        if not await self._gateway.execute(Update(TRIALS, held, changes, applied)):
            raise await self._refusal(trial, was)

    async def _refusal(self, trial: Trial, was: str) -> FailedUpdate:
        """Tell why a trial could not be written."""
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
        taken = holder != trial.worker or (was == "reserved" and status in PENDING.value)
        if trial.worker is not None and taken:
            whose = "nobody has it now"
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

    # ------------------------------------------------------------------------------ reading

    async def get(self, trial: Trial | None, uid: str | None, experiment: Any) -> Trial | None:
        uid, experiment = get_trial_uid_and_exp(trial, uid, experiment)
        found = await self._gateway.execute(
            Find(TRIALS, equal(experiment=experiment, id=uid), limit=1)
        )
        return Trial.from_dict(found[0]) if found else None

    async def fetch(
        self, experiment: Any, uid: Any, where: Mapping[str, Any] | None
    ) -> list[Trial] | None:
        uid = get_uid(experiment, uid)
        trials = await self._find(uid, query_of(where)[0])
        if trials or await self._experiments.exists(uid):
            return trials
        left = await self._gateway.execute(
            Find(TRIALS, equal(experiment=uid), {"id": True}, limit=1)
        )
        return trials if left else None

    async def with_status(self, experiment: Any, *conditions: Condition) -> list[Trial]:
        return await self._find(experiment_uid(experiment), And(conditions))

    async def pending(self, experiment: Any) -> list[Trial]:
        return await self.with_status(experiment, PENDING)

    async def lost(self, experiment: Any) -> list[Trial]:
        return await self.with_status(experiment, *self._lost)

    async def recover(self, experiment: Any) -> list[Trial]:
        documents = await self._gateway.execute(
            Take(
                TRIALS,
                And((Compare("experiment", "eq", experiment_uid(experiment)), *self._lost)),
                {"status": "interrupted", "worker": None},
                order=("submit_time",),
                limit=None,
            )
        )
        return await _trials(documents)

    async def count(self, experiment: Any, status: str) -> int:
        where = equal(experiment=experiment_uid(experiment), status=status)
        return await self._gateway.execute(Count(TRIALS, where))

    async def iterate(
        self,
        experiment: Any,
        where: Mapping[str, Any] | None,
        selection: Mapping[str, Any] | None,
        batch_size: int,
    ) -> AsyncIterator[Any]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        condition, selected = query_of(where, selection)
        condition = both(equal(experiment=experiment_uid(experiment)), condition)
        async for documents in self._gateway.pages(Find(TRIALS, condition, selected), batch_size):
            for document in documents:
                yield document if selection is not None else Trial.from_dict(document)

    async def retrieve(self, trial: Trial) -> Trial:
        stored = await self.get(trial, None, None)
        if stored is not None and stored.results:
            trial.results = stored.results
        return trial

    @property
    def _lost(self) -> tuple[Condition, ...]:
        return (
            Compare("status", "eq", "reserved"),
            Compare("heartbeat", "lte", StoreTime(-self._lost_after)),
        )

    async def _find(self, uid: Any, condition: Condition) -> list[Trial]:
        where = both(equal(experiment=uid), condition)
        return await _trials(
            await self._gateway.execute(Find(TRIALS, where, order=("submit_time",)))
        )


def _held(trial: Trial, status: str) -> And:
    """Require a trial to have a status and, if it carries a token, that token."""
    token = {} if trial.worker is None else {"worker": trial.worker}
    return equal(experiment=trial.experiment, id=trial.id, status=status, **token)


def _uncertain(error: BaseException) -> bool:
    return isinstance(error, TemporaryBackendError) and error.ambiguous


async def _trials(documents: list[Document]) -> list[Trial]:
    """Make trials of documents, which are used up, without holding up the event loop."""
    trials: list[Trial] = []
    documents.reverse()
    while documents:  # all of them let go of at the end would hold it up
        trials.append(Trial.from_dict(documents.pop()))
        if len(trials) % AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
    return trials
