"""Fills a store past the storage, by copies of its only trial: a million of them in seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from hashlib import md5
from itertools import islice
from typing import Any

from benchmarks.definitions import Setting

__all__ = ["fill_quickly"]

FILL_SQLITE = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
    INSERT INTO trials (_id, experiment, id, status, submit_time, doc)
    SELECT printf('%024x', n), experiment, md5_of(n), status, submit_time, doc
    FROM numbers, (SELECT * FROM trials LIMIT 1)
"""
BATCH_SIZE = 10_000


def fill_quickly(setting: Setting, engine: str, count: int) -> None:
    """Add copies of the one trial in a store, with other ids."""
    if engine == "sqlite":
        _fill_sqlite(setting, count)
    else:
        _fill_mongodb(setting, count)


def _trial_id(number: int) -> str:
    return md5(b"%d" % number, usedforsecurity=False).hexdigest()


def _fill_sqlite(setting: Setting, count: int) -> None:
    file = setting.directory / f"{setting.store}.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.create_function("md5_of", 1, _trial_id, deterministic=True)
        connection.execute("PRAGMA cache_size = -200000")  # KiB: the indexes while they grow
        connection.execute(FILL_SQLITE, [count])


def _fill_mongodb(setting: Setting, count: int) -> None:
    from pymongo import MongoClient, WriteConcern  # noqa: PLC0415  may not be installed

    with MongoClient[Any](setting.mongodb, tz_aware=True) as client:
        trials = client[setting.store].get_collection("trials", write_concern=WriteConcern(w=1))
        copies = _copies(trials.find_one() or {}, count)
        while batch := list(islice(copies, BATCH_SIZE)):
            trials.insert_many(batch, ordered=False)


def _copies(trial: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    from bson import ObjectId  # noqa: PLC0415  may not be installed

    for number in range(1, count + 1):
        later = trial["submit_time"] + timedelta(milliseconds=number)
        own = {"_id": ObjectId(), "id": _trial_id(number), "submit_time": later}
        yield {**trial, **own}
