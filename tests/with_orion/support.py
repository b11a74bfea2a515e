"""What the tests of coming over and going back have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
from click.testing import CliRunner, Result
from orion.client import build_experiment

from aiostorage import Storage, open_storage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.cli.app import cli
from aiostorage.orion import AioStorage, configuration

__all__ = [
    "COLLECTIONS",
    "SPACE",
    "TPE",
    "WIDER",
    "as_copied",
    "call",
    "everything",
    "fill",
    "in_utc",
    "plugged_in",
    "release",
    "sorted_by_id",
    "stored",
    "using",
    "work",
]

T = TypeVar("T")

SPACE = {"x": "uniform(0, 1)", "y": "choices(['a', 'b'])"}
WIDER = {**SPACE, "z": "uniform(0, 1, default_value=0.5)"}
TPE = {"tpe": {"seed": 1, "n_initial_points": 3}}
COLLECTIONS = ("experiments", "trials", "algo", "benchmarks")


def loss(x: float, y: str, z: float = 0.5) -> list[dict[str, Any]]:
    return [{"name": "loss", "type": "objective", "value": (x - 0.3) ** 2 + z + (y == "b")}]


def work(storage: Any, trials: int, *, name: str = "first", **config: Any) -> Any:
    """Let Oríon's own client run an experiment up to a number of completed trials."""
    client = build_experiment(name, storage=storage, max_trials=trials, **config)
    client.workon(loss, max_trials=trials)
    client.close()
    return client


def fill(storage: Any) -> None:
    """Work as Oríon does; leave trials in every status, and a lock whose holder died."""
    first = work(storage, 6, space=SPACE, algorithm=TPE)
    work(storage, 9, space=WIDER, algorithm=TPE, branching={"enable": True})
    second = work(storage, 3, name="second", space=SPACE, algorithm={"random": {"seed": 3}})
    for x, status in ((0.1, "broken"), (0.2, "reserved"), (0.3, "new"), (0.4, "interrupted")):
        client = first if x < 0.35 else second
        client.insert({"x": x, "y": "a"})
        [trial] = storage.fetch_trials(uid=client.id, where={"status": "interrupted"})
        if status in ("broken", "reserved"):
            storage.set_trial_status(trial, "reserved")
        if status in ("broken", "new"):
            storage.set_trial_status(trial, status)
    storage.create_benchmark(
        {
            "name": "bench",
            "algorithms": ["random", {"tpe": {"seed": 1}}],
            "targets": [{"assess": {"AverageResult": {"repetitions": 2}}, "task": {}}],
            "metadata": {"user": "me", "datetime": datetime.now(UTC).replace(tzinfo=None)},
        }
    )
    storage._db.write("algo", {"locked": 1}, {"experiment": second.id})


def using(url: str, body: Callable[[Storage], Awaitable[T]], *, codec: str = "pickle") -> T:
    """Run an async function on a storage."""

    async def main() -> T:
        async with open_storage(url, state_codec=codec) as storage:
            return await body(storage)

    return anyio.run(main)


async def everything(storage: Storage) -> dict[str, list[dict[str, Any]]]:
    return {name: await CollectionAccess(storage).find(name, {}) for name in COLLECTIONS}


def stored(url: str) -> dict[str, list[dict[str, Any]]]:
    return using(url, everything)


def in_utc(value: Any) -> Any:
    """Return what Oríon's naive times mean."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {key: in_utc(item) for key, item in value.items()}
    return [in_utc(item) for item in value] if isinstance(value, list | tuple) else value


def as_copied(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return trials as they are in a copy, which has no workers."""
    interrupted = {"status": "interrupted", "worker": None}
    return [t | interrupted if t["status"] == "reserved" else t for t in trials]


def release(storage: Any) -> None:
    """Interrupt what is reserved, as an import does, so that it is evaluated again."""
    [first] = storage.fetch_experiments({"name": "first", "version": 1})
    reserved = {"status": "reserved"}
    storage.update_trials(uid=first["_id"], where=reserved, status="interrupted", worker=None)


def sorted_by_id(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(documents, key=lambda document: str(document["_id"]))


@contextmanager
def plugged_in(url: str) -> Iterator[AioStorage]:
    """Open our storage type for Oríon, and close what it leaves open until exit."""
    storage = AioStorage(database={"url": url})
    try:
        yield storage
    finally:
        configuration._shared.clear()
        storage._storage.close()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="aiostorage")
