"""The state of an experiment, counted by the engine: only the best trial is fetched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from aiostorage._core.documents import equal
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.holders import named_holder, process_of
from aiostorage._core.ids import experiment_uid
from aiostorage._core.layout import ALGO, EXPERIMENTS, TRIALS, WAITERS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.trials import Trials
from aiostorage._core.versions import FIRST_VERSION
from aiostorage.errors import EncodingError
from aiostorage.operations import And, Compare, Condition, Count, Document, Find, SortBy, StoreTime
from aiostorage.summary import ExperimentSummary, LockSummary
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["Summaries"]

STATUSES: Final = tuple(status.value for status in TrialStatus)
COMPLETED: Final = TrialStatus.COMPLETED.value

BY_SUBMISSION: Final = ("submit_time",)
"""An order of which nothing depends: by insertion, MongoDB would read its whole collection."""

MAX_READ: Final = 1000
"""How many reserved trials, and trials with an unknown status, are read at most."""

LOCK_FIELDS: Final = ("locked", "owner", "since", "heartbeat", "expires")
"""The fields of a lock that are read: its state may be large, or written by a foreign codec."""

CONFIG_FIELDS: Final = ("name", "version", "max_trials")
"""The fields of an experiment that are read."""


class Summaries:
    """The methods of `Storage` on a whole experiment; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway, trials: Trials, lost: LostTrials) -> None:
        self._gateway = gateway
        self._trials = trials
        self._lost = lost

    async def best(self, experiment: Any, direction: str) -> Trial | None:
        return await self._best(experiment_uid(experiment), direction)

    async def _best(self, uid: Any, direction: str) -> Trial | None:
        objective = SortBy(
            "results", direction == "maximize", element=Compare("type", "eq", "objective")
        )
        found = await self._trials.first(
            Find(TRIALS, equal(experiment=uid, status=COMPLETED), order=(objective,), limit=1)
        )
        return found[0] if found and _is_number(found[0]) else None

    async def summary(
        self, experiment: Any, direction: str, window: float
    ) -> ExperimentSummary | None:
        uid = experiment_uid(experiment)
        mine = Compare("experiment", "eq", uid)
        recent = And((*_status(uid, COMPLETED), _since(window)))
        operations = (
            Count(TRIALS, mine),
            *(Count(TRIALS, And(_status(uid, status))) for status in STATUSES),
            Count(TRIALS, And((mine, *self._lost.conditions))),
            Count(TRIALS, recent),
            Count(WAITERS, And((mine, Compare("expires", "gt", StoreTime())))),
            Count(ALGO, And((mine, Compare("expires", "gt", StoreTime())))),
            Find(ALGO, mine, dict.fromkeys(LOCK_FIELDS, True), limit=1),
            Find(EXPERIMENTS, equal(_id=uid), dict.fromkeys(CONFIG_FIELDS, True), limit=1),
            Find(
                TRIALS,
                And((mine, *self._lost.alive_conditions)),
                {"worker": True, "heartbeat": True},
                order=BY_SUBMISSION,
                limit=MAX_READ,
            ),
        )
        total, *results = await self._gateway.transact(operations)
        counts = results[: len(STATUSES)]
        lost, completed, waiting, leased, locks, configs, living = results[len(STATUSES) :]
        if not (configs or total):
            return None
        config = configs[0] if configs else {}
        now = await self._gateway.now()
        return ExperimentSummary(
            id=uid,
            name=str(_field(config, "name")),
            version=_first_if_none(_field(config, "version")),
            time=now,
            counts=await self._counted(uid, total, counts),
            lost=lost,
            best=await self._best(uid, direction) if counts[STATUSES.index(COMPLETED)] else None,
            direction=direction,
            recent=completed,
            window=await self._window(recent, window, now) if completed else _span(window),
            max_trials=_end_of(config),
            workers=len({process_of(_field(document, "worker")) for document in living}),
            oldest_heartbeat=min(
                (beat for one in living if (beat := _time(one, "heartbeat"))), default=None
            ),
            lock=_lock(locks[0], leased > 0) if locks else None,
            waiting=waiting,
        )

    async def _counted(self, uid: Any, total: int, counts: Sequence[int]) -> Mapping[str, int]:
        """Return the counts by status, including unknown ones that another program has written."""
        counted = Counter(dict(zip(STATUSES, counts, strict=True)))
        if total > counted.total():
            unknown = And((Compare("experiment", "eq", uid), Compare("status", "nin", STATUSES)))
            find = Find(TRIALS, unknown, {"status": True}, order=BY_SUBMISSION, limit=MAX_READ)
            for document in await self._gateway.execute(find):
                counted[str(document.get("status"))] += 1
        return +counted

    async def _window(self, recent: Condition, window: float, now: datetime) -> timedelta:
        """Return the time in which the trials that `recent` finds were completed."""
        start = (SortBy("start_time"),)
        find = Find(TRIALS, recent, {"start_time": True}, order=start, limit=1)
        found = await self._gateway.execute(find)
        began = _time(found[0], "start_time") if found else None
        if began is None:
            return _span(window)
        return min(max(now - began, timedelta(seconds=1)), _span(window))


def _status(uid: Any, status: str) -> tuple[Condition, ...]:
    return Compare("experiment", "eq", uid), Compare("status", "eq", status)


def _since(seconds: float) -> Condition:
    return Compare("end_time", "gt", StoreTime(-seconds))


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _is_number(trial: Trial) -> bool:
    value = None if trial.objective is None else trial.objective.value
    return isinstance(value, int | float) and not math.isnan(value)


def _end_of(config: Mapping[str, Any]) -> int | None:
    wanted = _field(config, "max_trials")
    return wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else None


def _first_if_none(version: Any) -> Any:
    return FIRST_VERSION if version is None else version


def _lock(record: Document, leased: bool) -> LockSummary:
    owner = _field(record, "owner")
    # a lock of Oríon's own storage has no lease
    locked = bool(_field(record, "locked")) and (leased or _field(record, "expires") is None)
    return LockSummary(
        locked,
        None if owner is None else named_holder(owner),
        _time(record, "since"),
        _time(record, "heartbeat"),
    )


def _field(document: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field; None if it is missing or cannot be read."""
    try:
        return document.get(name)
    except EncodingError:  # of an `UnreadableDocument`
        return None


def _time(document: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time; None for any other value, which another program may have written."""
    value = _field(document, name)
    return value if isinstance(value, datetime) else None
