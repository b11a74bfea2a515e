"""Writes that share a transaction on SQLite have the outcomes that they have one by one."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.operations import (
    And,
    Collection,
    Compare,
    Condition,
    Delete,
    Document,
    Field,
    Index,
    Insert,
    Layout,
    Logged,
    Operation,
    StoreTime,
    Take,
    Update,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
NOW = StoreTime()

PLANTS = Collection(
    "plants",
    fields=(
        Field("bed", "key", required=True),
        Field("name", "key", required=True),
        Field("state", "key", required=True),
        Field("keeper", "key"),
        Field("label", "key"),
        Field("note", "key"),
        Field("sown", "time"),
        Field("seen", "time", clocked=True),
    ),
    indexes=(
        Index(("bed", "name"), unique=True),
        Index(("label",), unique=True),
        Index(("bed", "state")),
    ),
    logged=Logged(
        "changes",
        owner="bed",
        name="name",
        state="state",
        holder="keeper",
        content="fruit",
        taken="kept",
    ),
)
CHANGES = Collection(
    "changes",
    fields=(
        *(Field(name, "key", required=True) for name in ("kind", "owner", "name", "attempt")),
        *(Field(name, "key") for name in ("before", "after", "holder", "reason")),
        Field("time", "time", required=True),
    ),
    indexes=(Index(("owner", "name")),),
)
LAYOUT = Layout(1, (PLANTS, CHANGES))

BEDS: tuple[str | int, ...] = ("east", 7)
STATES = ("new", "kept", "ripe", "gone")
COUNT = 400
FREE = Compare("state", "in", ("new", "gone"))


class Draw:
    """Draws operations that are like those of the core, or unlike them, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._count = 0

    def chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def any_of(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def label(self) -> str | None:
        """Return a label that may be taken already."""
        return self.any_of((None, *(f"{kind} {n}" for kind in ("plant", "new") for n in range(20))))

    def document(self, uid: str) -> Document:
        document = {
            "_id": uid,
            "bed": self.any_of(BEDS),
            "name": self.any_of((uid, uid, uid, "plant 1", "plant 2")),
            "state": self.any_of(STATES),
            "keeper": self.any_of((None, "k0", "k1", 1)),
            "label": uid,
            "note": self.any_of((None, None, "fine")),
            "sown": self.any_of((None, NOON - timedelta(days=self._random.randrange(5)))),
            "seen": self.any_of((None, NOW, NOON)),
            "fruit": self.any_of(([], [], [1.5], {"apples": 1})),
            "params": {"x": self._random.random()},
        }
        if self.chance(20):
            del document[self.any_of(("keeper", "note", "sown", "seen", "fruit"))]
        return document

    def where(self) -> Condition:
        bed = Compare("bed", "eq", self.any_of(BEDS))
        return self.any_of(
            (
                And((bed, FREE)),
                And((bed, FREE)),
                And((bed, FREE)),
                And((bed, FREE, Compare("seen", "lt", StoreTime(1.0)))),
                And((bed, Compare("state", "eq", "new"))),
                And((bed, FREE, Compare("params.x", "gt", 0.5))),
                And((bed, Compare("fruit", "eq", []))),
                And((bed, Compare("keeper", "ne", "k1"))),
                And((Compare("keeper", "eq", 1), FREE)),
            )
        )

    def take(self) -> Take:
        self._count += 1
        changes: dict[str, Any] = {
            "state": self.any_of(("kept", "kept", "kept", "kept", "new")),
            "sown": NOW,
            "note": None,
            "fruit": [],
            "keeper": f"k{self._count}",
            "seen": NOW,
        }
        for name in ("note", "fruit", "sown"):
            if self.chance(15):
                del changes[name]
        if self.chance(15):
            changes |= self.any_of(
                (
                    *[{"label": self.label()}] * 8,
                    {"fruit.apples": 2},
                    {"state": None},
                    {"seen": "noon"},
                    {"params.x": 0.1},
                    {"_id": "another"},
                    {"seen.x": 1},
                )
            )
        limit = self.any_of((1, 1, 1, 1, 1, 2, 3, None))
        order = self.any_of((("sown",), ("sown",), ("sown",), (), ("seen",)))
        return Take(
            "plants", self.where(), changes, order, limit, reason=self.any_of((None, "why"))
        )

    def update(self, form: tuple[int, bool, bool, bool]) -> Update:
        """Return an update of a form; those of one form differ in values, mostly."""
        number, with_state, with_keeper, by_name = form
        parts = [Compare("bed", "eq", self.any_of(BEDS))]
        if by_name:
            parts.append(Compare("name", "eq", f"plant {self._random.randrange(30)}"))
        if with_state:
            parts.append(Compare("state", "eq", self.any_of(STATES)))
        if with_keeper:
            parts.append(Compare("keeper", "eq", self.any_of(("k0", "k1", 1, None))))
        changes: list[dict[str, Any]] = [
            {"seen": NOW},
            {"state": "ripe", "fruit": [{"value": self._random.random()}], "seen": NOW},
            {"state": self.any_of(STATES), "keeper": self.any_of((None, "k0", "k1"))},
            {"fruit": self.any_of(([], ["again"]))},
            {"label": self.label()},
            {"name": "plant 3"},
            {"fruit.apples.x": 1},
            {"seen": None, "sown": NOON},
            {"state": self.any_of(("new", "new", "new", 1.5))},
            {},
        ]
        where: Condition = And(tuple(parts)) if by_name or self.chance(70) else self.where()
        return Update("plants", where, changes[number], reason=self.any_of((None, "done")))

    def update_form(self) -> tuple[int, bool, bool, bool]:
        return self._random.randrange(10), self.chance(30), self.chance(20), self.chance(85)

    def operation(self) -> Operation[Any]:
        kind = self._random.randrange(100)
        if kind < 45:
            return self.take()
        if kind < 80:
            return self.update(self.update_form())
        if kind < 95:
            self._count += 1
            return Insert("plants", (self.document(f"sprout {self._count}"),))
        return Delete("plants", self.where())

    def groups(self) -> list[list[list[Operation[Any]]]]:
        """Return groups of writes; many of one kind follow each other, as they do in a search."""
        groups = []
        for _ in range(10):
            group: list[list[Operation[Any]]] = []
            while len(group) < 20:
                run = self._random.randrange(1, 8)
                where, first, form = self.where(), self.operation(), self.update_form()
                for _ in range(run):
                    one = self.operation()
                    if isinstance(first, Take):
                        take, same = self.take(), twin(where) if self.chance(30) else where
                        one = Take(
                            *("plants", same, take.changes, first.order, take.limit),
                            reason=take.reason,
                        )
                    elif isinstance(first, Update):
                        one = self.update(form)
                    group.append([one, self.operation()] if self.chance(5) else [one])
            groups.append(group)
        return groups


def twin(condition: Condition) -> Condition:
    """Return a condition that is equal to another one, and does not mean the same."""
    if isinstance(condition, And):
        return And(tuple(map(twin, condition.conditions)))
    if isinstance(condition, Compare) and condition.value == 1:
        return Compare(condition.path, condition.op, True)
    return condition


async def outcomes(
    path: Path,
    inserted: tuple[Document, ...],
    groups: list[Any],
    *,
    together: bool,
    damaged: bool,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Carry out groups on a new file; return the results, the rows of the file, and its log."""
    times = iter(NOON + timedelta(seconds=n) for n in range(10**6))
    time = NOON
    driver = SQLiteDriver(path, synchronous="NORMAL", clock=lambda: time)
    await driver.open(LAYOUT)
    results: list[Any] = []
    sizes: list[int] = []
    try:
        await driver.execute(Insert("plants", inserted))
        if damaged:
            await anyio.to_thread.run_sync(damage, path)
        driver._writer._on_group = lambda size, _: sizes.append(size)  # type: ignore[union-attr]
        for group in groups:
            time = next(times)
            writes = (
                [driver.execute(job[0]) if len(job) == 1 else driver.transact(job) for job in group]
                if together
                else None
            )
            if writes is not None:
                results += await asyncio.gather(*writes, return_exceptions=True)
                continue
            for job in group:
                write = driver.execute(job[0]) if len(job) == 1 else driver.transact(job)
                results += await asyncio.gather(write, return_exceptions=True)
    finally:
        await driver.aclose()
    assert sizes == ([len(group) for group in groups] if together else [1] * sum(map(len, groups)))
    return results, *await anyio.to_thread.run_sync(rows_of, path)


def rows_of(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the rows of the documents and of the log, as bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        rows = connection.execute("SELECT * FROM plants ORDER BY seq").fetchall()
        log = connection.execute(
            "SELECT seq, kind, owner, name, before, after, holder, attempt, time, reason, subject,"
            " substr(_id, 1, 16) FROM changes ORDER BY seq"
        ).fetchall()
    return rows, log


def damage(path: Path) -> None:
    """Make some texts unreadable, as another program might."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE plants SET doc = '{' WHERE seq % 7 = 1")
        connection.execute("UPDATE plants SET doc = CAST(x'7bff7d' AS TEXT) WHERE seq % 11 = 1")


def shown(result: Any) -> Any:
    return (type(result), str(result)) if isinstance(result, Exception) else result


@pytest.mark.parametrize("seed", range(8))
async def test_writes_in_a_group_do_what_they_do_one_by_one(tmp_path: Path, seed: int) -> None:
    draw, damaged = Draw(seed), seed % 2 == 1
    inserted = {}
    for n in range(COUNT):
        document = {**draw.document(f"plant {n}"), "name": f"plant {n}"}
        inserted[document["_id"]] = document
    groups = draw.groups()
    found = [
        await outcomes(
            tmp_path / f"{together}.db",
            tuple(inserted.values()),
            groups,
            together=together,
            damaged=damaged,
        )
        for together in (True, False)
    ]
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert shown(one) == shown(other)
    assert found[0][1:] == found[1][1:]
    assert any(isinstance(result, list) and result for result in found[0][0])
    assert any(isinstance(result, Exception) for result in found[0][0])


def plant(name: str, **fields: Any) -> Document:
    return {"_id": name, "bed": "east", "name": name, "state": "new", "label": name, **fields}


def update(changes: dict[str, Any], **where: Any) -> Update:
    return Update("plants", And(tuple(Compare(k, "eq", v) for k, v in where.items())), changes)


PLANTED = (
    plant("a", keeper="s", note="fine"),
    plant("b", keeper="k", note="fine"),
    plant("c", state="s"),
)


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param(
            [update({"seen": NOW}, bed="east", name=name) for name in ("a", "b", "c")],
            [1, 1, 1],
            id="one each",
        ),
        pytest.param(
            [update({"seen": NOW}, bed="east", state="new") for _ in range(4)],
            [2, 2, 2, 2],
            id="several each",
        ),
        pytest.param(
            [update({"note": "bad"}, bed="east", note="fine") for _ in range(2)],
            [2, 0],
            id="as many as there are updates",
        ),
        pytest.param(
            [
                update({"seen": NOW}, bed="east", name="a", state="s"),
                update({"seen": NOW}, bed="east", name="b", keeper="k"),
            ],
            [0, 1],
            id="values of another column",
        ),
        pytest.param(
            [update({"state": "kept"}, bed="east", name="a", state="new") for _ in range(3)],
            [1, 0, 0],
            id="the same document",
        ),
    ],
)
async def test_updates_in_a_group(
    tmp_path: Path, operations: list[Update], expected: list[int]
) -> None:
    for together in (True, False):
        groups = [[[operation] for operation in operations]]
        results, _, _ = await outcomes(
            tmp_path / f"{together}.db", PLANTED, groups, together=together, damaged=False
        )
        assert results == expected


