"""Coroutines that run in a thread, where the calls that they wait for block."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiostorage.drivers.mongodb.blocking import BlockingDatabase, run_at_once


class Cursor:
    def __init__(self, found: list[int]) -> None:
        self._found = found

    def to_list(self, length: int | None) -> list[int]:
        return self._found[:length]


class Collection:
    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self.options = options

    def find(self, *found: int) -> Cursor:
        return Cursor([*found])

    def aggregate(self, stages: list[int], *, session: str) -> Cursor:
        return Cursor([*stages, len(session)])

    def insert_one(self, document: dict[str, Any], session: str) -> Any:
        if not document:
            raise ValueError(session)
        return document


class Database:
    def get_collection(self, name: str, **options: Any) -> Collection:
        return Collection(name, options)

    def command(self, name: str) -> dict[str, str]:
        return {"did": name}


def test_what_blocks_is_awaited_as_in_motor() -> None:
    database = BlockingDatabase(Database())
    things = database.get_collection("things", codec_options=1)
    assert things._target.options == {"codec_options": 1}

    async def work() -> list[Any]:
        return [
            await things.find(1, 2, 3).to_list(2),
            await things.aggregate([1], session="ab").to_list(None),
            await things.insert_one({"x": 1}, session="s"),
            await database.command("hello"),
        ]

    assert run_at_once(work()) == [[1, 2], [1, 2], {"x": 1}, {"did": "hello"}]


def test_errors_come_out() -> None:
    things = BlockingDatabase(Database()).get_collection("things")

    async def work() -> None:
        try:
            await things.insert_one({}, session="first")
        except ValueError:
            await things.insert_one({}, session="second")

    with pytest.raises(ValueError, match="second"):
        run_at_once(work())


def test_a_turn_for_others_is_none() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert run_at_once(work()) == "done"


def test_it_waits_for_nothing_else() -> None:
    ended = []

    class Future:
        def __await__(self) -> Any:
            yield self

    async def work() -> None:
        try:
            await Future()
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match=r"waits for .*Future"):
        run_at_once(work())
    assert ended
