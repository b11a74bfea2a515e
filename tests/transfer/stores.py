"""A store with every kind of value, and what it takes to compare stores by all their documents."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from aiostorage import Storage, Trial
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.documents import truncated
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS

__all__ = [
    "COLLECTIONS",
    "MOMENT",
    "fill",
    "fill_plainly",
    "freed",
    "records",
    "sorted_texts",
    "texts",
]

COLLECTIONS = (EXPERIMENTS, ALGO, TRIALS, BENCHMARKS)
MOMENT = datetime(2026, 2, 28, 23, 59, 59, 987654, tzinfo=UTC)

VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)],
    "floats": [0.1, -0.0, 1.0, 5e-324, 1e308, math.nan, math.inf, -math.inf],
    "texts": ["", "ä 😀", "a\0b", "\u2028\x1b[31m", "line\nend"],
    "bytes": [b"", b"\0\xff", bytes(range(256))],
    "times": [MOMENT, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    "tags": [{"$date": "today"}, {"$escape": {"$bytes": 1}}, {"$float": "nan", "x": 1}],
    "keys": {"a.b": 1, "": 2, "ä": {"deep": [[], {}]}},
}
"""Every kind of value that a store holds."""


def _trial(experiment: Any, number: int, **fields: Any) -> dict[str, Any]:
    trial = Trial(
        experiment=experiment,
        params=[
            {"name": "lr", "type": "real", "value": number / 7},
            {"name": "deep", "type": "categorical", "value": {"layers": [number, None]}},
        ],
    ).to_dict()
    return {**trial, "_id": f"{experiment}-{number}", "submit_time": MOMENT, **fields}


async def fill(storage: Storage) -> None:
    """Write experiments, trials in each status, locks with states, benchmarks, and an orphan."""
    access = CollectionAccess(storage)
    one, two = "6b0bc33ea5a209b8f3894bfa", 7
    configs: list[dict[str, Any]] = [
        {"_id": one, "name": "tune", "version": 1, "refers": {"root_id": one, "parent_id": None}},
        {"_id": two, "name": "tune", "version": 2, "refers": {"root_id": one, "parent_id": one}},
        {"_id": "old", "name": "ä.b c", "version": None, "metadata": {}},
    ]
    configs[0] |= {"space": {"lr": "uniform(0, 1)"}, "values": VALUES, "metadata": VALUES}
    await access.insert(EXPERIMENTS, configs)
    results = [
        {"name": "loss", "type": "objective", "value": math.inf},
        {"name": "curve", "type": "statistic", "value": VALUES["floats"]},
        {"name": None, "type": "gradient", "value": VALUES},
    ]
    end = {"end_time": MOMENT, "start_time": MOMENT}
    held = {"worker": "host:1:abc", "heartbeat": MOMENT, "start_time": MOMENT}
    trials = [
        _trial(one, 0, status="completed", results=results, **end),
        _trial(one, 1, status="reserved", **held),
        _trial(one, 2, status="new", free={"more": VALUES}),
        _trial(one, 3, status="broken", results=[], **end),
        _trial(one, 4, status="suspended", parent="abc", exp_working_dir="/tmp/ä"),
        *(_trial(two, number, status="completed") for number in range(3)),
        _trial("gone", 1, status="new"),
    ]
    trials[-2]["_id"] = 2**62
    await access.insert(TRIALS, trials)
    lock = {"configuration": {"tpe": {"seed": 1}}, "heartbeat": MOMENT, "released": ["x"]}
    lease = MOMENT + timedelta(minutes=1)
    owned = {"locked": 1, "owner": "host:1:abc", "since": MOMENT, "expires": lease}
    locks = [
        {"_id": 1, "experiment": one, **lock, **owned, "state": b"\x80\x04pickled\xff\0"},
        {"_id": "l", "experiment": two, **lock, "locked": 0, "state": None, "owner": None},
    ]
    await access.insert(ALGO, locks)
    await access.insert(
        BENCHMARKS, [{"_id": 5, "name": "branin", "values": VALUES}, {"_id": "b", "name": "ä"}]
    )


async def fill_plainly(storage: Storage, trials: int, name: str = "tune") -> None:
    """Write one experiment with trials that are completed."""
    experiment = await storage.create_experiment({"_id": name, "name": name})
    await storage.register_trials(
        [
            Trial(
                experiment=experiment.id,
                status="completed",
                params=[{"name": "x", "type": "integer", "value": number}],
                results=[{"name": "loss", "type": "objective", "value": number / 3}],
            )
            for number in range(trials)
        ]
    )


async def records(storage: Storage) -> dict[str, list[dict[str, Any]]]:
    """Return all documents of a store."""
    access = CollectionAccess(storage)
    return {name: await access.find(name, {}) for name in COLLECTIONS}


def texts(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return documents in a form that can be compared: NaN is equal to itself, 1 is not 1.0.

    Times are as exact as the engine that keeps them least exactly, and a field that is None is one
    that is missing. Their order counts.
    """
    return {name: [_text(document) for document in documents] for name, documents in found.items()}


def _text(document: dict[str, Any]) -> str:
    return _plain(truncated(document, timedelta(milliseconds=1)), top=True)


def _plain(value: Any, *, top: bool = False) -> str:
    if isinstance(value, dict):
        items = (f"{k!r}: {_plain(v)}" for k, v in sorted(value.items()) if not (top and v is None))
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value)


def freed(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the documents of `fill` as a load leaves them: no reservations, locks or orphans."""
    made = {name: [dict(document) for document in documents] for name, documents in found.items()}
    made[TRIALS] = [trial for trial in made[TRIALS] if trial["experiment"] != "gone"]
    for trial in made[TRIALS]:
        if trial["status"] == "reserved":
            trial |= {"status": "interrupted", "worker": None}
    for lock in made[ALGO]:
        lock |= {"locked": 0, "owner": None, "since": None, "expires": None}
    return made


def sorted_texts(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return what `texts` does, in an order that does not depend on the insertion."""
    return {name: sorted(lines) for name, lines in texts(found).items()}