async def test_writes_in_a_group_share_statements(tmp_path: Path) -> None:
    count = 20
    takes = [
        Take(
            "plants",
            And((Compare("bed", "eq", "east"), FREE)),
            {"state": "kept", "keeper": f"k{n}", "seen": NOW},
            ("sown",),
        )
        for n in range(count)
    ]
    driver = SQLiteDriver(tmp_path / "plants.db", synchronous="NORMAL", clock=lambda: NOON)
    await driver.open(LAYOUT)
    statements: list[str] = []
    try:
        await driver.execute(Insert("plants", tuple(plant(f"p{n}") for n in range(count))))
        thread = driver._writer._thread  # type: ignore[union-attr]
        await thread.call(lambda connection: connection.set_trace_callback(statements.append))
        taken = await asyncio.gather(*map(driver.execute, takes))
    finally:
        await driver.aclose()
    assert [found["name"] for [found] in taken] == [f"p{n}" for n in range(count)]
    verbs = Counter(statement.split()[0] for statement in statements)
    # SELECT: the search, and the last number of the log
    assert verbs == {
        "BEGIN": 1,
        "SAVEPOINT": 1,
        "SELECT": 2,
        "UPDATE": count,
        "RELEASE": 1,
        "INSERT": count,
        "COMMIT": 1,
    }
