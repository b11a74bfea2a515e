"""The head of a log on a server without transactions: a document that gives each row its number.

A standalone server cannot write a row together with the change that it describes, and the rows of
two writers could become visible in another order than that of their numbers. Therefore a row is
written into the head first, which gives it its number in the same step. Then its writer copies it
into the log, or the next writer does if that one died. Copied rows are removed from the head when
the next rows are added.

So a reader that reads the head first, and then the log up to the last number in the head, gets all
rows up to there: each of them is in the log, or still in the head. No row can appear before one of
them later, since numbers only grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymongo
from pymongo.errors import BulkWriteError

from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.log_ids import PER_MILLISECOND, id_of
from aiostorage.operations import Document

__all__ = ["LogHead", "RowsBetween", "add_rows", "clear_head", "read_head", "stored_row"]

HEADS: Final = "aiostorage_meta"
"""The collection of the heads."""

MAX_ROWS: Final = 1000
"""Rows that get their numbers in one update, at most."""

MAX_HEAD_AGE: Final = 1000 * PER_MILLISECOND
"""The age from which a row in the head is copied by another writer, in numbers: about a second."""

_DUPLICATE_CODE: Final = 11000


class RowsBetween(Exception):
    """Another writer has added rows of the same documents since the caller has looked.

    Attributes
    ----------
    log
        To which log.
    """

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.log: str = log


@dataclass(frozen=True, slots=True)
class LogHead:
    """The content of the head.

    Attributes
    ----------
    number
        The largest number of a row.
    first, last
        The ids of the first row of all and of the last one; None if there has been none.
    rows
        Rows that may not be in the log yet, as they are stored.
    cleared
        How often all rows have been deleted.
    """

    number: int = 0
    first: str | None = None
    last: str | None = None
    rows: tuple[Document, ...] = ()
    cleared: int = 0

    @property
    def beginning(self) -> str:
        """The cursor of a log that has had no row since it was cleared, if it was."""
        return f"{self.cleared}-"


async def read_head(commands: Commands, log: str) -> LogHead:
    """Return the head of a log."""
    found = await commands.client.undecoded[HEADS].find_one({"_id": _key(log)})
    return LogHead() if found is None else _head(found)


async def clear_head(commands: Commands, log: str) -> None:
    """Note that all rows of a log have been deleted, so that the next one is the first."""
    change = {
        "$unset": {"first": "", "last": ""},
        "$set": {"rows": []},
        "$inc": {"cleared": 1},
        "$setOnInsert": {"number": 0},
    }
    await commands.client.collections[HEADS].update_one({"_id": _key(log)}, change, upsert=True)


async def add_rows(commands: Commands, log: str, rows: Sequence[Document], seen: int) -> None:
    """Add rows to a log, all of them or, if that fails, the first ones.

    Parameters
    ----------
    rows
        Without ``_id``; each has a ``uid``, which becomes a part of it. A row that was added before
        is not added again.
    seen
        The largest number in the head before the caller looked at the last rows of the documents.

    Raises
    ------
    RowsBetween
        There may be others by now. Nothing was added.
    """
    for begin in range(0, len(rows), MAX_ROWS):
        # what comes after the first rows cannot be made again without them
        await _add(commands, log, rows[begin : begin + MAX_ROWS], None if begin else seen)


async def _add(commands: Commands, log: str, rows: Sequence[Document], seen: int | None) -> None:
    schema, heads = commands.schemas[log], commands.client.undecoded[HEADS]
    made = [schema.document(row, None) for row in rows]
    update = _update(made, commands.copied.get(log, ()))
    uids = [row["uid"] for row in made]
    free: dict[str, Any] = {"_id": _key(log), "rows.uid": {"$nin": uids}}
    if seen is not None:
        between = {"name": {"$in": [row["name"] for row in made]}, "n": {"$gt": seen}}
        free["rows"] = {"$not": {"$elemMatch": between}}
    found = await heads.find_one_and_update(free, update, return_document=True)
    if found is None:
        # there is no head yet, or an attempt whose answer was lost has added them
        try:
            await heads.insert_one({"_id": _key(log), "number": 0, "rows": []})
        except pymongo.errors.DuplicateKeyError:
            found = await heads.find_one({"_id": _key(log), "rows.uid": {"$in": uids}})
            if found is None and seen is not None:
                raise RowsBetween(log) from None
        if found is None:
            await asyncio.sleep(0)
            return await _add(commands, log, rows, seen)
    head = _head(found)
    commands.numbers[log] = head.number
    ours = set(uids)
    mine = [row for row in head.rows if row["uid"] in ours]
    stuck = [row for row in head.rows if row["n"] < head.number - MAX_HEAD_AGE and row not in mine]
    await _copy(commands, log, [*mine, *stuck])
    commands.copied[log] = [row["n"] for row in (*mine, *stuck)]
    return None


async def _copy(commands: Commands, log: str, rows: Sequence[Document]) -> None:
    copies = [stored_row(row) for row in rows]
    try:
        await commands.client.undecoded[log].insert_many(copies, ordered=False)
    except BulkWriteError as error:
        failed = (error.details or {}).get("writeErrors") or ()
        if not failed or any(one.get("code") != _DUPLICATE_CODE for one in failed):
            raise


def stored_row(row: Document) -> Document:
    """Return a row of the head as it is in the log."""
    fields = {name: value for name, value in row.items() if name not in ("n", "uid")}
    return {"_id": id_of(row["n"], row["uid"]), **fields}


def _update(rows: Sequence[Document], copied: Sequence[int]) -> list[dict[str, Any]]:
    """Return the update that gives rows their numbers, and removes the copied ones."""
    now = {"$multiply": [{"$toLong": "$$NOW"}, {"$literal": PER_MILLISECOND}]}
    numbered = {
        "$map": {
            "input": {"$range": [0, len(rows)]},
            "as": "at",
            "in": {
                "$mergeObjects": [
                    {"$arrayElemAt": [{"$literal": list(rows)}, "$$at"]},
                    {"n": {"$add": ["$base", 1, {"$toLong": "$$at"}]}},
                ]
            },
        }
    }
    left = {"$filter": {"input": "$rows", "cond": {"$not": [{"$in": ["$$this.n", list(copied)]}]}}}
    return [
        {"$set": {"base": {"$max": ["$number", now]}}},
        {"$set": {"rows": {"$concatArrays": [left, numbered]}}},
        {"$set": {"number": {"$max": "$rows.n"}}},
        {
            "$set": {
                "first": {"$ifNull": ["$first", {"$arrayElemAt": ["$rows", -len(rows)]}]},
                "last": {"$arrayElemAt": ["$rows", -1]},
            }
        },
        {"$unset": "base"},
    ]


def _head(found: Document) -> LogHead:
    first, last = (
        id_of(end["n"], end["uid"]) if (end := found.get(name)) else None
        for name in ("first", "last")
    )
    return LogHead(found["number"], first, last, tuple(found["rows"]), found.get("cleared", 0))


def _key(log: str) -> str:
    return f"log {log}"
