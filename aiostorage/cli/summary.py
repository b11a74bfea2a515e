"""The state of the experiments in a storage, read without changing anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiostorage import Storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.holders import named_holder
from aiostorage._core.layout import ALGO
from aiostorage._core.outbox import Outbox
from aiostorage.cli.results import objective_of, status_of
from aiostorage.errors import ConfigurationError
from aiostorage.operations import StoreTime
from aiostorage.protocols import Uid
from aiostorage.trial import TrialStatus

__all__ = [
    "ExperimentSummary",
    "LockSummary",
    "OutboxSummary",
    "summarise",
    "summarise_outbox",
]


@dataclass(frozen=True, slots=True)
class LockSummary:
    """The algorithm lock of an experiment.

    Parameters
    ----------
    owner
        Where the holder of the lock runs, and a fingerprint of its token; None if the lock is free,
        or if Oríon's own storage holds it.
    since
        When the owner acquired it.
    heartbeat
        When it was last acquired, renewed or released.
    """

    locked: bool
    owner: str | None
    since: datetime | None
    heartbeat: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; the owner of a free lock is left out."""
        return {
            "locked": self.locked,
            "owner": self.owner if self.locked else None,
            "since": _iso(self.since) if self.locked else None,
            "heartbeat": _iso(self.heartbeat),
        }


@dataclass(frozen=True, slots=True)
class ExperimentSummary:
    """The state of an experiment.

    Parameters
    ----------
    trials
        The number of trials by status.
    lost
        How many of the reserved ones are lost.
    best
        The smallest objective of the completed trials; None before there is one. NaN is none.
    lock
        None if the experiment has no algorithm lock.
    """

    name: str
    version: int
    uid: Uid
    trials: Counter[str]
    lost: int
    best: float | None
    lock: LockSummary | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold: an infinite number is text there."""
        return {
            "name": self.name,
            "version": self.version,
            "id": self.uid,
            "trials": dict(self.trials),
            "lost": self.lost,
            "best": _finite(self.best),
            "lock": None if self.lock is None else self.lock.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class OutboxSummary:
    """What a tracker has still to be told.

    Parameters
    ----------
    length
        How many changes.
    oldest
        When the oldest one was made; None without any.
    age
        The seconds since then, by the store's clock.
    deliverer
        The process that tells it; None if there is none.
    """

    length: int
    oldest: datetime | None
    age: float
    deliverer: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return {
            "length": self.length,
            "oldest": _iso(self.oldest),
            "age": self.age,
            "deliverer": self.deliverer,
        }


async def summarise_outbox(storage: Storage) -> OutboxSummary:
    """Summarise the outbox, whose rows are counted and not read."""
    outbox = Outbox(storage._gateway)  # noqa: SLF001  as an adapter of this package
    backlog, holder = await outbox.backlog(), await outbox.lease_holder()
    named = None if holder is None else named_holder(holder)
    return OutboxSummary(backlog.length, backlog.oldest, backlog.age, named)


async def summarise(storage: Storage, name: str | None = None) -> list[ExperimentSummary]:
    """Summarise all experiments, or all versions of the one with that name.

    Raises
    ------
    ConfigurationError
        There is no experiment of that name. The message lists the names that there are.
    """
    wanted = {} if name is None else {"name": name}
    configs = await storage.fetch_experiments(wanted, {"name": 1, "version": 1})
    if name is not None and not configs:
        known = {str(c.get("name")) for c in await storage.fetch_experiments({}, {"name": 1})}
        raise ConfigurationError(
            f"there is no experiment {name!r}; there "
            + (f"is {', '.join(map(repr, sorted(known)))}" if known else "are none at all")
        )
    return [await _summarise_one(storage, config) for config in configs]


async def _summarise_one(storage: Storage, config: Mapping[str, Any]) -> ExperimentSummary:
    trials: Counter[str] = Counter()
    best: float | None = None
    async for document in storage.iter_trials(config, selection={"status": 1, "results": 1}):
        status = status_of(document)
        trials[status] += 1
        value = objective_of(document) if status == TrialStatus.COMPLETED else None
        if value is not None and (best is None or value < best):
            best = value
    reserved = trials[TrialStatus.RESERVED]
    lost = len(await storage.fetch_lost_trials(config)) if reserved else 0
    return ExperimentSummary(
        name=str(config.get("name")),
        version=config["version"],
        uid=config["_id"],
        trials=trials,
        lost=lost,
        best=best,
        lock=await _lock_of(storage, config["_id"]),
    )


async def _lock_of(storage: Storage, uid: Uid) -> LockSummary | None:
    """Read the lock without the algorithm's state, whose codec may not be ours to decode."""
    collections = CollectionAccess(storage)
    found = await collections.find(ALGO, {"experiment": uid}, {"state": False})
    if not found:
        return None
    record = found[0]
    locked = bool(record.get("locked"))
    if locked and record.get("expires") is not None:  # by the store's clock, not by ours
        live = {"experiment": uid, "locked": 1, "expires": {"$gt": StoreTime()}}
        locked = bool(await collections.find(ALGO, live, {"_id": True}))
    owner = record.get("owner")
    return LockSummary(
        locked,
        None if owner is None else named_holder(owner),
        _moment(record.get("since")),
        _moment(record.get("heartbeat")),
    )


def _finite(value: float | None) -> float | str | None:
    """Return a number that JSON has, or the name of an infinity, which JavaScript and Python read.

    >>> float("-Infinity")
    -inf
    """
    if value is None or isinstance(value, int) or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _moment(value: object) -> datetime | None:
    """Return a time; None for what another program may have written in its place."""
    return value if isinstance(value, datetime) else None
