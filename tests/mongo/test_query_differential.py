"""Filters, selections and changes mean here what they mean to a MongoDB server.

Random documents and random questions, small alphabets so that things collide. A failure names all
there is to know; for more cases than CI runs, set AIOSTORAGE_TEST_SEED and AIOSTORAGE_TEST_ROUNDS.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, OperationFailure

from aiostorage._core.queries.changes import apply_changes
from aiostorage._core.queries.matching import meets
from aiostorage._core.queries.projection import check_selection, copy_tree, select
from aiostorage._core.queries.query import compile_condition, parse
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.track import TrackDriver
from aiostorage.errors import UnsupportedQuery
from aiostorage.operations import Find, Insert
from aiostorage.protocols import Driver
from aiostorage.testing.contract.driver_documents import LAYOUT, THINGS

Document = dict[str, Any]

SEED = int(os.environ.get("AIOSTORAGE_TEST_SEED", "0"))
ROUNDS = int(os.environ.get("AIOSTORAGE_TEST_ROUNDS", "8"))
ENGINE_ROUNDS = (ROUNDS + 3) // 4
DOCUMENTS = 200
QUERIES = 1000
QUERIES_AT_A_TIME = 100
IDS = {"$group": {"_id": None, "ids": {"$push": "$_id"}}}
ENGINE_DOCUMENTS = 40
SELECTIONS = 100
CHANGES = 10

seeds = pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
NUMBERS = [0, 1, 2, -1, 1.0, 1.5, -0.0, float("nan"), float("inf"), float("-inf")]
LARGE = [2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2.0**63, 5e-324]
STRINGS = ["", "a", "b", "ab", "A", "1", "\uffff", "\U0001f600"]
BYTES = [b"", b"a", b"b", b"ab", b"\xff"]
TIMES = [NOON, NOON + timedelta(milliseconds=1), datetime(1969, 1, 1, tzinfo=UTC)]
SCALARS: list[list[Any]] = [[None], [False, True], NUMBERS, LARGE, STRINGS, BYTES, TIMES]

# Names with dots and empty names may stand in documents; no path leads there.
KEYS = ["a", "b", "c", "0", "1"] * 6 + ["01", "a.b", "", "é"]
NAMES = ["a", "b", "c", "0", "1"] * 6 + ["2", "01", "10", "é", "_id"]


class Maker:
    """Makes things up, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: list[tuple[str, Any]] = []

    def documents(self) -> list[Document]:
        documents = [
            {"_id": number, **self.mapping(self.random.choice((1, 2, 3, 4)))}
            for number in range(DOCUMENTS)
        ]
        self.seen = [part for document in documents for part in self.parts([], document)]
        return documents

    def parts(self, names: list[str], value: Any) -> Iterator[tuple[str, Any]]:
        """Yield all values of a document, each with the path to it; empty if there is none."""
        yield "" if any(not name or "." in name for name in names) else ".".join(names), value
        if isinstance(value, dict):
            for name, item in value.items():
                yield from self.parts([*names, name], item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                through = names if self.random.random() < 0.5 else [*names, str(index)]
                yield from self.parts(through, item)

    def scalar(self) -> Any:
        return self.random.choice(self.random.choice(SCALARS))

    def value(self, depth: int) -> Any:
        kind = self.random.random()
        if depth <= 0 or kind < 0.4:
            return self.scalar()
        if kind < 0.7:
            return self.mapping(depth - 1)
        return [self.value(depth - 1) for _ in range(self.random.choice((0, 1, 1, 2, 2, 3)))]

    def mapping(self, depth: int) -> Document:
        names = [self.random.choice(KEYS) for _ in range(self.random.choice((0, 1, 2, 2, 3)))]
        if self.random.random() < 0.2:  # so that nothing but the order of keys may differ
            return dict.fromkeys(names, self.value(0))
        return {name: self.value(depth) for name in names}

    def operand(self, value: Any = None) -> Any:
        """Make up a value to compare with, mostly one that stands somewhere, or nearly so."""
        kind = self.random.random()
        if kind < 0.15:
            return self.value(2)
        if value is None or kind < 0.5:
            value = self.random.choice(self.seen)[1]
        value = copy_tree(value)
        kind = self.random.random()
        if kind < 0.3 and isinstance(value, dict):
            items = list(value.items())
            self.random.shuffle(items)
            return dict(items)
        if kind < 0.3 and value in (0, 1):
            return self.random.choice((bool, int, float))(value)
        if kind < 0.1 and isinstance(value, list):
            self.random.shuffle(value)
        elif kind < 0.15:
            return [value]
        return value

    def path(self) -> str:
        length = self.random.choice((1, 1, 2, 2, 2, 3, 3, 4))
        return ".".join(self.random.choice(NAMES) for _ in range(length))

    def query(self, depth: int = 2, seen: list[tuple[str, Any]] | None = None) -> Document:
        query: Document = {}
        for _ in range(self.random.choice((0, 1, 1, 1, 1, 2, 3)) if depth < 2 else 1):
            if depth and self.random.random() < 0.25:
                operator = self.random.choice(("$and", "$or"))
                count = self.random.choice((1, 2, 3))
                query[operator] = [self.query(depth - 1, seen) for _ in range(count)]
            else:
                path, value = self.random.choice(seen or self.seen)
                if self.random.random() < 0.5 or not path:
                    path = self.path()
                query[path] = self.comparison(value, depth)
        return query

    def elements(self, value: Any, depth: int) -> Document:
        """Make up what ``$elemMatch`` takes: operators, or a filter of what is in the elements."""
        items = value if isinstance(value, list) and value else [value]
        item = self.random.choice(items)
        if self.random.random() < 0.4:
            comparison = self.comparison(item, depth)
            operators = isinstance(comparison, dict) and any(
                name.startswith("$") for name in comparison
            )
            return comparison if operators else {"$eq": comparison}
        seen = [(path, part) for path, part in self.parts([], item) if path]
        return self.query(depth, seen or self.seen)

    def comparison(self, value: Any, depth: int = 2) -> Any:
        if self.random.random() < 0.2:
            return self.operand(value)
        comparison: Document = {}
        for _ in range(self.random.choice((1, 1, 1, 2))):
            if depth and self.random.random() < 0.15:
                comparison["$elemMatch"] = self.elements(value, depth - 1)
                continue
            operator = self.random.choice(
                ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists")
            )
            if operator in ("$in", "$nin"):
                count = self.random.choice((0, 1, 2, 4))
                comparison[operator] = [self.operand(value) for _ in range(count)]
            elif operator == "$exists":
                comparison[operator] = self.random.choice((True, False, 0, 1, 0.0, 2.5))
            else:
                comparison[operator] = self.operand(value)
        return comparison

    def selection(self) -> dict[str, Any]:
        keep = self.random.random() < 0.5
        selection: dict[str, Any] = {}
        for _ in range(self.random.choice((0, 1, 1, 2, 3))):
            path = self.path()
            if not path.startswith("_id."):  # the server would go into an _id that is a document
                # Now and then a mixture, which both have to refuse.
                selection[path] = keep if self.random.random() < 0.97 else not keep
        if self.random.random() < 0.4:
            selection["_id"] = self.random.choice((0, 1, False, True))
        items = list(selection.items())
        self.random.shuffle(items)
        return dict(items)

    def changes(self, number: int) -> Document:
        changes: Document = {}
        for _ in range(self.random.choice((0, 1, 1, 2, 3, 4))):
            path = self.path()
            # The server takes 01 for the first element; after {"a.1": 0, "a.01.x": 0} it is dead.
            if not path.startswith("_id.") and "01" not in path.split("."):
                changes[path] = self.value(2)
        if "_id" in changes:
            changes["_id"] = self.random.choice([number] * 8 + [float(number), number + 1, True])
        return changes


@pytest.fixture
def collection(mongodb_url: str) -> Iterator[Collection[RawBSONDocument]]:
    with MongoClient(mongodb_url, document_class=RawBSONDocument) as client:
        database = client[f"aiostorage_test_{uuid4().hex}"]
        try:
            yield database["documents"]
        finally:
            client.drop_database(database)


def found_by(collection: Collection[RawBSONDocument], queries: list[Document]) -> list[list[int]]:
    """Return the ids that each query finds; the server is asked many of them at a time."""
    found: list[list[int]] = []
    for start in range(0, len(queries), QUERIES_AT_A_TIME):
        some = queries[start : start + QUERIES_AT_A_TIME]
        parts = {f"q{n}": [{"$match": query}, IDS] for n, query in enumerate(some)}
        (answer,) = collection.aggregate([{"$facet": parts}])
        found += [[id_ for group in answer[part] for id_ in group["ids"]] for part in parts]
    return found


@seeds
def test_filters_find_what_the_server_finds(
    collection: Collection[RawBSONDocument], seed: int
) -> None:
    make = Maker(seed)
    documents = make.documents()
    collection.insert_many(RawBSONDocument(bson.encode(document)) for document in documents)
    queries = [make.query() for _ in range(QUERIES)]
    for query, theirs in zip(queries, found_by(collection, queries), strict=True):
        condition = parse(query)
        matcher = compile_condition(condition)
        ours = [document["_id"] for document in documents if matcher(document)]
        assert ours == [one["_id"] for one in documents if meets(one, condition)]
        wrong = [documents[number] for number in sorted({*ours} ^ {*theirs})]
        assert not wrong, f"{query} finds {len(theirs)}; we have another opinion of {wrong[:3]}"


@pytest.mark.parametrize("seed", range(SEED, SEED + ENGINE_ROUNDS))
def test_engines_find_what_the_server_finds(
    collection: Collection[RawBSONDocument], mongodb_url: str, tmp_path: Path, seed: int
) -> None:
    """Ask the engines themselves, each of which compiles filters in its own way."""
    make = Maker(seed + 1_000_000)
    documents = [{**document, "group": "g"} for document in make.documents()[:ENGINE_DOCUMENTS]]
    queries = [make.query() for _ in range(QUERIES)]
    collection.insert_many(RawBSONDocument(bson.encode(document)) for document in documents)
    theirs = found_by(collection, queries)
    database = collection.database.name
    engines: list[Driver] = [
        MemoryDriver(),
        SQLiteDriver(tmp_path / "things.db", synchronous="NORMAL"),
        # shares its tables with memory, so that a few seeds are enough
        *([TrackDriver(tmp_path / "things.json")] if seed % 5 == 1 else []),
        # both libraries get the same filters: each takes every other seed
        MongoDBDriver(
            mongodb_url,
            database=f"{database}_driver",
            client="pymongo" if seed % 2 else "motor",
        ),
    ]

    async def ask(driver: Driver) -> None:
        try:
            await driver.open(LAYOUT)
            await driver.execute(Insert(THINGS, tuple(map(copy_tree, documents))))
            for query, expected in zip(queries, theirs, strict=True):
                find = Find(THINGS, parse(query), {"_id": True})
                ours = [found["_id"] for found in await driver.execute(find)]
                assert ours == expected, f"{driver.name} finds by {query} {ours}, not {expected}"
        finally:
            await driver.aclose()

    try:
        for driver in engines:
            asyncio.run(ask(driver))
    finally:
        collection.database.client.drop_database(f"{database}_driver")


@pytest.mark.parametrize(
    "query",
    [
        {"$and": []},
        {"$or": {"a": 1}},
        {"$or": [{"a": 1}, 2]},
        {"$like": 1},
        {"a": {"$like": 1}},
        {"a": {"$gt": 1, "b": 2}},
        {"a": {"$in": 1}},
        {"a": {"$nin": {"b": 1}}},
        {"a": {"$in": [{"$gt": 1}]}},
    ],
)
def test_what_the_server_refuses_is_refused(
    collection: Collection[RawBSONDocument], query: Document
) -> None:
    with pytest.raises(OperationFailure):
        collection.find_one(query)
    with pytest.raises(UnsupportedQuery):
        parse(query)


@seeds
def test_selections_select_what_the_server_selects(
    collection: Collection[RawBSONDocument], seed: int
) -> None:
    make = Maker(seed)
    documents = make.documents()
    collection.insert_many(RawBSONDocument(bson.encode(document)) for document in documents)
    for _ in range(SELECTIONS):
        selection = make.selection()
        try:
            checked = check_selection(selection)
        except UnsupportedQuery:
            with pytest.raises(OperationFailure):
                collection.find_one({}, selection)
            continue
        # Bytes tell more than ==: the order of keys, 1 from 1.0, one NaN from another.
        theirs = [found.raw for found in collection.find({}, selection)]
        for document, found in zip(documents, theirs, strict=True):
            ours = select(document, checked)
            assert bson.encode(ours) == found, f"{selection} of {document}, not {ours}"


@seeds
def test_changes_change_what_the_server_changes(
    collection: Collection[RawBSONDocument], seed: int
) -> None:
    make = Maker(seed)
    documents = make.documents()
    collection.insert_many(RawBSONDocument(bson.encode(document)) for document in documents)
    for _ in range(CHANGES):
        before = copy_tree(documents)
        wanted = [make.changes(number) for number in range(DOCUMENTS)]
        ours: set[int] = set()
        for document, changes in zip(documents, wanted, strict=True):
            try:
                apply_changes(document, changes)
            except UnsupportedQuery:
                ours.add(document["_id"])
        updates = [UpdateOne({"_id": number}, {"$set": c}) for number, c in enumerate(wanted)]
        theirs = refused(collection, updates)
        for number in sorted(ours ^ theirs):
            pytest.fail(
                f"only {theirs & {number} or 'we'} refused {wanted[number]} of {before[number]}"
            )
        for number, found in enumerate(collection.find()):
            told = f"{wanted[number]} of {before[number]}, not {documents[number]}"
            assert bson.encode(documents[number]) == found.raw, told


def refused(collection: Collection[RawBSONDocument], updates: list[UpdateOne]) -> set[int]:
    try:
        collection.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        return {failed["index"] for failed in error.details["writeErrors"]}
    return set()
