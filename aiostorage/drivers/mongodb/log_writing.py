"""The rows of a log, written together with the changes or, without transactions, right after them.

On a replica set, the rows are part of the transaction of the change.

On a standalone server, a row is written after its change. To keep the rows of a document in the
order of its changes, a writer whose change does not follow from the last row waits for the missing
row. If that does not come, its writer died, or another program made the change: then this writer
adds the missing row, as far as the document shows it. A writer that comes too late notices that: a
row is added only if no other row of its document was added since its writer looked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any, Final

from pymongo.errors import WriteError

from aiostorage._core.log_rows import log_rows
from aiostorage.drivers.mongodb.attempted_transaction import BegunAnew
from aiostorage.drivers.mongodb.bson_codec import as_stored
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.log_head import (
    LogHead,
    RowsBetween,
    add_rows,
    read_head,
    stored_row,
)
from aiostorage.drivers.mongodb.log_ids import PER_MILLISECOND, id_of, new_suffix, number_at
from aiostorage.drivers.mongodb.logged_change import (
    NO_ROW,
    Doubt,
    LastRow,
    LoggedChange,
    Name,
    named_fields,
    presumed_rows,
    rows_of_changes,
)
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Document, Logged

__all__ = ["log_doubts", "log_for_good", "log_in_transaction"]

log: Final = logging.getLogger("aiostorage")

MAX_NAMES: Final = 1000
"""Documents whose last rows are read in one command, at most."""

MISSING_ROW_TIMEOUT: Final = 0.2
"""Seconds to wait for the row of the previous change, at most."""

POLL_INTERVAL: Final = 0.005
"""Seconds between two reads while waiting for it."""

LATE_ROW_WINDOW: Final = 60.0
"""Seconds for which a writer looks back who could not write its rows with an earlier operation."""

MAX_PRESUMED: Final = 16
"""Rows that are added after presumed rows in one command, at most.

