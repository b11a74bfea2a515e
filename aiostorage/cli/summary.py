"""How the experiments of a storage stand, read without changing anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiostorage import Storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import ALGO
from aiostorage.cli.demo.run_state import Best
from aiostorage.errors import ConfigurationError, NotADatabaseError
from aiostorage.factory import open_storage
from aiostorage.protocols import AsyncStorageProtocol, ExperimentLike, Uid

__all__ = ["LockView", "Survey", "best_in", "objective_of", "open_existing", "survey", "tally"]

_SQLITE: Final = b"SQLite format 3\0"
_OURS: Final = b"aios"
_HEADER: Final = 100
"""Bytes of a SQLite file's header; those from 68 on tell the application."""


@dataclass(frozen=True, slots=True)
class LockView:
    """The algorithm lock of an experiment.

    Parameters
    ----------
    owner
        Who holds it; None if it is free, or if Oríon's own storage holds it.
    since
        When the owner got it.
    heartbeat
        When it was last acquired, renewed or released.
    """

    locked: bool
    owner: str | None
    since: datetime | None
    heartbeat: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Make a dict that JSON can hold; the owner of a free lock is not in it."""
        return {
            "locked": self.locked,
            "owner": self.owner if self.locked else None,
            "since": _iso(self.since) if self.locked else None,
            "heartbeat": _iso(self.heartbeat),
        }


@dataclass(frozen=True, slots=True)
class Survey:
    """How an experiment stands.

    Parameters
    ----------
    trials
        How many there are, by status.
    best
        The smallest objective of the completed trials; None before there is one.
    lock
        None if the experiment has no algorithm lock.
    """

    name: str
    version: int
    uid: Uid
    trials: Counter[str]
    best: float | None
    lock: LockView | None

    def to_dict(self) -> dict[str, Any]:
        """Make a dict that JSON can hold."""
        return {
            "name": self.name,
            "version": self.version,
            "id": self.uid,
            "trials": dict(self.trials),
            "best": self.best,
            "lock": None if self.lock is None else self.lock.to_dict(),
        }


def open_existing(url: str, **settings: Any) -> Storage:
    """Make the storage of a URL, to look at what is there already.

    A MongoDB database is looked at when the storage is opened, and raises the same errors then.

    Parameters
    ----------
    settings
        Those of `open_storage`.

    Raises
    ------
    ConfigurationError
        There is no such file, or a storage in memory was asked for.
    NotADatabaseError
        The file is not one of aiostorage's.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("mongodb", "mongodb+srv"):
        return open_storage(url, read_only=True, **settings)
    storage = open_storage(url, **settings)
    if scheme == "memory":
        raise ConfigurationError("a storage in memory ends with its process: nothing to look at")
    if scheme == "sqlite":
        _check_file(Path(storage.location))
    return storage


def _check_file(path: Path) -> None:
    """Refuse what opening it would make a new database of."""
    if path.is_dir():
        return  # the engine has its own words for it
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"there is no file {path}") from None
    except OSError:
        return  # likewise
    log = path.with_name(f"{path.name}-wal")
    # a young database may stand in its log still
    young = head.startswith(_SQLITE) and log.exists() and log.stat().st_size > 0
    if not head or (head.startswith(_SQLITE) and head[68:72] != _OURS and not young):
        raise NotADatabaseError(f"{path} is not a database of aiostorage")


async def survey(storage: Storage, name: str | None = None) -> list[Survey]:
    """Look at all experiments, or at all versions of one.

    Raises
    ------
    ConfigurationError
        There is no experiment of that name; says which there are.
    """
    wanted = {} if name is None else {"name": name}
    configs = await storage.fetch_experiments(wanted, {"name": 1, "version": 1})
    if name is not None and not configs:
        known = {str(c["name"]) for c in await storage.fetch_experiments({}, {"name": 1})}
        raise ConfigurationError(
            f"there is no experiment {name!r}; there "
            + (f"is {', '.join(map(repr, sorted(known)))}" if known else "are none at all")
        )
    return [await _survey_one(storage, config) for config in configs]


async def _survey_one(storage: Storage, config: Mapping[str, Any]) -> Survey:
    trials: Counter[str] = Counter()
    best: float | None = None
    async for document in storage.iter_trials(config, selection={"status": 1, "results": 1}):
        status = document.get("status", "new")
        trials[status] += 1
        value = objective_of(document) if status == "completed" else None
        if value is not None and (best is None or value < best):
            best = value
    lock = await _lock_of(storage, config["_id"])
    version = config.get("version")
    return Survey(
        config["name"], 1 if version is None else version, config["_id"], trials, best, lock
    )


async def _lock_of(storage: Storage, uid: Uid) -> LockView | None:
    """Look at the lock without its state, which may be in a codec that is not ours to read."""
    found = await CollectionAccess(storage).find(ALGO, {"experiment": uid}, {"state": False})
    if not found:
        return None
    record = found[0]
    expires = record.get("expires")
    live = expires is None or expires > datetime.now(UTC)
    return LockView(
        bool(record.get("locked")) and live,
        record.get("owner"),
        record.get("since"),
        record.get("heartbeat"),
    )


async def tally(storage: AsyncStorageProtocol, experiment: ExperimentLike) -> Counter[str]:
    """Count the trials of an experiment by status."""
    counts: Counter[str] = Counter()
    async for document in storage.iter_trials(experiment, selection={"status": 1}):
        counts[document["status"]] += 1
    return counts


async def best_in(storage: AsyncStorageProtocol, experiment: ExperimentLike) -> Best | None:
    """Answer the completed trial with the smallest objective, as the storage has it."""
    best: Best | None = None
    completed = {"status": "completed"}
    wanted = {"results": 1, "params": 1}
    async for document in storage.iter_trials(experiment, where=completed, selection=wanted):
        value = objective_of(document)
        if value is not None and (best is None or value < best.objective):
            params = {param["name"]: param["value"] for param in document["params"]}
            best = Best(value, params)
    return best


def objective_of(document: Mapping[str, Any]) -> float | None:
    """Answer the objective of a trial's stored form; None without one, and for NaN."""
    for result in document.get("results") or ():
        if result.get("type") == "objective":
            value: float = result["value"]
            return None if math.isnan(value) else value
    return None


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
