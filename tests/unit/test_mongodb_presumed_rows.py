"""What is presumed of the last rows of documents in a log on MongoDB, and transactions anew."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("pymongo")

from pymongo import WriteConcern
from pymongo.errors import OperationFailure

from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage.drivers.mongodb import attempted_transaction, known_rows
from aiostorage.drivers.mongodb.attempted_transaction import AttemptedTransaction, BegunAnew
from aiostorage.drivers.mongodb.known_rows import KnownRows
from aiostorage.drivers.mongodb.log_ids import id_of, number_at
from aiostorage.drivers.mongodb.logged_change import (
    NO_ROW,
    LastRow,
    LoggedChange,
    presumed_rows,
)

(LOGGED,) = (c.logged for c in LAYOUT.collections if c.name == TRIALS and c.logged is not None)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(name: str, number: int, holder: str | None = "h") -> dict[str, Any]:
    return {
        "_id": id_of(number, "0" * 8),
        "owner": "e",
        "name": name,
        "attempt": 1,
        "after": "reserved",
        "holder": holder,
    }


def taken(name: str, presumed: LastRow | None = NO_ROW, **more: Any) -> LoggedChange:
    before = {"experiment": "e", "id": name, "status": "new", "worker": None}
    after = {**before, "status": "reserved", "worker": "h"}
    return LoggedChange(LOGGED, before, after, time=NOW, presumed=presumed, **more)


def test_known_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_rows, "MAX_ROWS", 2)
    rows = KnownRows()
    rows.add("log", [row("a", 1), row("b", 2), row("a", 3), row("free", 4, holder=None)])
    assert rows.last("log", ("e", "a")) == LastRow.of(row("a", 3))
    assert rows.last("log", ("e", "free")) is None
    assert rows.last("other", ("e", "a")) is None
    rows.add("log", [row("c", 5)])  # b has been there for longest
    assert rows.last("log", ("e", "b")) is None
    rows.discard("log", [("e", "a"), ("e", "never there")])
    assert rows.last("log", ("e", "a")) is None
    assert rows.last("log", ("e", "c")) is not None


def test_rows_after_presumed_ones() -> None:
    ahead = LastRow(id_of(number_at(NOW) + 7, "0" * 8), 3, "interrupted", None)
    found = presumed_rows([taken("a"), taken("b", ahead)])
    assert found is not None
    (first, after_none), (second, after_ahead) = found
    assert (after_none, after_ahead) == (NO_ROW, ahead)
    assert (first["name"], first["attempt"]) == ("a", 1)
    assert first["_id"].startswith(id_of(number_at(NOW)))
    assert (second["name"], second["attempt"]) == ("b", 4)
    assert second["_id"].startswith(id_of(number_at(NOW) + 8))


@pytest.mark.parametrize(
    "changes",
    [
        [taken("a"), taken("a")],  # the second follows from the first
        [taken("a", None)],
        [taken("a", last=NO_ROW)],  # known already
        [taken("a"), LoggedChange(LOGGED, taken("b").before, None, time=NOW)],
    ],
)
def test_what_has_to_be_read(changes: list[LoggedChange]) -> None:
    assert presumed_rows(changes) is None


class Session:
    in_transaction = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start_transaction(self, **_: object) -> None:
        self.calls.append("start")

    def abort_transaction(self) -> None:
        self.calls.append("abort")

    def commit_transaction(self) -> None:
        self.calls.append("commit")


async def at_once(method: Any) -> object:
    return method()


async def run(step: Any) -> None:
    await step()


@pytest.mark.anyio
async def test_anew() -> None:
    session, left = Session(), [BegunAnew(), BegunAnew()]

    async def action() -> str:
        if left:
            raise left.pop()
        return "done"

    transaction = AttemptedTransaction(session, at_once, WriteConcern(), action)
    await transaction.commit(run)
    assert transaction.result == "done"
    assert session.calls == ["start", "abort", "start", "abort", "start", "commit"]


@pytest.mark.anyio
async def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempted_transaction, "MAX_SECONDS", 0.0)

    async def action() -> None:
        raise OperationFailure("conflict", 112, {"errorLabels": ["TransientTransactionError"]})

    session = Session()
    with pytest.raises(OperationFailure):
        await AttemptedTransaction(session, at_once, WriteConcern(), action).commit(run)
    assert session.calls == ["start", "abort"]


@pytest.mark.anyio
async def test_a_cancellation_that_the_library_takes_for_another_error() -> None:
    attempts = 0

    async def action() -> None:
        nonlocal attempts
        attempts += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:  # PyMongo does so while it reads an answer
            labels = {"errorLabels": ["TransientTransactionError"]}
            raise OperationFailure("connection closed", None, labels) from None

    session = Session()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await AttemptedTransaction(session, at_once, WriteConcern(), action).commit(run)
    assert attempts == 1


@pytest.mark.anyio
async def test_an_attempt_that_fails_at_once_can_be_ended() -> None:
    async def action() -> None:
        raise OperationFailure("conflict", 112, {"errorLabels": ["TransientTransactionError"]})

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await AttemptedTransaction(Session(), at_once, WriteConcern(), action).commit(run)