Of more, the server finds the last rows faster in one command for all.
"""

LATE_FIELD: Final = "late"
"""A field of rows that were not written by the writer of the change."""


async def log_in_transaction(commands: Commands) -> dict[str, list[Document]]:
    """Write the rows of the changes in a transaction; return them, by their log.

    Raises
    ------
    BegunAnew
        The last rows are others than was presumed.
    """
    written: dict[str, list[Document]] = {}
    for logged, changes in _by_log(commands.changed):
        presumed = presumed_rows(changes)
        if presumed is not None and len(presumed) <= MAX_PRESUMED:
            await _add_after_presumed(commands, logged.log, presumed)
            written[logged.log] = [row for row, _ in presumed]
            continue
        unknown = {change.name for change in changes if change.last is None}
        timed = next((one.time for one in changes if one.time is not None), commands.now)
        last: dict[Name, LastRow] = {}
        if unknown or timed is None:
            last, now = await _last_rows(commands, logged, unknown)
            timed = timed or now
        rows = rows_of_changes(changes, last, timed)
        await commands.insert(commands.schemas[logged.log], rows)
        written[logged.log] = rows
    return written


async def _add_after_presumed(
    commands: Commands, log: str, presumed: Sequence[tuple[Document, LastRow]]
) -> None:
    """Add rows, each on condition that the last row of its document is the presumed one.

    That is one command. The document itself has been written in this transaction, so that no other
    writer can add a row of it.
    """
    if not presumed:
        return
    updates: list[dict[str, Any]] = []
    for row, last in presumed:
        stored = commands.schemas[log].document(row, None)
        same = {field: stored.pop(field) for field in ("owner", "name")}
        later: dict[str, Any] = {"_id": {"$gt": last.uid}}
        if last.uid is None:  # there may be rows, but of no attempt, and with smaller ids
            later = {"$or": [{"attempt": {"$gt": 0}}, {"_id": {"$gte": row["_id"]}}]}
        added = {"$setOnInsert": stored}
        updates.append({"q": {**same, **later}, "u": added, "upsert": True})
        if last.uid is not None:  # changes nothing, and is counted if the row exists
            updates.append({"q": {"_id": last.uid}, "u": added})
    answer = await commands.client.command({"update": log, "updates": updates}, commands.session)
    for failed in answer.get("writeErrors") or ():
        raise WriteError(failed.get("errmsg", ""), failed.get("code"), failed)
    if len(answer.get("upserted") or ()) < len(presumed) or answer["n"] < len(updates):
        commands.known.discard(log, [(row["owner"], row["name"]) for row, _ in presumed])
        raise BegunAnew


async def log_for_good(commands: Commands) -> None:
    """Write the rows of the changes on a server without transactions.

    The changes have happened and stay. Rows that cannot be written, not even in a second attempt,
    are written with the next ones. What is in doubt is logged now if it can be.
    """
    await _log_known(commands)
    if commands.doubts:
        with suppress(AioStorageError):  # the next operation tries again
            await log_doubts(commands)


async def _log_known(commands: Commands) -> None:
    since = None if commands.unlogged else commands.begun
    changes = [*commands.unlogged, *commands.changed]
    commands.unlogged.clear()
    commands.changed.clear()
    if not changes:
        return
    location = commands.client.settings.location
    work = _Rows(commands, changes, since)
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


async def log_doubts(commands: Commands) -> None:
    """Write the rows of changes whose outcome was unknown, if they have happened."""
    while commands.doubts:
        doubt = commands.doubts.pop()
        try:
            with translated(commands.client.settings.location, writing=False):
                await _log_doubt(commands, doubt)
        except BaseException:
            commands.doubts.append(doubt)
            raise


async def _log_doubt(commands: Commands, doubt: Doubt) -> None:
    schema = commands.schemas[doubt.collection]
    if (logged := schema.logged) is None:
        return
    collection = commands.client.collections[schema.name]
    matching = schema.filter(doubt.where, await commands.client.now())

    async def look() -> list[Document]:
        found: list[Document] = await collection.find(matching, named_fields(logged)).to_list(None)
        return found

    found = await look()
    if doubt.deleted:
        there = {one["_id"] for one in found}
        gone = [one for one in doubt.deleted if one["_id"] not in there]
        await _Rows(
            commands, [LoggedChange(logged, one, None) for one in gone], timeout=0.0
        ).write()
        return
    changes = [LoggedChange(logged, one, one) for one in found]
    if doubt.inserted:
        last, _ = await _last_rows(commands, logged, [change.name for change in changes])
        changes = [LoggedChange(logged, None, one.after) for one in changes if one.name not in last]
        await _Rows(commands, changes, timeout=0.0).write()
        return
    # a change that changes nothing: only the missing row before it is written
    while not await _Rows(commands, changes, timeout=0.0).write_unless_changed(look, found):
        found = await look()
        changes = [LoggedChange(logged, one, one) for one in found]


class _Rows:
    """Rows that follow changes: each is written once, even if an attempt fails.

    Parameters
    ----------
    since
        The changes have not happened before, by `time.monotonic`; None if that is not known.
    timeout
        Seconds to wait for missing rows.
    """

    def __init__(
        self,
        commands: Commands,
        changes: Sequence[LoggedChange],
        since: float | None = None,
        timeout: float = MISSING_ROW_TIMEOUT,
    ) -> None:
        self._commands = commands
        self._changes = changes
        self._since = monotonic() - LATE_ROW_WINDOW if since is None else since
        self._timeout = timeout
        self._made: list[tuple[str, list[Document], int]] | None = None
        self._head: LogHead | None = None

    async def write(self) -> None:
        again = self._made is not None
        while True:
            if self._made is None:
                self._made = await self._make()
            try:
                for name, rows, seen in self._made:
                    left = await _without_written(self._commands, name, rows) if again else rows
                    if left:
                        await add_rows(self._commands, name, left, seen)
            except RowsBetween as error:
                self._made, again = None, False
                self._head = await read_head(self._commands, error.log)
            else:
                return

    async def write_unless_changed(
        self, look: Callable[[], Awaitable[list[Document]]], found: list[Document]
    ) -> bool:
        """Write the rows if the documents are still what was found; return whether they were.

        If another writer has changed one since, its row may be what seems to be missing.
        """
        made = await self._make()
        if await look() != found:
            return False
        try:
            for name, rows, seen in made:
                if rows:
                    await add_rows(self._commands, name, rows, seen)
        except RowsBetween:
            return False
        return True

    async def _make(self) -> list[tuple[str, list[Document], int]]:
        return [
            (logged.log, *await self._rows(logged, changes))
            for logged, changes in _by_log(self._changes)
        ]

    async def _rows(
        self, logged: Logged, changes: Sequence[LoggedChange]
    ) -> tuple[list[Document], int]:
        """Return rows, and the largest number in the head before their documents were looked at."""
        names = {change.name for change in changes}
        head = self._head or LogHead(self._commands.numbers.get(logged.log, 0))
        last, now = await _last_rows(self._commands, logged, names)
        for row in map(as_stored, map(stored_row, head.rows)):  # some are in the log already
            name = row["owner"], row["name"]
            if name in names and (name not in last or last[name].uid < row["_id"]):
                last[name] = LastRow.of(row)
        first = {change.name: change for change in reversed(changes)}
        late: set[Name] = set()
        missing = _missing(first, last)
        if missing:
            late = await self._told(logged, [first[name] for name in missing], now)
            missing -= late
        waited = 0.0
        while missing and waited < self._timeout:
            await asyncio.sleep(POLL_INTERVAL)
            waited += POLL_INTERVAL
            newer, now = await _last_rows(self._commands, logged, missing)
            last |= newer
            missing = _missing({name: first[name] for name in missing}, last)
        if missing and self._head is None:
            # a writer may have died when its row was in the head, and not in the log yet
            self._head, self._timeout = await read_head(self._commands, logged.log), 0.0
            return await self._rows(logged, changes)
        rows: list[Document] = []
        for name in missing:
            rows += _repair(logged, first[name], last.get(name, NO_ROW), now)
            last[name] = LastRow.of(rows[-1]) if rows else last[name]
        ours = [change for change in changes if change.name not in late]
        rows += rows_of_changes(ours, last, now)
        return [_unnumbered(row) for row in rows], head.number

    async def _told(
        self, logged: Logged, changes: Sequence[LoggedChange], now: datetime
    ) -> set[Name]:
        """Return the changes whose rows another writer has added after waiting for them in vain."""
        told: set[Name] = set()
        schema = self._commands.schemas[logged.log]
        found = self._commands.client.collections[logged.log]
        waiting = [] if self._head is None else list(map(as_stored, self._head.rows))
        # an earlier change like one of these may have been logged so, too
        milliseconds = int((monotonic() - self._since) * 1000) + 2
        first = number_at(now) - milliseconds * PER_MILLISECOND
        for change in changes:
            owner, name = change.name
            row = {
                "owner": owner,
                "name": name,
                LATE_FIELD: True,
                "before": (change.before or {}).get(logged.state),
                "after": (change.after or {}).get(logged.state),
            }
            late = {**row, "_id": {"$gte": id_of(first)}}
            if any(
                one["n"] >= first and row.items() <= one.items() for one in waiting
            ) or await found.find_one(schema.document(late, None), {"_id": True}):
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
        {**row, LATE_FIELD: True}
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
