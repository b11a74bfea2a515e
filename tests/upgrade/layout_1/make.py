"""Make the stores of this directory, with the code of aiostorage 0.1.0; see README.md."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import runpy
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from bson import json_util
from pymongo import MongoClient

import aiostorage
from aiostorage import Trial, open_storage

HERE = Path(__file__).parent
content_of = runpy.run_path(str(HERE / "content.py"))["content_of"]  # a sibling, in no package
DATABASE = "aiostorage_layout_1"
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
COARSE = START.replace(microsecond=678000)  # 0.1.0 loses a trial with a finer time on MongoDB

STATE = {
    "rng": ("MT19937", np.arange(5, dtype=np.uint32), 3, 0.5),
    "observed": [np.float64(0.25), {"x": math.inf, "y": math.nan}],
    "large": 2**70,
}


async def fill(storage: Any) -> None:
    """Make experiments, trials in every status, locks and benchmarks."""
    root = await storage.create_experiment(
        {
            "name": "tune",
            "version": 1,
            "metadata": {"user": "me", "datetime": START, "user_args": ["--x~uniform(0, 1)"]},
            "space": {"x": "uniform(0, 1)", "deeper.y": "choices(['a', 'b'])"},
            "algorithm": {"tpe": {"seed": 1, "options": {"empty": {}, "none": None}}},
            "max_trials": 100,
            "limits": [math.inf, -math.inf, math.nan, -0.0, 2**63 - 1],
            "raw": b"\x00\xff",
            "working_dir": "/tmp/tune",
        },
        algo_state=STATE,
    )
    await storage.update_experiment(
        root, **{"refers.root_id": root.id, "refers.parent_id": None, "refers.adapter": []}
    )
    branch = await storage.create_experiment(
        {
            "name": "tune",
            "version": 2,
            "refers": {"root_id": root.id, "parent_id": root.id, "adapter": [{"a": {"b": 1}}]},
            "algorithm": {"random": {"seed": None}},
        }
    )
    # without a version: alone, beside a version 1, beside others, said so, with ids of its own
    await storage.create_experiment({"name": "alone", "space": {"x": "uniform(0, 1)"}})
    await storage.create_experiment({"name": "twice", "version": 1})
    await storage.create_experiment({"name": "twice"})
    await storage.create_experiment({"name": "gap", "version": 5})
    await storage.create_experiment({"name": "gap", "version": 2})
    await storage.create_experiment({"name": "gap"})
    await storage.create_experiment({"name": "said so", "version": None})
    await storage.create_experiment({"name": "number", "version": 1, "_id": 7})
    await storage.create_experiment({"name": "ü\U0001f600", "_id": "my own"})
    await storage.create_experiment(
        {"name": "held long ago", "version": 1}, 1, {"n": 3}, START - timedelta(days=1)
    )
    await trials_of(storage, root.id)
    await storage.register_trial(Trial(experiment=7, params={"x": 1}))
    await storage.register_trial(
        Trial(experiment=branch.id, params={"x": 0.5}, parent="0" * 32, exp_working_dir="/tmp/b")
    )
    [alone] = await storage.fetch_experiments({"name": "alone"})
    await trials_of(storage, alone["_id"], few=True)
    await storage.create_benchmark({"name": "bench", "targets": [{"assess": {"a": {"n": 2}}}]})
    await storage.create_benchmark({"name": "empty", "at": START, "limit": math.inf})


async def trials_of(storage: Any, uid: Any, *, few: bool = False) -> None:
    """Make trials in every status."""
    params: list[dict[str, Any]] = [
        {"x": np.float64(0.25), "y": np.int64(3), "z": [1, [2.5, "a"]]},
        {"x": math.inf, "y": -(2**63)},
        {"x": -0.0, "text": "a\U0001f600\n"},
        {"x": np.array([0.5, 1.5]).tolist(), "at": COARSE},
        {"x": 1, "deeper": {"y": {"z": True}}},
        {"x": "1e3", "y": None},
        *({"x": float(number)} for number in range(2 if few else 8)),
    ]
    await storage.register_trials(
        [
            Trial(experiment=uid, params=p, submit_time=START + timedelta(seconds=number))
            for number, p in enumerate(params)
        ]
    )
    reserved = [await storage.reserve_trial({"_id": uid}) for _ in range(6)]
    await storage.complete_trial(reserved[0], 0.5)
    await storage.complete_trial(
        reserved[1], {"loss": math.nan, "accuracy": 0.25, "steps": np.int32(7), "top": math.inf}
    )
    await storage.set_trial_status(reserved[2], "broken")
    await storage.set_trial_status(reserved[3], "interrupted")
    await storage.set_trial_status(reserved[4], "suspended")
    lost = await storage.reserve_trial({"_id": uid})
    await storage.update_trial(lost, heartbeat=START)


async def make(url: str, snapshot: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Fill a store, and call `snapshot` while a lock is held and waited for."""
    async with open_storage(url) as storage, open_storage(url) as other:
        await fill(storage)
        [root] = await storage.fetch_experiments({"name": "tune", "version": 1})
        async with storage.acquire_algorithm_lock(root):
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(wait_for_lock(other, root))
                await asyncio.sleep(0.5)
                await snapshot()
                content: dict[str, Any] = await content_of(storage)
                waiting.cancel()
    return content


async def wait_for_lock(storage: Any, config: Any) -> None:
    async with storage.acquire_algorithm_lock(config):
        raise AssertionError("the lock is held")


def write(name: str, content: Any) -> None:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def compress(name: str, data: bytes) -> None:
    (HERE / name).write_bytes(gzip.compress(data, mtime=0))


def sqlite(directory: Path) -> None:
    async def snapshot() -> None:
        await asyncio.to_thread(copy, directory / "tune.db", directory / "copy.db")

    content = asyncio.run(make(f"sqlite:///{directory}/tune.db", snapshot))
    write("sqlite.json", content)
    compress("store.db.gz", (directory / "copy.db").read_bytes())


def copy(source: Path, target: Path) -> None:
    """Copy a file that is in use into one file, without a log."""
    one, other = sqlite3.connect(source), sqlite3.connect(target)
    one.backup(other)
    assert other.execute("SELECT count(*) FROM lock_waiters").fetchone() == (1,)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    one.close()
    other.close()


def mongodb(server: str) -> None:
    dump: dict[str, Any] = {}
    with MongoClient[dict[str, Any]](server) as client:
        client.drop_database(DATABASE)
        database = client[DATABASE]

        def take() -> None:
            for name in sorted(database.list_collection_names()):
                dump[name] = {
                    "indexes": [dict(index) for index in database[name].list_indexes()],
                    "documents": list(database[name].find()),
                }

        async def snapshot() -> None:
            await asyncio.to_thread(take)

        url = f"{server.rstrip('/')}/{DATABASE}"
        content = asyncio.run(make(url, snapshot))
        client.drop_database(DATABASE)
    assert len(dump["lock_waiters"]["documents"]) == 1
    write("mongodb.json", content)
    text = json_util.dumps(dump, json_options=json_util.CANONICAL_JSON_OPTIONS)
    compress("mongodb.json.gz", text.encode())


if __name__ == "__main__":
    assert aiostorage.__version__ == "0.1.0"
    assert not hasattr(aiostorage, "upgrade_storage"), "this is not the code of 0.1.0"
    with tempfile.TemporaryDirectory() as folder:
        sqlite(Path(folder))
    mongodb(sys.argv[1])
