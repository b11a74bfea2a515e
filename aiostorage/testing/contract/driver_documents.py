"""Documents and conditions for the contract of a driver."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiostorage.operations import (
    EVERYTHING,
    And,
    Collection,
    Compare,
    Comparison,
    Condition,
    Document,
    ElementMatch,
    Field,
    Find,
    Index,
    Insert,
    Layout,
    Or,
)
from aiostorage.protocols import Driver

__all__ = [
    "LAYOUT",
    "NAMES",
    "NEVER_AWAITS",
    "OUTBOX",
    "RECEIPTS",
    "START",
    "THINGS",
    "by_id",
    "ids",
    "insert",
    "random_condition",
    "random_document",
    "thing",
]

NEVER_AWAITS: Final = (
    "`transact` never awaits anything: it cannot be cancelled, and other tasks get no turn. Let it "
    "await `anyio.lowlevel.checkpoint()` before it changes anything."
)
"""What the laws of cancellation say of an engine that they cannot cancel."""

THINGS: Final = "things"
NAMES: Final = "names"
RECEIPTS: Final = "receipts"
OUTBOX: Final = "outbox"

LAYOUT: Final = Layout(
    version=1,
    collections=(
        Collection(
            THINGS,
            fields=(
                Field("group", "key", required=True),
                Field("rank", "key"),
                Field("at", "time"),
                Field("beat", "time", clocked=True),
                Field("raw", "bytes"),
            ),
            indexes=(
                Index(("group", "at")),
                Index(("group", "beat")),
                Index(("group", "rank"), where=Compare("rank", "in", (1, 2, "a"))),
            ),
        ),
        Collection(
            NAMES,
            fields=(Field("name", "key", required=True), Field("version", "key")),
            indexes=(Index(("name", "version"), unique=True),),
        ),
        Collection(
            RECEIPTS,
            fields=(Field("expires", "time", required=True),),
            indexes=(Index(("expires",)),),
        ),
        Collection(
            OUTBOX,
            fields=(
                Field("experiment", "key", required=True),
                Field("time", "time", required=True),
            ),
        ),
    ),
)
"""A layout with every kind of field and of index."""

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


def thing(uid: Any, **fields: Any) -> Document:
    """Make a document of `THINGS`."""
    return {"_id": uid, "group": "g", **fields}


async def insert(driver: Driver, *documents: Document, collection: str = THINGS) -> None:
    """Insert documents."""
    await driver.execute(Insert(collection, documents))


async def ids(driver: Driver, where: Condition = EVERYTHING, **more: Any) -> list[Any]:
    """Return the ids of the documents that match."""
    return [d["_id"] for d in await driver.execute(Find(THINGS, where, **more))]


def by_id(uid: Any) -> Compare:
    """Make the condition that a document has this id."""
    return Compare("_id", "eq", uid)


_PATHS: Final = (
    *("_id", "group", "rank", "at", "beat", "raw", "free", "missing"),
    *("free.a", "free.b.c", "free.0", "free.a.0", "list", "list.0", "list.a", "rank.x", "at.y"),
)


def _scalar(chance: random.Random, resolution: timedelta) -> Any:
    return chance.choice(
        (
            None,
            True,
            False,
            chance.randint(-2, 3),
            2**53 + 1,
            -(2**63),
            2**63 - 1,
            chance.choice((0.0, -0.0, 1.0, 1.5, 2.0**53, 1e300)),
            float("nan"),
            chance.choice((float("inf"), float("-inf"))),
            chance.choice(("", "a", "b", "B", "ä", "1", "\0", "a\0b", "😀")),
            chance.choice((b"", b"a", b"\xff", b"ab")),
            _moment(chance, resolution),
        )
    )


def _moment(chance: random.Random, resolution: timedelta) -> datetime:
    step = max(resolution, timedelta(microseconds=1))
    return START + step * chance.choice((-1, 0, 1, 1000, 10**9))


def _value(chance: random.Random, resolution: timedelta, depth: int = 2) -> Any:
    kind = chance.random()
    if not depth or kind < 0.6:
        return _scalar(chance, resolution)
    size = chance.randint(0, 2)
    if kind < 0.8:
        return [_value(chance, resolution, depth - 1) for _ in range(size)]
    keys = chance.sample(("a", "b", "c", "0", "a.b", "$date"), size)
    return {key: _value(chance, resolution, depth - 1) for key in keys}


def _declared(chance: random.Random, resolution: timedelta) -> dict[str, Any]:
    """Make a value for each declared field that may be missing."""
    return {
        "rank": chance.choice((None, 0, 1, 2, -1, 2**53 + 1, "a", "b", "", "1")),
        "at": chance.choice((None, _moment(chance, resolution))),
        "beat": chance.choice((None, _moment(chance, resolution))),
        "raw": chance.choice((None, b"", b"a", b"\xff", b"ab")),
    }


def random_document(chance: random.Random, number: int, resolution: timedelta) -> Document:
    """Make any document of `THINGS`."""
    document: Document = {"_id": chance.choice((number, str(number))), "group": chance.choice("gh")}
    for name, value in _declared(chance, resolution).items():
        if chance.random() < 0.8:
            document[name] = value
    for name in ("free", "list"):
        if chance.random() < 0.8:
            document[name] = _value(chance, resolution)
    return document


def random_condition(chance: random.Random, resolution: timedelta, depth: int = 2) -> Condition:
    """Make any condition on documents of `THINGS`."""
    kind = chance.random()
    if depth and kind < 0.3:
        parts = tuple(
            random_condition(chance, resolution, depth - 1) for _ in range(chance.randint(0, 3))
        )
        return And(parts) if kind < 0.15 else Or(parts)
    path = chance.choice(_PATHS)
    if depth and kind < 0.4:
        return ElementMatch(path, _of_elements(chance, resolution, depth - 1))
    match chance.choice(("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists")):
        case "in":
            return Compare(path, "in", _values(path, chance, resolution))
        case "nin":
            return Compare(path, "nin", _values(path, chance, resolution))
        case "exists":
            return Compare(path, "exists", chance.random() < 0.5)
        case op:
            return Compare(path, op, _operand(path, chance, resolution))


def _of_elements(chance: random.Random, resolution: timedelta, depth: int) -> Condition:
    """Make any condition on the elements of a list."""
    if chance.random() < 0.5:
        return random_condition(chance, resolution, depth)
    operators: tuple[Comparison, ...] = ("eq", "ne", "gt", "gte", "lt", "lte")
    parts: list[Condition] = [
        Compare("", op, _scalar(chance, resolution))
        for op in chance.sample(operators, chance.randint(1, 2))
    ]
    if chance.random() < 0.2:
        parts.append(Compare("", "in", (1, "a", _scalar(chance, resolution))))
    if depth and chance.random() < 0.2:
        parts.append(ElementMatch("", _of_elements(chance, resolution, depth - 1)))
    return And(tuple(parts))


def _values(path: str, chance: random.Random, resolution: timedelta) -> tuple[Any, ...]:
    size = chance.choice((0, 1, 2, 3, 20))
    return tuple(_operand(path, chance, resolution) for _ in range(size))


def _operand(path: str, chance: random.Random, resolution: timedelta) -> Any:
    """Make a value to compare with: often one that the field may have."""
    declared = _declared(chance, resolution)
    if path in declared and chance.random() < 0.5:
        return declared[path]
    return _value(chance, resolution)
