"""The rows of a log, written together with the changes or, without transactions, right after them.

On a replica set, the rows are part of the transaction of the change.

On a standalone server, a row is written after its change. To keep the rows of a document in the
order of its changes, a writer whose change does not follow from the last row waits for the missing
row. If that does not come, its writer died, or another program made the change: then this writer
adds the missing row, as far as the document shows it. A writer that comes too late notices that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from aiostorage._core.log_rows import log_rows
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.log_head import add_rows
from aiostorage.drivers.mongodb.log_ids import PER_MILLISECOND, id_of, new_suffix, number_at
from aiostorage.drivers.mongodb.logged_change import (
    NO_ROW,
    Doubt,
    LastRow,
    LoggedChange,
    Name,
    named_fields,
    rows_of_changes,
)
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Document, Logged

__all__ = ["log_for_good", "log_in_transaction", "settle_doubts"]

log: logging.Logger = logging.getLogger("aiostorage")

MAX_NAMES: Final = 1000
"""Documents whose last rows are read in one command, at most."""

PATIENCE: Final = 0.2
"""Seconds to wait for the row of the previous change."""

LOOK_INTERVAL: Final = 0.005
"""Seconds between two reads while waiting for it."""

LATE_FOR: Final = 60_000 * PER_MILLISECOND
"""Numbers for which a writer that came too late looks back."""

LATE: Final = "late"
"""A field of rows that were not written by the writer of the change."""


async def log_in_transaction(commands: Commands) -> None:
    """Write the rows of the changes in a transaction."""
    for logged, changes in _by_log(commands.changed):
        unknown = {change.name for change in changes if change.last is None}
        timed = next((one.time for one in changes if one.time is not None), commands.now)
        last: dict[Name, LastRow] = {}
        if unknown or timed is None:
            last, now = await _last_rows(commands, logged, unknown)
            timed = timed or now
        rows = rows_of_changes(changes, last, timed)
        schema = commands.schemas[logged.log]
        if rows:
            await commands.client.collections[logged.log].insert_many(
                [schema.document(row, None) for row in rows], session=commands.session
            )


async def log_for_good(commands: Commands) -> None:
    """Write the rows of the changes on a server without transactions.

    The changes have happened and stay. Rows that cannot be written, not even in a second attempt,
    are written with the next ones.
    """
    changes = [*commands.unlogged, *commands.changed]
    commands.unlogged.clear()
    commands.changed.clear()
    if not changes:
        return
    location = commands.client.settings.location
    work = _Rows(commands, changes)
    try:
        try:
            with translated(location, writing=True):
                await work.write()
        except TemporaryBackendError:
            with translated(location, writing=True):
                await commands.client.beyond_limit(work.write)
    except AioStorageError as error:
        commands.unlogged.extend(changes)
        log.warning("%s: a change is still to be logged: %s", location, error)


async def settle_doubts(commands: Commands) -> None:
    """Write the rows of changes whose outcome was unknown, if they have happened."""
    while commands.doubts:
        doubt = commands.doubts.pop()
        try:
            with translated(commands.client.settings.location, writing=False):
                await _settle(commands, doubt)
        except BaseException:
            commands.doubts.append(doubt)
            raise


async def _settle(commands: Commands, doubt: Doubt) -> None:
    schema = commands.schemas[doubt.collection]
    if (logged := schema.logged) is None:
        return
    matching = schema.filter(doubt.where, await commands.client.now())
    cursor = commands.client.collections[schema.name].find(matching, named_fields(logged))
    found = await cursor.to_list(None)
    there = {one["_id"] for one in found}
    gone = [one for one in doubt.deleted if one["_id"] not in there]
    changes = [LoggedChange(logged, one, None) for one in gone]
    if not doubt.deleted:
        # a change that changes nothing: only the missing row before it is written
        changes = [LoggedChange(logged, one, one) for one in found]
    if doubt.inserted:
        last, _ = await _last_rows(commands, logged, [change.name for change in changes])
        changes = [LoggedChange(logged, None, one.after) for one in changes if one.name not in last]
    await _Rows(commands, changes, patience=0.0).write()


class _Rows:
    """Rows that follow changes: each is written once, even if an attempt fails."""

    def __init__(
        self, commands: Commands, changes: Sequence[LoggedChange], patience: float = PATIENCE
    ) -> None:
        self._commands = commands
        self._changes = changes
        self._patience = patience
        self._made: list[tuple[str, list[Document]]] | None = None

    async def write(self) -> None:
        again = self._made is not None
        if self._made is None:
            self._made = [
                (logged.log, await self._rows(logged, changes))
                for logged, changes in _by_log(self._changes)
            ]
        for name, rows in self._made:
            left = await _without_written(self._commands, name, rows) if again else rows
            if left:
                await add_rows(self._commands, name, left)

    async def _rows(self, logged: Logged, changes: Sequence[LoggedChange]) -> list[Document]:
        names = {change.name for change in changes}
        last, now = await _last_rows(self._commands, logged, names)
        first = {change.name: change for change in reversed(changes)}
        late: set[Name] = set()
        missing = _missing(first, last)
        if missing:
            late = await self._told(logged, [first[name] for name in missing], now)
            missing -= late
        waited = 0.0
        while missing and waited < self._patience:
            await asyncio.sleep(LOOK_INTERVAL)
            waited += LOOK_INTERVAL
            newer, now = await _last_rows(self._commands, logged, missing)
            last |= newer
            missing = _missing({name: first[name] for name in missing}, last)
        rows: list[Document] = []
        for name in missing:
            rows += _repair(logged, first[name], last.get(name, NO_ROW), now)
            last[name] = LastRow.of(rows[-1]) if rows else last[name]
        ours = [change for change in changes if change.name not in late]
        rows += rows_of_changes(ours, last, now)
        return [_unnumbered(row) for row in rows]

    async def _told(
        self, logged: Logged, changes: Sequence[LoggedChange], now: datetime
    ) -> set[Name]:
        """Return the changes whose rows another writer has added after waiting for them in vain."""
        told: set[Name] = set()
        schema = self._commands.schemas[logged.log]
        for change in changes:
            after = change.after or {}
            owner, name = change.name
            row = {
                "owner": owner,
                "name": name,
                LATE: True,
                "_id": {"$gte": id_of(number_at(now) - LATE_FOR)},
                "before": (change.before or {}).get(logged.state),
                "after": after.get(logged.state),
            }
            found = self._commands.client.collections[logged.log]
            if await found.find_one(schema.document(row, None), {"_id": True}):
                told.add(change.name)
        return told


def _missing(first: Mapping[Name, LoggedChange], last: Mapping[Name, LastRow]) -> set[Name]:
    """Return the documents whose change does not follow from their last row."""
    return {
        name
        for name, change in first.items()
        if change.before is not None
        and name in last
        and not _follows(change.logged, change.before, last[name])
    }


def _follows(logged: Logged, before: Mapping[str, Any], last: LastRow) -> bool:
    if before.get(logged.state) != last.after:
        return False
    return last.after != logged.taken or before.get(logged.holder) in (None, last.holder)


def _repair(logged: Logged, change: LoggedChange, last: LastRow, now: datetime) -> list[Document]:
    """Return the row that is missing before a change, as far as the document shows it."""
    assert change.before is not None  # noqa: S101  a row is missing
    was = {**change.before, logged.state: last.after, logged.holder: last.holder}
    return [
        {**row, LATE: True}
        for row in log_rows(
            logged, was, change.before, content=False, attempt=last.attempt, time=now
        )
    ]


def _unnumbered(row: Document) -> Document:
    return {**{k: v for k, v in row.items() if k != "_id"}, "uid": new_suffix()}


async def _without_written(
    commands: Commands, name: str, rows: Sequence[Document]
) -> list[Document]:
    """Return the rows that are not in the log yet."""
    left: list[Document] = []
    for row in rows:
        key = commands.schemas[name].document({"owner": row["owner"], "name": row["name"]}, None)
        found = await commands.client.collections[name].find(key, {"_id": True}).to_list(None)
        if not any(str(one["_id"]).endswith(row["uid"]) for one in found):
            left.append(row)
    return left


def _by_log(
    changes: Iterable[LoggedChange],
) -> list[tuple[Logged, list[LoggedChange]]]:
    found: dict[Logged, list[LoggedChange]] = {}
    for change in changes:
        found.setdefault(change.logged, []).append(change)
    return list(found.items())


async def _last_rows(
    commands: Commands, logged: Logged, names: Iterable[Name]
) -> tuple[dict[Name, LastRow], datetime]:
    """Return the last row of each document that has one, and the server's time."""
    schema = commands.schemas[logged.log]
    left = [name for name in names if None not in name]
    last: dict[Name, LastRow] = {}
    now: datetime | None = None
    while left or now is None:
        some, left = left[:MAX_NAMES], left[MAX_NAMES:]
        by_owner: dict[Any, list[Any]] = {}
        for owner, name in some:
            by_owner.setdefault(owner, []).append(name)
        parts = [
            {"owner": schema.document({"owner": owner}, None)["owner"], "name": {"$in": of_it}}
            for owner, of_it in by_owner.items()
        ]
        newest = {"_id": "$_id", "attempt": "$attempt", "after": "$after", "holder": "$holder"}
        pipeline: list[dict[str, Any]] = [
            {"$match": {"$or": parts} if parts else {"_id": {"$in": []}}},
            {"$group": {"_id": {"owner": "$owner", "name": "$name"}, "row": {"$max": newest}}},
            {"$facet": {"found": [{"$match": {}}]}},
            {"$addFields": {"now": "$$NOW"}},
        ]
        [answer] = await commands.client.aggregate(logged.log, pipeline, session=commands.session)
        now = answer["now"]
        for one in answer["found"]:
            last[one["_id"]["owner"], one["_id"]["name"]] = LastRow.of(one["row"])
    return last, now
