"""The contract on queries and selections."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime
from typing import Any, Final

from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import case, make_config, make_trial, same

__all__ = ["QueryLaws"]

DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "a": {"n": 1, "s": "x", "sub": {"k": 1, "deep": {"z": 5}}, "tags": ["red", "blue"]},
    "b": {"n": 2, "s": None, "sub": {"k": 2}, "tags": []},
    "c": {"n": 2.5, "sub": {}, "tags": [{"k": 1}, {"k": 2}]},
    "d": {"n": "2", "s": "y", "sub": [{"k": 1}], "with.dot": 1},
    "e": {"n": True, "s": "", "at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"1"},
    "f": {"n": math.nan, "version": 2},
}


QUERIES: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "abcdef"),
    ({"name": "a"}, "a"),
    ({"name": {"$in": ["a", "c", "zz"]}}, "ac"),
    ({"name": {"$nin": ["a", "c"]}}, "bdef"),
    ({"name": {"$gt": "b", "$lte": "e"}}, "cde"),
    ({"name": 1}, ""),
    ({"version": 1}, "abcde"),
    ({"version": 1.0}, "abcde"),
    ({"version": True}, ""),
    ({"version": {"$ne": 1}}, "f"),
    ({"n": 2}, "b"),
    ({"n": {"$gt": 1}}, "bc"),
    ({"n": {"$gte": 1, "$lt": 2.5}}, "ab"),
    ({"n": {"$ne": 1}}, "bcdef"),
    ({"n": True}, "e"),
    ({"n": math.nan}, "f"),
    ({"s": None}, "bcf"),
    ({"s": {"$ne": None}}, "ade"),
    ({"s": {"$ne": "x"}}, "bcdef"),
    ({"s": {"$exists": True}}, "abde"),
    ({"s": {"$exists": False}}, "cf"),
    ({"s": {"$in": [None, "y"]}}, "bcdf"),
    ({"s": {"$nin": [None]}}, "ade"),
    ({"sub.k": 1}, "ad"),
    ({"sub.k": {"$ne": 1}}, "bcef"),
    ({"sub.deep.z": {"$gte": 5}}, "a"),
    ({"sub": {}}, "c"),
    ({"sub": {"k": 2}}, "b"),
    ({"sub.0.k": 1}, "d"),
    ({"tags": "red"}, "a"),
    ({"tags": []}, "b"),
    ({"tags": ["red", "blue"]}, "a"),
    ({"tags": ["blue", "red"]}, ""),
    ({"tags.k": 2}, "c"),
    ({"tags.1": "blue"}, "a"),
    ({"with.dot": 1}, ""),
    ({"at": {"$gte": datetime(2026, 1, 1)}}, "e"),  # noqa: DTZ001  naive is UTC
    ({"at": {"$lt": datetime(2026, 1, 1, tzinfo=UTC)}}, ""),
    ({"raw": b"1"}, "e"),
    ({"$and": [{"n": {"$gt": 0}}, {"n": {"$lt": 2.2}}]}, "ab"),
    ({"$or": [{"name": "a"}, {"sub": {"$exists": False}}]}, "aef"),
    ({"$or": [{"$and": [{"name": "a"}, {"n": 1}]}, {"n": 2}], "version": 1}, "ab"),
    ({"missing": None}, "abcdef"),
    ({"missing": {"$ne": 1}}, "abcdef"),
    ({"missing": {"$lte": None}}, "abcdef"),
]


SELECTIONS: Final[list[tuple[dict[str, Any] | None, dict[str, Any]]]] = [
    (None, {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]}),
    ({}, {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]}),
    ({"name": 1}, {"_id": 1, "name": "tune"}),
    ({"name": True, "_id": 0}, {"name": "tune"}),
    ({"a.b": 1}, {"_id": 1, "a": {"b": 1}}),
    ({"a.b": 0, "l": 0}, {"_id": 1, "name": "tune", "version": 1, "a": {"c": 2}}),
    ({"_id": 0, "l": 0, "a": 0, "name": 0}, {"version": 1}),
    ({"l.k": 1, "_id": 0}, {"l": [{"k": 1}]}),
    ({"missing": 1}, {"_id": 1}),
]


class QueryLaws:
    """Law 5: queries mean what MongoDB means by them."""

    async def test_query(self, storage: AsyncStorageProtocol) -> None:
        configs = [make_config(name, **fields) for name, fields in DOCUMENTS.items()]
        for config in configs:
            await storage.create_experiment(config)
        for query, names in QUERIES:
            with case(query):
                unchanged = copy.deepcopy(query)
                found = await storage.fetch_experiments(query)
                assert "".join(c["name"] for c in found) == names
                assert same(query, unchanged)

    async def test_query_as_the_condition_of_a_write(self, storage: AsyncStorageProtocol) -> None:
        configs = [make_config(name, **fields) for name, fields in DOCUMENTS.items()]
        for config in configs:
            await storage.create_experiment(config)
        for query, names in QUERIES:
            with case(query):
                hit = [
                    config["name"]
                    for config in configs
                    if await storage.update_experiment(config, where=query, hit=True)
                ]
                assert "".join(hit) == names

    async def test_query_of_trials(self, storage: AsyncStorageProtocol) -> None:
        for number, fields in enumerate(DOCUMENTS.values()):
            trial = await storage.register_trial(make_trial("e", number))
            changes = {"name": "abcdef"[number], "version": 1, **fields}
            changes.pop("with.dot", None)  # is a path there
            await storage.update_trial(trial, **changes)
        for query, names in QUERIES:
            with case(query):
                trials = await storage.fetch_trials(uid="e", where=query) or []
                assert "".join("abcdef"[t.params["x"]] for t in trials) == names

    async def test_selection(self, storage: AsyncStorageProtocol) -> None:
        config = {"_id": 1, "name": "tune", "version": 1, "a": {"b": 1, "c": 2}, "l": [{"k": 1}]}
        await storage.create_experiment(dict(config))
        for selection, expected in SELECTIONS:
            with case(selection):
                assert await storage.fetch_experiments({}, selection) == [expected]
