"""Law 11 for insertions under the next free keys: each document gets one, whatever gets lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from aiostorage import DuplicateKeyError, Storage
from aiostorage._core.documents import both, equal
from aiostorage._core.layout import RECEIPTS, TRIALS
from aiostorage.operations import Compare, Count, Document, Find, Insert, InsertNext
from aiostorage.protocols import Driver
from aiostorage.testing.faults import Fault
from tests.contract.conftest import UNCLOSED
from tests.contract.late_attempts import LateDriver
from tests.contract.test_faults import POLICY, FaultCase, fails_once

pytestmark = [UNCLOSED, pytest.mark.anyio]


@pytest.fixture
def world(make_driver: Callable[[], Driver]) -> FaultCase:
    return FaultCase(make_driver())


def new_trial(world: FaultCase, uid: str, **fields: Any) -> Document:
    return {"_id": uid, "experiment": world.experiment.id, "status": "new", "n": {}, **fields}


def next_trials(world: FaultCase, *documents: Document) -> tuple[Find, InsertNext]:
    ids = [f"t{number}" for number in range(8)]
    places = tuple({"id": uid, "n.number": number} for number, uid in enumerate(ids))
    taken = both(equal(experiment=world.experiment.id), Compare("id", "in", tuple(ids)))
    return Find(TRIALS, taken, {"id": True}), InsertNext(TRIALS, documents, "id", places)


async def inserted(world: FaultCase) -> list[tuple[str, str, int]]:
    where = both(equal(experiment=world.experiment.id), Compare("n", "exists", True))
    found = await world.faulty.driver.execute(Find(TRIALS, where))
    return sorted((one["id"], one["_id"], one["n"]["number"]) for one in found)


async def insert_trials(world: FaultCase) -> None:
    uids = [f"r{next(world.numbers)}" for _ in range(3)]
    gateway = world.storage._gateway
    one = await gateway.insert_next(*next_trials(world, new_trial(world, uids[0])))
    more = [new_trial(world, uid) for uid in uids[1:]]
    several = await gateway.insert_next(*next_trials(world, *more))
    told = [(trial["id"], trial["_id"], trial["n"]["number"]) for trial in (*one, *several)]
    assert told == [(f"t{number}", uid, number) for number, uid in enumerate(uids)]
    assert await inserted(world) == told


async def test_a_lost_answer_takes_no_key(world: FaultCase, kinds: tuple[Fault, ...]) -> None:
    async with world.truth:
        for kind in kinds:
            await fails_once(world, insert_trials, kind)
        assert await world.faulty.driver.execute(Count(RECEIPTS)) == 0, "the ids tell enough"


async def test_what_is_inserted_is_in_the_history(world: FaultCase) -> None:
    async with world.truth as storage:
        await world.reset()
        cursor = (await storage.changes_since(world.experiment)).cursor
        held = new_trial(world, "held", status="reserved", worker="w")
        operations = next_trials(world, held, new_trial(world, "waits"))
        assert len(await storage._gateway.insert_next(*operations)) == 2
        changes, _ = await storage.changes_since(world.experiment, cursor)
        told = [(one.trial, one.kind, one.after, one.worker, one.attempt) for one in changes]
        assert sorted(told, key=str) == [
            ("t0", "inserted", "reserved", "w", 1),
            ("t1", "inserted", "new", None, 0),
        ]


async def test_part_of_an_attempt_keeps_its_keys(world: FaultCase) -> None:
    """Without transactions a server may die between two documents."""
    async with world.truth:
        await world.reset()
        look, insert = next_trials(world, *(new_trial(world, uid) for uid in "abc"))
        part = new_trial(world, "a", id="t0", n={"number": 0})
        await world.faulty.driver.execute(Insert(TRIALS, (part,)))
        await world.faulty.driver.execute(
            Insert(TRIALS, (new_trial(world, "x", id="t1", n={"number": 1}),))
        )
        world.faulty.fail_next("lost", matching=lambda o: insert in o)
        found = await world.storage._gateway.insert_next(look, insert)
        assert world.faulty.planned == 0
        keys = [("t0", "a", 0), ("t2", "b", 2), ("t3", "c", 3)]
        assert sorted((one["id"], one["_id"], one["n"]["number"]) for one in found) == keys
        assert await inserted(world) == [keys[0], ("t1", "x", 1), *keys[1:]]


@pytest.mark.parametrize("when", ["before the second", "after the second"])
async def test_an_attempt_that_arrives_late(world: FaultCase, when: str) -> None:
    async with world.truth:
        await world.reset()
        driver = LateDriver(world.faulty.driver, when, InsertNext)
        gateway = Storage(driver, retry=POLICY)._gateway
        [trial] = await gateway.insert_next(*next_trials(world, new_trial(world, "late")))
        assert (trial["_id"], trial["id"]) == ("late", "t0")
        assert await inserted(world) == [("t0", "late", 0)]
        late = isinstance(driver.outcome, DuplicateKeyError)
        assert late is (when == "after the second")


async def test_a_cancelled_insertion_happened_or_not(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        gateway = world.storage._gateway
        for number in range(6):
            with anyio.move_on_after(0):
                await gateway.insert_next(*next_trials(world, new_trial(world, f"c{number}")))
        [last] = await gateway.insert_next(*next_trials(world, new_trial(world, "last")))
        there = await inserted(world)
        assert [number for _, _, number in there] == list(range(len(there)))
        assert there[-1] == (last["id"], "last", last["n"]["number"])
